"""This process's seat, taken automatically on first use, and what the api needs of rooms below the services."""

from __future__ import annotations

import os
from collections.abc import Callable

from zmreg.services.seat.client import Client, current
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


def set_plugin(seat: Client, name: str, stamp: int, plugin: object, most_bytes: int) -> bytes:
    """Have every node give it to the workers that start from now on (None: no such plugin any more); pickled, as
    workers get it. MessageTooLargeError, SerializationError."""
    from zmreg.model.errors import MessageTooLargeError  # late, as all of this: few programs do it
    from zmreg.model.messages import SetPlugin
    from zmreg.wire import payload

    packed = payload.pack((name, stamp, plugin), [], what=f"the plugin {name!r}") if plugin is not None else b""
    blob = packed if isinstance(packed, bytes) else packed.inline()
    if len(blob) > most_bytes:
        raise MessageTooLargeError(
            f"the plugin {name!r} has {len(blob)} bytes, more than the {most_bytes} there may be"
        )
    seat.questions.say(lambda request: SetPlugin(request, name, stamp, blob))
    return blob


__all__ = ["client", "note_reference", "on_first_use", "set_plugin", "unpack_failure"]
