"""The actor behind a queue. A module of its own: it brings asyncio."""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from typing import Any

from zmreg.api.watching import when_gone

Future = asyncio.Future[list[Any]]


class QueueActor:
    """Items are handed to whoever has waited longest. Invariant: nobody waits for items while there are some."""

    def __init__(self, maxsize: int) -> None:
        self._loop = asyncio.get_running_loop()
        self._maxsize = maxsize
        self._items: deque[Any] = deque()
        self._getters: deque[tuple[str, Future]] = deque()
        self._putters: deque[tuple[Any, Future]] = deque()
        when_gone(self._tell_of_death)

    async def qsize(self) -> int:
        """How many items there are."""
        return len(self._items)

    async def waiting(self) -> int:
        """How many wait for an item."""
        return sum(not future.done() for _, future in self._getters)

    async def put(self, boxed: list[Any], timeout: float | None) -> bool:
        """Whether there was room for the one item in the box within `timeout` seconds (0 does not wait)."""
        if self._room() > 0:
            self._items.append(boxed[0])
            self._serve()
            return True
        if timeout == 0:
            return False
        future: Future = self._loop.create_future()
        self._putters.append((boxed[0], future))
        return await self._within(future, timeout) is not None

    async def put_batch(self, items: list[Any]) -> bool:
        """All of them or none."""
        if self._room() < len(items):
            return False
        self._items.extend(items)
        self._serve()
        return True

    async def put_back(self, boxed: list[Any]) -> None:
        """Somebody got it, and was gone before it came."""
        self._items.appendleft(boxed[0])
        self._serve()

    async def get(self, who: str, timeout: float | None) -> list[Any]:
        """The oldest item in a box, for that process; an empty one when there is none within `timeout` seconds."""
        if self._items:
            item = self._items.popleft()
            self._serve()
            return [item]
        if timeout == 0:
            return []
        future: Future = self._loop.create_future()
        self._getters.append((who, future))
        try:
            return await self._within(future, timeout) or []
        except asyncio.CancelledError:
            if future.done() and not future.cancelled():  # given to us in this very turn
                self._items.extendleft(reversed(future.result()))
                self._serve()
            raise

    async def get_batch(self, count: int) -> list[Any] | None:
        """So many, or None when there are fewer."""
        if len(self._items) < count:
            return None
        found = [self._items.popleft() for _ in range(count)]
        self._serve()
        return found

    # -- inside -------------------------------------------------------------------------------------------------------

    def _room(self) -> float:
        return self._maxsize - len(self._items) if self._maxsize > 0 else float("inf")

    async def _within(self, future: Future, timeout: float | None) -> list[Any] | None:
        """What it is set to; None after the time. It is cancelled then, and passed over."""
        try:
            await asyncio.wait((future,), timeout=timeout)
        finally:
            if not future.done():
                future.cancel()
        return None if future.cancelled() else future.result()

    def _serve(self) -> None:
        """Items to those who wait for them, and into the room what waits for that, as long as there is any."""
        while True:
            if self._getters and self._getters[0][1].done():
                self._getters.popleft()
            elif self._getters and self._items:
                self._getters.popleft()[1].set_result([self._items.popleft()])
            elif self._putters and (self._putters[0][1].done() or self._room() > 0):
                item, future = self._putters.popleft()
                if not future.done():
                    self._items.append(item)
                    future.set_result([])
            else:
                return

    def _tell_of_death(self, who: str) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and so all of it is over
            self._loop.call_soon_threadsafe(self._gone, who)

    def _gone(self, who: str) -> None:
        for process, future in self._getters:
            if process.startswith(who) and not future.done():
                future.set_result([])
        self._getters = deque((process, future) for process, future in self._getters if not future.done())
