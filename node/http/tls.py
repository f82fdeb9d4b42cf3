"""TLS of the listener."""

from __future__ import annotations

import ssl
from pathlib import Path

from lattice.errors import Invalid


def server_context(certificate: Path, key: Path) -> ssl.SSLContext:
    """A context for HTTP/1.1 with TLS 1.2 or newer; raises `Invalid` that names the file. Reads files."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.options |= ssl.OP_NO_RENEGOTIATION | ssl.OP_NO_COMPRESSION
    context.set_alpn_protocols(["http/1.1"])
    for path, flag in ((certificate, "--http-tls-cert"), (key, "--http-tls-key")):
        if not path.is_file():
            raise Invalid(f"{flag}: there is no file {path}")
    try:
        context.load_cert_chain(certificate, key, password=_no_password)
    except (OSError, ssl.SSLError) as error:
        raise Invalid(
            f"--http-tls-cert {certificate} and --http-tls-key {key} can't be used: {error}; "
            "they must be PEM files that belong together, the key without a password"
        ) from error
    return context


def _no_password() -> str:
    """OpenSSL would ask the terminal, for ever."""
    return ""
