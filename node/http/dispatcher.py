"""From a request to the component that answers it: on this node if a replica runs here, else on another.

Error handling: each failure becomes a response that says which component and why. What an operator may have
to look into is logged under the error id that the client is told.
"""

from __future__ import annotations

from collections.abc import Awaitable
from typing import Protocol

import structlog

from lattice.caller import Caller, make_call_request, new_call_id
from lattice.clock import now
from lattice.context import make_context
from lattice.errors import LatticeError, Overloaded, Unreachable
from lattice.failures import LineLimit, new_error_id
from lattice.http import HttpRequest, HttpResponse
from lattice.model import TriggerKind
from lattice.state import ApplicationChanged, Effect, LatticeState
from node.engine.host import CallContext
from node.http import failures, remote
from node.http.body import is_clients_fault
from node.http.failures import Failure
from node.http.handler import HttpHandler
from node.http.limits import HttpLimits
from node.http.routes import RouteTable, route_table

log = structlog.get_logger()

PATIENCE_SECONDS = 5.0
"""How long a request waits for a component that runs nowhere: clients and proxies give up soon after."""


class LocalHandlers(Protocol):
    """The replicas of this node, as far as they answer HTTP."""

    def http(self, component: str) -> HttpHandler | None:
        """The handler of the component's replicas here; None if there are none that take requests now."""


