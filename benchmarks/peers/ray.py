"""Ray, without its dashboard, log forwarding and usage reports."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from importlib import import_module
from typing import Any

from benchmarks.jobs import Counter
from benchmarks.memory import ancestors
from benchmarks.peers.base import Call, Feature, GraphStep, Handle, Peer, bind


class Ray(Peer):
    """A local Ray cluster, started by `ray.init()`."""

    name = "ray"
    module = "ray"
    distribution = "ray"
    features = frozenset(Feature) - {
        Feature.REGISTRY,
        Feature.NAMES,
        Feature.TRACING,
        Feature.LEDGER,
        Feature.SINKS,
        Feature.RUNS,
    }
    max_rounds = 2

    def __init__(self) -> None:
        super().__init__()
        self.cluster: Any = None
        self.pool: Any = None
        self.workers = 0
        self.kept: list[Any] = []
        self.remotes: dict[tuple[Callable[..., object], int | None], Any] = {}

    def load(self) -> None:
        os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
        sys.setrecursionlimit(100_000)  # its graphs are walked by recursion: a chain of 1,000 goes 20,000 frames deep
        os.environ["RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO"] = "0"  # silences a warning printed at every start
        super().load()

    def start(self, workers: int, store_bytes: int | None = None) -> None:
        self.workers = workers
        self.lib.init(
            num_cpus=workers,
            object_store_memory=store_bytes,
            include_dashboard=False,
            log_to_driver=False,
            logging_level="ERROR",
        )

    def start_nodes(self, count: int, store_bytes: int | None = None) -> None:
        cluster_class = import_module("ray.cluster_utils").Cluster
        store = {"object_store_memory": store_bytes} if store_bytes else {}
        head = {"num_cpus": 1, "include_dashboard": False, **store}
        self.cluster = cluster_class(initialize_head=True, head_node_args=head)
        for number in range(1, count):
            self.cluster.add_node(num_cpus=1, resources={"far": 1, f"far{number}": 1}, **store)
        self.lib.init(address=self.cluster.address, log_to_driver=False, logging_level="ERROR")

    def stop(self) -> None:
        self.kept.clear()
        self.lib.shutdown()
        if self.cluster is not None:
            self.cluster.shutdown()

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
        (node,) = [each for each in self.cluster.worker_nodes if above & _pids(each)]
        self.cluster.remove_node(node, allow_graceful=False)

    def graph(self, steps: Sequence[GraphStep]) -> list[Any]:
        def node_of(step: GraphStep, args: list[Any]) -> Any:
            _, function, _, node = step
            kept = self.remotes.get((function, node))
            if kept is None:
                kept = self.lib.remote(function)
                if node is not None:
                    kept = kept.options(resources={f"far{node}": 0.01})
                self.remotes[function, node] = kept
            return kept.bind(*args)

        ends = bind(steps, node_of)
        if len(ends) == 1:
            return [self.lib.get(ends[0].execute())]
        return list(self.lib.get(import_module("ray.dag").MultiOutputNode(ends).execute()))

    def settle(self, handle: Handle) -> None:
        self.lib.wait([handle], fetch_local=False)

    def fetch(self, handle: Handle) -> Any:
        return self.lib.get(handle)

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
        # Actors with streaming generators; each calls the one before it, since a generator cannot be passed on.
        stage_class = self.lib.remote(Stage).options(num_cpus=0)
        before = None
        for some in [[function] for function in functions] if apart else [functions]:
            before = stage_class.remote(some, items if before is None else before)
            self.kept.append(before)
        for ref in _stream_of(before):
            yield self.lib.get(ref)

    def map(self, function: Callable[[Any], object], items: Sequence[Any]) -> list[Any]:
        if self.pool is None:  # Ray's own map with automatic chunks
            self.pool = import_module("ray.util.multiprocessing").Pool(self.workers)
        return list(self.pool.map(function, items))

    def actors(self, count: int) -> list[Call]:
        actor_class = self.lib.remote(Counter)
        new = [actor_class.remote() for _ in range(count)]
        self.kept.extend(new)  # a Ray actor dies with its last handle
        return [actor.inc.remote for actor in new]


class Stage:
    """A stage of a pipeline: calls functions with what another one gives, or with the items themselves."""

    def __init__(self, functions: Sequence[Callable[[Any], object]], before: Any) -> None:
        self.functions = functions
        self.before = before

    def stream(self) -> Iterator[Any]:
        """Its outputs."""
        get = import_module("ray").get
        chained = hasattr(self.before, "stream")
        for each in _stream_of(self.before) if chained else self.before:
            item = get(each) if chained else each
            for function in self.functions:
                item = function(item)
            yield item


def _stream_of(stage: Any) -> Any:
    """Refs to what it makes, 64 ahead of who takes them."""
    return stage.stream.options(num_returns="streaming", _generator_backpressure_num_objects=64).remote()


def _pids(node: Any) -> set[int]:
    """Of the processes of one of the cluster's nodes."""
    return {info.process.pid for infos in node.all_processes.values() for info in infos}
