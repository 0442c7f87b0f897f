"""Processes known to be dead, so that a message of theirs still in a queue cannot bring their claims back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

# 4,096 ids of 8 bytes: far more deaths than can happen while one late message is under way.
_KEPT: Final = 4_096


class Graves:
    """A bounded set of process ids, forgetting the oldest. Ids are random and never reused."""

    __slots__ = ("_ids", "_kept")

    def __init__(self, kept: int = _KEPT) -> None:
        self._ids: dict[bytes, None] = {}
        self._kept = kept

    def bury(self, process: bytes) -> None:
        self._ids[process] = None
        if len(self._ids) > self._kept:
            del self._ids[next(iter(self._ids))]

    def exhume(self, process: bytes) -> None:
        self._ids.pop(process, None)

    def among(self, processes: Iterable[bytes]) -> set[bytes]:
        """Those of these that are dead."""
        return self._ids.keys() & processes

    def __contains__(self, process: bytes) -> bool:
        return process in self._ids

    def __len__(self) -> int:
        return len(self._ids)

    def __repr__(self) -> str:
        return f"<Graves {len(self._ids)}/{self._kept}>"
