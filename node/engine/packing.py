"""Bytes as text of ASCII, of n bytes n and n/7 characters: how they cross a border that is made of text.

How it is done says node/engine/driver/packing.h, by which the driver and the shim do it, in microseconds.
"""

from __future__ import annotations

from node.engine.capi import bytes_address, new_bytes
from node.engine.store import DRIVER

_ROWS = 7
_LOW = bytes(byte & 0x7F for byte in range(256))
_TO_BIT = [bytes((byte >> 7) << row for byte in range(256)) for row in range(_ROWS)]
_OF_BIT = [bytes((byte >> row & 1) << 7 for byte in range(256)) for row in range(_ROWS)]


def pack(data: bytes) -> bytes:
    """The text of any bytes."""
    columns = (len(data) + _ROWS - 1) // _ROWS
    if DRIVER is None:
        return _pack(data, columns)
    text = new_bytes(len(data) + columns)
    DRIVER.pack(bytes_address(data), len(data), bytes_address(text))
    return text


def unpack(text: bytes) -> bytes:
    """What `pack` was given; of any other text some bytes."""
    length = len(text) * _ROWS // (_ROWS + 1)
    if DRIVER is None:
        return _unpack(text, length)
    data = new_bytes(length)
    DRIVER.unpack(bytes_address(text), length, bytes_address(data))
    return data


def _pack(data: bytes, columns: int) -> bytes:
    bits = 0
    for row in range(_ROWS):
        part = data[row * columns : (row + 1) * columns]
        bits |= int.from_bytes(part.translate(_TO_BIT[row]), "little")
    return data.translate(_LOW) + bits.to_bytes(columns, "little")


def _unpack(text: bytes, length: int) -> bytes:
    columns, high = (length + _ROWS - 1) // _ROWS, text[length:]
    parts = []
    for row in range(_ROWS):
        part = text[row * columns : min((row + 1) * columns, length)]
        bits = int.from_bytes(high[: len(part)].translate(_OF_BIT[row]), "little")
        parts.append((int.from_bytes(part, "little") | bits).to_bytes(len(part), "little"))
    return b"".join(parts)
