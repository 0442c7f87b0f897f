"""What a node answers when asked about its state: plain containers, made from the machines' statistics.

Each node answers for itself; "nodes" and "available" are of the whole cluster, as this node sees it. What only the head
knows goes to the head, which answers whoever has asked.
"""

from __future__ import annotations

import contextlib
import os
import platform
import socket
import sys
import time
from collections.abc import Callable
from dataclasses import asdict
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zmreg.core.nodes import NodeState
from zmreg.core.placement import role
from zmreg.model.ids import node_of, owner_of
from zmreg.model.messages import Answer, Ask, NodeRecord
from zmreg.model.specs import CPU, UNIT
from zmreg.model.version import VERSION
from zmreg.services.calling.manners import UNSEEN, read
from zmreg.services.head.head import Head
from zmreg.services.machine import job_logs
from zmreg.services.network.network_views import network
from zmreg.services.node import on_demand
from zmreg.services.node.object_views import cache, held, holders, links
from zmreg.services.node.restarting import RESTART
from zmreg.services.worker.voice import without_marks
from zmreg.store.board import described, showing
from zmreg.wire import batches, codec

if TYPE_CHECKING:
    from zmreg.model.record import Resources
    from zmreg.services.node.node import Node

HEAD_TOPICS = frozenset({RESTART, "actor", "actors", "groups", "jobs", "submission", "submissions"})
# A page of a log fits in one envelope (wire/codec.py) many times over.
LOG_BYTES = 256 * 1024
DRAIN = "drain"
NODE_LOG = "node"
WORKERS = "workers"
OUTPUT = "output"
JOB_LOG = "job_log"
EVENTS = "events"
# Of kept events in one answer; a single one is smaller.
EVENTS_BYTES = 1 << 20
# Asked of the node that the key begins with, if it does; else of the one that is asked.
NODE_TOPICS = frozenset({DRAIN, EVENTS, WORKERS, OUTPUT, JOB_LOG, "calls", "profile", "queued", "stopped", "why"})
# These are answered later, when the processes here have answered (services/node/looks.py).
LOOK_TOPICS = frozenset({"calls", "memory", "metrics", "profile", "queued", "stacks", "stopped", "why"})


def hear(node: Node, sender: bytes, question: Ask) -> None:
    """Answer a question, or pass it on to the head. One whose key makes no sense is answered with nothing."""
    try:
        _hear(node, sender, question)
    except ValueError:
        node.protocol_errors += 1
        node.post(sender, Answer(question.request, False, batches.pack_plain(None)))


def _hear(node: Node, sender: bytes, question: Ask) -> None:
    if question.topic in HEAD_TOPICS and not isinstance(node.head, Head):
        node.head.hears(sender, question)
        return
    if question.topic == RESTART:
        node.restarting.begin(sender, question.request)
        return
    if question.topic in NODE_TOPICS and (other := bytes.fromhex(question.key.partition(" ")[0])) in node.other_nodes():
        node.ends.far(other, sender, codec.encode(question))
        return
    if question.topic in LOOK_TOPICS:
        on_demand.looks(node).hear(sender, question)
        return

    def reply() -> None:
        found = answer(node, question.topic, question.key)
        node.post(sender, Answer(question.request, found is not None, batches.pack_plain(found)))

    if question.topic == OUTPUT:
        node.spoken.finish(reply)
    elif question.topic in HEAD_TOPICS and isinstance(node.head, Head) and node.head.keeping is not None:
        node.head.keeping.when_kept(reply)  # what is answered about names has to outlive us
    else:
        reply()


def answer(node: Node, topic: str, key: str) -> Any:
    """The answer to `Ask(topic, key)`; None when there is no such thing."""
    match topic:
        case "assigned":
            return node.leases.assigned(bytes.fromhex(key))
        case _ if topic == DRAIN:
            return node.departure.order(key)
        case "holders":
            return holders(node, key)
        case "held":
            return held(node, key)
        case "objects":
            return [list(row) for row in node.store.table.top(int(key or "100"))]
        case "functions":
            return node.functions.rows_of(key)
        case "log":
            return _log(node, key)
        case "actor":
            return _actor(node, key)
        case "actors":
            return _actors(node, int(key or sys.maxsize))
        case "submission" | "submissions" if isinstance(node.head, Head):
            return node.head.jobs.submitted(topic, key)
        case "job_log":
            return _job_log(node, key)
        case "events":
            return _events(node, key)
        case _:
            view = _VIEWS.get(topic)
            return None if view is None else view(node)


# -- actors: the head's ------------------------------------------------------------------------------------------------


