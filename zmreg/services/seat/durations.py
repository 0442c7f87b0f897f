"""What a process says of how long its calls took (telemetry/durations.py), each time its node asks for metrics."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from zmreg.services.calling.history import read
from zmreg.telemetry.durations import Durations
from zmreg.telemetry.families import Family

if TYPE_CHECKING:
    from zmreg.services.seat.station import Station

_lock = threading.Lock()


def _forked() -> None:
    """In the child: a thread that is not there may have had it."""
    global _lock
    _lock = threading.Lock()


os.register_at_fork(after_in_child=_forked)
_by_station: WeakKeyDictionary[Station, Durations] = WeakKeyDictionary()
"""Those that were asked."""


def durations_of(station: Station) -> list[Family]:
    """Of all its calls so far, those that have ended. Takes the client's lock for what is short."""
    with _lock:
        durations = _by_station.setdefault(station, Durations())
        with station.lock:
            fresh = durations.fresh(station.past)
        if fresh is not None:
            durations.count(fresh, read)
        return durations.families()
