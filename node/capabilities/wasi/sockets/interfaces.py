"""The functions of `wasi:sockets`, as tables over the objects of this package."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

from node.capabilities.wasi.io_interfaces import IoError, forget
from node.capabilities.wasi.network import NetworkPolicy
from node.capabilities.wasi.pollables import Pollable, Watched
from node.capabilities.wasi.sockets import options
from node.capabilities.wasi.sockets.access import SocketAccess
from node.capabilities.wasi.sockets.addresses import Endpoint, address_for_guest, from_guest
from node.capabilities.wasi.sockets.name_lookup import AddressStream, Lookup
from node.capabilities.wasi.sockets.socket_errors import SocketError, SocketStreamFailed, code_of
from node.capabilities.wasi.sockets.tcp import State, TcpSocket
from node.capabilities.wasi.sockets.udp import IncomingDatagrams, OutgoingDatagrams, UdpSocket
from node.engine.host import GuestCall, HostFunction, HostInterface


class Network:
    """The resource `network`: there is one, and what may be done with it the policy says."""

    __slots__ = ()


def socket_interfaces(policy: NetworkPolicy, lookup: Lookup, version: str) -> tuple[HostInterface, ...]:
    """The interfaces of a component with these grants; without any, each door is closed."""
    package = "wasi:sockets"
    return (
        HostInterface(
            name=f"{package}/network@{version}",
            functions={"network-error-code": _error_code},
            resources={"network": forget},
        ),
        HostInterface(
            name=f"{package}/instance-network@{version}",
            functions={"instance-network": lambda call: Network()},
        ),
        HostInterface(
            name=f"{package}/tcp-create-socket@{version}",
            functions={"create-tcp-socket": partial(_create, kind=TcpSocket, protocol="tcp", policy=policy)},
        ),
        HostInterface(
            name=f"{package}/udp-create-socket@{version}",
            functions={"create-udp-socket": partial(_create, kind=UdpSocket, protocol="udp", policy=policy)},
        ),
        _tcp(f"{package}/tcp@{version}"),
        _udp(f"{package}/udp@{version}"),
        _name_lookup(f"{package}/ip-name-lookup@{version}", policy, lookup),
    )


def _tcp(name: str) -> HostInterface:
    methods: dict[str, Callable[..., Any]] = {
        "start-bind": lambda tcp, network, local: tcp.start_bind(from_guest(local)),
        "finish-bind": TcpSocket.finish_bind,
        "start-connect": lambda tcp, network, remote: tcp.start_connect(from_guest(remote)),
        "finish-connect": TcpSocket.finish_connect,
        "start-listen": TcpSocket.start_listen,
        "finish-listen": TcpSocket.finish_listen,
        "accept": TcpSocket.accept,
        "local-address": lambda tcp: tcp.local_address().for_guest(),
        "remote-address": lambda tcp: tcp.remote_address().for_guest(),
        "set-listen-backlog-size": TcpSocket.set_backlog,
        "keep-alive-enabled": _option(options.is_kept_alive),
        "set-keep-alive-enabled": _option(options.keep_alive),
        "keep-alive-idle-time": _option(options.keep_alive_time, "idle"),
        "set-keep-alive-idle-time": _option(options.set_keep_alive_time, "idle"),
        "keep-alive-interval": _option(options.keep_alive_time, "interval"),
        "set-keep-alive-interval": _option(options.set_keep_alive_time, "interval"),
        "keep-alive-count": _option(options.keep_alive_count),
        "set-keep-alive-count": _option(options.set_keep_alive_count),
        "hop-limit": _option(options.hop_limit),
        "set-hop-limit": _option(options.set_hop_limit),
        **_buffer_methods(),
        "shutdown": TcpSocket.shut_down,
    }
    return HostInterface(
        name=name,
        functions={
            **_fallible("tcp-socket", methods),
            "[method]tcp-socket.is-listening": lambda call, tcp: tcp.state is State.LISTENING,
            "[method]tcp-socket.address-family": lambda call, tcp: tcp.family,
            "[method]tcp-socket.subscribe": _subscribe,
        },
        resources={"tcp-socket": lambda call, tcp: tcp.close()},
    )


def _udp(name: str) -> HostInterface:
    methods: dict[str, Callable[..., Any]] = {
        "start-bind": lambda udp, network, local: udp.start_bind(from_guest(local)),
        "finish-bind": UdpSocket.finish_bind,
        "stream": lambda udp, remote: udp.streams(_optional(remote)),
        "local-address": lambda udp: udp.local_address().for_guest(),
        "remote-address": lambda udp: udp.remote_address().for_guest(),
        "unicast-hop-limit": _option(options.hop_limit),
        "set-unicast-hop-limit": _option(options.set_hop_limit),
        **_buffer_methods(),
    }
    return HostInterface(
        name=name,
        functions={
            **_fallible("udp-socket", methods),
            "[method]udp-socket.address-family": lambda call, udp: udp.family,
            "[method]udp-socket.subscribe": _subscribe,
            **_fallible("incoming-datagram-stream", {"receive": IncomingDatagrams.receive}),
            "[method]incoming-datagram-stream.subscribe": _subscribe,
            **_fallible(
                "outgoing-datagram-stream",
                {"check-send": OutgoingDatagrams.check_send, "send": OutgoingDatagrams.send},
            ),
            "[method]outgoing-datagram-stream.subscribe": _subscribe,
        },
        resources={
            "udp-socket": lambda call, udp: udp.close(),
            "incoming-datagram-stream": _close,
            "outgoing-datagram-stream": _close,
        },
    )


def _name_lookup(name: str, policy: NetworkPolicy, lookup: Lookup) -> HostInterface:
    def resolve(call: GuestCall, network: Network, asked: str) -> Any:
        access = SocketAccess.of(call.instance.state, policy)
        return _result(lambda: AddressStream(asked, access, lookup))

    return HostInterface(
        name=name,
        functions={
            "resolve-addresses": resolve,
            **_fallible("resolve-address-stream", {"resolve-next-address": _next_address}),
            "[method]resolve-address-stream.subscribe": _subscribe,
        },
        resources={"resolve-address-stream": _close},
    )


def _create(
    call: GuestCall,
    family: str,
    *,
    kind: Callable[[str, SocketAccess], Any],
    protocol: str,
    policy: NetworkPolicy,
) -> Any:
    if not policy.allows_any(protocol):
        return {"err": "access-denied"}
    access = SocketAccess.of(call.instance.state, policy)
    return _result(lambda: kind(family, access))


def _buffer_methods() -> dict[str, Callable[..., Any]]:
    return {
        f"{prefix}{which}-buffer-size": _option(function, which)
        for prefix, function in (("", options.buffer_size), ("set-", options.set_buffer_size))
        for which in ("receive", "send")
    }


def _option(function: Callable[..., Any], *fixed: str) -> Callable[..., Any]:
    return lambda owner, *args: function(owner.socket, *fixed, *args)


def _fallible(resource: str, methods: dict[str, Callable[..., Any]]) -> dict[str, HostFunction]:
    return {f"[method]{resource}.{name}": _method(method) for name, method in methods.items()}


def _method(method: Callable[..., Any]) -> HostFunction:
    return lambda call, *args: _result(lambda: method(*args))


def _result(work: Callable[[], Any]) -> Any:
    try:
        return {"ok": work()}
    except SocketError as error:
        return {"err": error.code}
    except OSError as error:
        return {"err": code_of(error)}


def _optional(value: dict[str, Any] | None) -> Endpoint | None:
    return None if value is None else from_guest(value)


def _next_address(stream: AddressStream) -> Any:
    address = stream.next()
    return None if address is None else address_for_guest(address)


def _subscribe(call: GuestCall, source: Watched) -> Pollable:
    return source.subscribe()


def _close(call: GuestCall, stream: AddressStream | IncomingDatagrams | OutgoingDatagrams) -> None:
    stream.close()


def _error_code(call: GuestCall, error: IoError) -> str | None:
    return error.cause.code if isinstance(error.cause, SocketStreamFailed) else None
