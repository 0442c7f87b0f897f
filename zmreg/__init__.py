"""zmreg: actors and tasks on ZeroMQ. Values stay where they were made; refs say where that is."""

from zmreg.api.actors import ActorClass, ActorHandle, get_actor, kill, method
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
    who_has,
)
from zmreg.api.context import cancelled, exit_actor, get_runtime_context
from zmreg.api.coordination import Executor, as_completed, map, progress
from zmreg.api.decorator import remote
from zmreg.api.functions import RemoteFunction
from zmreg.api.refs import ObjectRef
from zmreg.model import errors

__version__ = "0.1.0"

__all__ = [
    "ActorClass",
    "ActorHandle",
    "Executor",
    "ObjectRef",
    "RemoteFunction",
    "as_completed",
    "available_resources",
    "cancel",
    "cancelled",
    "cluster_resources",
    "errors",
    "exit_actor",
    "gather",
    "get",
    "get_actor",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "map",
    "method",
    "nodes",
    "progress",
    "put",
    "remote",
    "shutdown",
    "stats",
    "wait",
    "who_has",
]
