"""The sender's end of a stream between two processes: what waits to be taken, within a credit, and what is kept.

The receiver asks (`ask`) and is given (`give`). It says how much has come, how much of it is in hand, and how much is
done with; the first lets nothing be given twice, the second makes room, and by the third a receiver that starts anew
in place of a dead one gets what that one had not done.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from itertools import islice
from typing import Final, Generic, TypeVar

T = TypeVar("T")

ANEW: Final = -1
"""`after` of a receiver that has nothing yet, and knows no numbers."""
# An answer should not hold up others' on the same way for long: 1 MiB is under a millisecond of it.
BATCH_BYTES: Final = 1 << 20


class Outbox(Generic[T]):
    """Entries are numbered from 0. Invariant: done <= in hand <= come <= put, and what is put and not in hand is at
    most `items`, and `nbytes` but for the last one."""

    __slots__ = (
        "_asked",
        "_bytes",
        "_come",
        "_consumed",
        "_entries",
        "_first",
        "_sizes",
        "items",
        "keeps",
        "nbytes",
        "over",
    )

    def __init__(self, items: int, nbytes: int, keeps: bool = False) -> None:
        """`keeps`: hold entries until they are done, and not only until they have come. ValueError: items under 1."""
        if items < 1:
            raise ValueError(f"an outbox of {items} items lets nothing through")
        self.items = items
        self.nbytes = nbytes
        self.keeps = keeps
        self.over: object = None
        """What comes behind the last entry, once that is known."""
        self._entries: deque[tuple[T, int]] = deque()
        self._first = 0
        """The number of the first of them."""
        self._come = self._consumed = self._bytes = 0
        self._asked = -1
        """The number of the entry that the receiver waits for."""
        self._sizes: deque[int] = deque()
        """Of what is put and not in hand."""

    @property
    def put_count(self) -> int:
        """How many were put."""
        return self._first + len(self._entries)

    @property
    def come(self) -> int:
        """How many are known to have come."""
        return self._come

    @property
    def is_drained(self) -> bool:
        """Nothing more is put, and all of it has come."""
        return self.over is not None and self._come == self.put_count

    @property
    def is_needless(self) -> bool:
        """It is drained, and nobody can come for any of it once more."""
        return self.is_drained and not self.keeps

    def __len__(self) -> int:
        """How many are not in hand."""
        return len(self._sizes)

    def has_room(self) -> bool:
        """Whether one more may be put. One may when the receiver waits for that very one, whatever the credit: what it
        has in hand since then it will not say before it is answered."""
        if not self._sizes or self._asked == self.put_count:
            return True
        return len(self._sizes) < self.items and self._bytes < self.nbytes

    def put(self, entry: T, nbytes: int) -> None:
        """One more. ValueError behind the end."""
        if self.over is not None:
            raise ValueError("nothing comes behind the end")
        self._entries.append((entry, nbytes))
        self._sizes.append(nbytes)
        self._bytes += nbytes

    def end(self, over: object) -> None:
        """Nothing more is put, and this is why. The first reason stands."""
        if self.over is None:
            self.over = over

    def allow(self, items: int, nbytes: int) -> None:
        """Another credit from now on; what is out stays out."""
        self.items, self.nbytes = max(1, items), nbytes

    def ask(self, come: int, consumed: int, done: int) -> None:
        """What the receiver says of itself. News may come late or twice; it only ever goes forward, but for ANEW."""
        self._asked = max(come, self._first)
        if come == ANEW:
            self._come = self._consumed = self._first
            self._sizes = deque(size for _, size in self._entries)
            self._bytes = sum(self._sizes)
            return
        self._come = max(self._come, min(come, self.put_count))
        while self._consumed < min(consumed, self._come):
            self._bytes -= self._sizes.popleft()
            self._consumed += 1
        base = min(done, self._consumed) if self.keeps else self._come
        while self._first < base:
            self._entries.popleft()
            self._first += 1

    def is_ready(self, come: int) -> bool:
        """Whether there is anything for a receiver that has so many."""
        return self.put_count > max(come, self._first) or self.over is not None

    def give(self, come: int, want: int) -> tuple[int, Sequence[T], object]:
        """(number of the first, entries, what ended it if these are the last): at most `want`, and 1 MiB or one."""
        first = max(come, self._first)
        given: list[T] = []
        nbytes = 0
        for entry, size in islice(self._entries, first - self._first, first - self._first + want):
            nbytes += size
            if given and nbytes > BATCH_BYTES:
                break
            given.append(entry)
        return first, given, self.over if first + len(given) == self.put_count else None

    def __repr__(self) -> str:
        return (
            f"<Outbox {len(self._sizes)}/{self.items} items, {self._bytes}/{self.nbytes} B, {len(self._entries)} kept>"
        )
