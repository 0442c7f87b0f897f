"""`ray.util`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from importlib import import_module
from typing import Any

import zmreg
from zmreg.integrations.ray._absent import absent
from zmreg.integrations.ray._late import late
from zmreg.integrations.ray.util import (
    accelerators,
    actor_pool,
    metrics,
    placement_group,
    queue,
    rpdb,
    scheduling_strategies,
)
from zmreg.integrations.ray.util.check_serialize import inspect_serializability
from zmreg.integrations.ray.util.debug import disable_log_once_globally, enable_periodic_logging, log_once
from zmreg.integrations.ray.util.serialization import deregister_serializer, register_serializer

pdb = rpdb
_GROUPS = placement_group
# As in Ray, `ray.util.placement_group` is the function, and `from ray.util.placement_group import ...` the module.
globals()["placement_group"] = _GROUPS.placement_group


def as_completed(refs: Iterable[Any], chunk_size: int = 10, yield_obj_refs: bool = False) -> Iterator[Any]:
    """Values, or refs, as they come. `chunk_size` is not needed here."""
    for ref in zmreg.as_completed(refs):
        yield ref if yield_obj_refs else ref.get()


def map_unordered(fn: Any, items: Iterable[Any], backpressure_size: int = 100, **options: Any) -> Iterator[Any]:
    """`fn.remote(item)` for each; values as they come, with at most `backpressure_size` calls under way."""
    waiting = iter(items)
    done: zmreg.as_completed[Any] = zmreg.as_completed(
        fn.remote(item) for _, item in zip(range(backpressure_size), waiting, strict=False)
    )
    for ref in done:
        for item in waiting:
            done.add(fn.remote(item))
            break
        yield ref if options.get("yield_obj_refs") else ref.get()


def get_node_ip_address() -> str:
    """The address by which other machines know this one; 127.0.0.1 in a cluster that nobody can join."""
    own = zmreg.get_runtime_context().get_node_id()
    for node in zmreg.nodes():
        if node["NodeID"] == own and (host := str(node.get("Address") or "").rpartition(":")[0]):
            return host
    return "127.0.0.1"


def list_named_actors(all_namespaces: bool = False) -> list[Any]:
    """Names of living actors in this namespace; of all: `{"namespace": ..., "name": ...}` each."""
    rows = [row for row in zmreg.listing("actors") if row["Name"] and row["State"] != "DEAD"]
    if all_namespaces:
        return [{"namespace": row["Namespace"], "name": row["Name"]} for row in rows]
    own = zmreg.get_runtime_context().namespace
    return [row["Name"] for row in rows if row["Namespace"] == own]


def __getattr__(name: str) -> Any:
    if name == "ActorPool":
        return late(name, "ray.util")
    if name in ("dask", "joblib", "multiprocessing", "state"):  # late: guests, and what few programs use
        return import_module(f"{__name__}.{name}")
    if name in (
        "get_placement_group",
        "remove_placement_group",
        "placement_group_table",
        "get_current_placement_group",
    ):
        return getattr(_GROUPS, name)
    raise AttributeError(absent(f"util.{name}"))


__all__ = [
    "accelerators",
    "actor_pool",
    "as_completed",
    "deregister_serializer",
    "disable_log_once_globally",
    "enable_periodic_logging",
    "get_node_ip_address",
    "inspect_serializability",
    "list_named_actors",
    "log_once",
    "map_unordered",
    "metrics",
    "pdb",
    "placement_group",
    "queue",
    "register_serializer",
    "rpdb",
    "scheduling_strategies",
]
