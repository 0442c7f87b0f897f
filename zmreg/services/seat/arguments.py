"""Large plain arguments that outlive their calls, so that what was made of them elsewhere can be made again.

`f.remote(array)` has put the array into the store, and nobody holds a ref to it. What another node has made of it is
lost with that node, and could not be made again without the argument. So an owner keeps such bytes for as long as the
result lives, of later calls before earlier ones, within a bound: under pressure they are spilled like any value.
"""

from __future__ import annotations

import weakref
from collections import Counter
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from zmreg.services.seat.lineage import Recipe

# Of the store's size; at most as much as recipes may take (lineage.py).
SHARE: Final = 4


class KeptArguments:
    """Which recipes of one owner keep their large plain arguments. Under the client's lock."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        self.nbytes = 0
        """Each object once, however many calls have taken it."""
        self._kept: dict[int, tuple[weakref.ref[Recipe], dict[bytes, int]]] = {}
        """By the number of the call, oldest first: (recipe, sizes of the arguments it keeps)."""
        self._uses: Counter[bytes] = Counter()

    def keep(self, recipe: Recipe) -> None:
        """Its results lie at another node. Arguments larger than the bound are not kept."""
        if recipe.counter in self._kept or recipe.why_not:
            return
        sizes = {source.object_id: source.nbytes_plain for source in recipe.sources if source.nbytes_plain}
        if not sizes or sum(sizes.values()) > self.limit_bytes:
            return
        for source in recipe.sources:
            source.keep_plain()
        self._kept[recipe.counter] = (weakref.ref(recipe), sizes)
        for object_id, nbytes in sizes.items():
            self.nbytes += nbytes if not self._uses[object_id] else 0
            self._uses[object_id] += 1
        while self.nbytes > self.limit_bytes:
            self._let_go(next(iter(self._kept)))

    def _let_go(self, counter: int) -> None:
        oldest = self._kept[counter][0]()
        self.over(counter)
        for source in oldest.sources if oldest is not None else ():
            source.let_go()

    def over(self, counter: int) -> None:
        """That call's recipe is gone, and what it kept with it."""
        _, sizes = self._kept.pop(counter, (None, {}))
        for object_id, nbytes in sizes.items():
            self._uses[object_id] -= 1
            if not self._uses[object_id]:
                del self._uses[object_id]
                self.nbytes -= nbytes
