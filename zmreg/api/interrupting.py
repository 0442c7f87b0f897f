"""Ctrl-C while a program waits for values: the wait ends, and what it was for goes on, unless somebody says otherwise.

Otherwise says `get(..., cancel_on_interrupt=True)`; and who interrupts two waits within two seconds is asked, or told
how. KeyboardInterrupt is raised in any case, afterwards. Here it is on its way, so nothing of ours is half done
(docs/decisions/0006), and one more of them may come at any place.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterable, Sequence
from typing import Final

from zmreg.model.errors import ZmregError
from zmreg.services.seat.client import Client, current
from zmreg.services.seat.entries import PENDING, Entry

AGAIN_S: Final = 2.0

_last = float("-inf")


def ended(entries: Iterable[Entry], cancel: bool) -> None:
    """A wait for these ends by KeyboardInterrupt."""
    seat = current()
    if seat is None or seat.closed is not None:
        return
    pending = list({id(entry): entry for entry in entries if entry.state == PENDING}.values())
    if cancel:
        _cancel(seat, pending)
    elif pending and seat.on_wait is None and _is_second(time.monotonic()):  # in a worker it is a cancellation
        _offer(seat, pending)


def _is_second(now: float) -> bool:
    """Whether another wait ended in this way just before. What comes then is a first one again."""
    global _last
    again = now - _last < AGAIN_S
    _last = float("-inf") if again else now
    return again


def _offer(seat: Client, pending: Sequence[Entry]) -> None:
    many = len(pending) > 1
    goes_on = f"zmreg: {len(pending)} calls that this waited for go on." if many else (
        "zmreg: the call that this waited for goes on."
    )  # fmt: skip
    if not _can_ask():
        print(
            f"{goes_on} zmreg.cancel(ref) cancels {'one of them' if many else 'it'}, zmreg.interrupt() all that this "
            "program has under way; get(..., cancel_on_interrupt=True) does it at the first Ctrl-C.",
            file=sys.stderr, flush=True,
        )  # fmt: skip
        return
    print(f"{goes_on} Cancel {'them' if many else 'it'}? [y/N] ", end="", file=sys.stderr, flush=True)
    if sys.stdin.readline().strip().lower() in ("y", "yes"):
        _cancel(seat, pending)


def _can_ask() -> bool:
    """Somebody sits there: both ends are a terminal, and this program is the one that has it."""
    with contextlib.suppress(AttributeError, ValueError, OSError):  # none, closed, or something of the program's own
        if sys.stdin.isatty() and sys.stderr.isatty():
            return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    return False


def _cancel(seat: Client, pending: Iterable[Entry]) -> None:
    with contextlib.suppress(ZmregError):  # the cluster is gone, and all of it
        for entry in pending:
            seat.cancel(entry, False, True)
