"""How many items of all generators of one actor may lie there untaken, together.

Each generator has its own bound besides, and goes on when both allow. One whose taker waits for its next item makes it
in any case: the others' items may be what that taker comes to afterwards, and then nobody would ever go on. So as many
more as takers wait may lie there, each for as long as its way is.
"""

from __future__ import annotations

from contextlib import AbstractContextManager

from zmreg.core.streams import Outflow


class Budget:
    """An actor's. `guard` keeps its threads apart."""

    __slots__ = ("free", "guard")

    def __init__(self, limit: int, guard: AbstractContextManager[object]) -> None:
        self.free = limit
        """Places for items. Below 0 when somebody waits for the items of one that has none."""
        self.guard = guard


class CappedOutflow(Outflow):
    """A generator's part of it. Items that its taker had of an earlier run, and has taken, take no place."""

    __slots__ = ("_budget", "_has_place", "_places", "_wanted")

    def __init__(self, budget: Budget, limit: int, skip: int = 0, taken: int = 0, wanted: int = 0) -> None:
        """`wanted`: somebody waits for so many items, of all that there ever were; the other three as for any."""
        super().__init__(limit, skip, taken)
        self._budget = budget
        self._places = 0
        self._has_place = False
        self._wanted = wanted

    @property
    def parked(self) -> bool:
        """As `Outflow.parked`. When it is not, the next item has its place, and keeps it until it is made."""
        if self.closed or self._has_place:
            return False
        budget = self._budget
        with budget.guard:
            wanted = self.made < self._wanted
            if self.limit > 0 and self.made - self.taken >= self.limit and not wanted:
                return True
            if self.made + 1 - self.taken > self._places:
                if budget.free <= 0 and not wanted:
                    return True
                budget.free -= 1
                self._places += 1
            self._has_place = True
        return False

    def make(self) -> int:
        """As `Outflow.make`."""
        self._has_place = False
        return super().make()

    def credit(self, taken: int) -> bool:
        """As `Outflow.credit`; True also when that may let another one go on."""
        with self._budget.guard:
            if taken <= self.taken:
                return False
            self.taken = taken
            self._give_back(self.made + self._has_place - taken)
        return True

    def want(self, wanted: int) -> None:
        """Somebody waits for so many items."""
        self._wanted = max(self._wanted, wanted)

    def end(self) -> None:
        """It is over: what lies there of it takes no place any more."""
        with self._budget.guard:
            self._give_back(0)

    def _give_back(self, needed: int) -> None:
        more = self._places - max(0, needed)
        if more > 0:
            self._places -= more
            self._budget.free += more
