"""Errors that nobody reads: told once, in the log, when the last ref to a failed call is dropped.

Told of: what user code raised, workers that died, requests that nobody can meet. Not told of: errors somebody has read
or waited for, errors that went on to a dependent task (that one's ref carries them now), cancellations, actors that
ended, and whatever is dropped after shutdown, at interpreter exit above all.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from typing import Final

from zmreg.model.errors import ActorDiedError, ActorUnavailableError, TaskCancelledError
from zmreg.wire.failures import decode_failure, failure_text

log = logging.getLogger("zmreg")

# Of a thousand tasks that fail alike and are dropped together, this many are told in full, the rest counted.
TOLD_IN_FULL: Final = 10
_EXPECTED: Final = frozenset(
    f"{cls.__module__}.{cls.__qualname__}" for cls in (ActorDiedError, ActorUnavailableError, TaskCancelledError)
)

Note = tuple[str, bytes]
"""(which call, packed failure)."""


class Unread:
    """Held by the failed entries of one call; the last of them to die takes it along."""

    __slots__ = ("_leave", "_note", "read")

    def __init__(self, call: str, failure: bytes, leave: Callable[[Note], object]) -> None:
        """`leave(note)` is called from a finalizer: it must not take locks."""
        self._note = (call, failure)
        self._leave = leave
        self.read = False

    def __del__(self) -> None:
        if not self.read:
            self._leave(self._note)


def report(notes: list[Note]) -> None:
    """Write what was dropped unread to the log."""
    worth = [note for note in notes if decode_failure(note[1])[0].type_name not in _EXPECTED]
    for call, failure in worth[:TOLD_IN_FULL]:
        told = _told(failure)
        log.error("%s failed, and nobody read its error (ref.get() or ref.exception() would):\n%s", call, told)
    if len(worth) > TOLD_IN_FULL:
        log.error("... and %d more calls failed, and nobody read their errors", len(worth) - TOLD_IN_FULL)


def _told(failure: bytes) -> str:
    return "\n".join(_indented(failure_text(failure)))


def _indented(text: str) -> Iterator[str]:
    for line in text.splitlines():
        yield f"  {line}"