def _actor(node: Node, key: str) -> Any:
    head = node.head
    if not isinstance(head, Head):
        return None
    namespace, _, name = key.partition("\0")
    entry = head.actors.lookup(namespace, name)
    if entry is None or entry.actor_id not in head.creations:
        return None
    creation = head.creations[entry.actor_id]
    return {"actor_id": entry.actor_id, "handle": creation.handle, "class_name": creation.class_name}


def _actors(node: Node, most: int) -> Any:
    """The oldest first; with `most` the newest of them, so that who looks on often costs little."""
    head = node.head
    if not isinstance(head, Head):
        return None
    rows = []
    newest = islice(reversed(head.creations.items()), max(0, most))
    for actor_id, creation in reversed(list(newest)):
        if actor_id in head.actors:
            worker = head.actors.worker(actor_id)
            rows.append(
                {
                    "ActorID": actor_id.hex(), "ClassName": creation.class_name, "Name": creation.name,
                    "Namespace": creation.namespace, "State": str(head.actors.state(actor_id)),
                    "NumRestarts": head.actors.restarts(actor_id), "WorkerID": worker.hex(),
                    "NodeID": node_of(worker).hex() if worker else "", "OwnerID": owner_of(actor_id).hex(),
                }
            )  # fmt: skip
    return rows


# -- nodes -------------------------------------------------------------------------------------------------------------


def _nodes(node: Node) -> list[dict[str, Any]]:
    """This node first, then the others as they came, then those that are gone."""
    neighbours = node.neighbours
    if neighbours is None:
        return [_alone(node)]
    members = neighbours.members
    rows = []
    for record in [neighbours.view()[0], *(each for each in members.records() if each.node != node.me)]:
        state = members.state(record.node) or NodeState.ALIVE
        rows.append(_row(record, state, ""))
    return rows + [_row(gone.record, gone.state, gone.reason) for gone in members.departed()]


def _row(record: NodeRecord, state: NodeState, reason: str) -> dict[str, Any]:
    """Ray's names, and ours beside them. A suspected node is alive until the head says otherwise."""
    alive = state in (NodeState.ALIVE, NodeState.SUSPECTED)
    shown = "DRAINING" if record.draining and state is NodeState.ALIVE else str(state)
    return {
        "NodeID": record.node.hex(), "Alive": alive, "State": shown, "Reason": reason, "NodeName": record.name,
        "NodeManagerHostname": record.name, "NodeManagerAddress": record.host, "NodeManagerPort": record.port,
        "PubPort": record.pub_port, "Address": f"{record.host}:{record.port}", "IsHead": record.is_head,
        "Resources": _floats(record.total) if alive else {}, "Available": _floats(record.available) if alive else {},
        "Locs": list(record.locs), "Labels": dict(record.labels), "Role": role(record), "Pid": record.pid,
        "Python": record.python, "Version": record.version, "ObjectStoreBytes": record.store_bytes,
        "ObjectStoreUsedBytes": record.store_used_bytes, "Workers": record.workers, "Waiting": record.waiting,
    }  # fmt: skip


def _alone(node: Node) -> dict[str, Any]:
    leases, name = node.leases.statistics(), socket.gethostname()
    record = NodeRecord(
        node.me, name, "127.0.0.1", 0, 0, True, platform.python_version(), VERSION, os.getpid(),
        tuple(sorted(node.total.items())), leases.available, node.settings.locs, node.store.nbytes,
        node.store.used_bytes(), leases.workers, leases.waiting, labels=tuple(sorted(node.settings.labels.items())),
    )  # fmt: skip
    return {**_row(record, NodeState.ALIVE, ""), "Address": ""}


def _available(node: Node) -> dict[str, float]:
    total: dict[str, float] = {}
    for row in _nodes(node):
        for name, amount in row["Available"].items():
            total[name] = total.get(name, 0.0) + amount
    return total


def _floats(resources: Resources) -> dict[str, float]:
    return {name: units / UNIT for name, units in resources if "_group_" not in name}


def cpus(node: Node) -> float:
    """What all living nodes have."""
    if node.neighbours is None:
        return node.settings.num_cpus
    return sum(dict(record.total).get(CPU, 0) for record in node.neighbours.view()) / UNIT


# -- this node alone ---------------------------------------------------------------------------------------------------


def _workers(node: Node) -> list[dict[str, Any]]:
    return [
        {
            "WorkerID": child.worker.hex(), "NodeID": node.me.hex(), "Pid": child.pid, "Name": child.name,
            "Ready": child.ready, "State": node.leases.use_of(child.worker) or "starting",
            "IdleSeconds": node.leases.idle_for(child.worker), "Assigned": node.leases.assigned(child.worker),
            "HouseID": child.house.hex(),
        }
        for child in node.nursery.children.values()
    ]  # fmt: skip


