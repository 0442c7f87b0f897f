"""xoscar: actors only, driven from one asyncio loop (timed inside the loop, as its users run it)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from importlib import import_module
from time import perf_counter, perf_counter_ns
from typing import Any

from benchmarks.jobs import Counter
from benchmarks.peers.base import Call, Feature, Handle, Peer


class Xoscar(Peer):
    """A pool with one sub-pool process per worker; actors live in the sub-pools, many to a process."""

    name = "xoscar"
    module = "xoscar"
    distribution = "xoscar"
    features = frozenset({Feature.ACTORS})

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.pool: Any = None
        self.workers = 0
        self.created = 0

    def start(self, workers: int, store_bytes: int | None = None) -> None:
        del store_bytes
        self.workers = workers
        self.pool = self._run(self.lib.create_actor_pool("127.0.0.1:0", n_process=workers))

    def stop(self) -> None:
        self._run(self.pool.stop())
        self.loop.close()

    def actors(self, count: int) -> list[Call]:
        actor_class = type("CounterActor", (Counter, self.lib.Actor), {})
        place = import_module("xoscar.backends.allocate_strategy").ProcessIndex

        async def create() -> list[Any]:
            address = self.pool.external_address
            made = []
            for _ in range(count):
                strategy = place(1 + self.created % self.workers)  # 0 is the main pool
                made.append(await self.lib.create_actor(actor_class, address=address, allocate_strategy=strategy))
                self.created += 1
            return made

        return [actor.inc for actor in self._run(create())]

    def fetch(self, handle: Handle) -> Any:
        return self._run(handle)

    def fetch_all(self, handles: Sequence[Handle]) -> list[Any]:
        async def together() -> list[Any]:
            return list(await asyncio.gather(*handles))

        return list(self._run(together()))

    def time_calls(self, call: Call, seconds: float, at_most: int) -> list[float]:
        async def loop() -> list[float]:
            samples: list[float] = []
            end = perf_counter_ns() + int(seconds * 1e9)
            before = perf_counter_ns()
            while len(samples) < at_most and before < end:
                await call()
                after = perf_counter_ns()
                samples.append((after - before) / 1e3)
                before = after
            return samples

        return list(self._run(loop()))

    def run_calls(self, calls: Sequence[Call], count: int) -> float:
        async def loop() -> float:
            before = perf_counter()
            await asyncio.gather(*[calls[index % len(calls)]() for index in range(count)])
            return perf_counter() - before

        return float(self._run(loop()))

    def _run(self, awaitable: Any) -> Any:
        return self.loop.run_until_complete(awaitable)
