"""The workloads, by name, in the order of the tables."""

from __future__ import annotations

from importlib import import_module
from typing import Final

from benchmarks.workloads.base import Context, Figure, Figures, Target, Workload

NAMES: Final = (
    "bare_echo",
    "bare_relay",
    "task_latency",
    "actor_latency",
    "task_throughput",
    "actor_throughput",
    "map_noop",
    "streaming",
    "pipeline",
    "stream_memory",
    "put_small",
    "chain",
    "tree_reduce",
    "put_100mb",
    "return_100mb",
    "fanout_100mb",
    "arg_100mb",
    "peer_fetch",
    "far_call",
    "broadcast",
    "node_death",
    "registry",
    "central",
    "named_call",
    "request_chain",
    "request_fanout",
    "request_many",
    "request_bytes",
    "request_tracing",
    "ledger",
    "sinks",
    "run_resume",
    "startup",
    "import_time",
    "skew",
    "caller_threads",
    "many_actors",
    "idle_memory",
    "put_flat",
    "shared_read",
)


def workload(name: str) -> Workload:
    """The workload of that name, imported now. Raises KeyError, naming all, when there is none."""
    if name not in NAMES:
        raise KeyError(f"no workload {name!r}; there are: {', '.join(NAMES)}")
    found: Workload = import_module(f"benchmarks.workloads.{name}").WORKLOAD
    return found


__all__ = ["NAMES", "Context", "Figure", "Figures", "Target", "Workload", "workload"]
