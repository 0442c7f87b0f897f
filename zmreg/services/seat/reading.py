"""How `get` reads what lies in stores: asked for all at once, taken as it comes, made again where it is lost."""

from __future__ import annotations

import time
from collections.abc import Sequence
from operator import methodcaller
from typing import TYPE_CHECKING, Any, Final

from zmreg.model.errors import GetTimeoutError, ObjectLostError, ZmregError
from zmreg.services.seat.entries import Entry, Stored
from zmreg.services.seat.shelf import PinTicket
from zmreg.wire import payload

if TYPE_CHECKING:
    from zmreg.services.seat.client import Client

__tracebackhide__ = methodcaller("errisinstance", ZmregError)  # for pytest: see api/refs.py

# What is in the store is there: even a poll (timeout=0) gives the node this long to say where.
_PIN_S: Final = 1.0


def read(
    client: Client, entries: Sequence[Entry], held: Sequence[object], deadline: float | None, copy: bool
) -> list[Any]:
    """The values of entries that had `held` when they were looked at. What is lost by now is waited for once more.

    In the order in which the store has them: of more than fits in memory, what is there must not wait, pinned, for
    what is still on disk.
    """
    places: dict[int, list[int]] = {}
    for place, entry in enumerate(entries):
        places.setdefault(id(entry), []).append(place)
    values: list[Any] = [None] * len(entries)
    left: dict[int, PinTicket] = {}
    lost: list[int] = []
    view: memoryview | None = None
    try:
        with client.shield():
            for key, (first, *_) in places.items():
                if isinstance(stored := held[first], Stored):
                    left[key] = client.shelf.ask(stored.object_id, stored.nbytes, stored.holder)
        for key, each in places.items():
            for place in each if key not in left else ():
                values[place] = payload.unpack(held[place], writable=copy)  # type: ignore[arg-type]
        while left:
            wait_s = None if deadline is None else max(_PIN_S, deadline - time.monotonic())
            if not client.shelf.wait_any(left.values(), wait_s):
                raise GetTimeoutError(
                    f"{len(left)} of {len(entries)} objects were not back in memory in time; the store is busy"
                )
            for key in [key for key, ticket in left.items() if ticket.answered]:
                with client.shield():
                    view = _view(client, entries[(first := places[key][0])], held[first], left.pop(key))
                if view is None:
                    lost += places[key]
                    continue
                for place in places[key]:
                    values[place] = payload.unpack(view, writable=copy)
                view = None  # values that were copied out need no pin: the store may spill them again
        if lost:
            left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
            for place, value in zip(lost, client.get([entries[place] for place in lost], left_s, copy), strict=True):
                values[place] = value
    except BaseException:
        values.clear()  # an error that the caller keeps must not keep what was read before it
        view = None
        with client.shield(), client.lock:
            for ticket in left.values():
                client.shelf.abandon(ticket)
        raise
    return values


def _view(client: Client, entry: Entry, stored: object, ticket: PinTicket) -> memoryview | None:
    """None: the bytes are lost, and what the entry says now counts."""
    try:
        return client.shelf.view(ticket)
    except ObjectLostError as error:
        assert isinstance(stored, Stored)
        with client.lock:
            client.recovery.missed(entry, stored, error)
        return None
