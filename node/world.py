"""What components find in the world of this node: WASI, capabilities, and what their links grant.

A capability is a package below `node.capabilities`. Some are built in, which every component may import and
whose own grants decide what comes of it; of others only the guest's half is here, and a link says which
provider serves it. All that remains of a component's imports goes over links as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import anyio
from anyio.abc import TaskStatus

from lattice import wit
from lattice.assignments import Prepare
from lattice.configuration import Configurations
from lattice.errors import Denied
from lattice.imports import PROVIDED, missing_imports
from lattice.model import ComponentSpec, FolderGrant, package_of
from lattice.secrets import Secrets
from node.capabilities import blobstore, bus, config, http, keyvalue, logging, messaging, secrets, wasi
from node.capabilities.http.client import HttpClient
from node.capabilities.http.policy import OutgoingPolicy
from node.capabilities.http.shim_host import ShimSettings, shim_interface
from node.capabilities.wasi import WasiSettings
from node.capabilities.wasi.filesystem import Folder
from node.capabilities.wasi.network import parse_grants
from node.engine.host import GuestCall, HostInterface
from node.links import Links, missing_import
from node.settings import OpenFolder

BUILTIN = (wasi, http, config, secrets, logging, bus)
"""Packages that need no link, in the order in which their interfaces are listed."""

LINKED = (keyvalue, blobstore, messaging)
"""Packages whose interfaces a link leads to a provider."""

SUPPORT: Mapping[str, str] = {
    interface: extent for package in (*BUILTIN, *LINKED) for interface, extent in package.SUPPORT.items()
}
"""How far each interface that nodes implement goes, in words for a table."""


def check_grants(spec: ComponentSpec) -> None:
    """Raise `Invalid` for a grant that can't be read; whether any node can give it is seen when placing."""
    parse_grants(spec.network)
    OutgoingPolicy.parse(spec.allow_hosts)


SpecOf = Callable[[str], ComponentSpec | None]
"""What is wanted of a component now, as far as this node has heard of it."""


def is_builtin(interface: str) -> bool:
    """Whether an import of this full name is served without a link."""
    return any(package.is_builtin(interface) for package in (*BUILTIN, messaging))


class World:
    """Holds no state but what its capabilities have."""

    def __init__(
        self,
        links: Links,
        *,
        spec_of: SpecOf,
        configurations: Configurations,
        secrets: Secrets,
        http_client: HttpClient,
        replies: messaging.Replies,
        folders: Sequence[OpenFolder],
    ) -> None:
        self._links = links
        self._spec_of = spec_of
        self._configurations = configurations
        self._secrets = secrets
        self._replies = replies
        self._blobstore = blobstore.Blobstore(links)
        self._http = http.HttpSettings(client=http_client, policy_of=self._outgoing_policy)
        self._folders = {folder.name: folder for folder in folders}

    async def run(self, *, task_status: TaskStatus[None] = anyio.TASK_STATUS_IGNORED) -> None:
        """Run what capabilities do in the background, until cancelled."""
        await self._blobstore.run(task_status=task_status)

    def interfaces(
        self,
        step: Prepare,
        component: wit.ComponentType,
        adapt: Callable[[WasiSettings], WasiSettings] = lambda settings: settings,
    ) -> list[HostInterface]:
        """All that the component may import; raises `Denied` that names what nothing grants it.

        `adapt` may change what it sees of WASI, such as a job's arguments and standard streams.
        """
        missing = missing_imports(component.imports, step.links, is_builtin)
        if missing:
            line = self._links.grant_line(step.spec.name, missing[0])
            raise missing_import(step.spec.name, missing[0], line)
        self._links.ordered(step.spec.name, step.links)
        return [*self._builtin(component, adapt(self._wasi(step.spec))), *self._linked(component)]

    def _builtin(self, component: wit.ComponentType, settings: WasiSettings) -> list[HostInterface]:
        return [
            *wasi.wasi_interfaces(settings),
            *http.http_interfaces(self._http),
            self._shim(settings),
            *config.config_interfaces(component, self._configurations, self._spec_of),
            *secrets.secrets_interfaces(self._secrets, self._spec_of),
            *logging.logging_interfaces(),
            *bus.bus_interfaces(self._links.names, self._links.grant_line),
        ]

    def _shim(self, settings: WasiSettings) -> HostInterface:
        return shim_interface(
            ShimSettings(
                environment=settings.environment,
                arguments=settings.arguments,
                client=self._http.client,
                policy_of=self._http.policy_of,
            )
        )

    def _wasi(self, spec: ComponentSpec) -> WasiSettings:
        return WasiSettings(
            environment=spec.environment,
            arguments=(spec.name,),
            folders=tuple(self._folder(grant) for grant in spec.folders),
            network=parse_grants(spec.network),
        )

    def _outgoing_policy(self, call: GuestCall) -> OutgoingPolicy:
        spec = self._spec_of(call.component)
        return OutgoingPolicy.parse(spec.allow_hosts if spec else ())

    def _folder(self, grant: FolderGrant) -> Folder:
        opened = self._folders.get(grant.folder)
        if opened is None or (grant.writable and not opened.is_writable):
            how = "for writing " if grant.writable else ""
            raise Denied(
                f"folder {grant.folder!r} is not open {how}on this node; "
                f"`lattice-node start --folder {grant.folder}=PATH{':rw' if grant.writable else ''}` opens it"
            )
        return Folder(host_path=opened.path, guest_path=grant.path, writable=grant.writable)

    def _linked(self, component: wit.ComponentType) -> list[HostInterface]:
        others = {
            name: imported
            for name, imported in component.imports.items()
            if package_of(name) not in PROVIDED and not is_builtin(name)
        }
        return [
            *keyvalue.keyvalue_interfaces(component, self._links),
            *self._blobstore.interfaces(),
            *messaging.messaging_interfaces(self._links, self._replies),
            *self._links.interfaces(others),
        ]
