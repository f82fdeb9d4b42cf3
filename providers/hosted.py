"""One provider that is offered: started, checked, and started anew after a failure; its calls meanwhile.

A provider whose start or check fails is closed and another one made, after a time that doubles with each
failure. While none runs, calls are `unreachable` at once, so that callers go elsewhere.

Error handling: what a function raises beyond `LatticeError` is logged, and its caller told where to look. A
backend that was lost meanwhile is found by a check at once, not by the next one.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Coroutine, Generator, Mapping, Sequence
from contextlib import AsyncExitStack, contextmanager
from dataclasses import dataclass
from typing import Any

import anyio
import structlog
from anyio.abc import TaskGroup

from lattice import wit
from lattice.caller import CallRequest
from lattice.clock import now
from lattice.errors import (
    Failed,
    Interrupted,
    Invalid,
    LatticeError,
    NotFound,
    Overloaded,
    TimedOut,
    Unreachable,
)
from lattice.exchange import Exchange
from lattice.failures import internal_failure
from lattice.inventory import Offer
from lattice.names import did_you_mean
from lattice.streams import ByteReceiver
from lattice.tasks import open_tasks, own_task
from providers.bindings import Binding, Bindings, Spawn
from providers.functions import Function, functions_of
from providers.held_body import HeldBody
from providers.provider import BoundLink, Provider, ProviderCall, Streamed

log = structlog.get_logger()

START_SECONDS = 10.0
CHECK_SECONDS = 3.0
STUCK_SECONDS = 1.0
"""After which calls in progress, none of which has ended, call for a check: what serves them may hang."""
CHECK_LIMIT_SECONDS = 2.0
DEADLINE_MARGIN_SECONDS = 0.05
HASTY_CHECK_SECONDS = 0.5
"""Between two checks that failing calls ask for."""
FIRST_BACKOFF_SECONDS = 0.1
MAX_BACKOFF_SECONDS = 10.0
STEADY_SECONDS = 30.0
"""Who ran for so long begins with the first backoff again."""
STOP_SECONDS = 5.0
"""How long calls in progress may take to end before a provider that stops is closed."""
FAILED_SECONDS = 1.0
"""The same of one that failed: most of its calls wait for what does not answer, and end when it is closed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class ProviderStatistics:
    """Counts since the provider was offered."""

    calls: int = 0
    errors: Mapping[str, int]
    in_progress: int = 0
    busy_seconds: float = 0.0
    starts: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class OfferSettings:
    """What is offered, under which name and limits."""

    name: str
    kind: str
    make: Callable[[], Provider]
    """Another one after each failure."""
    max_calls: int = 1024
    """In progress at a time; more are `overloaded`."""


MakeBindings = Callable[[str, Provider, Spawn], Bindings]


class Running:
    """A provider between its start and its end; the mutable state is its calls."""

    def __init__(self, provider: Provider, bindings: Bindings) -> None:
        self.provider = provider
        self.bindings = bindings
        self.calls = 0
        self.ended_calls = 0
        self.idle = anyio.Event()
        self.check_wanted = anyio.Event()
        self.functions = functions_of(provider)

    def function(self, request: CallRequest) -> Function:
        """Versions of interfaces are not compared."""
        found = self.functions.get((request.interface.partition("@")[0], request.function))
        if found is not None:
            return found
        names = [f"{interface}.{name}" for interface, name in self.functions]
        wanted = f"{request.interface}.{request.function}"
        raise NotFound(
            f"provider {request.component!r} has no function {wanted}{did_you_mean(wanted, names)}"
        )


