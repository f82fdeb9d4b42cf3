"""Any text as one plain file name, and back; pure."""

from __future__ import annotations

import re
from urllib.parse import unquote

_UNSAFE = re.compile(r"[%/\x00-\x1f\x7f]|^\.")
_PATH_UNSAFE = re.compile(r"[%\x00-\x1f\x7f\\*?#\"<>|{}^`~\[\]]")


def encoded(name: str) -> str:
    """`%XX` for what a file name may not have: separators, control characters, a dot in front, `%` itself."""
    return _UNSAFE.sub(lambda match: _percent(match[0]), name)


def decoded(name: str) -> str:
    """The inverse of `encoded` and of `encoded_path`."""
    return unquote(name)


def encoded_path(name: str) -> str:
    """As `encoded`, but slashes stay where names are between them; for stores without folders."""
    parts = name.split("/")
    if all(part not in ("", ".", "..") for part in parts):
        return "/".join(_PATH_UNSAFE.sub(lambda match: _percent(match[0]), part) for part in parts)
    return _PATH_UNSAFE.sub(lambda match: _percent(match[0]), name).replace("/", "%2F").replace(".", "%2E")


def _percent(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())
