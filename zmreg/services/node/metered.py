"""What a node knows of its processes' metrics, and what it says of itself when somebody asks.

Nothing is counted here that was not counted anyway; figures are made of the machines' statistics when they are asked
for. What has to be read from /proc is read by the thread that lives as long as one question does (looks.py).
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from zmreg.model.errors import ProtocolError
from zmreg.model.look_messages import Measured
from zmreg.model.specs import UNIT
from zmreg.model.version import VERSION
from zmreg.services.head.head import Head
from zmreg.services.node import views
from zmreg.services.node.object_views import links
from zmreg.telemetry.families import COUNTER, GAUGE, Family, Labels, Value, added, read
from zmreg.telemetry.tally import Tally
from zmreg.wire import batches

if TYPE_CHECKING:
    from zmreg.services.node.node import Node

log = logging.getLogger("zmreg.metrics")


class Metered:
    """One node's, from the first question or word about metrics on."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._tally = Tally()

    def hear(self, process: bytes, message: Measured) -> None:
        """A process of ours has counted."""
        node = self._node
        if process not in node.clients:  # it is gone, and so is what it measured
            return
        try:
            families = read(batches.unpack_plain(message.body))
        except (ProtocolError, ValueError, TypeError, OverflowError):
            node.protocol_errors += 1
            return
        for name in self._tally.hear(process, families):
            log.warning("metric %s: some of what process %s counts is not taken; see docs/guides/metrics.md", name,
                        process.hex())  # fmt: skip

    def gone(self, process: bytes) -> None:
        """It has ended; what it has counted stays."""
        self._tally.gone(process)

    def rows(self, usage: Mapping[str, tuple[float, float, float]], asked_at: float) -> list[list[Any]]:
        """All families of this node, as they travel. `usage`: as `usage_of`; `asked_at`: time.monotonic() when the loop
        was woken to say this."""
        lag_s = time.monotonic() - asked_at
        own = [*_work(self._node), *_values(self._node), *_network(self._node), *_processes(usage, lag_s)]
        if isinstance(self._node.head, Head):
            own += _cluster(self._node, self._node.head)
        return [family.as_row() for family in added([*own, *self._tally.families()]).values()]


# -- what a node says of itself ----------------------------------------------------------------------------------------


def _gauge(name: str, text: str, label: str, series: Mapping[str, float]) -> Family:
    return Family(f"zmreg_{name}", GAUGE, text, (label,), series=_by(series))


def _counter(name: str, text: str, label: str, series: Mapping[str, float]) -> Family:
    return Family(f"zmreg_{name}_total", COUNTER, text, (label,), series=_by(series))


def _one(name: str, text: str, value: float, kind: str = GAUGE) -> Family:
    return Family(f"zmreg_{name}", kind, text, series={(): float(value)})


def _by(series: Mapping[str, float]) -> dict[Labels, Value]:
    return {(value,): float(amount) for value, amount in series.items()}


def _work(node: Node) -> list[Family]:
    """Tasks, workers, resources."""
    leases = node.leases.statistics()
    states = [row["State"] for row in views._tasks(node) if row["Type"] == "TASK"]
    free = dict(leases.available)
    resources: dict[Labels, Value] = {}
    for name, units in node.total.items():
        left = free.get(name, 0) / UNIT
        resources[name, "available"], resources[name, "used"] = left, units / UNIT - left
    memory = node.guard.statistics()
    return [
        _gauge("tasks", "Calls of tasks and actors by state; running and blocked ones are submitted, too.", "state", {
            "running": states.count("RUNNING"), "blocked": states.count("BLOCKED"),
        }),
        _gauge("workers", "Worker processes by state; blocked ones are leased, too.", "state", {
            "starting": leases.starting, "idle": leases.idle, "leased": leases.leased, "blocked": leases.blocked,
            "actor": leases.actors,
        }),
        _one("leases_waiting", "Leases that owners want and that cannot be granted now.", leases.waiting),
        Family("zmreg_resources", GAUGE, "Amounts to hand out, by what has become of them.", ("resource", "state"),
               series=resources),
        _one("memory_ended_total", "Workers ended for want of memory.", float(memory["ended"]), COUNTER),
    ]  # fmt: skip


