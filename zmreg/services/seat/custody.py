"""Borrowed refs that this process has handed on: held until their owner knows the new holder."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from zmreg.model.ids import owner_of
from zmreg.services.seat.entries import Entry

Key = tuple[bytes, bytes]
"""(object id, process it was handed to)."""


class Custody:
    """One hold a hand-over, and one `settled` of the owner for each. The two may come in either order."""

    def __init__(self) -> None:
        self._held: dict[Key, list[Entry]] = {}
        # The owner's word overtook the lender's: nothing to hold when that comes. No zeros.
        self._early: Counter[Key] = Counter()
        self.on_change: Callable[[], None] = lambda: None
        """Called when a hold has ended."""

    def hold(self, entry: Entry, borrower: bytes) -> None:
        """Keep the entry until its owner knows `borrower`."""
        key = (entry.object_id, borrower)
        if self._early[key]:
            self._early[key] -= 1
            if not self._early[key]:
                del self._early[key]
        else:
            self._held.setdefault(key, []).append(entry)

    def settled(self, object_id: bytes, borrower: bytes) -> None:
        """The owner knows the borrower of one hand-over."""
        key = (object_id, borrower)
        held = self._held.get(key)
        if held is None:
            self._early[key] += 1
            return
        held.pop()
        if not held:
            del self._held[key]
        self.on_change()

    def borrower_gone(self, process: bytes) -> None:
        """Nothing is to be kept for it any more."""
        self._remove([key for key in (*self._held, *self._early) if key[1] == process])

    def borrowers(self) -> set[bytes]:
        """Everybody for whom something is kept."""
        return {borrower for _, borrower in self._held}

    def owner_gone(self, process: bytes) -> None:
        """It settles nothing any more."""
        self._remove([key for key in (*self._held, *self._early) if owner_of(key[0]) == process])

    def _remove(self, keys: list[Key]) -> None:
        for key in keys:
            self._held.pop(key, None)
            self._early.pop(key, None)
        self.on_change()

    def __len__(self) -> int:
        return sum(map(len, self._held.values()))
