"""Datagrams by the functions of `wasi:sockets`, over the loopback interface."""

from __future__ import annotations

import socket

import pytest

from lattice.errors import Trapped
from node.capabilities.wasi.sockets.udp import BATCH_DATAGRAMS, DATAGRAM_BYTES
from tests.node.capabilities.wasi.networked_guest import Networked, at


async def test_datagrams_come_and_go() -> None:
    guest = Networked("udp:127.0.0.1:*")
    one, two = await guest.bound("udp"), await guest.bound("udp")
    address = await guest.udp("local-address", two)
    _, sends = await guest.udp("stream", one, None)
    receives, _ = await guest.udp("stream", two, None)

    assert await guest.outgoing("check-send", sends) == BATCH_DATAGRAMS
    datagrams = [{"data": bytes([number]), "remote-address": address} for number in range(3)]
    assert await guest.outgoing("send", sends, datagrams) == 3
    await guest.wait("udp", "incoming-datagram-stream", receives)
    received = await guest.incoming("receive", receives, 10)

    assert [item["data"] for item in received] == [b"\0", b"\1", b"\2"]
    assert {str(item["remote-address"]) for item in received} == {str(await guest.udp("local-address", one))}
    assert await guest.incoming("receive", receives, 10) == []
    assert await guest.incoming("receive", receives, 0) == []


async def test_an_associated_socket_hears_and_tells_one_remote_only() -> None:
    guest = Networked("udp:127.0.0.1:*")
    one, two, three = [await guest.bound("udp") for _ in range(3)]
    addresses = [await guest.udp("local-address", each) for each in (one, two, three)]
    receives, sends = await guest.udp("stream", one, addresses[1])
    for other in (three, two):
        _, others = await guest.udp("stream", other, None)
        await guest.outgoing("check-send", others)
        await guest.outgoing("send", others, [{"data": b"to one", "remote-address": addresses[0]}])
    await guest.wait("udp", "incoming-datagram-stream", receives)

    received = await guest.incoming("receive", receives, 10)

    assert [item["remote-address"] for item in received] == [addresses[1]]
    assert await guest.udp("remote-address", one) == addresses[1]
    await guest.outgoing("check-send", sends)
    wrong = [{"data": b"x", "remote-address": addresses[2]}]
    assert await guest.outgoing("send", sends, wrong) == "invalid-argument"
    await guest.outgoing("check-send", sends)
    assert await guest.outgoing("send", sends, [{"data": b"x", "remote-address": None}]) == 1


async def test_datagrams_need_a_permit_a_receiver_and_a_size() -> None:
    guest = Networked("udp:127.0.0.1:*")
    found = await guest.bound("udp")
    address = await guest.udp("local-address", found)
    receives, sends = await guest.udp("stream", found, None)

    with pytest.raises(Trapped, match="check-send"):
        await guest.outgoing("send", sends, [{"data": b"x", "remote-address": address}])
    for datagram, code in [
        ({"data": b"x", "remote-address": None}, "invalid-argument"),
        ({"data": b"x", "remote-address": at(0)}, "invalid-argument"),
        ({"data": b"x", "remote-address": at(9, (0, 0, 0, 0))}, "invalid-argument"),
        ({"data": bytes(DATAGRAM_BYTES), "remote-address": address}, "datagram-too-large"),
        ({"data": bytes(DATAGRAM_BYTES + 1), "remote-address": address}, "datagram-too-large"),
    ]:
        await guest.outgoing("check-send", sends)
        assert await guest.outgoing("send", sends, [datagram]) == code
    await guest.outgoing("check-send", sends)
    good = {"data": b"x", "remote-address": address}
    assert await guest.outgoing("send", sends, [good, {"data": b"x", "remote-address": None}]) == 1
    with pytest.raises(Trapped, match="dropped"):
        await guest.udp("stream", found, None)
    guest.drop("sockets/udp", "incoming-datagram-stream", receives)
    guest.drop("sockets/udp", "outgoing-datagram-stream", sends)
    assert len(await guest.udp("stream", found, None)) == 2


async def test_a_socket_without_a_listening_grant_hears_only_whom_it_may_reach() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as stranger:
        stranger.bind(("127.0.0.1", 0))
        port = stranger.getsockname()[1]
        for grant, expected in ((f"udp:127.0.0.1:{port}", [b"hello"]), (f"udp:127.0.0.2:{port}", [])):
            guest = Networked(grant)
            found = await guest.bound("udp")
            receives, _ = await guest.udp("stream", found, None)
            stranger.sendto(b"hello", found.socket.getsockname())
            await guest.wait("udp", "incoming-datagram-stream", receives)

            received = await guest.incoming("receive", receives, 9)

            assert [item["data"] for item in received] == expected
