"""zmreg: actors and tasks on ZeroMQ. Values stay where they were made; refs say where that is.

Names are loaded when they are first used: nodes and the command line import rooms of this package, and must have
neither what users type nor what unpickles.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from zmreg.model import errors

if TYPE_CHECKING:
    from zmreg.api.actors import ActorClass, ActorHandle, get_actor, kill, method
    from zmreg.api.calling import acall, call, describe, functions
    from zmreg.api.cluster import (
        available_resources,
        cancel,
        cluster_resources,
        gather,
        get,
        init,
        is_initialized,
        nodes,
        put,
        shutdown,
        stats,
        wait,
    )
    from zmreg.api.context import cancelled, exit_actor, get_gpu_ids, get_runtime_context
    from zmreg.api.coordination import as_completed, map, progress
    from zmreg.api.decorator import remote
    from zmreg.api.events import Event, Subscription, publish, subscribe
    from zmreg.api.executor import Executor
    from zmreg.api.functions import RemoteFunction
    from zmreg.api.locations import replicate, scatter, who_has
    from zmreg.api.named import register, serve, withdraw
    from zmreg.api.refs import ObjectRef
    from zmreg.api.strategies import NodeAffinitySchedulingStrategy
    from zmreg.api.upkeep import drain_node, interrupt, restart, wait_for_actors, wait_for_nodes
    from zmreg.flows.lowering import Graph
    from zmreg.flows.request import GraphResult, Run, arequest, request, start_request
    from zmreg.model.graphs import Lit, Ref, RPCCommand, Step

from zmreg.model.version import VERSION

__version__ = VERSION

__all__ = [
    "ActorClass",
    "ActorHandle",
    "Event",
    "Executor",
    "NodeAffinitySchedulingStrategy",
    "ObjectRef",
    "RemoteFunction",
    "Subscription",
    "acall",
    "as_completed",
    "available_resources",
    "call",
    "cancel",
    "cancelled",
    "cluster_resources",
    "describe",
    "drain_node",
    "errors",
    "exit_actor",
    "functions",
    "gather",
    "get",
    "get_actor",
    "get_gpu_ids",
    "get_runtime_context",
    "init",
    "interrupt",
    "is_initialized",
    "kill",
    "map",
    "method",
    "nodes",
    "progress",
    "publish",
    "put",
    "register",
    "remote",
    "replicate",
    "restart",
    "scatter",
    "serve",
    "shutdown",
    "stats",
    "subscribe",
    "wait",
    "wait_for_actors",
    "wait_for_nodes",
    "who_has",
    "withdraw",
    "Graph",
    "GraphResult",
    "Run",
    "arequest",
    "request",
    "start_request",
    "Lit",
    "Ref",
    "RPCCommand",
    "Step",
]

# Where each name lives; the same for type checkers above. A test holds the two, and __all__, together.
_HOMES = {
    "zmreg.api.actors": ("ActorClass", "ActorHandle", "get_actor", "kill", "method"),
    "zmreg.api.calling": ("acall", "call", "describe", "functions"),
    "zmreg.api.cluster": (
        "available_resources",
        "cancel",
        "cluster_resources",
        "gather",
        "get",
        "init",
        "is_initialized",
        "nodes",
        "put",
        "shutdown",
        "stats",
        "wait",
    ),
    "zmreg.api.context": ("cancelled", "exit_actor", "get_gpu_ids", "get_runtime_context"),
    "zmreg.api.coordination": ("as_completed", "map", "progress"),
    "zmreg.api.decorator": ("remote",),
    "zmreg.api.events": ("Event", "Subscription", "publish", "subscribe"),
    "zmreg.api.executor": ("Executor",),
    "zmreg.api.functions": ("RemoteFunction",),
    "zmreg.api.locations": ("replicate", "scatter", "who_has"),
    "zmreg.api.named": ("register", "serve", "withdraw"),
    "zmreg.api.refs": ("ObjectRef",),
    "zmreg.api.strategies": ("NodeAffinitySchedulingStrategy",),
    "zmreg.api.upkeep": ("drain_node", "interrupt", "restart", "wait_for_actors", "wait_for_nodes"),
    "zmreg.flows.lowering": ("Graph",),
    "zmreg.flows.request": ("GraphResult", "Run", "arequest", "request", "start_request"),
    "zmreg.model.graphs": ("Lit", "RPCCommand", "Ref", "Step"),
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

if not TYPE_CHECKING:  # who saw it would take any name for a good one

    def __getattr__(name: str) -> object:
        home = _HOME_OF.get(name)
        if home is None:
            raise AttributeError(f"module 'zmreg' has no attribute {name!r}")
        value = globals()[name] = getattr(import_module(home), name)
        return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
