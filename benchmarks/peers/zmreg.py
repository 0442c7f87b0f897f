"""zmreg itself, through its public names only."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from functools import partial
from importlib import import_module
from typing import Any

from benchmarks.jobs import Counter
from benchmarks.memory import ancestors
from benchmarks.peers.base import Call, Feature, GraphStep, Handle, Peer
from benchmarks.serving import named, program


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
        self.programs = ExitStack()

    def start(self, workers: int, store_bytes: int | None = None) -> None:
        self.lib.init("local", num_cpus=workers, object_store_bytes=store_bytes, log_to_driver=False)

    def start_nodes(self, count: int, store_bytes: int | None = None) -> None:
        store = {"object_store_bytes": store_bytes} if store_bytes else {}
        nodes = [store, *({"resources": {"far": 1, f"far{number}": 1}, **store} for number in range(1, count))]
        self.cluster = import_module("zmreg.testing").LocalCluster(nodes=nodes)
        self.lib.init(address=self.cluster.address, key=self.cluster.key_file, log_to_driver=False)

    def stop(self) -> None:
        self.kept.clear()
        self.programs.close()
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
        return self._link_bytes("sent")

    def received_bytes(self) -> float | None:
        return self._link_bytes("received")

    def _link_bytes(self, way: str) -> float:
        links = self.lib.stats()["links"].values()
        return float(sum(link[f"bytes_{way}"] + link[f"letter_bytes_{way}"] for link in links))

    def serve(self, functions: Sequence[Callable[..., object]], nodes: Sequence[int]) -> None:
        names = [function.__name__ for function in functions]
        for node in nodes:
            address = self.cluster.nodes[node].address
            self.programs.enter_context(program(address, str(self.cluster.key_file), node, names))

    def named(self, function: Callable[..., object], node: int) -> Callable[..., Any]:
        return partial(self.lib.call, named(function.__name__, node))

    def graph(self, steps: Sequence[GraphStep]) -> list[Any]:
        asked = [(name, named(function.__name__, node), args) for name, function, args, node in steps]
        return list(self.lib.request(asked).values())

    def settle(self, handle: Handle) -> None:
        self.lib.wait([handle], fetch_local=False)

    def fetch(self, handle: Handle) -> Any:
        return handle.get()

    def fetch_all(self, handles: Sequence[Handle]) -> list[Any]:
        return list(self.lib.get(handles))

    def put(self, value: object) -> Handle:
        return self.lib.put(value)

    def stream(self, function: Callable[[int], object], count: int, bound: int | None) -> Iterable[Handle]:
        options = {} if bound is None else {"_generator_backpressure_num_objects": bound}
        handles: Iterable[Handle] = self.lib.remote(function).options(**options).remote(count)
        return handles

    def pipeline(
        self, functions: Sequence[Callable[[Any], object]], items: Iterable[Any], apart: bool
    ) -> Iterable[Any]:
        pipe = self.lib.Pipeline()
        for function in functions:
            pipe |= function
        outputs: Iterable[Any] = pipe.stream(items, buffer=64, fuse=not apart)
        return outputs

    def map(self, function: Callable[[Any], object], items: Sequence[Any]) -> list[Any]:
        return list(self.lib.map(function, items))

    def actors(self, count: int) -> list[Call]:
        actor_class = self.lib.remote(Counter)
        new = [actor_class.remote() for _ in range(count)]
        self.kept.extend(new)  # an actor ends with its last handle
        return [actor.inc.remote for actor in new]