def _values(node: Node) -> list[Family]:
    """The store."""
    store = node.store.table.statistics()
    return [
        _gauge("object_store_bytes", "The store in shared memory, by what is in it; cached: copies of others' values.",
               "location", {
            "primary": store.used_bytes - store.cached_bytes, "cached": store.cached_bytes,
            "free": max(0, store.budget_bytes - store.used_bytes),
        }),
        _gauge("objects", "Stored values, by where they are.", "state", {
            "memory": store.sealed - store.spilled, "spilled": store.spilled,
        }),
        _one("objects_pinned", "Stored values that somebody reads.", store.pinned),
        _one("object_store_waiting", "Creators and readers that wait for room in the store.", store.waiting),
        _one("spill_bytes_total", "Written to disk for want of room.", store.spilled_bytes_total, COUNTER),
        _one("restore_bytes_total", "Read back from disk.", store.restored_bytes_total, COUNTER),
        _one("evicted_bytes_total", "Copies of other nodes' values that were dropped for want of room.",
             store.evicted_bytes_total, COUNTER),
    ]  # fmt: skip


def _network(node: Node) -> list[Family]:
    """The node's part in the cluster."""
    found = [_one("protocol_errors_total", "Messages that made no sense.", node.protocol_errors, COUNTER)]
    neighbours = node.neighbours
    name, is_head = os.uname().nodename, True
    if neighbours is not None:
        record = neighbours.view()[0]
        name, is_head = record.name, record.is_head
        found += _links(node)
        replica = node.registry.replica.statistics()
        gate = neighbours.gatekeeper
        fetches = neighbours.fetcher.fetching.statistics()
        found += [
            _counter("fetches", "Values of other nodes that were to be fetched, by outcome.", "outcome", {
                "completed": fetches.completed, "failed": fetches.failed,
            }),
            _one("registry_gap_total", "Gaps noticed in what other nodes say they hold.", replica.gaps, COUNTER),
            _one("registry_replay_total", "Gaps mended by having it said again.", replica.replays, COUNTER),
            _one("registry_digest_mismatch_total", "Replicas that were not equal to the original.",
                 replica.digest_mismatches, COUNTER),
            _one("link_lost_total", "Connections to other nodes that have ended, and are made anew.",
                 neighbours.link_counts().get("lost", 0), COUNTER),
            _one("auth_rejected_total", "Connections refused for want of the cluster's key.", gate.rejected, COUNTER),
        ]  # fmt: skip
    labels = ("name", "head", "version")
    info: dict[Labels, Value] = {(name, "yes" if is_head else "no", VERSION): 1.0}
    return [Family("zmreg_node_info", GAUGE, "Always 1: what the node is.", labels, series=info), *found]


def _links(node: Node) -> list[Family]:
    each = links(node).values()
    parts = {"in": "received", "out": "sent"}
    return [
        _counter("fetch_bytes", "Of values, from and to other nodes.", "dir", {
            way: sum(link[f"bytes_{part}"] for link in each) for way, part in parts.items()
        }),
        _counter("letter_bytes", "Of calls, results and other messages, from and to other nodes.", "dir", {
            way: sum(link[f"letter_bytes_{part}"] for link in each) for way, part in parts.items()
        }),
    ]  # fmt: skip


def _processes(usage: Mapping[str, tuple[float, float, float]], lag_s: float) -> list[Family]:
    cpu, resident, fds = ({role: each[place] for role, each in usage.items()} for place in range(3))
    return [
        _counter("process_cpu_seconds", "Of the node's process, and of its workers, ended ones too.", "role",
                 cpu),
        _gauge("process_resident_bytes", "Memory of the same; what they share is in each.", "role", resident),
        _gauge("process_open_fds", "Open files of the same.", "role", fds),
        _one("loop_lag_seconds", "How long the node's loop took to turn to this question.", lag_s),
    ]  # fmt: skip


def _cluster(node: Node, head: Head) -> list[Family]:
    """What only the head knows: of the cluster, and not of a node."""
    actors = head.actors.statistics()
    rows = [row["State"] for row in views._nodes(node)]
    states = {state: rows.count(state.upper()) for state in ("alive", "suspected", "draining", "dead", "left")}
    found = [
        _gauge("nodes", "Nodes by state.", "state", states),
        _gauge("actors", "Actors by state.", "state", {
            "pending": actors.pending, "starting": actors.starting, "alive": actors.alive,
            "restarting": actors.restarting, "dead": actors.dead,
        }),
        _one("actor_restarts_total", "Actors that were started again.", actors.restarts, COUNTER),
    ]  # fmt: skip
    return [family.but(whole=True) for family in found]
