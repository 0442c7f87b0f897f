"""What tests ask a cluster of real nodes, and wait for: everything by observers, so that no seat is disturbed."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from tests.processes.drivers import eventually
from zmreg.services.setup.observer import Observer
from zmreg.services.setup.sessions import read_word
from zmreg.testing.cluster import LocalCluster, TestNode

PATIENCE_S = 30.0
# core/nodes.py: declared dead after 10 s of silence; two ticks and a probe beside it.
DEATH_S = 13.0


def ask(node: TestNode, topic: str, key: str = "") -> Any:
    """A node's answer about itself."""
    with Observer(read_word(node.session)) as observer:
        return observer.ask(topic, key)


def states(node: TestNode) -> dict[str, str]:
    """{node id: state} as one node sees it; those that are gone included."""
    return {row["NodeID"]: row["State"] for row in ask(node, "nodes")}


def log_of(node: TestNode) -> str:
    """What the node has logged."""
    return (node.session / "logs" / "node.log").read_text()


def until(is_so: Callable[[], Any], complaint: str, timeout: float = PATIENCE_S) -> Any:
    """What it says as soon as it is true."""
    return eventually(is_so, timeout, complaint)


def until_state(seen_by: TestNode, node_id: str, state: str, timeout: float = DEATH_S) -> float:
    """Wait until one node says so of another; the seconds it took."""
    began = time.monotonic()
    until(lambda: states(seen_by).get(node_id) == state, f"{node_id} is not {state} for {seen_by.address}", timeout)
    return time.monotonic() - began


def until_agreed(cluster: LocalCluster, timeout: float = PATIENCE_S) -> dict[str, Any]:
    """Wait until every replica is equal to what its writer has; {node id: answer to "network"}."""

    def agreed() -> dict[str, Any] | None:
        found = {node.node_id: ask(node, "network") for node in cluster.nodes}
        for me, answer in found.items():
            if {**answer["Parts"], me: None}.keys() != found.keys():
                return None
            if any(part != found[writer]["Own"] for writer, part in answer["Parts"].items()):
                return None
        return found

    found: dict[str, Any] = until(agreed, "the replicas differ", timeout)
    for answer in found.values():
        assert answer["Replica"]["digest_mismatches"] == 0
    return found


def end_of(cluster: LocalCluster, node_id: str, timeout: float = PATIENCE_S) -> int:
    """The exit code of a node's daemon, once it has ended; the cluster forgets it."""
    return cluster.await_end(node_id, timeout)
