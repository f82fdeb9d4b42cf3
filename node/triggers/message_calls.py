"""The calls that one messaging trigger makes: a message in, what became of it out."""

from __future__ import annotations

import random
from collections.abc import Awaitable, Sequence
from dataclasses import dataclass
from typing import Any

import structlog

from lattice.bus import Message
from lattice.call_headers import check_traceparent
from lattice.caller import CallBatch, Caller, CallRequest, make_call_request, new_call_id
from lattice.clock import now
from lattice.errors import LatticeError
from lattice.model import Trigger
from lattice.outcome import Done, Outcome, ended, failed
from lattice.patterns import takes_replies
from node.capabilities.messaging import Replies

HANDLER = "wasmcloud:messaging/handler@0.2.0"
FUNCTION = "handle-message"
_HANDLED: Done[str | None] = Done(None)
REPORT_SECONDS = 1.0
"""Between two lines of the log about failed messages of one trigger; the second says how many there were."""

log = structlog.get_logger()


@dataclass(slots=True)
class MessageCounts:
    """Since the node began to run the trigger."""

    handled: int = 0
    failed: int = 0
    dropped: int = 0
    given_up: int = 0


class MessageCalls:
    """Calls the component's handler. The mutable state is its counts, and when it last told of a failure."""

    def __init__(self, trigger: Trigger, caller: Caller, replies: Replies) -> None:
        self.trigger = trigger
        self.counts = MessageCounts()
        self._caller = caller
        self._replies = replies
        self._reported = 0.0
        self._name = f"trigger {trigger.name}"

    async def handle(self, message: Message) -> str | None:
        """Call with a message; None when it was handled, else why not."""
        return await ended(self.begin(message, self.deadline()))

    def begin(self, message: Message, deadline: float) -> Outcome[str | None]:
        """As `handle`; most messages are handled when this returns."""
        reply = None if message.reply is None else reply_subject(message)
        request = self._request(message, deadline)
        if reply is not None:
            self._replies.grant(request.call_id, reply)
        try:
            outcome = self._caller.begin(request, [_value(message, reply)])
        except Exception as error:
            outcome = failed(error)
        if not isinstance(outcome, Done):
            return self._finish(message, request.call_id, outcome)
        if reply is not None:
            self._replies.revoke(request.call_id)
        return self._over(message, outcome.value)

    def begin_batch(
        self, messages: Sequence[Message], deadline: float, *, may_overlap: bool
    ) -> Awaitable[list[Outcome[str | None]]] | None:
        """As `begin`, of messages that wait in numbers; None if they should be begun one by one.

        Gives what those that have begun, the first ones, have come to. One of them may not be over; two if
        they `may_overlap`.
        """
        batch = CallBatch(
            self.trigger.component,
            HANDLER,
            FUNCTION,
            deadline=deadline,
            size=len(messages),
            args=lambda nth: [_value(messages[nth], reply_subject(messages[nth]))],
            may_overlap=may_overlap,
            request=lambda nth: self._request(messages[nth], deadline),
        )
        begun = self._caller.begin_batch(batch)
        if begun is None:
            return None
        granted: dict[int, str] = {}
        for nth, message in enumerate(messages):
            if message.reply is not None and (reply := reply_subject(message)) is not None:
                granted[nth] = batch.request(nth).call_id
                self._replies.grant(granted[nth], reply)
        return self._rest_of_batch(messages, batch, granted, begun)

    async def _rest_of_batch(
        self,
        messages: Sequence[Message],
        batch: CallBatch,
        granted: dict[int, str],
        begun: Awaitable[list[Outcome[Any]]],
    ) -> list[Outcome[str | None]]:
        try:
            outcomes: list[Outcome[str | None]] = []
            for nth, outcome in enumerate(await begun):
                if isinstance(outcome, Done):
                    outcomes.append(self._over(messages[nth], outcome.value))
                else:
                    outcomes.append(self._finish(messages[nth], batch.request(nth).call_id, outcome))
                    granted.pop(nth, None)  # it revokes it itself
            return outcomes
        finally:
            for call_id in granted.values():
                self._replies.revoke(call_id)

    def _over(self, message: Message, result: Any) -> Done[str | None]:
        reason = self._ended(message, result)
        return _HANDLED if reason is None else Done(reason)

    async def _finish(self, message: Message, call_id: str, outcome: Awaitable[Any]) -> str | None:
        try:
            result = await outcome
        except LatticeError as error:
            return self._fail(message, error.message)
        except Exception:
            log.exception("message.broke", component=self.trigger.component, subject=message.subject)
            return self._fail(message, "it broke inside the node; its log says why")
        finally:
            self._replies.revoke(call_id)
        return self._ended(message, result)

    def deadline(self) -> float:
        """Of calls that begin now."""
        return now() + self._caller.budget_seconds(self.trigger.component)

    def _request(self, message: Message, deadline: float) -> CallRequest:
        headers = message.headers
        return make_call_request(
            component=self.trigger.component,
            interface=HANDLER,
            function=FUNCTION,
            deadline=deadline,
            call_id=new_call_id(),
            traceparent=check_traceparent(headers.get("traceparent")) if headers else None,
            caller=self._name,
        )

    def _ended(self, message: Message, result: Any) -> str | None:
        """Count a message whose handler has returned."""
        if isinstance(result, dict) and "err" in result:
            return self._fail(message, str(result["err"]))
        self.counts.handled += 1
        return None

    def drop(self, message: Message, waiting: int) -> None:
        """Note that a message came while too many wait."""
        self.counts.dropped += 1
        self._report("message.dropped", message, f"{waiting} messages wait already")

    def _fail(self, message: Message, reason: str) -> str:
        self.counts.failed += 1
        self._report("message.failed", message, reason)
        return reason

    def _report(self, event: str, message: Message, reason: str) -> None:
        if now() - self._reported < REPORT_SECONDS:
            return
        self._reported = now()
        log.warning(
            event,
            component=self.trigger.component,
            name=self.trigger.name,
            subject=message.subject,
            reason=reason[:500],
            failed=self.counts.failed,
            dropped=self.counts.dropped,
        )


def _value(message: Message, reply: str | None) -> dict[str, Any]:
    """As the handler gets it."""
    return {"subject": message.subject, "body": message.data, "reply-to": reply}


def reply_subject(message: Message) -> str | None:
    """Where the sender asks for a reply; none where components may not reply."""
    return message.reply if message.reply is not None and takes_replies(message.reply) else None


def backoff(attempt: int, first_seconds: float, most_seconds: float = 60.0) -> float:
    """How long to wait after so many attempts; spread, so that not all come back at once."""
    return min(most_seconds, first_seconds * 2.0 ** min(attempt - 1, 20)) * random.uniform(0.8, 1.2)
