"""The control client: a lattice's control operations as typed methods. All of `latticectl` is built on it.

async with ControlClient.connect() as client:
    for node in await client.nodes():
        ...
    greeting = await client.call("greeter", "hello", ["World"])
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import TYPE_CHECKING, Any

import anyio.to_thread

from ctl import models
from ctl.artifact import Artifact
from ctl.calling import Caller, CallOptions, SubjectCaller
from ctl.deployment import Deployment
from ctl.exchange import Exchange, decoded, decoded_list
from ctl.functions import Function, find_function
from ctl.listening import Listener, listen
from ctl.settings import DEFAULT_TIMEOUT_SECONDS, ClientSettings
from lattice import connection, subjects, values, wit
from lattice.bus import Bus, ConnectionHandler
from lattice.errors import Failed, Invalid, LatticeError, NotFound, Unreachable
from lattice.names import did_you_mean

if TYPE_CHECKING:  # encryption takes long to import, and few programs need it
    from lattice.sealing import Secret

PREPARE_SECONDS = 120.0
"""Compiling is bounded by the node; this is its bound and what the way there takes."""
DRAIN_SECONDS = 90.0
DEFAULT_LINK = "default"


class ControlClient:
    """A connection to one lattice. Methods raise `LatticeError`; all may be used side by side."""

    def __init__(
        self,
        bus: Bus,
        *,
        lattice: str = "default",
        timeout_seconds: float = DEFAULT_TIMEOUT_SECONDS,
        caller: Caller | None = None,
    ) -> None:
        """Use an open bus, which stays the owner's; `caller` replaces the way calls take."""
        self.lattice = lattice
        self.timeout_seconds = timeout_seconds
        self._bus = bus
        self._exchange = Exchange(bus, lattice)
        self._caller = caller or SubjectCaller(bus, lattice)

    @classmethod
    @asynccontextmanager
    async def connect(
        cls, settings: ClientSettings | None = None, *, routes_calls: bool = False
    ) -> AsyncIterator[ControlClient]:
        """Connect for as long as the context lasts; the environment's settings when none are given.

        With `routes_calls` the client watches the lattice and calls nodes that have a replica directly: for
        programs that live long and call often.
        """
        from lattice.nats_bus import NatsBus

        settings = settings or ClientSettings.from_environment()
        found = await anyio.to_thread.run_sync(connection_settings, settings)
        async with AsyncExitStack() as stack:
            bus = await stack.enter_async_context(NatsBus(found))
            caller: Caller | None = None
            if routes_calls:
                from ctl.routing import routing

                caller = await stack.enter_async_context(routing(bus, settings.lattice))
            yield cls(bus, lattice=settings.lattice, timeout_seconds=settings.timeout_seconds, caller=caller)

    @property
    def bus(self) -> Bus:
        """The connection, for what this client has no method for."""
        return self._bus

    def __repr__(self) -> str:
        return f"<ControlClient of lattice {self.lattice!r}>"

    # What there is

    async def nodes(self) -> list[models.Node]:
        """All nodes that the lattice knows."""
        return decoded_list(models.Node, await self._request("get.nodes"), "nodes")

    async def components(self) -> list[models.Component]:
        """All deployed components."""
        return decoded_list(models.Component, await self._request("get.components"), "components")

    async def missing(self, component: str) -> str | None:
        """What to say if there is no component of that name; None if there is one."""
        names = [each.name for each in await self.components()]
        if component in names:
            return None
        return f"there is no component `{component}` yet{did_you_mean(component, names)}"

    async def replicas(self, component: str | None = None) -> list[models.Replica]:
        """The replicas of one component, or all."""
        reply = await self._request("get.replicas", component=component)
        return decoded_list(models.Replica, reply, "replicas")

    async def jobs(self) -> list[models.Job]:
        """The jobs that run, oldest first."""
        return decoded_list(models.Job, await self._request("get.jobs"), "jobs")

    async def stop_job(self, job: str) -> models.JobStopped:
        """End a job at once; raises `NotFound` when it is over."""
        return decoded(models.JobStopped, await self._request("job.stop", job=job))

    async def describe_node(self, node: str) -> models.NodeDescription:
        """A node by its id, a unique beginning of it, or its name; raises `NotFound`."""
        reply = await self._request("describe.node", node=node)
        return decoded(models.NodeDescription, reply.get("node"))

    async def describe_component(self, component: str) -> models.ComponentDescription:
        """A component with its interfaces and placements; raises `NotFound`."""
        reply = await self._request("describe.component", component=component)
        return decoded(models.ComponentDescription, reply.get("component"))

    async def providers(self) -> list[models.Provider]:
        """All providers that nodes and processes offer."""
        return decoded_list(models.Provider, await self._request("get.providers"), "providers")

    async def describe_provider(self, provider: str) -> models.ProviderDescription:
        """A provider with its functions and links; raises `NotFound`."""
        reply = await self._request("describe.provider", provider=provider)
        return decoded(models.ProviderDescription, reply.get("provider"))

    async def describe(
        self, name: str
    ) -> models.ComponentDescription | models.ProviderDescription | models.NodeDescription:
        """The component of that name, else the provider, else the node; raises `NotFound`."""
        for describe in (self.describe_component, self.describe_provider):
            try:
                return await describe(name)
            except (NotFound, Invalid):
                pass
        try:
            return await self.describe_node(name)
        except NotFound:
            raise NotFound(f"there is no component, provider or node `{name}`") from None

    # Artifacts and components

    async def upload(self, artifact: Artifact) -> bool:
        """Put the bytes where nodes find them; False when they were there already."""
        store = await self._bus.object_store(subjects.artifacts_bucket(self.lattice))
        if artifact.digest in await store.names():
            return False
        await store.put(artifact.digest, artifact.data)
        return True

    async def withdraw(self, digest: str) -> None:
        """Remove uploaded bytes that no component uses."""
        store = await self._bus.object_store(subjects.artifacts_bucket(self.lattice))
        await store.delete(digest)

    async def prepare(self, digest: str, *, timeout_seconds: float = PREPARE_SECONDS) -> models.Prepared:
        """Have uploaded bytes compiled; raises `Invalid` when they are no component that can run.

        A node that fails, for want of room on its disk, say, stands for itself only: the others are asked.
        """
        fields = {"digest": digest}
        try:
            reply = await self._exchange.request("prepare", fields, timeout_seconds=timeout_seconds)
        except Failed as error:
            reply = await self._prepare_anywhere(fields, error, timeout_seconds)
        return decoded(models.Prepared, reply)

    async def _prepare_anywhere(
        self, fields: Mapping[str, Any], failure: Failed, timeout_seconds: float
    ) -> dict[str, Any]:
        for node in await self.nodes():
            if node.state == "ready" and node.capacity:
                with contextlib.suppress(LatticeError):
                    return await self._exchange.request(
                        "prepare", fields, timeout_seconds=timeout_seconds, node=node.id
                    )
        raise failure

    async def deploy(self, deployment: Deployment) -> models.Change:
        """Make a component what the deployment says; does not wait for its replicas."""
        return decoded(models.Change, await self._request("deploy", **deployment.fields()))

    async def update(
        self, component: str, digest: str, *, expected_generation: int | None = None
    ) -> models.Change:
        """Give a component other bytes; everything else stays."""
        return decoded(
            models.Change,
            await self._request(
                "update", component=component, digest=digest, expected_generation=expected_generation
            ),
        )

    async def scale(self, component: str, replicas: int) -> models.Change:
        """Change how many replicas a component has."""
        return decoded(models.Change, await self._request("scale", component=component, replicas=replicas))

    async def delete(self, component: str) -> models.Change:
        """Delete a component with its links."""
        return decoded(models.Change, await self._request("delete", component=component))

    async def drain(self, node: str, *, timeout_seconds: float = DRAIN_SECONDS) -> models.Drained:
        """Have a node hand over its replicas, finish its calls and leave; returns when it has."""
        reply = await self._exchange.request("drain", {"node": node}, timeout_seconds=timeout_seconds)
        return decoded(models.Drained, reply)

    # Links

    async def put_link(
        self,
        source: str,
        interface: str,
        target: str,
        *,
        name: str = DEFAULT_LINK,
        idempotent: bool = False,
        configuration: Mapping[str, str] | None = None,
        configuration_from: Sequence[str] = (),
        secrets: Mapping[str, str] | None = None,
    ) -> models.LinkChange:
        """Grant `source` the use of the target's interface; raises `Denied` when the types do not fit.

        Configuration and secrets are for a target that is a provider.
        """
        reply = await self._request(
            "link.put",
            source=source,
            interface=interface,
            target=target,
            name=name,
            idempotent=idempotent,
            configuration=configuration,
            configuration_from=list(configuration_from),
            secrets=secrets,
        )
        return decoded(models.LinkChange, reply)

    async def delete_link(
        self, source: str, interface: str, *, name: str = DEFAULT_LINK
    ) -> models.LinkChange:
        """Take the grant back."""
        fields = {"source": source, "interface": interface, "name": name}
        return decoded(models.LinkChange, {**fields, **await self._request("link.delete", **fields)})

    async def links(self, source: str | None = None) -> list[models.Link]:
        """The links of one component, or all."""
        return decoded_list(models.Link, await self._request("link.get", source=source), "links")

    # Triggers

    async def put_trigger(
        self,
        component: str,
        kind: str,
        configuration: Mapping[str, str],
        *,
        name: str = DEFAULT_LINK,
    ) -> models.TriggerChange:
        """Have the component called when something happens; raises `Invalid` for what makes no sense."""
        reply = await self._request(
            "trigger.put", component=component, kind=kind, name=name, configuration=dict(configuration)
        )
        return decoded(models.TriggerChange, reply)

    async def delete_trigger(
        self, component: str, kind: str, *, name: str = DEFAULT_LINK
    ) -> models.TriggerChange:
        """Take the trigger away."""
        reply = await self._request("trigger.delete", component=component, kind=kind, name=name)
        return decoded(models.TriggerChange, reply)

    async def triggers(
        self, component: str | None = None, *, kind: str | None = None
    ) -> list[models.Trigger]:
        """The triggers of one component or kind, or all."""
        reply = await self._request("trigger.get", component=component, kind=kind)
        return decoded_list(models.Trigger, reply, "triggers")

    # Configurations and secrets

    async def put_config(
        self, name: str, values: Mapping[str, str], *, merge: bool = False
    ) -> models.ConfigChange:
        """Make or replace a named configuration, or with `merge` change only these values."""
        reply = await self._request("config.put", name=name, values=dict(values), merge=merge)
        return decoded(models.ConfigChange, reply)

    async def config(self, name: str) -> models.ConfigValues:
        """A named configuration with its values; raises `NotFound`."""
        return decoded(models.ConfigValues, (await self._request("config.get", name=name)).get("config"))

    async def delete_config(self, name: str) -> models.ConfigChange:
        """Delete a named configuration; raises `NotFound`."""
        return decoded(models.ConfigChange, await self._request("config.delete", name=name))

    async def configs(self) -> list[models.Config]:
        """All named configurations, without their values."""
        return decoded_list(models.Config, await self._request("get.configs"), "configs")

    async def put_secret(self, name: str, value: Secret, *, nodes: Sequence[str] = ()) -> models.SecretInfo:
        """Seal a value here and store it; `nodes` may read it, or all if there are none.

        Each is a node's name or id, or `provider:NAME` for the processes of a provider beside a node.
        """
        from ctl.sealing import seal

        prepared = await self._request("secret.prepare", name=name)
        record = seal(name, value, prepared, nodes, lattice=self.lattice)
        return decoded(models.SecretInfo, await self._request("secret.put", record=record.to_dict()))

    async def secret(self, name: str) -> models.SecretInfo:
        """What may be known of a secret; raises `NotFound`."""
        return decoded(models.SecretInfo, (await self._request("secret.get", name=name)).get("secret"))

    async def delete_secret(self, name: str) -> models.SecretChange:
        """Delete a secret; raises `NotFound`."""
        return decoded(models.SecretChange, await self._request("secret.delete", name=name))

    async def secrets(self) -> list[models.SecretInfo]:
        """All secrets, without their values."""
        return decoded_list(models.SecretInfo, await self._request("get.secrets"), "secrets")

    # What happens

    def on_connection_change(self, handler: ConnectionHandler) -> None:
        """Call with False when the connection is lost, with True when it and all subscriptions are back."""
        self._bus.on_connection_change(handler)

    def events(self) -> AbstractAsyncContextManager[Listener[models.Event]]:
        """Everything that happens in the lattice from now on."""
        return listen(self._bus, subjects.event(self.lattice, ">"), _event)

    async def log_lines(self, component: str, lines: int = 100) -> list[models.LogLine]:
        """The last lines that the component wrote, from all nodes, in the order of their time.

        Lines outlive their component; raises `NotFound` when there are neither.
        """
        if lines == 0:
            return []
        reply = await self._request("logs", component=component, lines=lines)
        found = decoded_list(models.LogLine, reply, "lines")
        if not found:
            await self.describe_component(component)
        return found

    def follow_log(self, component: str) -> AbstractAsyncContextManager[Listener[models.LogLine]]:
        """The lines that the component writes from now on."""
        return listen(self._bus, subjects.log(self.lattice, component), models.LogLine.from_dict)

    # Calls

    async def function(self, component: str, name: str, interface: str | None = None) -> Function:
        """An exported function, to be called with `invoke`; raises `NotFound` that suggests the nearest."""
        return find_function(component, await self.component_type(component), name, interface)

    async def component_type(self, component: str) -> wit.ComponentType:
        """What a component imports and exports, or what a provider of that name serves."""
        try:
            description = await self.describe_component(component)
        except NotFound as missing:
            return await self._provider_type(component, missing)
        if not description.type:
            raise Failed(f"no node has compiled `{component}` yet, so its functions are unknown: try again")
        return wit.component_type_from_json(description.type)

    async def _provider_type(self, provider: str, missing: NotFound) -> wit.ComponentType:
        try:
            found = await self.describe_provider(provider)
        except NotFound:
            raise missing from None
        if found.exports:
            return wit.component_type_from_json({"imports": [], "exports": list(found.exports)})
        if not any(place.is_healthy and not place.reason for place in found.nodes):
            reason = next((place.reason for place in found.nodes if place.reason), "no node offers it")
            raise Unreachable(f"provider {provider!r} can't be called now: {reason}")
        raise Failed(f"provider {provider!r} says nothing of the types of its functions")

    async def invoke(
        self,
        function: Function,
        args: Sequence[Any] | Mapping[str, Any],
        options: CallOptions | None = None,
    ) -> Any:
        """Call a function found before: no look-up, so this is the way for many calls.

        `unreachable` and `overloaded` are tried again until the budget ends, `interrupted` if the options
        say idempotent.
        """
        checked = values.check_arguments(function.type, args)
        return await self._caller.call(function, checked, options or CallOptions())

    async def call(
        self,
        component: str,
        function: str,
        args: Sequence[Any] | Mapping[str, Any] = (),
        *,
        interface: str | None = None,
        options: CallOptions | None = None,
    ) -> Any:
        """Call a function by name; arguments in order or by name, as Python values of their WIT types."""
        options = options or CallOptions()
        deadline = anyio.current_time() + options.budget_seconds
        found = await self.function(component, function, interface)
        left = max(0.001, deadline - anyio.current_time())
        return await self.invoke(found, args, dataclasses.replace(options, budget_seconds=left))

    async def _request(self, operation: str, **fields: Any) -> dict[str, Any]:
        given = {name: value for name, value in fields.items() if value is not None}
        return await self._exchange.request(operation, given, timeout_seconds=self.timeout_seconds)


def _refuse_without_server(settings: ClientSettings) -> None:
    for name in ("creds", "tls_ca", "tls_cert", "tls_key"):
        if getattr(settings, name) is not None:
            flag = "--" + name.replace("_", "-")
            raise Invalid(f"{flag} means nothing without --nats: name the server that it is for")


def connection_settings(settings: ClientSettings) -> connection.ConnectionSettings:
    """How to connect: to the server named, else to this machine's embedded one. Reads files."""
    if settings.nats is None:
        _refuse_without_server(settings)
    return connection.server_of(settings, "latticectl", connect_seconds=settings.timeout_seconds)


def _event(fields: Mapping[str, Any]) -> models.Event:
    known = {field.name for field in dataclasses.fields(models.Event)}
    details = {name: value for name, value in fields.items() if name not in known}
    return models.Event.from_dict({**fields, "details": details})
