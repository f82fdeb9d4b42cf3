"""The part of a bridge for guests that hold handles of two kinds: the shim's, and those that the host made.

The shim's handles have a bit set that no index of the component model has. So a function of `wasi:io` looks
at the handle that it is given: without the bit it calls the host's function, which the component imports
beside, with what it was given; otherwise it goes on as any function of the bridge. A forged handle is found
out by whichever table it falls to. Some see handles of both kinds in one call:

      poll      goes to the host with the questions that the shim would ask, and with the host's pollables:
                the host waits for all of them at once
      block     likewise, so that a response that has begun leaves before the guest waits
      splice    of two kinds reads from one side and writes to the other, over the shim's memory, as much as
                the output takes at once, and no more than one piece
"""

from __future__ import annotations

from collections.abc import Iterable

from node.engine.component_text import quote

OUR_BIT = 1 << 28
"""Set in every handle of the shim's. Indexes of the component model are smaller, and guests may use the upper
two bits of a handle for themselves."""

_UNMARKED = "(global $mark i32 (i32.const 0))"

POLL = "wasi:io/poll#poll"
BLOCK = "wasi:io/poll#[method]pollable.block"
_OUTPUT = "wasi:io/streams#[method]output-stream."
_INPUT = "wasi:io/streams#[method]input-stream."
_SPLICE, _BLOCKING_SPLICE = f"{_OUTPUT}splice", f"{_OUTPUT}blocking-splice"
_BLOCKING = f"{_INPUT}blocking-", f"{_OUTPUT}blocking-"

_PIECE = 65536
"""The most bytes that one splice moves between the sides."""

_CONTROL = "lattice:shim/control"
_INNER = "inner "
"""Before the names of the host's functions that are lowered with the shim's memory."""


def _import(module: str, name: str, symbol: str, params: str, result: str = "") -> str:
    return f'(import "{module}" {quote(name)} (func {symbol} (param {params}) {result}))'


_STREAM_FUNCTIONS = {
    "check-write": (f"{_OUTPUT}check-write", "i32"),
    "blocking-flush": (f"{_OUTPUT}blocking-flush", "i32"),
    "write": (f"{_OUTPUT}write", "i32 i32 i32"),
    "read": (f"{_INPUT}read", "i32 i64"),
    "blocking-read": (f"{_INPUT}blocking-read", "i32 i64"),
}
"""What splices call: the shim's functions give the place of their results, the host's are told one."""

OURS = {full: f"$our-{name}" for name, (full, _) in _STREAM_FUNCTIONS.items()}
"""The symbols of those of the shim: nothing may be imported twice."""


def _stream_imports() -> dict[str, str]:
    ours = {
        f"$our-{name}": _import("core", full, f"$our-{name}", params, "(result i32)")
        for name, (full, params) in _STREAM_FUNCTIONS.items()
    }
    theirs = {
        f"$their-{name}": _import("host", _INNER + full, f"$their-{name}", f"{params} i32")
        for name, (full, params) in _STREAM_FUNCTIONS.items()
    }
    return ours | theirs


IMPORTS = {
    "$poll-both": _import("core", f"{_CONTROL}#poll-both", "$poll-both", "i32 i32 i32 i32", "(result i32)"),
    "$block-theirs": _import("core", f"{_CONTROL}#block-theirs", "$block-theirs", "i32"),
    "$before-waiting": f'(import "core" "{_CONTROL}#before-waiting" (func $before-waiting))',
    **_stream_imports(),
}
"""Imports of a bridge by their symbols, for those that the functions below call."""

