"""The process pools: concurrent.futures.ProcessPoolExecutor and loky."""

from __future__ import annotations

from benchmarks.peers.base import Feature, FuturesPeer


class ProcessPool(FuturesPeer):
    """Python's own, with its default start method."""

    name = "processpool"
    module = "concurrent.futures"
    features = frozenset({Feature.TASKS, Feature.MAP})

    def start(self, workers: int, store_bytes: int | None = None) -> None:
        del store_bytes
        self.workers = workers
        self.pool = self.lib.ProcessPoolExecutor(max_workers=workers)


class Loky(FuturesPeer):
    """The robust pool joblib uses; its workers would end after 10 idle seconds by default, so no timeout here."""

    name = "loky"
    module = "loky"
    distribution = "loky"
    features = frozenset({Feature.TASKS, Feature.MAP})

    def start(self, workers: int, store_bytes: int | None = None) -> None:
        del store_bytes
        self.workers = workers
        self.pool = self.lib.ProcessPoolExecutor(max_workers=workers, timeout=None)
