"""Door and link of a process that is a thread: what is sent goes to the other's queue, as the bytes it would be."""

from __future__ import annotations

import os
import threading
from collections import deque
from pathlib import Path

from zmreg.model.ids import ProcessId, node_of
from zmreg.net.sockets import Ends

_boards: dict[Path, dict[bytes, MemoryEnds]] = {}
"""By session: who has a door there."""


class MemoryEnds(Ends):
    """As `Ends`, to others of the same session in this process. Its door is an eventfd."""

    def __init__(self, session: Path, me: ProcessId) -> None:
        self.me = me
        self.door_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self.door = self.door_fd  # type: ignore[assignment]  # a poller takes either
        self.far = lambda peer, origin, frame: False
        self._session = session
        self._queue: deque[tuple[bytes, bytes]] = deque()
        self._met: set[bytes] = set()
        self._guard = threading.Lock()
        self._cut = False
        self._others = _boards.setdefault(session, {})
        self._others[me] = self

    def send(self, peer: bytes, frame: bytes) -> bool:
        """As a socket does it; what the dead say, nobody hears."""
        if self._cut:
            return False
        self._met.add(peer)
        other = self._others.get(peer)
        if other is not None:
            return other._deliver(self.me, bytes(frame))
        node = self._others.get(node_of(self.me))
        return node is not None and node_of(peer) != node.me and node.far(peer, self.me, frame)

    def _deliver(self, sender: bytes, frame: bytes) -> bool:
        with self._guard:
            if self._cut:
                return False
            self._queue.append((sender, frame))
            os.eventfd_write(self.door_fd, 1)
        return True

    def pending(self) -> bool:
        """Something can be received now. The descriptor is silent again when this is False."""
        if self._queue:
            return True
        with self._guard:
            if not self._queue and not self._cut:
                try:
                    os.eventfd_read(self.door_fd)
                except BlockingIOError:
                    return False
        return bool(self._queue)

    def receive(self) -> tuple[bytes, bytes]:
        """(sender, frame) of the next message; both empty when there is none."""
        try:
            return self._queue.popleft()
        except IndexError:
            return b"", b""

    def peers(self) -> list[bytes]:
        """Everybody something was sent to."""
        return list(self._met)

    def forget(self, peer: bytes) -> None:
        """It is gone."""
        self._met.discard(peer)

    def abandon(self) -> None:
        """In a forked child there is nobody to speak to."""
        self._guard = threading.Lock()
        self._cut = True

    def cut(self) -> None:
        """As when the process dies: nothing comes, nothing goes any more. Idempotent."""
        with self._guard:
            self._cut = True
            self._queue.clear()
        if self._others.get(self.me) is self:
            del self._others[self.me]

    def close(self, clean: bool) -> None:
        """Closes the door; what was sent has arrived. Idempotent."""
        self.cut()
        with self._guard:
            fd, self.door_fd = self.door_fd, -1
        if fd >= 0:
            os.close(fd)
        if not self._others and _boards.get(self._session) is self._others:
            del _boards[self._session]
