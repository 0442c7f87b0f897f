"""Memory that tasks have freed goes back to the system when their worker is idle (core-api C31).

The allocator keeps what is freed below anything that is not: one small object that a module keeps, and hundreds of
megabytes stay. `malloc_trim` gives such pages back; it takes 0.1 ms for each MB that it finds, so it is asked for only
when nothing else is.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from zmreg.model.messages import TidyUp

# So long without work: between calls of a loop nobody tidies up.
IDLE_S: Final = 1.0


class Tidying:
    """The node's side: each worker is told once for each time that it is idle."""

    def __init__(self, post: Callable[[bytes, TidyUp], object]) -> None:
        self._post = post
        self._told: dict[bytes, float] = {}
        """Since when those have been idle that were told."""

    def tick(self, now: float, idle: Mapping[bytes, float]) -> None:
        """`idle`: since when, of the workers that have run something."""
        self._told = {worker: since for worker, since in self._told.items() if idle.get(worker) == since}
        for worker, since in idle.items():
            if now - since >= IDLE_S and worker not in self._told:
                self._told[worker] = since
                self._post(worker, TidyUp())


def tidy_up() -> None:
    """Give free memory back to the system, where its C library can."""
    import ctypes  # late: only who has worked and is idle needs it

    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)
