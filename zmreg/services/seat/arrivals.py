"""Which refs came into this thread while a call's arguments (or a definition) were unpickled."""

from __future__ import annotations

import threading
import weakref

from zmreg.services.seat.entries import Entry


class _Arrivals(threading.local):
    refs: list[weakref.ref[Entry]] | None = None


_arrivals = _Arrivals()


def note(entry: Entry) -> None:
    """A ref was rebuilt on this thread. Forgotten unless a call is being executed here."""
    refs = _arrivals.refs
    if refs is not None:
        refs.append(weakref.ref(entry))


def any() -> bool:
    """Whether refs were noted on this thread since the last take."""
    return bool(_arrivals.refs)


def put_back(refs: list[weakref.ref[Entry]]) -> None:
    """What `take` returned belongs to a call that goes on: another one ran in between."""
    _arrivals.refs = [*refs, *(_arrivals.refs or ())]


def take() -> list[weakref.ref[Entry]]:
    """Those noted on this thread since the last take, which also starts the noting.

    Weak: whoever looks later sees which are still held.
    """
    refs = _arrivals.refs
    if refs is None or refs:
        _arrivals.refs = []
    return refs or []