_POLL_BOTH = f"""(func $has-theirs (param $list i32) (param $count i32) (result i32)
      (local $at i32) (local $end i32)
      (local.set $at (call $block-in (local.get $list) (local.get $count) (i32.const 4)))
      (local.set $end (i32.add (local.get $at) (i32.mul (local.get $count) (i32.const 4))))
      (call $release)
      (loop $next
        (if (i32.ge_u (local.get $at) (local.get $end)) (then (return (i32.const 0))))
        (if (i32.lt_u (i32.load $shim (local.get $at)) (i32.const {OUR_BIT})) (then (return (i32.const 1))))
        (local.set $at (i32.add (local.get $at) (i32.const 4)))
        (br $next))
      unreachable)
    ;; Sorts the handles: first the addresses of our objects, then the host's; `numbers` tells where each was.
    (func $poll-mixed (param $list i32) (param $count i32) (param $out i32)
      (local $handles i32) (local $sorted i32) (local $numbers i32) (local $bytes i32) (local $ours i32)
      (local $at i32) (local $to i32) (local $handle i32)
      (local.set $handles (call $block-in (local.get $list) (local.get $count) (i32.const 4)))
      (local.set $bytes (i32.mul (local.get $count) (i32.const 4)))
      (local.set $sorted (call $scratch (local.get $bytes)))
      (local.set $numbers (call $scratch (local.get $bytes)))
      (loop $next
        (local.set $handle (i32.load $shim (i32.add (local.get $handles) (local.get $at))))
        (if (i32.ge_u (local.get $handle) (i32.const {OUR_BIT}))
          (then
            (i32.store $shim (i32.add (local.get $sorted) (local.get $to))
              (call $object (local.get $handle) (i32.const {{pollable}})))
            (i32.store $shim (i32.add (local.get $numbers) (local.get $to))
              (i32.shr_u (local.get $at) (i32.const 2)))
            (local.set $to (i32.add (local.get $to) (i32.const 4)))))
        (local.set $at (i32.add (local.get $at) (i32.const 4)))
        (br_if $next (i32.lt_u (local.get $at) (local.get $bytes))))
      (local.set $ours (local.get $to))
      (local.set $at (i32.const 0))
      (loop $next
        (local.set $handle (i32.load $shim (i32.add (local.get $handles) (local.get $at))))
        (if (i32.lt_u (local.get $handle) (i32.const {OUR_BIT}))
          (then
            (i32.store $shim (i32.add (local.get $sorted) (local.get $to)) (local.get $handle))
            (i32.store $shim (i32.add (local.get $numbers) (local.get $to))
              (i32.shr_u (local.get $at) (i32.const 2)))
            (local.set $to (i32.add (local.get $to) (i32.const 4)))))
        (local.set $at (i32.add (local.get $at) (i32.const 4)))
        (br_if $next (i32.lt_u (local.get $at) (local.get $bytes))))
      (local.set $at
        (call $poll-both (local.get $sorted) (i32.shr_u (local.get $ours) (i32.const 2))
          (i32.add (local.get $sorted) (local.get $ours))
          (i32.shr_u (i32.sub (local.get $bytes) (local.get $ours)) (i32.const 2))))
      (memory.copy $guest $shim (local.get $out) (local.get $at) (i32.const 8))
      (local.set $to (i32.load $shim (local.get $at)))
      (local.set $bytes
        (i32.add (local.get $to) (i32.mul (i32.load $shim offset=4 (local.get $at)) (i32.const 4))))
      (block $done (loop $next
        (br_if $done (i32.ge_u (local.get $to) (local.get $bytes)))
        (if (i32.ge_u (i32.load $shim (local.get $to)) (local.get $count)) (then unreachable))
        (i32.store $shim (local.get $to)
          (i32.load $shim (i32.add (local.get $numbers)
            (i32.mul (i32.load $shim (local.get $to)) (i32.const 4)))))
        (local.set $to (i32.add (local.get $to) (i32.const 4)))
        (br $next)))
      (call {{list_out}} (local.get $out))
      (call $release))"""

