"""What a node answers when asked about its state: plain containers, made from the machines' statistics."""

from __future__ import annotations

import os
import socket
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from zmreg.model.specs import UNIT

if TYPE_CHECKING:
    from zmreg.services.node import Node


def answer(node: Node, topic: str, key: str) -> Any:
    """The answer to `Ask(topic, key)`; None when there is no such thing."""
    match topic:
        case "actor":
            return _actor(node, key)
        case "actors":
            return [
                {
                    "ActorID": each.hex(), "ClassName": creation.class_name, "Name": creation.name,
                    "State": str(node.head.actors.state(each)), "NumRestarts": node.head.actors.restarts(each),
                }
                for each, creation in node.head.creations.items()
                if each in node.head.actors
            ]  # fmt: skip
        case "assigned":
            return node.leases.assigned(bytes.fromhex(key))
        case "nodes":
            return [_node(node)]
        case "available":
            return {name: units / UNIT for name, units in node.leases.statistics().available}
        case "workers":
            return [
                {"WorkerID": child.worker.hex(), "Pid": child.pid, "Name": child.name, "Ready": child.ready}
                for child in node.nursery.children.values()
            ]
        case "objects":
            return [list(row) for row in node.store.table.top(int(key or "100"))]
        case "output":
            node.tell_output()
            return True
        case "stats":
            return _stats(node)
        case _:
            return None


def _actor(node: Node, key: str) -> Any:
    namespace, _, name = key.partition("\0")
    entry = node.head.actors.lookup(namespace, name)
    if entry is None or entry.actor_id not in node.head.creations:
        return None
    creation = node.head.creations[entry.actor_id]
    return {"actor_id": entry.actor_id, "handle": creation.handle, "class_name": creation.class_name}


def _node(node: Node) -> dict[str, Any]:
    return {
        "NodeID": node.me.hex(),
        "Alive": True,
        "NodeManagerHostname": socket.gethostname(),
        "NodeManagerAddress": "127.0.0.1",
        "Resources": {name: units / UNIT for name, units in node.total.items()},
        "Locs": list(node.settings.locs),
        "Pid": os.getpid(),
        "ObjectStoreBytes": node.store.nbytes,
    }


def _stats(node: Node) -> dict[str, Any]:
    leases = asdict(node.leases.statistics())
    leases["available"] = {name: units / UNIT for name, units in leases["available"]}
    return {
        "store": asdict(node.store.table.statistics()),
        "leases": leases,
        "actors": asdict(node.head.actors.statistics()),
        "adopted": len(node.adoption),
        "protocol_errors": node.protocol_errors,
        "zygote_pid": node.nursery.zygote_pid,
    }
