"""A generator's items between the process that makes them and the one that takes them: indexes, credit, replays.

Item i of a call has the number of the call plus 1 plus i, so its id follows from (call, i), as the ids of several
returns do. What the taker has once, it is never given again: a replay is told how many items it need not send. How many
may lie there untaken is the maker's bound (`limit`); the taker says how many it has taken, in time for the maker not to
stand still while there is work, and seldom enough not to cost a message an item.
"""

from __future__ import annotations

from typing import Final

# Numbers that one call may use up: 2**33, less the call's own place (below), is six hours of 300,000 items a second.
SPAN: Final = 1 << 33
MOST_CALLS: Final = 1 << 30
MOST_ITEMS: Final = SPAN - MOST_CALLS - 1
UNLIMITED: Final = 0
STREAMING: Final = -1
"""In place of the number of returns."""
ONE_ITEM: Final = -2
"""The same, of a call that is made again for the sake of one item, whose number it has."""


def first_number(after: int) -> int:
    """The number of a call whose items have numbers of their own; `after` is the next number that is free.

    The k-th span has its call at place k, not at 0: people tell calls apart by the last digits of their ids.
    Raises OverflowError when this process has no such numbers left.
    """
    k = -(-after // (SPAN + 1))
    if k > MOST_CALLS:
        raise OverflowError(f"this process has made {MOST_CALLS} generator calls, and has no numbers for another")
    return k * (SPAN + 1)


def number_behind(call: int) -> int:
    """The first number that is no item's of this call."""
    return (call // SPAN + 1) * SPAN


def call_of(number: int) -> int:
    """The number of the call that an item's number belongs to, if it is an item's."""
    return (number // SPAN) * (SPAN + 1)


def index_of(number: int) -> int:
    """Which item of its call has this number."""
    return number - call_of(number) - 1


class Outflow:
    """What a maker knows: how far it is, what it need not send, and how far it may go."""

    __slots__ = ("closed", "limit", "made", "skip", "taken")

    def __init__(self, limit: int = UNLIMITED, skip: int = 0, taken: int = 0) -> None:
        """`limit`: items that may lie untaken, 0 = any number. `skip`: items that the taker has from an earlier run."""
        self.limit = limit
        self.skip = skip
        self.taken = taken
        self.made = 0
        self.closed = False
        """Nobody wants more: the taker has dropped the generator, or is gone."""

    @property
    def parked(self) -> bool:
        """The next item may not be made before another one is taken."""
        return self.limit > 0 and self.made - self.taken >= self.limit and not self.closed

    def make(self) -> int:
        """One more item is made: its index, or -1 when the taker has it. Raises OverflowError after MOST_ITEMS."""
        index = self.made
        if index >= MOST_ITEMS:
            raise OverflowError(f"a generator may yield {MOST_ITEMS} items; start another for the rest")
        self.made = index + 1
        return index if index >= self.skip else -1

    def credit(self, taken: int) -> bool:
        """The taker has taken so many in all. True when that lets a parked maker go on. Old news changes nothing."""
        was_parked = self.parked
        self.taken = max(self.taken, taken)
        return was_parked and not self.parked

    def why_too_short(self) -> str:
        """The body has ended: text when that was earlier than in the run before, else empty."""
        if self.made >= self.skip or self.closed:
            return ""
        return (
            f"run again, the generator yielded {self.made} items, but {self.skip} the time before, which were taken: "
            "a generator that may be run again has to yield the same each time (max_retries=0 forbids it)"
        )


class Inflow:
    """What a taker knows: how many it was given, how many it has taken, and whether there will be more."""

    __slots__ = ("length", "limit", "received", "taken", "told")

    def __init__(self, limit: int = UNLIMITED) -> None:
        self.limit = limit
        self.received = 0
        self.taken = 0
        self.told = 0
        """So many the maker knows to be taken."""
        self.length: int | None = None
        """How many there are in all, once that is known: nothing comes after."""

    def arrive(self, index: int) -> bool:
        """Item `index` is here: False when it was here before, or comes after the end.

        Raises ValueError for one that comes before its turn: a maker sends them in order.
        """
        if index < self.received or self.length is not None:
            return False
        if index > self.received:
            raise ValueError(f"item {index} of a stream came when {self.received} was due")
        self.received = index + 1
        return True

    def take(self) -> bool:
        """One more is taken. True when the maker should hear of it now; else it may hear at the next occasion."""
        self.taken += 1
        return self.taken - self.told >= max(1, self.limit // 2)

    def tell(self) -> int:
        """What the maker is to be told is taken; -1 when it knows, or need not know."""
        if not self.limit or self.told == self.taken or self.length is not None:
            return -1
        self.told = self.taken
        return self.told

    def restart(self) -> tuple[int, int, int]:
        """The call is sent, perhaps once more: (limit, items not to be sent again, items taken)."""
        self.told = self.taken
        return self.limit, self.received, self.taken

    def end(self, length: int) -> str:
        """The maker has ended after so many items. Text when it is not what was received, else empty."""
        received = self.received
        self.length = received
        if length == received:
            return ""
        return f"the generator ended after {length} items, of which {received} have come"

    def fail(self) -> int:
        """It ended by an error, which stands in the place of one more item: its index."""
        self.received += 1
        self.length = self.received
        return self.received - 1

    @property
    def over(self) -> bool:
        """There will be nothing more."""
        return self.length is not None