_SPLICE_HELPERS = f"""(func $is-ours (param $handle i32) (result i32)
      (i32.ge_u (local.get $handle) (i32.const {OUR_BIT})))
    (func $output (param $handle i32) (result i32)
      (call $object (local.get $handle) (i32.const {{output}})))
    (func $room (param $to i32) (result i32) (local $place i32)
      (if (call $is-ours (local.get $to))
        (then (return (call $our-check-write (call $output (local.get $to))))))
      (local.set $place (call $scratch (i32.const 16)))
      (call $their-check-write (local.get $to) (local.get $place))
      (local.get $place))
    (func $put (param $to i32) (param $data i32) (param $length i32) (result i32) (local $place i32)
      (if (call $is-ours (local.get $to))
        (then (return
          (call $our-write (call $output (local.get $to)) (local.get $data) (local.get $length)))))
      (local.set $place (call $scratch (i32.const 12)))
      (call $their-write (local.get $to) (local.get $data) (local.get $length) (local.get $place))
      (local.get $place))
    ;; An error whose case lies at a place, as the result of a splice.
    (func $splice-error (param $place i32) (param $out i32)
      (i32.store8 $guest (local.get $out) (i32.const 1))
      (i32.store8 $guest offset=8 (local.get $out) (i32.load8_u $shim (local.get $place)))
      (i32.store $guest offset=12 (local.get $out) (i32.load $shim offset=4 (local.get $place)))
      (call $release))"""

_FLUSH_AND_WAIT = """(func $flush (param $to i32) (result i32) (local $place i32)
      (if (call $is-ours (local.get $to))
        (then (return (call $our-blocking-flush (call $output (local.get $to))))))
      (local.set $place (call $scratch (i32.const 12)))
      (call $their-blocking-flush (local.get $to) (local.get $place))
      (local.get $place))"""

_SPLICE_MIXED = """(func $get-{kind} (param $from i32) (param $most i64) (result i32) (local $place i32)
      (if (call $is-ours (local.get $from))
        (then (return
          (call $our-{read} (call $object (local.get $from) (i32.const {input})) (local.get $most)))))
      {flush}
      (local.set $place (call $scratch (i32.const 12)))
      (call $their-{read} (local.get $from) (local.get $most) (local.get $place))
      (local.get $place))
    (func $mixed-{kind} (param $to i32) (param $from i32) (param $most i64) (param $out i32)
      (local $place i32) (local $length i32)
      (local.set $place (call $room (local.get $to)))
      {wait}
      (if (i32.load8_u $shim (local.get $place))
        (then (return (call $splice-error (i32.add (local.get $place) (i32.const 8)) (local.get $out)))))
      (if (i64.lt_u (i64.load $shim offset=8 (local.get $place)) (local.get $most))
        (then (local.set $most (i64.load $shim offset=8 (local.get $place)))))
      (if (i64.gt_u (local.get $most) (i64.const {piece})) (then (local.set $most (i64.const {piece}))))
      (if (i64.ne (local.get $most) (i64.const 0))
        (then
          (local.set $place (call $get-{kind} (local.get $from) (local.get $most)))
          (if (i32.load8_u $shim (local.get $place))
            (then (return
              (call $splice-error (i32.add (local.get $place) (i32.const 4)) (local.get $out)))))
          (local.set $length (i32.load $shim offset=8 (local.get $place)))
          (if (local.get $length)
            (then
              (local.set $place
                (call $put (local.get $to) (i32.load $shim offset=4 (local.get $place)) (local.get $length)))
              (if (i32.load8_u $shim (local.get $place))
                (then (return
                  (call $splice-error (i32.add (local.get $place) (i32.const 4)) (local.get $out)))))))))
      (i32.store8 $guest (local.get $out) (i32.const 0))
      (i64.store $guest offset=8 (local.get $out) (i64.extend_i32_u (local.get $length)))
      (call $release))"""

_WAIT_FOR_ROOM = """(if (i32.eqz (i32.load8_u $shim (local.get $place)))
        (then (if (i64.eqz (i64.load $shim offset=8 (local.get $place)))
          (then
            (local.set $place (call $flush (local.get $to)))
            (if (i32.load8_u $shim (local.get $place))
              (then (return
                (call $splice-error (i32.add (local.get $place) (i32.const 4)) (local.get $out)))))
            (local.set $place (call $room (local.get $to)))))))"""


