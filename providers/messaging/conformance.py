"""What every provider of messaging must do: run each of `CHECKS` with one, and a bus to its broker."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import anyio

from lattice.bus import Bus, Message, QueueSettings
from lattice.clock import now
from lattice.conformance_setting import Inbox
from lattice.errors import Invalid
from providers.messaging.nats import INTERFACE
from providers.provider import BoundLink, Provider, ProviderCall

WAIT_SECONDS = 5.0


@dataclass(kw_only=True)
class Setting:
    """A provider, a bus to the same broker, and a first token that nobody else uses."""

    provider: Provider
    bus: Bus
    name: str

    async def link(self, **configuration: str) -> Linked:
        """A link with that configuration."""
        link = BoundLink(
            source="app", name="default", interface="wasmcloud:messaging", configuration=configuration
        )
        return Linked(self.provider, link, await self.provider.bind(link))

    async def listen(self, subject: str) -> Inbox:
        """What comes on a subject from now on."""
        inbox = Inbox()
        await self.bus.subscribe(subject, inbox)
        return inbox


@dataclass
class Linked:
    """Calls over one link."""

    provider: Provider
    link: BoundLink
    binding: Any

    async def call(self, function: str, *args: Any, seconds: float = WAIT_SECONDS) -> Any:
        call = ProviderCall(
            link=self.link,
            binding=self.binding,
            call_id="1",
            deadline=now() + seconds,
            traceparent="00-11111111111111111111111111111111-2222222222222222-01",
        )
        return await self.provider.interfaces[INTERFACE][function](call, *args)


def _case(answer: Any) -> str:
    assert set(answer) == {"err"}, f"{answer!r} is no error"
    return str(next(iter(answer["err"])))


async def a_message_reaches_who_subscribes(setting: Setting) -> None:
    link = await setting.link(publish=f"{setting.name}.>")
    found = await setting.listen(f"{setting.name}.orders.*")

    sent = await link.call("publish", f"{setting.name}.orders.new", b"\x00\xff", f"{setting.name}.back")
    plain = await link.call("publish", f"{setting.name}.orders.new", b"", None)
    await found.wait_for(2)

    assert sent == plain == {"ok": None}
    assert (found.messages[0].subject, found.messages[0].data) == (f"{setting.name}.orders.new", b"\x00\xff")
    assert (found.messages[0].reply, found.messages[1].reply) == (f"{setting.name}.back", None)
    assert found.messages[0].headers["lattice-source"] == "app"
    assert found.messages[0].headers["traceparent"].startswith("00-1111")


async def a_request_is_answered(setting: Setting) -> None:
    link = await setting.link(publish=f"{setting.name}.ask")

    def answer(message: Message) -> None:
        tasks.start_soon(setting.bus.publish, message.reply or "", message.data + b"!")

    async with anyio.create_task_group() as tasks:
        await setting.bus.subscribe(f"{setting.name}.ask", answer)
        answered = await link.call("request", f"{setting.name}.ask", b"well", 2000)

    assert answered == {"ok": {"subject": f"{setting.name}.ask", "body": b"well!", "reply-to": None}}


async def a_request_that_nobody_answers_says_so(setting: Setting) -> None:
    link = await setting.link(publish=f"{setting.name}.>")
    await setting.listen(f"{setting.name}.silent")

    assert _case(await link.call("request", f"{setting.name}.silent", b"", 50)) == "timed-out"
    assert _case(await link.call("request", f"{setting.name}.silent", b"", 60_000, seconds=0.05)) == (
        "timed-out"
    )
    assert _case(await link.call("request", f"{setting.name}.nobody", b"", 2000)) == "nobody"


async def nothing_is_granted_by_default(setting: Setting) -> None:
    link = await setting.link()
    found = await setting.listen(f"{setting.name}.>")

    assert _case(await link.call("publish", f"{setting.name}.x", b"", None)) == "not-granted"
    assert _case(await link.call("request", f"{setting.name}.x", b"", 100)) == "not-granted"
    await setting.bus.flush()
    assert found.messages == []


async def a_grant_is_no_more_than_it_says(setting: Setting) -> None:
    link = await setting.link(publish=f"{setting.name}.a.*, {setting.name}.b.>")

    async def case(subject: str, reply: str | None = None) -> str:
        answer = await link.call("publish", subject, b"", reply)
        return "ok" if "ok" in answer else _case(answer)

    assert await case(f"{setting.name}.a.1") == "ok"
    assert await case(f"{setting.name}.b.1.2") == "ok"
    assert await case(f"{setting.name}.a.1.2") == "not-granted"
    assert await case(f"{setting.name}.b") == "not-granted"
    assert await case(f"{setting.name}.c.1") == "not-granted"
    assert await case(f"{setting.name}.a.1", f"{setting.name}.b.back") == "ok"
    assert await case(f"{setting.name}.a.1", f"{setting.name}.c") == "not-granted"
    assert await case(f"{setting.name}.a.1", "_INBOX.somebody") == "invalid"


async def subjects_that_are_none_or_not_for_applications_are_invalid(setting: Setting) -> None:
    link = await setting.link(publish=f"{setting.name}.>")
    bad = (
        "", ".", f"{setting.name}..x", f"{setting.name}.x y", f"{setting.name}.>", f"{setting.name}.*",
        f"{setting.name}.x\r\nPUB y 0", "lattice.1.default.control.deploy", "$JS.API.STREAM.LIST", "_INBOX.x",
    )  # fmt: skip

    for subject in bad:
        assert _case(await link.call("publish", subject, b"", None)) == "invalid", subject


async def what_must_not_be_granted_can_not_be(setting: Setting) -> None:
    for pattern in (">", "*.x", "lattice.>", "$JS.>", "_INBOX.>", "a..b", "a.>.b"):
        refused = False
        try:
            await setting.link(publish=pattern)
        except Invalid as error:
            refused = "`publish`" in error.message
        assert refused, f"{pattern!r} was granted"


async def a_reply_needs_no_grant(setting: Setting) -> None:
    link = await setting.link()
    inbox = setting.bus.new_inbox()
    found = await setting.listen(inbox)

    assert await link.call("publish", inbox, b"reply", None, [inbox]) == {"ok": None}
    assert _case(await link.call("publish", inbox + "2", b"reply", None, [inbox])) == "invalid"
    await found.wait_for(1)

    assert found.messages[0].data == b"reply"


async def a_stored_message_is_acknowledged_by_a_stream(setting: Setting) -> None:
    link = await setting.link(publish=f"{setting.name}.>", stored="true")
    queue = await setting.bus.work_queue(
        QueueSettings(stream=setting.name, name="all", subject=f"{setting.name}.kept")
    )

    stored = await link.call("publish", f"{setting.name}.kept", b"x", None)
    nowhere = await link.call("publish", f"{setting.name}.lost", b"x", None)
    with anyio.fail_after(WAIT_SECONDS):
        work = await queue.take()
    await queue.aclose()

    assert stored == {"ok": None}
    assert _case(nowhere) == "nobody"
    assert work.message.data == b"x"


async def a_message_that_is_too_large_is_invalid(setting: Setting) -> None:
    link = await setting.link(publish=f"{setting.name}.>")
    body = bytes(setting.bus.max_payload + 1)

    assert _case(await link.call("publish", f"{setting.name}.x", body, None)) == "invalid"


CHECKS: tuple[Callable[[Setting], Awaitable[None]], ...] = (
    a_message_reaches_who_subscribes,
    a_request_is_answered,
    a_request_that_nobody_answers_says_so,
    nothing_is_granted_by_default,
    a_grant_is_no_more_than_it_says,
    subjects_that_are_none_or_not_for_applications_are_invalid,
    what_must_not_be_granted_can_not_be,
    a_reply_needs_no_grant,
    a_stored_message_is_acknowledged_by_a_stream,
    a_message_that_is_too_large_is_invalid,
)
