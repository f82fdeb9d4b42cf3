"""Make the keys and credentials of a NATS cluster for one lattice.

    python credentials.py SERVER_FOLDER CLIENT_FOLDER [HOST:PORT ...]

Writes for the servers `accounts.conf` (an operator, a system account and the lattice's account with
JetStream) and `routes.conf` (the servers' cluster addresses and their password), and for nodes and the
command line `lattice.creds` and `system.creds`. What is there already is left alone, so that the command can
run at every start. The private keys of operator and accounts are forgotten: to make further users, delete
both folders and begin anew, or manage the keys with `nsc` from the beginning.
"""

from __future__ import annotations

import argparse
import base64
import hashlib
import json
import os
import secrets
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import nkeys

DEFAULT_ROUTES = ("nats-1:6222", "nats-2:6222", "nats-3:6222")

UNLIMITED = -1
CORE_LIMITS = {
    "subs": UNLIMITED,
    "data": UNLIMITED,
    "payload": UNLIMITED,
    "imports": UNLIMITED,
    "exports": UNLIMITED,
    "wildcards": True,
    "conn": UNLIMITED,
    "leaf": UNLIMITED,
}
JETSTREAM_LIMITS = {
    "mem_storage": UNLIMITED,
    "disk_storage": UNLIMITED,
    "streams": UNLIMITED,
    "consumer": UNLIMITED,
}


@dataclass(frozen=True, slots=True)
class Key:
    """An Ed25519 key in NATS' notation; the prefix says what it is for."""

    pair: nkeys.KeyPair

    @classmethod
    def generate(cls, prefix: int) -> Key:
        return cls(nkeys.from_seed(nkeys.encode_seed(secrets.token_bytes(32), prefix)))

    @property
    def public(self) -> str:
        return str(self.pair.public_key.decode())

    @property
    def seed(self) -> str:
        return str(self.pair.seed.decode())

    def sign(self, subject: Key, name: str, claims: Mapping[str, Any]) -> str:
        """A token by which this key vouches for what `claims` says of `subject`."""
        body: dict[str, Any] = {
            "iat": int(time.time()),
            "iss": self.public,
            "name": name,
            "sub": subject.public,
            "nats": {"version": 2, **claims},
        }
        digest = hashlib.new("sha512_256", _json(body)).digest()
        body["jti"] = base64.b32encode(digest).decode().rstrip("=")
        signed = f"{_base64(_json({'typ': 'JWT', 'alg': 'ed25519-nkey'}))}.{_base64(_json(body))}"
        return f"{signed}.{_base64(self.pair.sign(signed.encode()))}"


@dataclass(frozen=True, slots=True)
class Account:
    """An account, with the token that the server reads and the one user of it."""

    name: str
    public: str
    token: str
    user_credentials: str


def make_account(operator: Key, name: str, user: str, limits: Mapping[str, Any]) -> Account:
    key = Key.generate(nkeys.PREFIX_BYTE_ACCOUNT)
    token = operator.sign(key, name, {"type": "account", "limits": dict(limits)})
    return Account(name, key.public, token, make_user(key, user))


def make_user(account: Key, name: str) -> str:
    """The text of a credentials file: the user's token and the key that proves it."""
    key = Key.generate(nkeys.PREFIX_BYTE_USER)
    limits = {"subs": UNLIMITED, "data": UNLIMITED, "payload": UNLIMITED}
    token = account.sign(key, name, {"type": "user", "pub": {}, "sub": {}, **limits})
    return (
        f"-----BEGIN NATS USER JWT-----\n{token}\n------END NATS USER JWT------\n\n"
        f"-----BEGIN USER NKEY SEED-----\n{key.seed}\n------END USER NKEY SEED------\n"
    )


def accounts_config(operator_token: str, system: Account, others: Sequence[Account]) -> str:
    preloaded = "\n".join(f"  {account.public}: {account.token}" for account in (system, *others))
    return (
        f"operator: {operator_token}\n"
        f"system_account: {system.public}\n"
        f"resolver: MEMORY\n"
        f"resolver_preload {{\n{preloaded}\n}}\n"
    )


def routes_config(addresses: Sequence[str], password: str) -> str:
    routes = "\n".join(f"  nats-route://route:{password}@{address}" for address in addresses)
    return f"authorization {{ user: route, password: {password} }}\nroutes [\n{routes}\n]\n"


def write(path: Path, text: str) -> None:
    """The file appears whole or not at all, readable by its owner only."""
    temporary = path.with_name(f".{path.name}.new")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
    temporary.replace(path)


def make_credentials(servers: Path, clients: Path, addresses: Sequence[str]) -> bool:
    """Write all files unless they exist; says whether it did."""
    accounts = servers / "accounts.conf"
    if accounts.exists():
        return False
    servers.mkdir(parents=True, exist_ok=True)
    clients.mkdir(parents=True, exist_ok=True)
    operator = Key.generate(nkeys.PREFIX_BYTE_OPERATOR)
    system = make_account(operator, "SYS", "observer", CORE_LIMITS)
    lattice = make_account(operator, "LATTICE", "lattice", CORE_LIMITS | JETSTREAM_LIMITS)
    write(clients / "lattice.creds", lattice.user_credentials)
    write(clients / "system.creds", system.user_credentials)
    # Passwords in this configuration must not look like numbers, so they begin with a letter.
    write(servers / "routes.conf", routes_config(addresses, f"r{secrets.token_hex(16)}"))
    operator_token = operator.sign(operator, "lattice", {"type": "operator"})
    write(accounts, accounts_config(operator_token, system, [lattice]))
    return True


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":"), sort_keys=True).encode()


def _base64(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the keys of a NATS cluster for one lattice.")
    parser.add_argument("servers", type=Path, metavar="SERVER_FOLDER")
    parser.add_argument("clients", type=Path, metavar="CLIENT_FOLDER")
    parser.add_argument("addresses", nargs="*", metavar="HOST:PORT", help="of each server's cluster listener")
    arguments = parser.parse_args()
    is_new = make_credentials(arguments.servers, arguments.clients, arguments.addresses or DEFAULT_ROUTES)
    print("made new credentials" if is_new else "kept the credentials that are there")


if __name__ == "__main__":
    main()