class Dispatcher:
    """Implements `node.http.site.Responder`.

    The mutable state is the routes, the requests in progress, and what was logged in the second at hand.
    """

    def __init__(
        self, state: LatticeState, local: LocalHandlers, caller: Caller, limits: HttpLimits, *, name: str
    ) -> None:
        """`name` is the node's, which callees are told."""
        self._state = state
        self._local = local
        self._caller = caller
        self._limits = limits
        self._name = name
        self._in_progress = 0
        self._log = _FailureLines()
        self.table = RouteTable()
        self.learn_routes()

    def __repr__(self) -> str:
        return f"<Dispatcher {len(self.table.routes)} routes, {self._in_progress} requests>"

    @property
    def in_progress(self) -> int:
        """Requests that have no response yet."""
        return self._in_progress

    def effect(self, effect: Effect) -> None:
        """Follow what the lattice is asked for; an observer's listener."""
        if isinstance(effect, ApplicationChanged):
            self.learn_routes()

    def learn_routes(self) -> None:
        """Make the table of what is desired now."""
        former = {route.text: route.component for route in self.table.routes}
        self.table, broken = route_table(
            (trigger, desired.application, desired.incarnation)
            for desired in self._state.desired.components.values()
            for trigger in desired.triggers
            if trigger.kind == TriggerKind.HTTP
        )
        routes = {route.text: route.component for route in self.table.routes}
        if routes != former:
            added = {route: to for route, to in routes.items() if former.get(route) != to}
            log.info("http.routes", added=added, removed=sorted(former.keys() - routes.keys()))
        for route in self.table.shadowed:
            log.warning("http.route-shadowed", route=route.text, component=route.component)
        for trigger, reason in broken.items():
            log.warning("http.route-invalid", trigger=trigger, reason=reason)

    # Answers

    def answer(self, request: HttpRequest, traceparent: str) -> HttpResponse | Awaitable[HttpResponse]:
        """The response, whatever happens."""
        component = self.table.find(request.authority, request.path)
        if component is None:
            return self._no_route(request)
        if self._in_progress >= self._limits.requests:
            error = Overloaded(f"this node has {self._limits.requests} requests in progress")
            return self._failure(request, error, component)
        budget = min(self._caller.budget_seconds(component), self._limits.request_seconds)
        deadline, call_id = now() + budget, new_call_id()
        try:
            handler = self._local.http(component)
            outcome: HttpResponse | Awaitable[HttpResponse]
            if handler is None:
                outcome = self._ask_others(component, request, deadline, call_id, traceparent)
            else:
                context = make_context(deadline=deadline, call_id=call_id, traceparent=traceparent)
                outcome = handler.handle(request, context)
                if isinstance(outcome, HttpResponse):
                    return outcome
                outcome = self._here_or_elsewhere(outcome, component, request, context)
        except LatticeError as error:
            return self._failure(request, error, component)
        except Exception:
            return self._node_failure(request, component)
        self._in_progress += 1
        return self._complete(outcome, component, request)

    async def _here_or_elsewhere(
        self, outcome: Awaitable[HttpResponse], component: str, request: HttpRequest, context: CallContext
    ) -> HttpResponse:
        try:
            return await outcome
        except (Unreachable, Overloaded):
            if not _is_untouched(request):
                raise
            deadline, traceparent = context.deadline, context.traceparent
            return await self._ask_others(component, request, deadline, context.call_id, traceparent)

    async def _complete(
        self, outcome: Awaitable[HttpResponse], component: str, request: HttpRequest
    ) -> HttpResponse:
        try:
            return await outcome
        except LatticeError as error:
            return self._failure(request, error, component)
        except Exception:
            return self._node_failure(request, component)
        finally:
            self._in_progress -= 1

    def _ask_others(
        self, component: str, request: HttpRequest, deadline: float, call_id: str, traceparent: str | None
    ) -> Awaitable[HttpResponse]:
        if not self._state.placements(component):
            deadline = min(deadline, now() + PATIENCE_SECONDS)
        call = make_call_request(
            component=component,
            interface=remote.INTERFACE,
            function=remote.FUNCTION,
            deadline=deadline,
            call_id=call_id,
            traceparent=traceparent,
            caller=self._name,
        )
        return remote.send(self._caller, call, request)

    # Failures

    def failed(self, request: HttpRequest, error: LatticeError) -> HttpResponse:
        """What to send instead of a component's response that can't be sent."""
        return self._failure(request, error, self.table.find(request.authority, request.path))

    def broke_off(self, request: HttpRequest, error: LatticeError) -> None:
        """Log that a response ended before its end."""
        if not is_clients_fault(request):
            component = self.table.find(request.authority, request.path)
            self._log.record("http.broken-off", request, error, component, error.error_id or new_error_id())

    def _failure(self, request: HttpRequest, error: LatticeError, component: str | None) -> HttpResponse:
        error_id = error.error_id or new_error_id()
        if not is_clients_fault(request):
            self._log.record("http.failed", request, error, component, error_id)
        return failures.response(failures.of_component(error, component, error_id), request.headers)

    def _node_failure(self, request: HttpRequest, component: str) -> HttpResponse:
        """For what can't happen; to be called where the exception is handled."""
        error_id = new_error_id()
        log.exception("http.failed", component=component, path=request.path, error_id=error_id)
        failure = Failure(
            status=502,
            code="failed",
            message="the node failed; its log has the reason under the error id",
            component=component,
            error_id=error_id,
        )
        return failures.response(failure, request.headers)

    def _no_route(self, request: HttpRequest) -> HttpResponse:
        host = request.authority.partition(":")[0]
        failure = Failure(
            status=404,
            code="not-found",
            message=f"no component has a route for {host}{request.path.partition('?')[0]}; "
            "`latticectl get routes` shows them, `latticectl route put HOST/PREFIX COMPONENT` makes one",
        )
        return failures.response(failure, request.headers)


class _FailureLines:
    """What is written of failed requests."""

    def __init__(self) -> None:
        self._limit = LineLimit(lambda omitted: log.warning("http.failures-omitted", count=omitted))

    def record(
        self, event: str, request: HttpRequest, error: LatticeError, component: str | None, error_id: str
    ) -> None:
        if not self._limit.lets_in():
            return
        log.warning(
            event,
            component=component,
            method=request.method,
            host=request.authority,
            path=request.path.partition("?")[0],  # a query may hold secrets
            code=error.code,
            reason=error.message,
            error_id=error_id,
        )


def _is_untouched(request: HttpRequest) -> bool:
    """Whether all of the body is still here, for another replica."""
    return isinstance(request.body, bytes) or getattr(request.body, "taken_bytes", 1) == 0
