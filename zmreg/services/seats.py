"""This process's seat, taken automatically on first use, and what the api needs of rooms below the services."""

from __future__ import annotations

import os
from collections.abc import Callable

from zmreg.services.client import Client, current
from zmreg.wire.payload import note_reference, unpack_failure

_init: Callable[[], object] | None = None


def on_first_use(init: Callable[[], object]) -> None:
    """What to call when an API function is used before `init()`."""
    global _init
    _init = init


def client() -> Client:
    """The process's client; a driver that has none starts a cluster of its own first."""
    seat = current()
    if seat is not None and seat.closed is None and not seat.forked:
        return seat
    if seat is None or (seat.closed is not None and seat.pid == os.getpid() and seat.auto_restart):
        assert _init is not None
        _init()
        seat = current()
        assert seat is not None
    seat.check()
    return seat


__all__ = ["client", "note_reference", "on_first_use", "unpack_failure"]
