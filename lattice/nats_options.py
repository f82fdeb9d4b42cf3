"""From our settings to what the NATS client takes, and from a server's refusal to its cure. Reads files."""

from __future__ import annotations

import re
import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lattice.connection import ConnectionSettings
from lattice.errors import Invalid

MINIMUM_SERVER = (2, 12, 7)
"""Older servers let one account reach into another."""


def connect_options(settings: ConnectionSettings) -> dict[str, Any]:
    """Name, user and TLS; `user_credentials` is the text of the credentials file. Raises `Invalid`."""
    options: dict[str, Any] = {"name": settings.name}
    credentials = settings.credentials
    if credentials is not None and credentials.file is not None:
        options["user_credentials"] = _read_credentials(credentials.file)
    elif credentials is not None and credentials.password is None:
        options["token"] = credentials.user
    elif credentials is not None:
        options["user"], options["password"] = credentials.user, credentials.password
    if settings.tls_ca or settings.tls_certificate:
        options["tls"] = _tls_context(settings)
    return options


def check_server(info: Mapping[str, Any], url: str) -> None:
    """Raise `Invalid` when the server is too old."""
    version = str(info.get("version", "0"))
    numbers = tuple(int(number) for number in re.findall(r"\d+", version)[:3])
    if numbers < MINIMUM_SERVER:
        least = ".".join(map(str, MINIMUM_SERVER))
        raise Invalid(
            f"the NATS server at {url} is version {version}; at least {least} is needed: upgrade it"
        )


def credentials_cure(settings: ConnectionSettings) -> str:
    """What to do when the server refuses the credentials of these settings."""
    if settings.credentials is None:
        return "give --creds FILE, or a user and a password in --nats nats://USER:PASSWORD@HOST"
    if settings.credentials.file is not None:
        return f"check the credentials file {settings.credentials.file}"
    return "check the user and the password in --nats"


def _read_credentials(file: Path) -> str:
    try:
        text = file.read_text()
    except (OSError, UnicodeDecodeError) as error:
        raise Invalid(f"cannot read the credentials file {file}: {error}") from error
    for part in ("BEGIN NATS USER JWT", "BEGIN USER NKEY SEED"):
        if part not in text:
            raise Invalid(f"{file} is not a NATS credentials file: it has no line `{part}`")
    return text


def _tls_context(settings: ConnectionSettings) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=settings.tls_ca)
        if settings.tls_certificate is not None:
            context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        raise Invalid(f"cannot use the TLS files (--tls-ca, --tls-cert, --tls-key): {error}") from error
    return context
