"""A bounded queue between two threads of a pipeline's run: who puts waits for room, who takes gets all there is."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Generic, TypeVar

T = TypeVar("T")


class Channel(Generic[T]):
    """Of one thread that puts and one that takes, besides `stop`. Items, then perhaps an error, then the end.

    The lock is taken only by who has to wait, and to wake one who does.
    """

    def __init__(self, size: int) -> None:
        """`size`: items that may wait in it."""
        self._size = size
        self._items: deque[T] = deque()
        self._news = threading.Condition(threading.Lock())
        self._hungry = self._full = False
        self._ended = self._stopped = False
        self._error: BaseException | None = None
        self.blocked_s = 0.0
        """How long its writer has waited for room."""

    def __len__(self) -> int:
        return len(self._items)

    @property
    def is_stopped(self) -> bool:
        """Nobody takes any more."""
        return self._stopped

    def put(self, item: T) -> bool:
        """Wait for room. False, and the item is dropped: it was stopped. ValueError after `end`."""
        if not self.put_now(item):
            with self._news:
                began = time.perf_counter()
                while not self._stopped and len(self._items) >= self._size:
                    self._full = True
                    self._news.wait()
                self.blocked_s += time.perf_counter() - began
                self._full = False
            return not self._stopped and self.put_now(item)
        return True

    def put_now(self, item: T) -> bool:
        """False without room, or when it was stopped."""
        if self._ended:
            raise ValueError("the stream has ended: nothing can be sent after close()")
        if self._stopped or len(self._items) >= self._size:
            return False
        self._items.append(item)
        if self._hungry:  # set before its reader looks once more: one of the two sees the other
            with self._news:
                self._news.notify_all()
        return True

    def end(self, error: BaseException | None = None) -> None:
        """Nothing more comes; `error` is raised when all before it was taken. Idempotent."""
        with self._news:
            if not self._ended:
                self._error = error
                self._ended = True
            self._news.notify_all()

    def stop(self) -> None:
        """From any thread: what waits is dropped, and nobody waits."""
        with self._news:
            self._stopped = True
            self._items.clear()
            self._news.notify_all()

    def take(self) -> list[T]:
        """All there is, at least one; [] at the end, or when it was stopped. Raises the error."""
        if not self._items:
            with self._news:
                self._hungry = True
                while not self._items and not self._ended and not self._stopped:
                    self._news.wait()
                self._hungry = False
        taken: list[T] = []
        while self._items:
            try:
                taken.append(self._items.popleft())
            except IndexError:  # stopped meanwhile
                break
        if self._full:
            with self._news:
                self._news.notify_all()
        if not taken and self._error is not None and not self._stopped:
            raise self._error
        return taken

    def __iter__(self) -> Iterator[T]:
        """All items, one by one: what is not yet wanted stays in it, and counts."""
        while True:
            if not self._items:
                with self._news:
                    self._hungry = True
                    while not self._items and not self._ended and not self._stopped:
                        self._news.wait()
                    self._hungry = False
            try:
                item = self._items.popleft()
            except IndexError:
                if self._error is not None and not self._stopped:
                    raise self._error from None
                return
            if self._full:
                with self._news:
                    self._news.notify_all()
            yield item
            del item
