"""Dask's distributed scheduler with a LocalCluster of one-thread worker processes."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Sequence
from functools import partial
from importlib import import_module
from itertools import count
from typing import Any

from benchmarks.jobs import Counter, size_of
from benchmarks.peers.base import Call, Feature, GraphStep, Handle, Peer, bind


class Dask(Peer):
    """`pure=False` everywhere: equal calls must run again, not be found by their key."""

    name = "dask"
    module = "distributed"
    distribution = "distributed"
    # As nodes serve its worker processes: each keeps its own results, and they fetch from each other.
    features = frozenset(Feature) - {
        Feature.ONCE, Feature.REGISTRY, Feature.NAMES, Feature.TRACING, Feature.LEDGER, Feature.STREAMS,
        Feature.PIPELINES,
        Feature.SINKS,
        Feature.RUNS,
    }  # fmt: skip
    max_rounds = 2

    def __init__(self) -> None:
        super().__init__()
        self.cluster: Any = None
        self.client: Any = None
        self.workers = 0
        self.kept: list[Any] = []
        self.nodes: list[str] = []
        self.numbers = count()

    def load(self) -> None:
        super().load()
        import_module("dask").config.set({"distributed.logging.distributed": "critical"})

    def start(self, workers: int, store_bytes: int | None = None) -> None:
        self.workers = workers
        self.cluster = self.lib.LocalCluster(
            n_workers=workers,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            memory_limit=store_bytes or 0,
            silence_logs=50,
        )
        self.client = self.lib.Client(self.cluster)

    def start_nodes(self, count: int, store_bytes: int | None = None) -> None:
        self.start(count, store_bytes)
        self.nodes = sorted(self.client.scheduler_info(n_workers=-1)["workers"])

    def far_task(self, function: Callable[..., object], node: int | None = None, retry: bool = True) -> Call:
        where = self.nodes[1:] if node is None else [self.nodes[node]]
        return partial(self.client.submit, function, pure=False, workers=where)

    def far_actor(self) -> Call:
        future = self.client.submit(Counter, actor=True, pure=False, workers=self.nodes[1:])
        self.kept.append(future)
        call: Call = future.result().inc
        return call

    def graph(self, steps: Sequence[GraphStep]) -> list[Any]:
        dask = import_module("dask")

        def delayed(step: GraphStep, args: list[Any]) -> Any:
            name, function, _, node = step
            key = f"{name}-{next(self.numbers)}"
            if node is None:
                return dask.delayed(function, pure=False)(*args, dask_key_name=key)
            with dask.annotate(workers=[self.nodes[node]]):
                return dask.delayed(function, pure=False)(*args, dask_key_name=key)

        futures = self.client.compute(bind(steps, delayed), optimize_graph=False)
        return list(self.client.gather(futures))

    def settle(self, handle: Handle) -> None:
        self.lib.wait([handle])

    def bring(self, handle: Handle) -> int:
        return int(self.client.submit(size_of, handle, pure=False, workers=self.nodes[:1]).result())

    def kill_node(self, worker_pid: int) -> None:
        os.kill(worker_pid, signal.SIGKILL)

    def stop(self) -> None:
        self.kept.clear()
        self.client.close()
        self.cluster.close()

    def task(self, function: Callable[..., object]) -> Call:
        return partial(self.client.submit, function, pure=False)

    def fetch(self, handle: Handle) -> Any:
        return handle.result()

    def fetch_all(self, handles: Sequence[Handle]) -> list[Any]:
        if handles and isinstance(handles[0], self.lib.Future):
            return list(self.client.gather(list(handles)))
        return super().fetch_all(handles)  # futures of actor calls are another class

    def put(self, value: object) -> Handle:
        # Wrapped, because scatter takes a bare list apart; hashing is off, or equal values would be stored once.
        return self.client.scatter([value], hash=False)[0]

    def map(self, function: Callable[[Any], object], items: Sequence[Any]) -> list[Any]:
        # Four partitions per worker: its automatic ones (1,334 for 20,000 items) make it six times slower.
        bag = import_module("dask.bag").from_sequence(items, npartitions=4 * self.workers)
        return list(bag.map(function).compute(scheduler=self.client))

    def actors(self, count: int) -> list[Call]:
        futures = [self.client.submit(Counter, actor=True, pure=False) for _ in range(count)]
        new = [future.result() for future in futures]
        self.kept.extend(futures)
        return [actor.inc for actor in new]
