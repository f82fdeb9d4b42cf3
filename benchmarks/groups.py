"""The groups of benchmarks, in the order in which they run."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from benchmarks import call_path, calls, density, engine, failover, http, isolation, keyvalue, messaging, plan
from benchmarks.measurement import Effort, Row

GROUPS: Mapping[str, Callable[[Effort], Iterable[Row]]] = {
    "cold-call": engine.calls,
    "calls": calls.run,
    "call-path": call_path.run,
    "bytes": engine.byte_lists,
    "lag": isolation.lag,
    "parallel": isolation.parallel,
    "kill-replica": failover.kill_replica,
    "kill-controller": failover.kill_controller,
    "replicas": density.replicas,
    "components": density.components,
    "http": http.run,
    "keyvalue": keyvalue.run,
    "messaging": messaging.run,
    "plan": plan.run,
    "messages": plan.messages,
}
