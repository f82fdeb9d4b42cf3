"""`wasi:sockets` with every door closed: it links, and whoever asks for a socket or a name is denied.

No socket is ever handed out, so the methods of sockets can't be reached by a guest; they are here for
linking.
"""

from __future__ import annotations

from typing import Any

from lattice.errors import Denied
from node.capabilities.wasi.io_interfaces import forget
from node.engine.host import GuestCall, HostFunction, HostInterface

TCP_METHODS = (
    "start-bind", "finish-bind", "start-connect", "finish-connect", "start-listen", "finish-listen",
    "accept", "local-address", "remote-address", "set-listen-backlog-size", "keep-alive-enabled",
    "set-keep-alive-enabled", "keep-alive-idle-time", "set-keep-alive-idle-time", "keep-alive-interval",
    "set-keep-alive-interval", "keep-alive-count", "set-keep-alive-count", "hop-limit", "set-hop-limit",
    "receive-buffer-size", "set-receive-buffer-size", "send-buffer-size", "set-send-buffer-size",
    "shutdown",
)  # fmt: skip

UDP_METHODS = (
    "start-bind", "finish-bind", "stream", "local-address", "remote-address", "unicast-hop-limit",
    "set-unicast-hop-limit", "receive-buffer-size", "set-receive-buffer-size", "send-buffer-size",
    "set-send-buffer-size",
)  # fmt: skip


class Network:
    """The resource `network`: a name for the network that nothing is granted of."""

    __slots__ = ()


def socket_interfaces(version: str) -> tuple[HostInterface, ...]:
    """The interfaces of a component that no host and no port is granted to."""
    package = "wasi:sockets"
    return (
        HostInterface(
            name=f"{package}/network@{version}",
            functions={"network-error-code": lambda call, error: None},
            resources={"network": forget},
        ),
        HostInterface(
            name=f"{package}/instance-network@{version}",
            functions={"instance-network": lambda call: Network()},
        ),
        HostInterface(
            name=f"{package}/tcp-create-socket@{version}", functions={"create-tcp-socket": _access_denied}
        ),
        HostInterface(
            name=f"{package}/udp-create-socket@{version}", functions={"create-udp-socket": _access_denied}
        ),
        _tcp(f"{package}/tcp@{version}"),
        _udp(f"{package}/udp@{version}"),
        _name_lookup(f"{package}/ip-name-lookup@{version}"),
    )


def _tcp(name: str) -> HostInterface:
    denied = _methods("tcp-socket", TCP_METHODS, _access_denied)
    absent = _methods("tcp-socket", ("is-listening", "address-family", "subscribe"), _no_such_socket)
    return HostInterface(name=name, functions={**denied, **absent}, resources={"tcp-socket": forget})


def _udp(name: str) -> HostInterface:
    return HostInterface(
        name=name,
        functions={
            **_methods("udp-socket", UDP_METHODS, _access_denied),
            **_methods("udp-socket", ("address-family", "subscribe"), _no_such_socket),
            **_methods("incoming-datagram-stream", ("receive",), _access_denied),
            **_methods("incoming-datagram-stream", ("subscribe",), _no_such_socket),
            **_methods("outgoing-datagram-stream", ("check-send", "send"), _access_denied),
            **_methods("outgoing-datagram-stream", ("subscribe",), _no_such_socket),
        },
        resources=dict.fromkeys(
            ("udp-socket", "incoming-datagram-stream", "outgoing-datagram-stream"), forget
        ),
    )


def _name_lookup(name: str) -> HostInterface:
    stream = "resolve-address-stream"
    return HostInterface(
        name=name,
        functions={
            "resolve-addresses": _access_denied,
            **_methods(stream, ("resolve-next-address",), _access_denied),
            **_methods(stream, ("subscribe",), _no_such_socket),
        },
        resources={stream: forget},
    )


def _methods(resource: str, names: tuple[str, ...], function: HostFunction) -> dict[str, HostFunction]:
    return {f"[method]{resource}.{name}": function for name in names}


def _access_denied(call: GuestCall, *args: Any) -> Any:
    return {"err": "access-denied"}


def _no_such_socket(call: GuestCall, *args: Any) -> Any:
    raise Denied("no socket is granted to components yet")
