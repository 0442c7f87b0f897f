"""Whether a process still listens: asked when a link to it breaks, so that a death is known before a silence is long.

A machine whose process is gone refuses connections at once. One that is gone itself, or cut off, says nothing; then
silence decides (core/nodes.py). A probe is a TCP connection that is closed as soon as anything is known about it.
"""

from __future__ import annotations

import errno
import socket
import time
from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from zmreg.services.node.node import Node

_TIMEOUT_S = 2.0


class Probes:
    """The probes of one node. `refused(name)` is told of each address that refuses."""

    def __init__(self, node: Node, refused: Callable[[bytes], None]) -> None:
        self._node = node
        self._refused = refused
        self._asked: dict[bytes, tuple[socket.socket, float]] = {}

    def ask(self, name: bytes, host: str, port: int) -> None:
        """Try to connect, unless that is under way."""
        if name in self._asked:
            return
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        try:
            probe = socket.socket(family, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
            answer = probe.connect_ex((host, port))
        except OSError:  # no descriptor, no such name: nothing is known
            return
        if answer == errno.EINPROGRESS:
            self._asked[name] = (probe, time.monotonic() + _TIMEOUT_S)
            self._node.watch(probe.fileno(), lambda: self._answered(name))
            return
        probe.close()
        if answer == errno.ECONNREFUSED:
            self._refused(name)

    def _answered(self, name: bytes) -> None:
        """Readable: an error, or a peer that speaks first, as ours do."""
        error = self._asked[name][0].getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        self._end(name)
        if error == errno.ECONNREFUSED:
            self._refused(name)

    def _end(self, name: bytes) -> None:
        probe, _ = self._asked.pop(name)
        self._node.unwatch(probe.fileno())
        probe.close()

    def tick(self, now: float) -> None:
        """Give up those that nobody answers."""
        for name in [name for name, (_, until) in self._asked.items() if now > until]:
            self._end(name)

    def close(self) -> None:
        """Give up all."""
        for name in list(self._asked):
            self._end(name)
