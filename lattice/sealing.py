"""Sealing values to nodes: keys, signatures and boxes. Pure.

Each node has an X25519 key. What it announces is the public half, signed with the key that its id is the
public half of: nobody else can have secrets sealed to that id. A value is encrypted once with a fresh data
key, bound to its name and version; the data key is sealed to each node that may read it.
"""

from __future__ import annotations

import base64
import binascii
import os
from collections.abc import Mapping
from dataclasses import dataclass, field

import nacl.exceptions
import nkeys
from nacl.public import PrivateKey, PublicKey, SealedBox
from nacl.secret import Aead
from nacl.signing import VerifyKey

from lattice.errors import Denied, Failed, Invalid

PREFIX_CURVE = 23 << 3
"""Of an nkey: its seed begins with `SX`."""
SEED_BYTES = 36
"""Two of prefix, 32 of key, two of checksum."""
KEY_DIGITS = 16
"""Of a public key in hex, which tell what was sealed to it from what was sealed to another."""
PURPOSE = b"lattice seal key:"
MAX_BYTES = 64 * 1024
"""Of one secret."""


@dataclass(frozen=True, slots=True)
class Secret:
    """A value that is shown nowhere by accident; only `reveal` gives it."""

    _value: str | bytes = field(repr=False)

    def reveal(self) -> str | bytes:
        """The value; not for logs, messages or anything that is stored."""
        return self._value

    def text(self) -> str:
        """The value as text; raises `Invalid` if it is none."""
        try:
            return self._value if isinstance(self._value, str) else self._value.decode()
        except UnicodeDecodeError:
            raise Invalid("the secret is not text: store it without --binary") from None

    def __str__(self) -> str:
        return "<secret>"

    def __repr__(self) -> str:
        return "<secret>"

    def __format__(self, spec: str) -> str:
        return "<secret>"

    def __reduce__(self) -> str:
        raise TypeError("a secret is not to be pickled")


class SealKey:
    """A process's X25519 key; the private half leaves it only as the seed in its folder."""

    __slots__ = ("_private",)

    def __init__(self, private: PrivateKey) -> None:
        self._private = private

    @classmethod
    def generate(cls) -> SealKey:
        """A new key."""
        return cls(PrivateKey.generate())

    @classmethod
    def from_seed(cls, seed: bytes) -> SealKey:
        """The key of an nkeys curve seed (`SX...`); raises `Invalid`."""
        return cls(PrivateKey(_decode_seed(seed)))

    @property
    def seed(self) -> bytes:
        """The key as an nkeys curve seed, to be kept."""
        return _encode_seed(bytes(self._private))

    @property
    def public(self) -> bytes:
        return bytes(self._private.public_key)

    def __repr__(self) -> str:
        return f"<SealKey {self.public.hex()[:8]}>"

    def announcement(self, identity_seed: bytes) -> str:
        """What `NodeInfo.seal_key` says: the public key and its signature by the node's own key, in hex."""
        pair = nkeys.from_seed(bytearray(identity_seed))
        return f"{self.public.hex()}.{pair.sign(PURPOSE + self.public).hex()}"

    def open(self, sealed: str) -> bytes:
        """What was sealed to this key; raises `Denied`."""
        try:
            return SealedBox(self._private).decrypt(_decoded(sealed.partition(".")[2]))
        except nacl.exceptions.CryptoError:
            raise Denied("the secret is sealed to another key of this node; put it again") from None


def announced_key(node: str, announcement: str) -> bytes | None:
    """The public key that a node announced, or None if the node of that id did not sign it."""
    public, _, signature = announcement.partition(".")
    try:
        identity = base64.b32decode(node + "=" * (-len(node) % 8))
        VerifyKey(identity[1:33]).verify(PURPOSE + bytes.fromhex(public), bytes.fromhex(signature))
        return bytes(PublicKey(bytes.fromhex(public)))
    except (ValueError, TypeError, binascii.Error, nacl.exceptions.CryptoError):
        return None


def announced_keys(announcements: Mapping[str, str]) -> dict[str, bytes]:
    """The public keys of those nodes that announced one of their own."""
    found = {node: announced_key(node, text) for node, text in announcements.items()}
    return {node: key for node, key in found.items() if key is not None}


def seal_key_to(data_key: bytes, public: bytes) -> str:
    """The data key for the owner of a public key, with the beginning of that key in front."""
    sealed = base64.b64encode(SealedBox(PublicKey(public)).encrypt(data_key)).decode()
    return f"{public.hex()[:KEY_DIGITS]}.{sealed}"


def is_sealed_to(sealed: str, announcement: str) -> bool:
    """Whether it was sealed to the key that is announced."""
    return sealed.partition(".")[0] == announcement[:KEY_DIGITS]


def encrypt(value: bytes, bound_to: bytes) -> tuple[bytes, str]:
    """A fresh data key, and the value encrypted with it; opened only with the same `bound_to`."""
    data_key = os.urandom(Aead.KEY_SIZE)
    return data_key, base64.b64encode(bytes(Aead(data_key).encrypt(value, bound_to))).decode()


def decrypt(box: str, data_key: bytes, bound_to: bytes) -> bytes:
    """The inverse of `encrypt`; raises `Failed` for what was changed or is bound to something else."""
    try:
        return Aead(data_key).decrypt(_decoded(box), bound_to)
    except (nacl.exceptions.CryptoError, nacl.exceptions.ValueError):
        raise Failed("the stored secret was tampered with; put it again") from None


def _decoded(text: str) -> bytes:
    try:
        return base64.b64decode(text, validate=True)
    except binascii.Error:
        raise Failed("the stored secret is damaged; put it again") from None


def _encode_seed(raw: bytes) -> bytes:
    header = bytes([nkeys.PREFIX_BYTE_SEED | PREFIX_CURVE >> 5, (PREFIX_CURVE & 31) << 3])
    body = header + raw
    return base64.b32encode(body + bytes(nkeys.crc16_checksum(bytearray(body)))).rstrip(b"=")


def _decode_seed(seed: bytes) -> bytes:
    try:
        decoded = base64.b32decode(seed + b"=" * (-len(seed) % 8))
    except binascii.Error:
        decoded = b""
    if len(decoded) != SEED_BYTES or _encode_seed(decoded[2:34]) != seed:
        raise Invalid("this is not an nkeys curve seed, which begins with `SX`")
    return decoded[2:34]
