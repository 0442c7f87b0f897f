"""Processes that publish and subscribe, for tests, and what is waited for about them."""

from __future__ import annotations

import os
import time
from typing import Any

import zmreg
from tests.processes.clusters import ask, until
from zmreg.testing.cluster import LocalCluster

PATIENCE_S = 30.0


@zmreg.remote(num_cpus=0)
class Peer:
    """A process on some node."""

    def pid(self) -> int:
        return os.getpid()

    def subscribe(self, pattern: str, backlog: int = 1000) -> str:
        self.subscription = zmreg.subscribe(pattern, backlog=backlog)
        return repr(self.subscription)

    def read(self, count: int) -> list[zmreg.Event]:
        return [self.subscription.get(timeout=PATIENCE_S) for _ in range(count)]

    def until_last(self, last: object) -> tuple[int, int]:
        """(read, dropped) when that value has come."""
        read = 1
        while self.subscription.get(timeout=PATIENCE_S).value != last:
            read += 1
        return read, self.subscription.dropped

    def close(self) -> None:
        self.subscription.close()

    def publish(self, topic: str, values: list[Any]) -> float:
        began = time.monotonic()
        for value in values:
            zmreg.publish(topic, value)
        return time.monotonic() - began

    def log(self, topic: str, values: list[Any]) -> str:
        """The id of the node that keeps them."""
        for value in values:
            zmreg.log_event(topic, value)
        return str(zmreg.get_runtime_context().get_node_id())

    def log_and_end(self, topic: str, count: int) -> None:
        self.log(topic, list(range(count)))
        zmreg.exit_actor()

    def kept(self, pattern: str, limit: int = 1000) -> list[zmreg.KeptEvent]:
        return zmreg.get_events(pattern, limit=limit)

    def publish_and_end(self, topic: str, count: int) -> None:
        for number in range(count):
            zmreg.publish(topic, number)
        zmreg.exit_actor()


def peer_on(loc: str) -> Any:
    return Peer.options(locs={loc}).remote()


def until_known(cluster: LocalCluster, *patterns: str) -> None:
    """Wait until every node knows that somebody listens to these."""
    for node in cluster.nodes:
        until(lambda node=node: set(patterns) <= set(ask(node, "network")["Topics"]["Patterns"]), f"{patterns} unknown")
