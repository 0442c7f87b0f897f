"""How the store makes room: which objects leave memory so that another one fits. Pure; the table carries it out."""

from __future__ import annotations

from collections import OrderedDict
from typing import Final

from zmreg.store.arena import Allocator, round_to_pages
from zmreg.store.records import Holding

# A spill writes to disk, dropping a copy that exists elsewhere does not: clearing a hole takes the bytes of up to
# four secondary copies before it writes one primary of that size.
_SPILL_COST: Final = 4
# A search for a range looks at every block (18 ms for 25,000). After one in vain, this part of as many requests is
# not searched for: a driver that drops 25,000 arrays one by one then costs 64 searches a round, not 25,000.
_SEARCH_SHARE: Final = 64


class Room:
    """The memory of the store: the allocator under a budget, and who would leave it first.

    Every entry with a block is in exactly one of three groups, told by `note`: movable (sealed and unused, by time of
    last use), coming (its memory returns when a disk copy ends), and all others, which only their users can release.
    Invariant: used_bytes <= budget_bytes.
    """

    def __init__(self, budget_bytes: int, capacity_bytes: int, evict_secondaries: bool) -> None:
        self.allocator: Final = Allocator(capacity_bytes)
        self.budget_bytes: Final = min(budget_bytes, self.allocator.capacity_bytes)
        self.peak_bytes = 0
        self.cache_bytes = 0
        self.secondary_bytes = 0
        self.coming_bytes = 0
        self.can_spill = True
        self._evict_secondaries = evict_secondaries
        self._by_offset: dict[int, Holding] = {}
        self._secondaries: OrderedDict[bytes, Holding] = OrderedDict()  # least recently used first, both
        self._primaries: OrderedDict[bytes, Holding] = OrderedDict()
        self._coming: set[bytes] = set()
        self._droppable_bytes = 0  # movable without a disk write
        self._spillable_bytes = 0  # movable, but only through a spill
        self._vain_bytes = 0  # a range of so many was searched for in vain,
        self._skips = 0  # and this many searches for as many or more are skipped
        self._counted: dict[bytes, tuple[int, bool]] = {}  # movable id -> (block bytes, droppable)

    def can_drop(self, entry: Holding) -> bool:
        """Whether its memory can be given up at once: another copy exists, on its primary's node or on disk."""
        return entry.on_disk or (entry.secondary and self._evict_secondaries)

    def could_hold(self, nbytes: int) -> bool:
        """Whether an object of this size fits into the empty store."""
        return round_to_pages(nbytes) <= self.budget_bytes

    def place(self, entry: Holding) -> bool:
        """Give the entry a block if there is room now; says whether it has one."""
        if self.allocator.used_bytes + round_to_pages(entry.nbytes) > self.budget_bytes:
            return False
        offset = self.allocator.allocate(entry.nbytes)
        if offset is None:
            return False
        entry.offset = offset
        self._by_offset[offset] = entry
        if entry.secondary:
            self.secondary_bytes += round_to_pages(entry.nbytes)
        self.peak_bytes = max(self.peak_bytes, self.allocator.used_bytes)
        return True

    def release(self, entry: Holding) -> None:
        """Take the entry's block back."""
        self._forget(entry)
        del self._by_offset[entry.offset]
        self.allocator.free(entry.offset)
        entry.offset = -1
        if entry.secondary:
            self.secondary_bytes -= round_to_pages(entry.nbytes)

    def promote(self, entry: Holding) -> None:
        """A secondary copy becomes a primary."""
        entry.secondary = False
        if entry.offset >= 0:
            self.secondary_bytes -= round_to_pages(entry.nbytes)
            self.note(entry)

    def demote(self, entry: Holding) -> None:
        """A primary becomes a secondary copy."""
        entry.secondary = True
        if entry.offset >= 0:
            self.secondary_bytes += round_to_pages(entry.nbytes)
            self.note(entry)

    def over_cache(self, coming_bytes: int) -> Holding | None:
        """The secondary copy to drop if all of them, and one that comes, take more than `cache_bytes`."""
        if not self.cache_bytes or not self._secondaries:
            return None
        if self.secondary_bytes + round_to_pages(coming_bytes) <= self.cache_bytes:
            return None
        return next(iter(self._secondaries.values()))

    def note(self, entry: Holding) -> None:
        """Sort the entry, which has a block, into its group again; a movable one counts as just used."""
        self._forget(entry)
        size = round_to_pages(entry.nbytes)
        if entry.is_coming():
            self._coming.add(entry.object_id)
            self.coming_bytes += size
        elif entry.is_movable():
            droppable = self.can_drop(entry)
            self._counted[entry.object_id] = size, droppable
            if droppable:
                self._droppable_bytes += size
            else:
                self._spillable_bytes += size
            secondary = entry.secondary and self._evict_secondaries
            (self._secondaries if secondary else self._primaries)[entry.object_id] = entry

    def victims_for(self, nbytes: int) -> list[Holding]:
        """Who must leave so that `nbytes` fit, which they do not now; empty when waiting is all that helps.

        Least recently used first, secondary copies before primaries. When there are bytes enough but no hole, the
        cheapest range of movable neighbours.
        """
        size = round_to_pages(nbytes)
        short = self.allocator.used_bytes - self.coming_bytes + size - self.budget_bytes
        if short > 0:
            return self._oldest(short)
        if self.coming_bytes:
            return []  # what returns may be the hole
        if self._skips and size >= self._vain_bytes:
            self._skips -= 1
            return []
        victims = self._cheapest_range(size)
        if not victims:
            self._vain_bytes, self._skips = size, len(self._by_offset) // _SEARCH_SHARE
        return victims

    def search_again(self) -> None:
        """Skip no search any more. Called on every tick, since the last release may have fallen into the skips."""
        self._skips = 0

    def _forget(self, entry: Holding) -> None:
        if entry.object_id in self._coming:
            self._coming.remove(entry.object_id)
            self.coming_bytes -= round_to_pages(entry.nbytes)
        counted = self._counted.pop(entry.object_id, None)
        if counted is not None:
            size, droppable = counted
            if droppable:
                self._droppable_bytes -= size
            else:
                self._spillable_bytes -= size
            self._secondaries.pop(entry.object_id, None)
            self._primaries.pop(entry.object_id, None)

    def _oldest(self, nbytes: int) -> list[Holding]:
        if nbytes > self._droppable_bytes + (self._spillable_bytes if self.can_spill else 0):
            return []  # too few bytes by any means: nobody is thrown out in vain
        victims: list[Holding] = []
        for group in (self._secondaries, self._primaries):
            for entry in group.values():
                if nbytes <= 0:
                    return victims
                if self.can_spill or self.can_drop(entry):
                    victims.append(entry)
                    nbytes -= round_to_pages(entry.nbytes)
        return victims

    def _cheapest_range(self, size: int) -> list[Holding]:
        """The movable blocks in one range of `size` bytes without an immovable one, at least cost; [] if none is.

        Only a store that is fragmented by readers comes here.
        """
        if not self._counted:
            return []
        best: list[Holding] = []
        best_cost = 0
        window: list[tuple[Holding, int]] = []  # movable neighbours and their costs, by address
        low = 0  # where the window begins: the end of the block below it
        cost = first = 0
        ends = [*self.allocator.blocks(), (self.allocator.capacity_bytes, 0)]
        for offset, nbytes in ends:
            while first < len(window) and offset - low >= size:
                if not best or cost < best_cost:
                    best, best_cost = [entry for entry, _ in window[first:]], cost
                entry, entry_cost = window[first]
                cost -= entry_cost
                low = entry.offset + round_to_pages(entry.nbytes)
                first += 1
            block = self._by_offset.get(offset)
            if block is None or not (block.is_movable() and (self.can_spill or self.can_drop(block))):
                window, first, cost, low = [], 0, 0, offset + nbytes
                continue
            block_cost = nbytes if self.can_drop(block) else nbytes * _SPILL_COST
            window.append((block, block_cost))
            cost += block_cost
        return best
