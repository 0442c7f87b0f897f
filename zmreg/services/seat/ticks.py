"""When a process looks at the clock for its own calls: idle leases, rests that are over, workers that stand still."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING, Final

from zmreg.core.ages import Ages, old
from zmreg.core.standstill import STILL_S
from zmreg.net.pump import Pump

if TYPE_CHECKING:
    from zmreg.services.calling.tasks import Tasks

# While leases are held, somebody must look at the clock to give idle ones back.
TICK_S: Final = 0.25
# Turns between two such looks while messages keep coming. A power of two.
_TURNS: Final = 64


class Ticks:
    """One process's. The turn asks `look` when nothing has come for a while, and when `turns & skips` is 0."""

    __slots__ = ("_last", "_lock", "_pump", "_tasks", "_tick_s", "ages", "skips")

    def __init__(self, pump: Pump, lock: threading.RLock, tasks: Tasks) -> None:
        self._pump = pump
        self._lock = lock
        self._tasks = tasks
        self._last = 0.0
        self._tick_s = TICK_S
        self.skips = _TURNS - 1
        self.ages = Ages()
        """Of what was made here."""

    def age(self, counter: int) -> float | None:
        """Seconds since this number was given out, as far as it is known; for a look. Takes no lock."""
        now = time.monotonic()
        self.ages.look(self._tasks.next_number, now)
        return self.ages.of(counter, now)

    def begin(self) -> None:
        """There are leases from now on."""
        self._pump.tick_s = self._tick_s

    def soon(self) -> None:
        """The next tick comes within milliseconds."""
        self._tick_s = self._pump.tick_s = STILL_S
        self.skips = 0

    def look(self) -> None:
        """Tick, if it is time."""
        now = time.monotonic()
        if now - self._last > self._tick_s:
            self._last = now
            self.ages.look(self._tasks.next_number, now)
            with self._lock:
                self._tick_s, self.skips = TICK_S, _TURNS - 1
                self._tasks.tick(now)  # which may want the next one soon
                leases = any(pool.lanes for pool in self._tasks.pools.values())
                self._pump.tick_s = self._tick_s if leases or self._tasks.resting else -1.0


__all__ = ["TICK_S", "Ticks", "old"]