class Hosted:
    """The mutable state is the provider that runs, if one does, what it failed of, and the counts."""

    def __init__(
        self,
        offer: OfferSettings,
        *,
        make_bindings: MakeBindings,
        on_change: Callable[[], None],
    ) -> None:
        self._offer = offer
        self._make_bindings = make_bindings
        self._on_change = on_change
        self._tasks: TaskGroup | None = None
        self._running: Running | None = None
        self._interfaces: tuple[str, ...] = ()
        self._reason = "it starts"
        self._stopping = anyio.Event()
        self._ready = anyio.Event()
        self._calls = 0
        self._busy_seconds = 0.0
        self._starts = 0
        self._errors: Counter[str] = Counter()

    def __repr__(self) -> str:
        return f"<Hosted {self._offer.name} {'running' if self._running else self._reason}>"

    @property
    def name(self) -> str:
        return self._offer.name

    @property
    def is_running(self) -> bool:
        """Whether it takes calls."""
        return self._running is not None

    @property
    def offer(self) -> Offer:
        """As announced."""
        return Offer(
            name=self._offer.name,
            kind=self._offer.kind,
            interfaces=self._interfaces,
            is_healthy=self._running is not None,
            reason="" if self._running else self._reason,
        )

    @property
    def statistics(self) -> ProviderStatistics:
        """Counts so far."""
        return ProviderStatistics(
            calls=self._calls,
            errors=dict(self._errors),
            in_progress=self._running.calls if self._running else 0,
            busy_seconds=self._busy_seconds,
            starts=self._starts,
        )

    def links(self) -> list[BoundLink]:
        """Those that are bound now."""
        return self._running.bindings.links() if self._running else []

    async def check_link(self, link: BoundLink) -> None:
        """Raises `Invalid` for a link that could not be bound, `Unreachable` if nobody can tell now."""
        if self._running is None:
            raise Unreachable(f"provider {self.name!r} does not run here: {self._reason}")
        try:
            await self._running.provider.check_link(link)
        except LatticeError:
            raise
        except Exception:
            raise self._failure("provider.check-link-failed", f"{self.name} {link.source}") from None

    def types(self) -> list[wit.Interface]:
        """What is known of its functions' types; interfaces without any are left out."""
        found: dict[str, dict[str, wit.Function]] = {}
        for (interface, name), function in (self._running.functions if self._running else {}).items():
            if function.type is not None:
                found.setdefault(interface, {})[name] = function.type
        return [wit.Interface(name=name, functions=functions) for name, functions in found.items()]

    def function_type(self, request: CallRequest) -> wit.Function | None:
        """Of the function that the request names, if it is known."""
        return self._running.function(request).type if self._running else None

    async def wait_until_tried(self) -> None:
        """Return when it runs, or its first start has failed."""
        await self._ready.wait()

    # Life

    async def run(self) -> None:
        """Keep it running until `stop`; returns when it has ended."""
        backoff = FIRST_BACKOFF_SECONDS
        async with anyio.create_task_group() as tasks:
            self._tasks = tasks
            while not self._stopping.is_set():
                began = now()
                await self._live()
                self._ready.set()
                backoff = FIRST_BACKOFF_SECONDS if now() - began > STEADY_SECONDS else backoff
                with anyio.move_on_after(backoff):
                    await self._stopping.wait()
                backoff = min(backoff * 2, MAX_BACKOFF_SECONDS)

    def stop(self) -> None:
        """Take no more calls, let those in progress end, then close."""
        self._reason = "it was stopped"
        self._stopping.set()

    async def _live(self) -> None:
        """From one start to the failure or the stop that ends it."""
        provider: Provider | None = None
        running: Running | None = None
        try:
            provider = self._offer.make()
            with _limit(START_SECONDS, "its backend does not answer, or hangs: it did not start"):
                await provider.start()
            running = self._begin(provider)
            await self._watch(running)
        except LatticeError as error:
            self._failed(error.message)
        except Exception:
            log.exception("provider.broken", provider=self.name)
            self._failed("it failed; the log of its process has the reason")
        finally:
            self._running = None
            if provider is not None:
                with anyio.CancelScope(shield=True):
                    await self._end(provider, running)

    def _begin(self, provider: Provider) -> Running:
        running = Running(provider, self._make_bindings(self.name, provider, self._spawn))
        self._interfaces = tuple(sorted(provider.interfaces))
        self._running = running
        self._starts += 1
        self._ready.set()
        log.info("provider.running", provider=self.name, kind=self._offer.kind)
        self._on_change()
        return running

    def _spawn(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        assert self._tasks is not None
        self._tasks.start_soon(work)

    def _failed(self, reason: str) -> None:
        self._running = None
        self._reason = reason
        log.warning("provider.failed", provider=self.name, kind=self._offer.kind, reason=reason)
        self._on_change()

    async def _watch(self, running: Running) -> None:
        """Check until it is to stop; raises what is wrong."""
        async with open_tasks() as tasks:
            tasks.start_soon(self._check_forever, running)
            await self._stopping.wait()
            tasks.cancel_scope.cancel()
        self._running = None
        self._on_change()

    async def _check_forever(self, running: Running) -> None:
        while True:
            await _until_check_is_due(running)
            running.check_wanted = anyio.Event()
            with _limit(CHECK_LIMIT_SECONDS, "its backend does not answer, or hangs: its check did not end"):
                await running.provider.check()
            running.bindings.sweep()
            await anyio.sleep(HASTY_CHECK_SECONDS)

    async def _end(self, provider: Provider, running: Running | None) -> None:
        if running is not None:
            if running.calls:
                with anyio.move_on_after(STOP_SECONDS if self._stopping.is_set() else FAILED_SECONDS):
                    await running.idle.wait()
            with anyio.move_on_after(STOP_SECONDS):
                await running.bindings.aclose()
        try:
            with anyio.move_on_after(STOP_SECONDS):
                await provider.aclose()
        except Exception:
            log.exception("provider.not-closed", provider=self.name)

    # Calls

    async def call(
        self, request: CallRequest, args: Sequence[Any] | Mapping[str, Any], *, is_checked: bool = False
    ) -> Any:
        """The value that a function returned. Nothing here ends the call at its deadline.

        `is_checked` says that whoever calls made the arguments as the function's type wants them.
        """
        running = self._admitted()
        binding, began = None, now()
        try:
            function = running.function(request)
            given = args if is_checked else function.arguments(args)
            binding = running.bindings.take_known(request) or await running.bindings.take(request)
            value = await function.run(_call(request, binding, None), *given)
            if isinstance(value, Streamed):
                await value.body.aclose()
                raise Invalid(f"{request.target} returns a byte stream: call it with `exchange`")
            return value if is_checked else function.result(value)
        except BaseException as error:
            raise self._noted(error, running, request) from None
        finally:
            self._busy_seconds += now() - began
            self._release(running, binding)

    async def exchange(
        self, request: CallRequest, args: Sequence[Any] | Mapping[str, Any], body: ByteReceiver | None
    ) -> Exchange:
        """As `call`, with byte streams; the call is in progress until that of the exchange has ended."""
        running = self._admitted()
        binding, began = None, now()
        ending = AsyncExitStack()
        if body is not None:
            ending.push_async_callback(body.aclose)
        ending.callback(lambda: self._release(running, binding))
        try:
            function = running.function(request)
            given = function.arguments(args)
            binding = running.bindings.take_known(request) or await running.bindings.take(request)
            value = await function.run(_call(request, binding, body), *given)
            if isinstance(value, Streamed):
                ending.push_async_callback(value.body.aclose)
                return Exchange(function.result(value.value), HeldBody(value.body, ending))
            result = function.result(value)
        except BaseException as error:
            await _close(ending)
            raise self._noted(error, running, request) from None
        finally:
            self._busy_seconds += now() - began
        await ending.aclose()
        return Exchange(result)

    def _admitted(self) -> Running:
        running = self._running
        if running is None:
            raise Unreachable(f"provider {self.name!r} does not run here: {self._reason}")
        if running.calls >= self._offer.max_calls:
            raise Overloaded(f"provider {self.name!r} has {running.calls} calls in progress")
        running.calls += 1
        self._calls += 1
        return running

    def _release(self, running: Running, binding: Binding | None) -> None:
        if binding is not None:
            running.bindings.give_back(binding)
        running.calls -= 1
        running.ended_calls += 1
        if not running.calls and self._running is not running:
            running.idle.set()

    def _noted(self, error: BaseException, running: Running, request: CallRequest) -> BaseException:
        """The error that the caller gets."""
        if isinstance(error, LatticeError):
            self._errors[error.code] += 1
            if isinstance(error, Unreachable | Interrupted | TimedOut):
                running.check_wanted.set()
            return error
        if not isinstance(error, Exception):
            if request.deadline - now() < DEADLINE_MARGIN_SECONDS:  # it was cancelled for that, likely
                running.check_wanted.set()
            return error
        self._errors["failed"] += 1
        return self._failure("provider.call-failed", request.target)

    def _failure(self, event: str, subject: str) -> Failed:
        return internal_failure(event, subject, what=f"provider {self.name!r}")


def _call(request: CallRequest, binding: Binding, body: ByteReceiver | None) -> ProviderCall:
    return ProviderCall(
        link=binding.target,
        binding=binding.value,
        call_id=request.call_id,
        deadline=request.deadline,
        traceparent=request.traceparent,
        body=body,
    )


async def _until_check_is_due(running: Running) -> None:
    """Return after a while, sooner when a call has failed, or when those in progress do not get on."""
    due = now() + CHECK_SECONDS
    while (left := due - now()) > 0:
        ended = running.ended_calls
        with anyio.move_on_after(min(left, STUCK_SECONDS)):
            await running.check_wanted.wait()
            return
        if running.calls and running.ended_calls == ended:
            return


@contextmanager
def _limit(seconds: float, what: str) -> Generator[None]:
    try:
        with anyio.fail_after(seconds):
            yield
    except TimeoutError:
        raise TimedOut(f"{what} within {seconds:g} s") from None


async def _close(ending: AsyncExitStack) -> None:
    await own_task()
    with anyio.CancelScope(shield=True):
        await ending.aclose()
