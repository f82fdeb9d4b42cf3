"""TLS to a Redis server: what its URL may say of it, and what is wrong where it fails."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from lattice.errors import Invalid
from lattice.names import did_you_mean

CA, CERTIFICATE, KEY = "ssl_ca_certs", "ssl_certfile", "ssl_keyfile"
CHECKS = "ssl_cert_reqs"
OPTIONS = ("db", "username", "password", CA, CERTIFICATE, KEY, CHECKS)
"""What is read of a URL's query; redis-py has more, about its own connections."""

_UNKNOWN_AUTHORITY = (18, 19, 20, 21)
"""Codes of OpenSSL: nobody who is trusted has signed the certificate."""


def check_options(url: str, source: str) -> None:
    """Raise `Invalid` that names the option of the URL's query which would do nothing."""
    parts = urlsplit(url)
    options = parse_qs(parts.query, keep_blank_values=True)
    for option in options:
        if option not in OPTIONS:
            near = did_you_mean(option, OPTIONS)
            raise Invalid(f"{source}: the URL takes {', '.join(OPTIONS)} and no `{option[:40]}`{near}")
        if option.startswith("ssl_") and parts.scheme != "rediss":
            raise Invalid(f"{source}: `{option}` is of TLS: write the URL with rediss://")
    if options.get(CHECKS, ["required"]) != ["required"]:
        raise Invalid(
            f"{source}: certificates of servers are always checked: instead of `{CHECKS}` give `{CA}=FILE` "
            "with the authority that signed the server's"
        )
    if KEY in options and CERTIFICATE not in options:
        raise Invalid(f"{source}: `{KEY}` needs `{CERTIFICATE}`, the certificate that it belongs to")


def tls_context(asked: Mapping[str, Any]) -> ssl.SSLContext:
    """From the options of a URL; reads files. Raises `ValueError` that names the one that can't be used."""
    authority, certificate, key = asked.get(CA), asked.get(CERTIFICATE), asked.get(KEY)
    try:
        context = ssl.create_default_context(cafile=authority and _file(authority, CA))
    except OSError as error:
        raise ValueError(f"{CA}={authority} can't be used: {error}; it must be a PEM file") from None
    if certificate:
        try:
            context.load_cert_chain(_file(certificate, CERTIFICATE), key and _file(key, KEY), _no_password)
        except OSError as error:
            raise ValueError(
                f"{CERTIFICATE}={certificate} and its key can't be used: {error}; "
                "they must be PEM files that belong together, the key without a password"
            ) from None
    return context


def failure_text(error: BaseException, url: str, seconds: float) -> str:
    """Why a connection could not be made, with the cure where it is known."""
    if isinstance(error, ssl.SSLCertVerificationError) and error.verify_code in _UNKNOWN_AUTHORITY:
        return (
            f"its certificate is not trusted ({error.verify_message}): "
            f"give `?{CA}=FILE` with the authority that signed it"
        )
    if isinstance(error, TimeoutError) and not error.args:
        tls = "; does it speak TLS at this port?" if urlsplit(url).scheme == "rediss" else ""
        return f"no answer within {seconds:g} s{tls}"
    return str(error) or "no answer"


def _file(name: str, option: str) -> str:
    if not Path(name).is_file():
        raise ValueError(f"{option}: there is no file {name}")
    return name


def _no_password() -> str:
    """OpenSSL would ask the terminal, for ever."""
    return ""