def host_functions(name: str) -> list[str]:
    """What the bridge imports of `host` for a shared function; `inner_name` tells what those are."""
    if name in (POLL, BLOCK):
        return []
    if name not in (_SPLICE, _BLOCKING_SPLICE):
        return [name]
    inner = [f"{_OUTPUT}check-write", f"{_OUTPUT}write"]
    if name == _SPLICE:
        inner += [f"{_INPUT}read"]
    else:
        inner += [f"{_OUTPUT}blocking-flush", f"{_INPUT}blocking-read"]
    return [name, *(_INNER + item for item in inner)]


def mark_handles(memory_text: str) -> str:
    """memory.wat with the bit set in each handle that it gives."""
    assert _UNMARKED in memory_text
    return memory_text.replace(_UNMARKED, f"(global $mark i32 (i32.const {OUR_BIT}))")


def droppers_module(resources: Iterable[str]) -> str:
    """A module with a function `drop ...` for each resource, which looks whose handle it is given."""
    functions = []
    for index, name in enumerate(resources):
        theirs, ours, drop = f"$theirs-{index}", f"$ours-{index}", f"drop {name}"
        functions.append(
            f"(func (export {quote(drop)}) (param i32) "
            f"(if (i32.lt_u (local.get 0) (i32.const {OUR_BIT})) "
            f"(then (call {theirs} (local.get 0))) (else (call {ours} (local.get 0)))))"
        )
        functions[:0] = [_import("host", name, theirs, "i32"), _import("handles", drop, ours, "i32")]
    return "\n    ".join(["(module", *functions]) + ")"


def inner_name(name: str) -> str | None:
    """The function that is to be lowered with the shim's memory, if `host_functions` means that."""
    return name.removeprefix(_INNER) if name.startswith(_INNER) else None


def waits(name: str) -> bool:
    """Whether a stream's function may wait."""
    return name.startswith(_BLOCKING)


def is_splice(name: str) -> bool:
    """Whether a function takes streams of both directions."""
    return name in (_SPLICE, _BLOCKING_SPLICE)


def guard(symbol: str, params: int, before: str = "") -> str:
    """Code before a function's own: the host's function is called with everything if the handle is its."""
    given = " ".join(f"(local.get {index})" for index in range(params))
    call = f"(return (call {symbol} {given}))"
    return f"(if (i32.lt_u (local.get 0) (i32.const {OUR_BIT})) (then {before} {call}))"


POLL_GUARD = (
    "(if (call $has-theirs (local.get 0) (local.get 1)) "
    "(then (return (call $poll-mixed (local.get 0) (local.get 1) (local.get 2)))))"
)


def poll_functions(list_out: str, pollable: int) -> str:
    """What `POLL_GUARD` calls; `list_out` copies a list to the guest, `pollable` is the type's number."""
    return _POLL_BOTH.format(list_out=list_out, pollable=pollable)


def splice_guard(name: str, symbol: str) -> str:
    """As `guard`, for a function with two streams."""
    kind = _kind(name)
    given = " ".join(f"(local.get {index})" for index in range(4))
    mixed = f"(return (call $mixed-{kind} {given}))"
    return (
        f"(if (i32.ne (call $is-ours (local.get 0)) (call $is-ours (local.get 1))) (then {mixed})) "
        f"(if (i32.eqz (call $is-ours (local.get 0))) (then (return (call {symbol} {given}))))"
    )


def splice_functions(names: Iterable[str], input_: int, output: int, before: str) -> list[str]:
    """What the splices call: by the numbers of both types, with what is to be done before the host waits."""
    found = [_SPLICE_HELPERS.format(output=output)]
    for name in names:
        is_blocking = name == _BLOCKING_SPLICE
        if is_blocking:
            found.append(_FLUSH_AND_WAIT)
        found.append(
            _SPLICE_MIXED.format(
                kind=_kind(name),
                read="blocking-read" if is_blocking else "read",
                input=input_,
                piece=_PIECE,
                flush=before if is_blocking else "",
                wait=_WAIT_FOR_ROOM if is_blocking else "",
            )
        )
    return found


def _kind(name: str) -> str:
    return "blocking-splice" if name == _BLOCKING_SPLICE else "splice"
