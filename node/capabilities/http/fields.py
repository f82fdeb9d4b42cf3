"""The resource `fields` of `wasi:http/types`: header fields and trailers.

Names compare without regard to case and are kept in lower case, as all of HTTP's newer versions have them.
What a guest may put in is checked here, so that no value can end a line or begin another message.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from lattice.errors import Trapped
from lattice.http import Headers, is_field_value, is_token
from node.capabilities.http.allowance import Allowance

FIELDS_BYTES = 128 * 1024
"""Of all names and values of one resource; more is a fault of the guest, as in other hosts."""

ENTRY_BYTES = 32
"""What an entry counts beside its name and its value, so that empty ones are bounded too."""

FORBIDDEN = frozenset(
    {
        "connection",
        "host",
        "http2-settings",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "proxy-connection",
        "transfer-encoding",
        "upgrade",
    }
)
"""Fields that the host alone sets: a guest neither sees nor sets them."""


class HeaderError(Exception):
    """Raised when a guest may not make a change; `case` is that of the variant `header-error`."""

    def __init__(self, case: str) -> None:
        super().__init__(case)
        self.case = case


class Fields:
    """Header fields by name, in the order in which names were added."""

    __slots__ = ("_allowance", "_entries", "_is_frozen", "_size")

    def __init__(self, allowance: Allowance | None = None) -> None:
        """`allowance` is that of the guest which made them; what the host made counts for nobody."""
        self._allowance = allowance
        self._entries: dict[str, list[bytes]] = {}
        self._size = 0
        self._is_frozen = False

    def __del__(self) -> None:
        # Several handles may lead here: only the last of them gives back what is held.
        if self._allowance is not None:
            self._allowance.give(self._size)

    @classmethod
    def from_list(cls, entries: Sequence[tuple[str, bytes]], allowance: Allowance | None = None) -> Fields:
        """What a guest made at once; raises `HeaderError`."""
        fields = cls(allowance)
        for name, value in entries:
            fields.append(name, value)
        return fields

    @classmethod
    def received(cls, headers: Iterable[tuple[str, bytes]], allowance: Allowance | None = None) -> Fields:
        """What came from outside: immutable, without the fields that guests don't see."""
        fields = cls(allowance)
        for name, value in headers:
            if name not in FORBIDDEN:
                fields._hold(len(name) + len(value) + ENTRY_BYTES)
                fields._entries.setdefault(name, []).append(value)
        fields._is_frozen = True
        return fields

    def freeze(self) -> Fields:
        """The same fields, which can't be changed any more."""
        self._is_frozen = True
        return self

    def headers(self) -> Headers:
        """All fields, those of one name together."""
        return tuple((name, value) for name, values in self._entries.items() for value in values)

    def get(self, name: str) -> list[bytes]:
        return list(self._entries.get(name.lower(), ()))

    def has(self, name: str) -> bool:
        return name.lower() in self._entries

    def set(self, name: str, values: Sequence[bytes]) -> None:
        """Replace all values of a name; raises `HeaderError`."""
        key = self._checked(name, values)
        self._remove(key)
        if values:
            self._add(key, values)

    def append(self, name: str, value: bytes) -> None:
        """Add a value; raises `HeaderError`."""
        self._add(self._checked(name, (value,)), (value,))

    def delete(self, name: str) -> None:
        """Remove all values of a name; raises `HeaderError`."""
        self._remove(self._checked(name, ()))

    def clone(self, allowance: Allowance | None = None) -> Fields:
        """A copy that can be changed."""
        copy = Fields(allowance)
        copy._hold(self._size)
        copy._entries = {name: list(values) for name, values in self._entries.items()}
        return copy

    def _checked(self, name: str, values: Sequence[bytes]) -> str:
        key = name.lower()
        if not is_token(name):
            raise HeaderError("invalid-syntax")
        if key in FORBIDDEN:
            raise HeaderError("forbidden")
        if not all(map(is_field_value, values)):
            raise HeaderError("invalid-syntax")
        if self._is_frozen:
            raise HeaderError("immutable")
        return key

    def _add(self, key: str, values: Sequence[bytes]) -> None:
        size = sum(len(key) + len(value) + ENTRY_BYTES for value in values)
        if self._size + size > FIELDS_BYTES:
            raise Trapped(f"the component's header fields have more than {FIELDS_BYTES} bytes")
        self._hold(size)
        self._entries.setdefault(key, []).extend(values)

    def _remove(self, key: str) -> None:
        values = self._entries.pop(key, ())
        self._hold(-sum(len(key) + len(value) + ENTRY_BYTES for value in values))

    def _hold(self, size: int) -> None:
        if self._allowance is not None:
            self._allowance.take(size)
        self._size += size
