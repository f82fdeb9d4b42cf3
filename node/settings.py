"""Settings of `lattice-node start`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from operator import attrgetter, itemgetter
from pathlib import Path

from lattice.configuration_sources import OpenedSource
from lattice.errors import Invalid
from lattice.fields import check_unique
from lattice.names import check_name
from lattice.process_settings import ProcessSettings, parse_label, parse_name
from lattice.quantities import parse_duration, parse_size
from lattice.secret_readers import SecretsPolicy
from lattice.secret_sources import check_apart
from lattice.settings import Tables, boolean, key_value, path, setting, whole_number
from node.http.address import Address, parse_address
from providers.registry import ProviderSpec, parse_spec, table_spec

OTHER_VARIABLES = ("LATTICE_STATE", "LATTICE_TIMEOUT", "LATTICE_OUTPUT", "LATTICE_DRIVER")
"""Variables that other programs of the lattice read."""


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenFolder:
    """A folder of this machine that components may be granted, under a name."""

    name: str
    path: Path
    is_writable: bool = False

    @property
    def mode(self) -> str:
        """`rw` or `ro`, as nodes advertise it."""
        return "rw" if self.is_writable else "ro"


def _folder(raw: str, source: str) -> OpenFolder:
    name, rest = key_value(raw, source)
    place, separator, mode = rest.rpartition(":")
    if not separator or mode not in ("ro", "rw"):
        place, mode = rest, "ro"
    folder = path(place, source).absolute()
    if not folder.is_dir():
        raise Invalid(
            f"{source}: {folder} is not a folder; use NAME=PATH, or NAME=PATH:rw for a writable one"
        )
    return OpenFolder(name=check_name(name, source), path=folder, is_writable=mode == "rw")


@dataclass(frozen=True, slots=True, kw_only=True)
class NodeSettings(ProcessSettings):
    """Everything that a node can be told; see `docs/settings.md`."""

    name: str | None = setting(
        None, "Name of this node; by default made from the host's name and the node's key.", parse_name,
        metavar="NAME",
    )  # fmt: skip
    data: Path | None = setting(
        None,
        "Folder for this node's key, artifacts and compiled code; by default the first free one below the "
        "state folder.",
        path,
        metavar="DIR",
    )
    label: tuple[tuple[str, str], ...] = setting(
        (), "Label of this node, for placement; may be repeated. `zone` is also used for routing.",
        parse_label, metavar="KEY=VALUE", repeated=True, named_by=itemgetter(0),
    )  # fmt: skip
    provider: tuple[ProviderSpec, ...] = setting(
        (), "A provider that this node offers beside those that all do, as "
        "`cache=keyvalue-redis,url=redis://10.0.0.7`; may be repeated; in the file: `[providers.NAME]`.",
        parse_spec, metavar="NAME=KIND[,KEY=VALUE...]", repeated=True, separator=";",
        tables=Tables(key="providers", parse=table_spec), named_by=attrgetter("name"),
    )  # fmt: skip
    folder: tuple[OpenFolder, ...] = setting(
        (),
        "Folder that components of this node may be granted, by its name; read-only unless `:rw` is added; "
        "may be repeated.",
        _folder,
        metavar="NAME=PATH[:rw]",
        repeated=True,
        named_by=attrgetter("name"),
    )
    capacity: int = setting(
        20_000, "How many replicas this node takes at most.", whole_number(0, 1_000_000), metavar="N"
    )
    max_calls: int = setting(
        4096, "Calls that may be in progress or queued on this node.", whole_number(1, 1_000_000), metavar="N"
    )
    max_instances: int = setting(
        1000,
        "Sandbox instances that may live at once; each reserves address space and up to its component's "
        "memory limit.",
        whole_number(8, 100_000),
        metavar="N",
    )
    max_jobs: int = setting(
        64, "Jobs of `latticectl run` that may run at once.", whole_number(0, 100_000), metavar="N"
    )
    workers: int = setting(
        max(2, os.cpu_count() or 2),
        "Threads for guests that compute for longer than a tick.",
        whole_number(1, 256),
        metavar="N",
    )
    compile_memory: int = setting(
        2 * 2**30, "Memory that compiling one component may take.", parse_size, metavar="SIZE"
    )
    compile_timeout: float = setting(
        120.0, "Time that compiling one component may take.", parse_duration, metavar="TIME"
    )
    drain_timeout: float = setting(
        30.0, "How long a leaving node waits for calls in flight and for its replicas' successors.",
        parse_duration, metavar="TIME",
    )  # fmt: skip
    connect_timeout: float = setting(
        10.0, "How long to try to reach NATS at start before giving up.", parse_duration, metavar="TIME"
    )
    http: Address | None = setting(
        None, "Listen for HTTP here and send requests to components by their routes.", parse_address,
        metavar="ADDRESS:PORT",
    )  # fmt: skip
    http_tls_cert: Path | None = setting(
        None, "Certificate of the HTTP listener (PEM, with its chain); turns TLS on.", path, metavar="FILE"
    )
    http_tls_key: Path | None = setting(None, "Key of that certificate.", path, metavar="FILE")
    http_workers: int = setting(
        1, "Processes that serve the HTTP port, this node's own being one.", whole_number(1, 64), metavar="N"
    )
    http_admin: Address | None = setting(
        None, "Answer /livez and /readyz here.", parse_address, metavar="ADDRESS:PORT"
    )
    http_trust_forwarded: bool = setting(
        False, "Pass on what clients say of themselves in X-Forwarded-*; for a listener behind a proxy.",
        boolean, metavar="BOOL",
    )  # fmt: skip
    http_max_connections: int = setting(
        10_000, "Connections of HTTP clients, per process.", whole_number(1, 1_000_000), metavar="N"
    )
    http_max_requests: int = setting(
        4096, "HTTP requests in progress, per process.", whole_number(1, 1_000_000), metavar="N"
    )
    http_max_header: int = setting(
        64 * 1024, "Size of an HTTP request's head, and of its trailers.", parse_size, metavar="SIZE"
    )
    http_max_body: int = setting(
        16 * 2**30, "Size of an HTTP request's body; it is never held whole.", parse_size, metavar="SIZE"
    )
    http_header_timeout: float = setting(
        10.0, "How long an HTTP request's head, or a small body, may take to come.", parse_duration,
        metavar="TIME",
    )  # fmt: skip
    http_body_timeout: float = setting(
        30.0, "How long an HTTP client may send nothing of a body, or take nothing of a response.",
        parse_duration, metavar="TIME",
    )  # fmt: skip
    http_idle_timeout: float = setting(
        75.0, "How long an HTTP connection is kept without a request.", parse_duration, metavar="TIME"
    )
    http_request_timeout: float = setting(
        3600.0, "The most time that an HTTP request gets, whatever its component's budget is.",
        parse_duration, metavar="TIME",
    )  # fmt: skip
    outgoing_ca: Path | None = setting(
        None, "Certificates (PEM) that components' outgoing requests trust beside the system's.", path,
        metavar="FILE",
    )  # fmt: skip
    config_source: tuple[OpenedSource, ...] = setting(
        (),
        "Configurations beside those of the lattice: `env:PREFIX_` opens variables, `file:DIR` files of a "
        "folder; may be repeated.",
        OpenedSource.parse,
        metavar="SOURCE",
        repeated=True,
    )
    secret_source: tuple[OpenedSource, ...] = setting(
        (),
        "Secrets beside those of the lattice: `env:PREFIX_` opens variables, `file:DIR` files of a folder; "
        "may be repeated.",
        OpenedSource.parse,
        metavar="SOURCE",
        repeated=True,
    )
    secrets_for: SecretsPolicy = setting(
        SecretsPolicy(),
        "Nodes to which this one seals secrets anew while it leads: `all`, or ids with commas; "
        "`provider:NAME` stands for the processes of a provider, which get those of its links.",
        SecretsPolicy.parse,
        metavar="all|NODE,...",
    )
    controller: bool = setting(True, "Whether this node may become the controller.", boolean, metavar="BOOL")

    def __post_init__(self) -> None:
        if (self.http_tls_cert is None) != (self.http_tls_key is None):
            raise Invalid("--http-tls-cert and --http-tls-key need each other: name both files, or none")
        if self.http is None and (self.http_tls_cert is not None or self.http_workers > 1):
            raise Invalid("--http-tls-cert and --http-workers mean nothing without --http ADDRESS:PORT")
        check_unique((folder.name for folder in self.folder), "folder")
        check_apart(self.config_source, self.secret_source)
        given = [name for name in _OF_A_SERVER if getattr(self, name) is not None]
        if given and self.nats is None:
            flag = "--" + given[0].replace("_", "-")
            raise Invalid(f"{flag} means nothing without --nats: name its server, or leave it out")


_OF_A_SERVER = ("creds", "system_creds", "tls_ca", "tls_cert", "tls_key")
