"""What a node says of itself on its PUB: who it is and what it has free, twice a second and soon after a change."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from zmreg.model.messages import NodeRecord

_EVERY_S: Final = 0.5
# A change is told at most this often.
_CHANGE_S: Final = 0.02
# To see whether there is one takes 40 us: not in each of the thousand turns a second of a node that passes calls on.
_LOOK_S: Final = 0.005


class Bulletin:
    """One node's. `record()` describes it now, `publish(record)` tells the others."""

    def __init__(self, record: Callable[[], NodeRecord], publish: Callable[[NodeRecord], None]) -> None:
        self._record = record
        self._publish = publish
        self._told: NodeRecord | None = None
        self._told_at = self._look_at = float("-inf")
        self._moved = True

    def tick(self, now: float, moved: bool = True) -> float | None:
        """Tell what has changed. When to look again, if it was too early to look; None: after whatever comes next.

        `moved`: something has happened since the last time. A node that only passes on has nothing new to tell.
        """
        self._moved = self._moved or moved
        again = self._look_at if self._moved else self._told_at + _EVERY_S
        if now < again:
            return again
        self._moved = False
        self._look_at = now + _LOOK_S
        record = self._record()
        if now - self._told_at >= _EVERY_S or record != self._told:
            self._told, self._told_at = record, now
            self._look_at = now + _CHANGE_S
            self._publish(record)
        return None
