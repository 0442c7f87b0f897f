"""zmreg itself, through its public names only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from benchmarks.jobs import Counter
from benchmarks.peers.base import Call, Feature, Handle, Peer


class Zmreg(Peer):
    """The embedded default: `init()` starts a node as a child process."""

    name = "zmreg"
    module = "zmreg"
    distribution = "zmreg"
    features = frozenset(Feature)

    def __init__(self) -> None:
        super().__init__()
        self.cluster: Any = None
        self.kept: list[Any] = []

    def start(self, workers: int, store_bytes: int | None = None) -> None:
        self.lib.init(num_cpus=workers, object_store_bytes=store_bytes, log_to_driver=False)

    def start_pair(self) -> None:
        nodes = [{"num_cpus": 1}, {"num_cpus": 1, "resources": {"far": 1}}]
        self.cluster = import_module("zmreg.testing").LocalCluster(nodes=nodes)
        self.cluster.__enter__()
        self.lib.init(address=self.cluster.address, log_to_driver=False)

    def stop(self) -> None:
        self.kept.clear()
        self.lib.shutdown()
        if self.cluster is not None:
            self.cluster.close()

    def task(self, function: Callable[..., object]) -> Call:
        call: Call = self.lib.remote(function).remote
        return call

    def far_task(self, function: Callable[..., object]) -> Call:
        call: Call = self.lib.remote(function).options(resources={"far": 0.01}).remote
        return call

    def settle(self, handle: Handle) -> None:
        self.lib.wait([handle], fetch_local=False)

    def fetch(self, handle: Handle) -> Any:
        return handle.get()

    def fetch_all(self, handles: Sequence[Handle]) -> list[Any]:
        return list(self.lib.get(handles))

    def put(self, value: object) -> Handle:
        return self.lib.put(value)

    def map(self, function: Callable[[Any], object], items: Sequence[Any]) -> list[Any]:
        return list(self.lib.map(function, items))

    def actors(self, count: int) -> list[Call]:
        actor_class = self.lib.remote(Counter)
        new = [actor_class.remote() for _ in range(count)]
        self.kept.extend(new)  # an actor ends with its last handle
        return [actor.inc.remote for actor in new]