def _tasks(node: Node) -> list[dict[str, Any]]:
    """What the workers are in at this moment, from their boards: calls of tasks and of actors alike.

    An actor's board goes on to show its last call (its answer may be lost with the process): LATEST is that or RUNNING.
    """
    session, rows = Path(node.config["session"]), []
    for child in node.nursery.children.values():
        board = session / f"{child.worker.hex()}.now"
        task_id = showing(board)
        manner = read(described(board, task_id)) if task_id else UNSEEN
        if manner.listed:
            use = node.leases.use_of(child.worker)
            rows.append(
                {
                    "TaskID": task_id.hex(),
                    "State": "LATEST" if child.is_actor else "BLOCKED" if use == "blocked" else "RUNNING",
                    "Type": "ACTOR_TASK" if child.is_actor else "TASK",
                    "Name": manner.name or child.name,
                    "OwnerID": owner_of(task_id).hex(), "WorkerID": child.worker.hex(), "NodeID": node.me.hex(),
                    "Pid": child.pid, "Assigned": node.leases.assigned(child.worker), "Labels": dict(manner.labels),
                }
            )  # fmt: skip
    return rows


def _log(node: Node, key: str) -> dict[str, Any] | None:
    """A page of a log of this node: `key` is "NAME OFFSET", NAME a worker's id, `node` or `load-0`. A negative offset
    counts from the end."""
    name, _, offset = key.partition(" ")
    known = name == NODE_LOG or all(character in "0123456789abcdef" for character in name.removeprefix("load-"))
    path = Path(node.config["session"]) / "logs" / f"{name}.log"
    if not known or not offset.lstrip("-").isdigit():
        return None
    with contextlib.suppress(OSError), path.open("rb") as file:
        size = file.seek(0, os.SEEK_END)
        start = max(0, size + int(offset)) if int(offset) < 0 else int(offset)
        if start > size:  # it was cut to nothing and goes on at its start
            start = 0
        file.seek(start)
        data = file.read(LOG_BYTES)
        last = data.rfind(b"\n") + 1
        if data[last : last + 1] == b"\x1e":  # a mark is cut here: the next page has it whole
            data = data[:last]
        return {"data": without_marks(data), "start": start, "next": start + len(data), "size": size}
    return None


def _job_log(node: Node, key: str) -> dict[str, Any] | None:
    """A page of the log of a job that has run here: `key` is "NODE SUPERVISOR OFFSET", by the first byte ever printed;
    a negative offset counts from the end."""
    where, supervisor, offset = key.split(" ")
    if bytes.fromhex(where) != node.me:
        return None
    name = bytes.fromhex(supervisor).hex()  # and so no other path
    return job_logs.page(Path(node.config["session"]) / job_logs.DIRECTORY / name, int(offset), LOG_BYTES)


def _events(node: Node, key: str) -> list[Any] | None:
    """[rows, whether there are older ones] of what is kept here: `key` is "NODE MOST BEFORE PATTERN", BEFORE a row's
    number, or 0 for the newest."""
    where, most, before, pattern = key.split(" ", 3)
    if bytes.fromhex(where) != node.me:
        return None
    if node.topics is None:
        return [[], False]
    rows, older = node.topics.kept.page(pattern, int(most), EVENTS_BYTES, int(before))
    return [[list(row) for row in rows], older]


def _health(node: Node) -> dict[str, Any]:
    neighbours = node.neighbours
    return {
        "NodeID": node.me.hex(), "Time": time.time(), "Version": VERSION, "Python": platform.python_version(),
        "IsHead": neighbours is None or neighbours.is_head, "Cluster": node.cluster,
        "HeadLost": neighbours is not None and (neighbours.members.head_lost or neighbours.members.head is None),
        "Zygote": node.nursery.zygote_pid, "Clients": len(node.clients), "ProtocolErrors": node.protocol_errors,
    }  # fmt: skip


def _stats(node: Node) -> dict[str, Any]:
    leases = asdict(node.leases.statistics())
    leases["available"] = {name: units / UNIT for name, units in leases["available"]}
    return {
        "store": asdict(node.store.table.statistics()),
        "links": links(node),
        "cache": cache(node),
        "leases": leases,
        "actors": asdict(node.head.actors.statistics()) if isinstance(node.head, Head) else {},
        "memory": node.guard.statistics(),
        "adopted": len(node.adoption),
        "protocol_errors": node.protocol_errors,
        "zygote_pid": node.nursery.zygote_pid,
    }


_VIEWS: dict[str, Callable[[Node], Any]] = {
    "available": _available,
    "groups": lambda node: on_demand.groups(node).rows(),
    "health": _health,
    "jobs": lambda node: node.head.jobs.rows() if isinstance(node.head, Head) else None,
    "network": network,
    "nodes": _nodes,
    "stats": _stats,
    "tasks": _tasks,
    WORKERS: _workers,
}
