"""How a process finds its lattice: the settings of a connection, and the file that an embedded server leaves.

Nodes of one machine share an embedded NATS server unless they are told of another. It is found by its file
`<state>/<lattice>/server/server.json` and never by a port. The functions here block briefly: call them before
the event loop runs, or on a thread.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Protocol
from urllib.parse import urlsplit, urlunsplit

from lattice.errors import Invalid, Unreachable
from lattice.names import check_name

DEFAULT_PORT = 4222
SERVER_FILE = "server.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Credentials:
    """A user of the NATS server: a password, or a credentials file (JWT and key)."""

    user: str | None = None
    password: str | None = field(default=None, repr=False)
    file: Path | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class ConnectionSettings:
    """What is needed to reach the NATS server of a lattice."""

    urls: tuple[str, ...] = (f"nats://127.0.0.1:{DEFAULT_PORT}",)
    name: str = "lattice"
    credentials: Credentials | None = None
    system_credentials: Credentials | None = None
    """Of the server's system account; with them the lattice learns of a node's death at once."""
    tls_ca: Path | None = None
    tls_certificate: Path | None = None
    tls_key: Path | None = None
    inbox_prefix: str = "_INBOX"
    """Replies come below it; users who share an account should have one each, closed to the others."""
    replicas: int | None = None
    """Copies of each bucket; None: three on a cluster, else one."""
    connect_seconds: float = 10.0
    """How long to try at start; `math.inf` waits for the server."""
    embedded_in: Path | None = None
    """The folder of an embedded server, whose file says where it is when it was started again."""


class ServerOptions(Protocol):
    """What a program was told of its lattice and the server, under the names that all programs use."""

    @property
    def lattice(self) -> str: ...
    @property
    def nats(self) -> str | None: ...
    @property
    def creds(self) -> Path | None: ...
    @property
    def tls_ca(self) -> Path | None: ...
    @property
    def tls_cert(self) -> Path | None: ...
    @property
    def tls_key(self) -> Path | None: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerFile:
    """What an embedded server's file says."""

    url: str
    pid: int
    started: str
    """From `process_start`: tells the process from a later one with the same id."""
    user: str
    password: str = field(repr=False)
    system_user: str
    system_password: str = field(repr=False)
    server_name: str = ""
    """What it calls itself: tells it from another server that took its port. Empty: not known."""

    @property
    def port(self) -> int:
        """The TCP port that it listens on."""
        return int(self.url.rpartition(":")[2])

    @property
    def is_running(self) -> bool:
        """Whether the process that the file names is still alive."""
        return process_start(self.pid) == self.started

    def connection(self, folder: Path, *, name: str = "lattice") -> ConnectionSettings:
        """The settings to connect to that server, whose folder it is."""
        return ConnectionSettings(
            urls=(self.url,),
            name=name,
            credentials=Credentials(user=self.user, password=self.password),
            system_credentials=Credentials(user=self.system_user, password=self.system_password),
            replicas=1,
            embedded_in=folder,
        )

    def write(self, folder: Path) -> None:
        """Replace the folder's file at once, readable by its owner only."""
        write_private(folder / SERVER_FILE, json.dumps(asdict(self), indent=2))


def state_folder(environ: Mapping[str, str] = os.environ) -> Path:
    """Where this user's lattices keep their files."""
    if state := environ.get("LATTICE_STATE"):
        return Path(state).expanduser().absolute()
    if base := environ.get("XDG_STATE_HOME"):
        return Path(base).expanduser().absolute() / "lattice"
    return Path("~/.local/state/lattice").expanduser()


def server_folder(lattice: str, state: Path | None = None) -> Path:
    """The folder of a lattice's embedded server; it need not exist."""
    return (state or state_folder()) / check_name(lattice, "lattice") / "server"


