"""Messages per second through a component, beside a plain nats-py subscriber.

Both are sent batches of messages of which the last asks for a reply; two batches are under way, so that the
subscriber always has something to do. A fresh sandbox handles each message. The sender is the same for
both; it takes its share of the same cores. The target is for nats-py as it comes, on asyncio's loop.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from functools import partial

import anyio
import nats
import wasmtime
from nats.aio.msg import Msg

from benchmarks.measurement import Effort, Row, Target, compare, interleave
from benchmarks.processes import Processes, deploy, processes
from benchmarks.raw import LOOPS, URL_VARIABLE, peers
from lattice.bus import Bus
from lattice.errors import Unreachable
from lattice.nats_bus import NatsBus

COMPONENT = "listener"
SUBJECT = "bench.messages"
MESSAGE_BYTES = 128
BATCH = 256
BATCHES_UNDER_WAY = 2
MESSAGES_PER_CALL = 10
"""So many times more messages than other groups make calls: they are many in a second."""
REPLY_SECONDS = 20.0

GUEST = """
(component
  (import "wasmcloud:messaging/types@0.2.0" (instance $types
    (type $record (record
      (field "subject" string) (field "body" (list u8)) (field "reply-to" (option string))))
    (export "broker-message" (type (eq $record)))))
  (alias export $types "broker-message" (type $message))
  (import "wasmcloud:messaging/consumer@0.2.0" (instance $consumer
    (alias outer 1 $message (type $outer))
    (export "broker-message" (type $own (eq $outer)))
    (export "publish" (func (param "msg" $own) (result (result (error string)))))))
  (core module $libc
    (memory (export "memory") 1)
    (global $next (mut i32) (i32.const 4096))
    (func (export "realloc") (param i32 i32 i32 i32) (result i32)
      (global.get $next)
      (global.set $next (i32.add (global.get $next)
        (i32.and (i32.add (local.get 3) (i32.const 7)) (i32.const -8))))))
  (core instance $libc (instantiate $libc))
  (alias export $consumer "publish" (func $publish))
  (core func $publish' (canon lower (func $publish)
    (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (core module $guest
    (import "libc" "memory" (memory 1))
    (import "host" "publish" (func $publish (param i32 i32 i32 i32 i32 i32 i32 i32)))
    (func (export "handle") (param i32 i32 i32 i32)
      (param $asks i32) (param $reply i32) (param $length i32) (result i32)
      (if (local.get $asks) (then
        (call $publish (local.get $reply) (local.get $length) (i32.const 0) (i32.const 0)
          (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 16))))
      (i32.const 32)))
  (core instance $guest (instantiate $guest
    (with "libc" (instance (export "memory" (memory $libc "memory"))))
    (with "host" (instance (export "publish" (func $publish'))))))
  (func $handle (param "msg" $message) (result (result (error string)))
    (canon lift (core func $guest "handle")
      (memory (core memory $libc "memory")) (realloc (core func $libc "realloc"))))
  (instance $handler (export "broker-message" (type $message)) (export "handle-message" (func $handle)))
  (export "wasmcloud:messaging/handler@0.2.0" (instance $handler)))
"""
"""Replies, with nothing, to whoever asks for a reply; does nothing else."""


async def subscribe(subject: str) -> None:
    """The alternative: a callback that replies if it is asked to, until the process is ended."""
    client = await nats.connect(os.environ[URL_VARIABLE])

    async def handle(message: Msg) -> None:
        if message.reply:
            await message.respond(b"")

    await client.subscribe(subject, cb=handle)
    await client.flush()
    print("ready", flush=True)
    await anyio.sleep_forever()


def subscribers(url: str) -> AbstractContextManager[None]:
    """One process that subscribes for each event loop."""
    return peers(url, "benchmarks.messaging", SUBJECT)


def run(effort: Effort) -> Iterator[Row]:
    """How many messages a second."""
    with processes() as running:
        running.start("one")
        anyio.run(_deploy, running)
        with subscribers(running.url()):
            messages = max(4 * BATCH, effort.calls * MESSAGES_PER_CALL)
            ours, *theirs = interleave(
                max(1, effort.rounds - 2),
                _measured(running, f"{SUBJECT}.ours", messages),
                *(_measured(running, f"{SUBJECT}.{loop}", messages) for loop in LOOPS),
            )
    for loop, figure in zip(LOOPS, theirs, strict=True):
        target = Target(ratio_at_least=0.3) if loop == "asyncio" else None
        yield compare(f"messages handled, 128 B, beside nats-py on {loop}", ours, figure, "/s", target)


async def _deploy(running: Processes) -> None:
    async with running.client() as client:
        links = (("wasmcloud:messaging", "messaging-nats"),)
        await deploy(client, COMPONENT, bytes(wasmtime.wat2wasm(GUEST)), links=links, max_concurrency=64)
        await client.put_trigger(COMPONENT, "messaging", {"subject": f"{SUBJECT}.ours"})
    async with running.bus() as bus:
        await _until_answered(bus)


async def _until_answered(bus: Bus) -> None:
    with anyio.fail_after(REPLY_SECONDS):
        while True:
            try:
                await bus.request(f"{SUBJECT}.ours", timeout_seconds=5)
                return
            except Unreachable:
                await anyio.sleep(0.05)


def _measured(running: Processes, subject: str, messages: int) -> Callable[[], float]:
    async def measure() -> float:
        async with running.bus() as bus:
            await _send(bus, subject, BATCH * BATCHES_UNDER_WAY)
            began = time.perf_counter()
            await _send(bus, subject, messages)
            return messages / (time.perf_counter() - began)

    return partial(anyio.run, measure, backend_options={"use_uvloop": True})


async def _send(bus: NatsBus, subject: str, messages: int) -> None:
    """So many messages, in batches; returns when the last of each was answered."""
    body, batches = bytes(MESSAGE_BYTES), -(-messages // BATCH)
    places = anyio.Semaphore(BATCHES_UNDER_WAY)

    async def batch() -> None:
        for _ in range(BATCH - 1):
            bus.publish_nowait(subject, body)
        await bus.request(subject, body, timeout_seconds=REPLY_SECONDS)
        places.release()

    async with anyio.create_task_group() as tasks:
        for _ in range(batches):
            await places.acquire()
            tasks.start_soon(batch)


if __name__ == "__main__":
    anyio.run(subscribe, sys.argv[1], backend_options={"use_uvloop": sys.argv[2] == "uvloop"})
