"""Those who come to a node and are no children of its zygote: drivers, and observers who only ask."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from zmreg.model.look_messages import Look
from zmreg.net.sockets import door_path

if TYPE_CHECKING:
    from zmreg.services.node.looks import Looks
    from zmreg.services.node.metered import Metered
    from zmreg.services.node.node import Node


class Visitors:
    """Each has a descriptor of its process, so that its end is noticed however it comes."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.looks: Looks | None = None
        """What observers have asked the processes here about, once one has."""
        self.metered: Metered | None = None
        """Metrics of the processes here, once somebody has told or asked."""
        self._here: dict[bytes, tuple[int, Callable[[bytes], None]]] = {}

    def attend(self, visitor: bytes, pid: int, left: Callable[[bytes], None]) -> None:
        """Call `left(visitor)` once, when it says goodbye or its process ends."""
        try:
            fd = os.pidfd_open(pid)
        except ProcessLookupError:
            left(visitor)
            return
        self._here[visitor] = fd, left
        self._node.watch(fd, lambda: self.farewell(visitor))

    def greet(self, client: bytes) -> None:
        """A process has a seat here, and may be asked for its metrics."""
        if self.metered is not None:
            self._node.post(client, Look(0, "metered"))

    def farewell(self, visitor: bytes) -> None:
        """It has left or died. Nothing for somebody who is not here."""
        fd, left = self._here.pop(visitor, (-1, None))
        if left is not None:
            self._node.unwatch(fd)
            os.close(fd)
            left(visitor)
            # It does that itself, unless it was killed: a session may outlive many that come and go.
            door_path(Path(self._node.config["session"]), visitor).unlink(missing_ok=True)