def read_server_file(folder: Path) -> ServerFile | None:
    """What the folder's file says, or None when there is none; raises `Invalid` when it is damaged."""
    path = folder / SERVER_FILE
    try:
        data = json.loads(path.read_text())
        return ServerFile(**{key: data[key] for key in ServerFile.__dataclass_fields__ if key in data})
    except FileNotFoundError:
        return None
    except PermissionError as error:
        raise Invalid(f"cannot read {path}: it belongs to another user; give --nats URL instead") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise Invalid(f"{path} is damaged ({error}): stop the lattice's nodes and delete it") from error


def find_server(lattice: str, state: Path | None = None, *, name: str = "lattice") -> ConnectionSettings:
    """The connection to the lattice's embedded server on this machine; raises `Unreachable` with the cure."""
    folder = server_folder(lattice, state)
    found = read_server_file(folder)
    cure = f"start a node with `lattice-node start --lattice {lattice}`, or name a server with --nats URL"
    if found is None:
        raise Unreachable(
            f"lattice `{lattice}` does not run on this machine (no {folder / SERVER_FILE}): {cure}"
        )
    if not found.is_running:
        raise Unreachable(
            f"the NATS server of lattice `{lattice}` (process {found.pid}) has ended; "
            f"{folder / SERVER_FILE} is stale. A running node restarts it in a second; if none runs, {cure}"
        )
    return found.connection(folder, name=name)


def server_of(
    options: ServerOptions, name: str, *, connect_seconds: float, system_creds: Path | None = None
) -> ConnectionSettings:
    """The connection to the server that was named, else to the lattice's embedded one on this machine.

    Raises `Unreachable` with the cure, or `Invalid`.
    """
    if options.nats is None:
        return replace(find_server(options.lattice, name=name), connect_seconds=connect_seconds)
    urls, user = parse_urls(options.nats)
    return ConnectionSettings(
        urls=urls,
        name=name,
        credentials=Credentials(file=options.creds) if options.creds else user,
        system_credentials=Credentials(file=system_creds) if system_creds else None,
        tls_ca=options.tls_ca,
        tls_certificate=options.tls_cert,
        tls_key=options.tls_key,
        connect_seconds=connect_seconds,
    )


def parse_urls(text: str) -> tuple[tuple[str, ...], Credentials | None]:
    """Server URLs separated by commas, without the user they may carry, and that user; raises `Invalid`."""
    urls: list[str] = []
    credentials: Credentials | None = None
    for part in filter(None, (item.strip() for item in text.split(","))):
        url, user = _parse_url(part)
        urls.append(url)
        credentials = credentials or user
    if not urls:
        raise Invalid("--nats is empty: use nats://HOST:PORT, several separated by commas")
    return tuple(urls), credentials


def _parse_url(text: str) -> tuple[str, Credentials | None]:
    example = "use nats://HOST:PORT or tls://HOST:PORT"
    try:
        parts = urlsplit(text if "://" in text else f"nats://{text}")
        host, port = parts.hostname, parts.port or DEFAULT_PORT
    except ValueError as error:
        raise Invalid(f"--nats {text!r} is not a URL ({error}): {example}") from None
    if parts.scheme not in ("nats", "tls") or not host or parts.path not in ("", "/"):
        raise Invalid(f"--nats {text!r} is not the URL of a NATS server: {example}")
    host = f"[{host}]" if ":" in host else host
    user = Credentials(user=parts.username, password=parts.password) if parts.username else None
    return urlunsplit((parts.scheme, f"{host}:{port}", "", "", "")), user


def write_private(path: Path, text: str) -> None:
    """Replace a file in one step by one that only its owner may read."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def process_start(pid: int) -> str | None:
    """When a process began, as no other process with this id ever did; None if it is not running."""
    if Path("/proc/self/stat").exists():
        return _linux_process_start(pid)
    listing = subprocess.run(
        ["/bin/ps", "-o", "stat=,lstart=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    state, _, started = listing.stdout.strip().partition(" ")
    return None if not started or state.startswith("Z") else started.strip()


def _linux_process_start(pid: int) -> str | None:
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return None
    # After the name: the state first, the start in ticks since boot twentieth. A zombie is not running.
    return None if fields[0] in ("Z", "X") else f"{boot}:{fields[19]}"
