"""What guests write, limited in rate and handed to whoever keeps it."""

from __future__ import annotations

import time

import structlog

from node.engine.host import GuestCall, LogSink

log = structlog.get_logger()

BURST_SECONDS = 2.0
"""How much of a second's allowance may be used at once."""
MESSAGE_BYTES = 64
"""What a log message costs beside its text: printed lines come many at a time, messages one by one."""
PRINTED = ("stdout", "stderr")


def log_output(call: GuestCall, stream: str, data: bytes) -> None:
    """Write a guest's output to the node's log."""
    text = data.decode("utf-8", errors="replace").rstrip("\n")
    log.info("guest.output", component=call.component, call=call.call_id, stream=stream, text=text)


class LimitedOutput:
    """Passes on what a component writes up to so many bytes a second; the rest is dropped and counted."""

    def __init__(self, sink: LogSink, bytes_per_second: int) -> None:
        self._sink = sink
        self._rate = bytes_per_second
        self._allowance = bytes_per_second * BURST_SECONDS
        self._refilled = time.monotonic()
        self._is_dropping = False
        self.dropped_bytes = 0

    def __call__(self, call: GuestCall, stream: str, data: bytes) -> None:
        now = time.monotonic()
        refill = (now - self._refilled) * self._rate
        self._allowance = min(self._allowance + refill, self._rate * BURST_SECONDS)
        self._refilled = now
        kept = data[: max(int(self._allowance), 0)]
        self._allowance -= len(kept) + (0 if stream in PRINTED else MESSAGE_BYTES + len(stream))
        if kept:
            self._sink(call, stream, kept)
        self._count(call, len(data) - len(kept))

    def _count(self, call: GuestCall, dropped: int) -> None:
        self.dropped_bytes += dropped
        if dropped and not self._is_dropping:
            log.warning(
                "guest.output_dropped",
                component=call.component,
                call=call.call_id,
                limit_per_second=self._rate,
            )
        self._is_dropping = dropped > 0
