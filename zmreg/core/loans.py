"""Who else holds refs of ours: the owner's count of loans, per object and process.

Inside a process Python counts handles; this book counts only what has crossed. A loan is booked once per hand-over,
not once per process: a borrower that drops its handles (and says so, with the number of hand-overs it had seen) while
another hand-over to it is on its way must not lose the object. Messages of one process arrive in order, so a return
never overtakes the loan it answers.

Invariant: an object is in the book exactly while some living process owes it at least one return.
"""

from __future__ import annotations


class Loans:
    """Object id -> process -> hand-overs not yet returned."""

    def __init__(self) -> None:
        self._owed: dict[bytes, dict[bytes, int]] = {}

    def lend(self, object_id: bytes, process: bytes) -> bool:
        """One more hand-over; True if the object was not lent before (its owner must hold on to it now)."""
        owed = self._owed.get(object_id)
        if owed is None:
            self._owed[object_id] = {process: 1}
            return True
        owed[process] = owed.get(process, 0) + 1
        return False

    def returned(self, object_id: bytes, process: bytes, count: int) -> bool:
        """`process` gives back `count` hand-overs; True if nobody holds the object any more.

        Returns of what was never lent (a duplicate, a process already swept) change nothing.
        """
        owed = self._owed.get(object_id)
        if owed is None or process not in owed:
            return False
        owed[process] -= count
        if owed[process] <= 0:
            del owed[process]
        if owed:
            return False
        del self._owed[object_id]
        return True

    def restate(self, object_id: bytes, process: bytes, count: int) -> bool:
        """`process` says how many hand-overs it owes in all; True if nobody holds the object any more."""
        if count > 0:
            self._owed.setdefault(object_id, {})[process] = count
            return False
        return self.returned(object_id, process, self._owed.get(object_id, {}).get(process, 0))

    def process_died(self, process: bytes) -> list[bytes]:
        """Everything it owed is returned; the objects that nobody holds any more."""
        free = []
        for object_id, owed in list(self._owed.items()):
            if owed.pop(process, 0) and not owed:
                del self._owed[object_id]
                free.append(object_id)
        return free

    def owed(self, object_id: bytes) -> dict[bytes, int]:
        """The processes that hold it, each with the hand-overs it has not returned."""
        return dict(self._owed.get(object_id, {}))

    def everybody(self) -> set[bytes]:
        """Every process that holds anything."""
        return {process for owed in self._owed.values() for process in owed}

    def borrowers(self, object_id: bytes) -> tuple[bytes, ...]:
        """The processes that hold it."""
        return tuple(self._owed.get(object_id, ()))

    def __len__(self) -> int:
        return len(self._owed)

    def __contains__(self, object_id: bytes) -> bool:
        return object_id in self._owed
