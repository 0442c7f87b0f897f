"""How a stage reads several streams as one: as they come, one after the other, or in step.

Bounds. "interleave" takes as much of each edge as it has room for, and no more. "concat" has to let the later edges go
on while it reads an earlier one, and "zip" a faster one while it waits for a slower: in a diamond all of them are fed
by one stage, which stands still when one of them does, so a bound on each would stop the pipeline for good. What waits
there beyond the buffer is therefore taken all the same, and counted (`spilled`): its owner may put it aside.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Final, Generic, TypeVar

T = TypeVar("T")

INTERLEAVE: Final = "interleave"
CONCAT: Final = "concat"
ZIP: Final = "zip"
MODES: Final = (INTERLEAVE, CONCAT, ZIP)


class Merge(Generic[T]):
    """The inbox of a stage with `edges` inputs, numbered from 0 in the order in which they were listed.

    `take` and `end` from the edges, `next` for the stage: a tuple of one item, for "zip" of one from each edge.
    """

    __slots__ = ("_arrived", "_by_turns", "_ended", "_queues", "buffer", "mode")

    def __init__(self, mode: str, edges: int, buffer: int) -> None:
        """`buffer`: items of each edge that may wait here. ValueError for another mode, or a buffer under 1."""
        if mode not in MODES:
            raise ValueError(f"merge={mode!r}: write one of {', '.join(map(repr, MODES))}")
        if buffer < 1:
            raise ValueError(f"buffer={buffer}: at least one item has to fit")
        self.mode = mode
        self.buffer = buffer
        self._queues: list[deque[T]] = [deque() for _ in range(edges)]
        self._ended = [False] * edges
        self._arrived: deque[int] = deque()
        """Of "interleave": whose turn it is, item by item."""
        self._by_turns = mode == INTERLEAVE and edges > 1

    def room(self, edge: int) -> int:
        """How many more items that edge may send now; at least 1 where stopping it could stop everything."""
        left = self.buffer - len(self._queues[edge])
        return max(left, 0 if self.mode == INTERLEAVE else 1)

    def waiting(self, edge: int) -> int:
        """How many items of that edge wait."""
        return len(self._queues[edge])

    @property
    def spilled(self) -> int:
        """Items that wait beyond the buffer."""
        return sum(max(0, len(queue) - self.buffer) for queue in self._queues)

    def __len__(self) -> int:
        return sum(map(len, self._queues))

    def take(self, edge: int, items: Sequence[T]) -> None:
        """What has come by an edge, in its order."""
        if self._ended[edge]:
            raise ValueError(f"edge {edge} has ended")
        if self.mode == ZIP and self._is_cut_short():
            return
        self._queues[edge].extend(items)
        if self._by_turns:
            self._arrived.extend([edge] * len(items))

    def end(self, edge: int) -> None:
        """Nothing more comes by it. Idempotent."""
        self._ended[edge] = True
        if self.mode == ZIP and self._is_cut_short():
            for queue in self._queues:
                queue.clear()

    def drop(self, edge: int, count: int) -> None:
        """Of "zip": the first so many that wait of that edge have no partner."""
        for _ in range(count):
            self._queues[edge].popleft()

    def has_ended(self, edge: int) -> bool:
        """Whether nothing more comes by it."""
        return self._ended[edge]

    def next(self) -> tuple[T, ...] | None:
        """What the stage is to be called with; None: nothing yet, or `is_over`."""
        if self._by_turns:
            return (self._queues[self._arrived.popleft()].popleft(),) if self._arrived else None
        if self.mode != ZIP:
            for queue, ended in zip(self._queues, self._ended, strict=True):
                if queue:
                    return (queue.popleft(),)
                if not ended:
                    return None
            return None
        if not all(self._queues):
            return None
        made = tuple(queue.popleft() for queue in self._queues)
        if self._is_cut_short():
            for queue in self._queues:
                queue.clear()
        return made

    def some(self, most: int) -> list[tuple[T, ...]]:
        """As `next`, so many at most; [] for None."""
        if len(self._queues) == 1 and self.mode != ZIP:
            queue = self._queues[0]
            return [(queue.popleft(),) for _ in range(min(most, len(queue)))]
        found: list[tuple[T, ...]] = []
        while len(found) < most and (made := self.next()) is not None:
            found.append(made)
        return found

    def _is_cut_short(self) -> bool:
        """Of "zip": one edge has ended and has nothing left, so what the others have finds no partner."""
        return any(ended and not queue for queue, ended in zip(self._queues, self._ended, strict=True))

    @property
    def is_over(self) -> bool:
        """Nothing comes any more."""
        if self.mode == ZIP:
            return self._is_cut_short()
        return all(self._ended) and not any(self._queues)

    def __repr__(self) -> str:
        return f"<Merge {self.mode} {[len(queue) for queue in self._queues]}>"
