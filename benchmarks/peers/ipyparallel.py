"""ipyparallel: a hub, schedulers and engines, through the load-balanced view."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from benchmarks.peers.base import Call, Feature, Handle, Peer

ERRORS_ONLY = 40
FETCH_TIMEOUT_S = 60.0


class IpyParallel(Peer):
    """Tasks and map; it has no actors and no refs."""

    name = "ipyparallel"
    module = "ipyparallel"
    distribution = "ipyparallel"
    features = frozenset({Feature.TASKS, Feature.MAP})
    max_rounds = 1

    def __init__(self) -> None:
        super().__init__()
        self.cluster: Any = None
        self.client: Any = None
        self.view: Any = None

    def start(self, workers: int, store_bytes: int | None = None) -> None:
        del store_bytes
        self.cluster = self.lib.Cluster(n=workers, log_level=ERRORS_ONLY)
        self.client = self.cluster.start_and_connect_sync(activate=False)
        self.view = self.client.load_balanced_view()

    def stop(self) -> None:
        self.client.close()
        self.cluster.stop_cluster_sync()

    def task(self, function: Callable[..., object]) -> Call:
        return partial(self.view.apply_async, function)

    def fetch(self, handle: Handle) -> Any:
        return handle.get(FETCH_TIMEOUT_S)

    def map(self, function: Callable[[Any], object], items: Sequence[Any]) -> list[Any]:
        return list(self.client[:].map_sync(function, items))  # the direct view splits evenly over the engines
