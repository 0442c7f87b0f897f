"""zmreg itself, through its public names only."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module
from typing import Any

from benchmarks.jobs import Counter
from benchmarks.memory import ancestors
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

    def start_nodes(self, count: int, store_bytes: int | None = None) -> None:
        store = {"object_store_bytes": store_bytes} if store_bytes else {}
        nodes = [store, *({"resources": {"far": 1, f"far{number}": 1}, **store} for number in range(1, count))]
        self.cluster = import_module("zmreg.testing").LocalCluster(nodes=nodes)
        self.lib.init(address=self.cluster.address, key=self.cluster.key_file, log_to_driver=False)

    def stop(self) -> None:
        self.kept.clear()
        self.lib.shutdown()
        if self.cluster is not None:
            self.cluster.close()

    def task(self, function: Callable[..., object]) -> Call:
        call: Call = self.lib.remote(function).remote
        return call

    def far_task(self, function: Callable[..., object], node: int | None = None, retry: bool = True) -> Call:
        options: dict[str, Any] = {"resources": {f"far{node}" if node else "far": 0.01}}
        call: Call = self.lib.remote(function).options(**options, **({} if retry else {"max_retries": 0})).remote
        return call

    def far_actor(self) -> Call:
        actor = self.lib.remote(Counter).options(num_cpus=0, resources={"far": 0.01}).remote()
        self.kept.append(actor)
        call: Call = actor.inc.remote
        return call

    def kill_node(self, worker_pid: int) -> None:
        above = ancestors(worker_pid)
        (node,) = [node for node in self.cluster.nodes if node.pid in above]
        self.cluster.kill_node(node.node_id)

    def sent_bytes(self) -> float | None:
        links = self.lib.stats()["links"].values()
        return float(sum(link["bytes_sent"] + link["letter_bytes_sent"] for link in links))

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
