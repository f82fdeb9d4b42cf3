"""Reads signatures in WIT syntax, such as `func(key: string) -> result<option<list<u8>>, string>`.

Only what a flat interface needs: the primitive types, and lists, options, results, tuples, records, variants,
enums and flags written out in place. Names of types and resources are not known here.
"""

from __future__ import annotations

import re
from functools import lru_cache

from lattice import wit
from lattice.errors import Invalid

_TOKEN = re.compile(r"\s*(->|[a-z][a-z0-9-]*|%?[A-Za-z][A-Za-z0-9-]*|[<>(){}:,_])")


@lru_cache(1000)
def function_type(text: str) -> wit.Function:
    """The type of the function whose signature this is. Raises `Invalid` that shows where it goes wrong."""
    reader = _Reader(text)
    reader.take("func")
    reader.take("(")
    params = reader.fields(")")
    result = reader.type() if reader.skip("->") else None
    reader.end()
    return wit.Function(params, result)


class _Reader:
    """The mutable state is how many tokens were read."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._tokens: list[str] = []
        position = 0
        while position < len(text.rstrip()):
            match = _TOKEN.match(text, position)
            if match is None:
                raise Invalid(f"signature {text!r}: {text[position:]!r} is not WIT")
            self._tokens.append(match[1])
            position = match.end()
        self._next = 0

    def type(self) -> wit.Type:
        name = self.word()
        match name:
            case "list" | "option":
                self.take("<")
                inner = self.type()
                self.take(">")
                return wit.List(inner) if name == "list" else wit.Option(inner)
            case "tuple":
                return self._tuple()
            case "result":
                return self._result()
            case "record":
                self.take("{")
                return wit.Record(self.fields("}"))
            case "variant":
                return wit.Variant(self._cases())
            case "enum" | "flags":
                names = tuple(case for case, _ in self._cases())
                return wit.Enum(names) if name == "enum" else wit.Flags(names)
        if name not in wit.PRIMITIVES:
            raise self._wrong(f"{name!r} is not a type that may stand here")
        return wit.Primitive(name)

    def fields(self, end: str) -> tuple[tuple[str, wit.Type], ...]:
        """`name: type` separated by commas, up to and with `end`."""
        found = []
        while not self.skip(end):
            name = self.word()
            self.take(":")
            found.append((name, self.type()))
            if not self.skip(","):
                self.take(end)
                break
        return tuple(found)

    def _cases(self) -> tuple[tuple[str, wit.Type | None], ...]:
        self.take("{")
        found: list[tuple[str, wit.Type | None]] = []
        while not self.skip("}"):
            name = self.word()
            payload = None
            if self.skip("("):
                payload = self.type()
                self.take(")")
            found.append((name, payload))
            if not self.skip(","):
                self.take("}")
                break
        return tuple(found)

    def _tuple(self) -> wit.Type:
        self.take("<")
        items = [self.type()]
        while self.skip(","):
            items.append(self.type())
        self.take(">")
        return wit.Tuple(tuple(items))

    def _result(self) -> wit.Type:
        if not self.skip("<"):
            return wit.Result(None, None)
        ok = None if self.skip("_") else self.type()
        err = self.type() if self.skip(",") else None
        self.take(">")
        return wit.Result(ok, err)

    # Tokens

    def word(self) -> str:
        token = self._peek()
        if not token[:1].strip("%").isalpha():
            raise self._wrong(f"a name is wanted where {token!r} stands")
        self._next += 1
        return token.lstrip("%")

    def skip(self, token: str) -> bool:
        if self._peek() != token:
            return False
        self._next += 1
        return True

    def take(self, token: str) -> None:
        if not self.skip(token):
            raise self._wrong(f"{token!r} is wanted where {self._peek() or 'the end'!r} stands")

    def end(self) -> None:
        if self._next < len(self._tokens):
            raise self._wrong(f"nothing may follow, but {self._peek()!r} does")

    def _peek(self) -> str:
        return self._tokens[self._next] if self._next < len(self._tokens) else ""

    def _wrong(self, reason: str) -> Invalid:
        return Invalid(f"signature {self._text!r}: {reason}")
