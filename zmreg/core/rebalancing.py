"""Which values go from full nodes to empty ones. Pure; what is decided on may be half a second old.

The fullest node gives to the emptiest one, the largest value that does not make that one the fuller of the two, until
no move makes the two clearly more alike. So no value moves twice, no node gives more than what it has above the others,
and a plan for what is level is empty.
"""

from __future__ import annotations

import heapq
from bisect import bisect_right
from collections.abc import Iterable, Mapping
from itertools import chain
from typing import Final

from zmreg.model.record import Record

# Moves in one plan: what one call has under way is bounded, and a second call goes on.
MOST_MOVES: Final = 10_000
# Two nodes that differ by less, in shares of their stores, are level.
LEVEL: Final = 0.02
# A value may make its new node the fuller one by this part of what it takes to be level, if no smaller one is there.
_OVER: Final = 1.5


class Piece(Record):
    """A value that may move: its size, and the nodes that have a copy that stays."""

    key: bytes
    nbytes: int
    holders: tuple[bytes, ...]


class Move(Record):
    """The copy of `key` that stays is to be at `target` and no longer at `source`."""

    key: bytes
    nbytes: int
    source: bytes
    target: bytes


def plan(pieces: Iterable[Piece], stores: Mapping[bytes, tuple[int, int]], most: int = MOST_MOVES) -> list[Move]:
    """`most` moves at the most. `stores`: node -> (bytes in use, size of the store); others take no part.

    What is in use of a store counts at least what of `pieces` is there: values on disk want to be in memory, too.
    """
    return _Planning(pieces, stores).moves(most)


class _Planning:
    def __init__(self, pieces: Iterable[Piece], stores: Mapping[bytes, tuple[int, int]]) -> None:
        self._size = {node: size for node, (_, size) in stores.items() if size > 0}
        self._at: dict[bytes, list[Piece]] = {node: [] for node in self._size}
        for piece in pieces:
            for node in piece.holders:
                if node in self._at and piece.nbytes > 0:
                    self._at[node].append(piece)
        for held in self._at.values():
            held.sort(key=lambda piece: (piece.nbytes, piece.key))
        self._used = {
            node: max(stores[node][0], sum(piece.nbytes for piece in held)) for node, held in self._at.items()
        }

    def moves(self, most: int) -> list[Move]:
        """The plan."""
        found: list[Move] = []
        moved: set[bytes] = set()
        givers = [(-self._share(node), node) for node in self._size]
        heapq.heapify(givers)
        while givers and len(found) < most:
            _, source = heapq.heappop(givers)
            move = self._move_from(source, moved)
            if move is None:  # nothing that it has may go anywhere, and by others' moves nobody gets emptier than now
                continue
            found.append(move)
            moved.add(move.key)
            self._used[source] -= move.nbytes
            self._used[move.target] += move.nbytes
            heapq.heappush(givers, (-self._share(source), source))
        return found

    def _share(self, node: bytes) -> float:
        return self._used[node] / self._size[node]

    def _move_from(self, source: bytes, moved: set[bytes]) -> Move | None:
        """To the emptiest that can have anything of it; None when it keeps all."""
        for target in sorted(self._size, key=lambda node: (self._share(node), node)):
            gap = self._share(source) - self._share(target)
            if gap <= LEVEL:
                return None
            level = gap / (1 / self._size[source] + 1 / self._size[target])
            most = min(level * _OVER, self._size[target] - self._used[target])
            if (piece := self._fitting(self._at[source], target, level, most, moved)) is not None:
                return Move(piece.key, piece.nbytes, source, target)
        return None

    def _fitting(self, held: list[Piece], target: bytes, level: float, most: float, moved: set[bytes]) -> Piece | None:
        """The largest up to `level` bytes, else the smallest up to `most`, which the target does not have."""
        first = bisect_right(held, level, key=lambda piece: piece.nbytes)
        for place in chain(range(first - 1, -1, -1), range(first, len(held))):
            piece = held[place]
            if place >= first and piece.nbytes > most:
                return None
            if piece.key not in moved and target not in piece.holders and piece.nbytes <= most:
                return held.pop(place)
        return None
