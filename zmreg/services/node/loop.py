"""A poll loop with one callback for each descriptor: what a node's daemon lives in."""

from __future__ import annotations

import select
from collections.abc import Callable


class Loop:
    """Watches descriptors. One thread does all of it."""

    def __init__(self) -> None:
        self.stopping = False
        self.turn_due = False
        """Something has happened since this was cleared that a turn has to see to."""
        self._passing: set[int] = set()
        self._poller = select.poll()
        self._sources: dict[int, Callable[[], object]] = {}

    def watch(self, fd: int, ready: Callable[[], object], passing: bool = False) -> None:
        """Call `ready()` whenever the descriptor is readable. The edge-triggered ones of ZeroMQ are drained anyway.

        A turn is due then, unless most that comes there only passes through: `ready` says itself whether one is.
        """
        self._sources[fd] = ready
        if passing:
            self._passing.add(fd)
        self._poller.register(fd, select.POLLIN)

    def unwatch(self, fd: int) -> None:
        """Not any more. Before the descriptor is closed."""
        if self._sources.pop(fd, None) is not None:
            self._poller.unregister(fd)
            self._passing.discard(fd)

    def stop(self) -> None:
        """Have the loop end."""
        self.stopping = True

    def sleep(self, seconds: float) -> None:
        """Until something is readable, at most so long; then the callbacks run."""
        for fd, _ in self._poller.poll(max(0.0, seconds * 1e3)):
            ready = self._sources.get(fd)
            if ready is not None:
                self.turn_due = self.turn_due or fd not in self._passing
                ready()
