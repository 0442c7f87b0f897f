"""The actor behind a collector. A module of its own: it brings asyncio."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Any

from zmreg.api.watching import when_gone

Taken = list[tuple[int, Any]]


class _Source:
    def __init__(self) -> None:
        self.results: deque[Any] = deque()
        self.waiting: deque[tuple[Any, asyncio.Future[None]]] = deque()
        self.process = ""
        """Who has sent last."""
        self.count = 0
        self.ended = False


class CollectorActor:
    """Queues, one for each source; read in turn. Calls of one process come in order, and start in order."""

    def __init__(self, num_sources: int, queue_size: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._size = queue_size
        self._sources = [_Source() for _ in range(num_sources)]
        self._failures: dict[int, str] = {}
        self._turn = 0
        self._readers: deque[tuple[int, asyncio.Future[Taken]]] = deque()
        when_gone(self._tell_of_death)

    async def send(self, source: int, process: str, boxed: list[Any]) -> None:
        """Take the result in the box, once there is room."""
        mine = self._sources[source]
        if mine.ended:
            raise ValueError(f"source {source} has ended{self._why(source)}: it gives no more results")
        mine.process = process
        if len(mine.results) < self._size and not mine.waiting:
            self._take_in(mine, boxed)
            return
        future: asyncio.Future[None] = self._loop.create_future()
        mine.waiting.append((boxed, future))
        await future

    async def finish(self, source: int) -> None:
        """The source has given all; what waits for room is among it."""
        self._sources[source].ended = True
        self._serve()

    async def fail(self, source: int, reason: str) -> None:
        """It has not."""
        self._fail(source, reason)

    async def take(self, most: int) -> Taken:
        """Some results, as soon as there are any; none when all sources have ended."""
        found = self._some(most)
        if found or self._is_over():
            return found
        future: asyncio.Future[Taken] = self._loop.create_future()
        self._readers.append((most, future))
        return await future

    async def failures(self) -> dict[int, str]:
        """{source: why} of those that ended before they said so."""
        return dict(self._failures)

    async def counts(self) -> dict[int, int]:
        """{source: results}."""
        return {number: source.count for number, source in enumerate(self._sources)}

    # -- inside -------------------------------------------------------------------------------------------------------

    def _take_in(self, source: _Source, boxed: list[Any]) -> None:
        source.results.append(boxed[0])
        source.count += 1
        self._serve()

    def _some(self, most: int) -> Taken:
        """One of each source in turn, as long as there are any."""
        found: Taken = []
        empty = 0
        while len(found) < most and empty < len(self._sources):
            source = self._sources[self._turn]
            if source.results:
                found.append((self._turn, source.results.popleft()))
                empty = 0
                self._make_room(source)
            else:
                empty += 1
            self._turn = (self._turn + 1) % len(self._sources)
        return found

    def _make_room(self, source: _Source) -> None:
        while source.waiting and len(source.results) < self._size:
            boxed, future = source.waiting.popleft()
            if not future.done():
                source.results.append(boxed[0])
                source.count += 1
                future.set_result(None)

    def _is_over(self) -> bool:
        return all(source.ended and not source.results and not source.waiting for source in self._sources)

    def _serve(self) -> None:
        while self._readers:
            most, future = self._readers[0]
            if not future.done():
                found = self._some(most)
                if not found and not self._is_over():
                    return
                future.set_result(found)
            self._readers.popleft()

    def _why(self, source: int) -> str:
        return f" ({self._failures[source]})" if source in self._failures else ""

    def _fail(self, source: int, reason: str) -> None:
        mine = self._sources[source]
        if not mine.ended:
            mine.ended = True
            self._failures[source] = reason
            self._serve()

    def _tell_of_death(self, who: str) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and so all of it is over
            self._loop.call_soon_threadsafe(self._gone, who)

    def _gone(self, who: str) -> None:
        for number, source in enumerate(self._sources):
            if source.process and source.process.startswith(who):
                self._fail(number, "its process is gone")
