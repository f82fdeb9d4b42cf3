"""What wasmtime reports, in words that help the one who reads them."""

from __future__ import annotations

import re

from lattice.errors import LatticeError, Overloaded, Trapped

_CAUSES: tuple[tuple[str, str], ...] = (
    ("unreachable", "it reached an `unreachable` instruction, as after a panic or an abort"),
    ("call stack exhausted", "its stack is exhausted: it recursed too deeply"),
    ("out of bounds memory access", "it accessed memory out of bounds (a bad pointer or a stack overflow)"),
    ("undefined element: out of bounds table access", "it called a function pointer out of bounds"),
    ("uninitialized element", "it called a null function pointer"),
    ("indirect call type mismatch", "it called a function pointer of another type"),
    ("integer divide by zero", "it divided by zero"),
    ("integer overflow", "an integer overflowed"),
    ("invalid conversion to integer", "it converted a number that no integer can hold"),
    ("cannot enter component instance", "it called itself through the host while a call was in progress"),
    ("unaligned pointer", "it passed a pointer that is not aligned"),
)

_EXHAUSTED = re.compile(r"maximum concurrent (.+ )?limit of \d+ ")
_MINIMUM = re.compile(r"memory minimum size of (\d+) pages exceeds memory limits")
PAGE_BYTES = 64 << 10


def is_exhausted(text: str) -> bool:
    """Whether the allocator had no room: nothing of the guest has run, it may be tried again."""
    return _EXHAUSTED.search(text) is not None


def explain(text: str) -> LatticeError:
    """The error for what wasmtime wrote; the whole text is in its details."""
    if is_exhausted(text):
        return Overloaded("the node has no room for another instance; ask another replica")
    if found := _MINIMUM.search(text):
        needed = int(found[1]) * PAGE_BYTES
        return Trapped(
            f"the component needs {needed} bytes of memory to start: raise its memory limit",
            details={"trace": text},
        )
    return Trapped(f"the component trapped: {_cause(text)}", details={"trace": text})


def _cause(text: str) -> str:
    cause = root_cause(text)
    for pattern, words in _CAUSES:
        if pattern in cause:
            return words
    return cause


def root_cause(text: str) -> str:
    """The innermost cause in an error's text, without the backtrace."""
    _, _, causes = text.partition("Caused by:")
    lines = [line.strip() for line in (causes or text).splitlines() if line.strip()]
    last = lines[-1] if causes else lines[0] if lines else "unknown"
    return re.sub(r"^(\d+: )?(wasm trap: )?", "", last)
