"""Sets of byte ranges, kept sorted: the free holes of an arena, and the parts of it that have memory behind them."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Final

# 512 holes a chunk: finding the first hole that fits among 50,000 looks at ~100 chunk maxima and one chunk (~15 us);
# a flat list would look at all of them (~1 ms), and insertion moves 4 KiB of pointers instead of 400.
_CHUNK: Final = 512


class Extents:
    """A set of bytes as sorted, disjoint, never touching ranges [start, end)."""

    __slots__ = ("_starts", "_ends")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    @property
    def total_bytes(self) -> int:
        """Number of bytes in the set."""
        return sum(self._ends) - sum(self._starts)

    def covers(self, start: int, end: int) -> bool:
        """Whether all of [start, end) is in the set."""
        at = bisect_right(self._starts, start) - 1
        return start >= end or (at >= 0 and end <= self._ends[at])

    def add(self, start: int, end: int) -> None:
        """Put [start, end) into the set, merged with what it touches."""
        if start >= end:
            return
        first = bisect_left(self._ends, start)  # the first range that ends at or after our start
        last = bisect_right(self._starts, end)  # past the last range that starts at or before our end
        if first < last:
            start = min(start, self._starts[first])
            end = max(end, self._ends[last - 1])
        self._starts[first:last] = [start]
        self._ends[first:last] = [end]


class FreeList:
    """The holes of an arena by address, found by first fit; a hole never touches its neighbours.

    Kept as chunks of at most 2 * 512 holes, each with its largest size, so that every operation looks at one chunk.
    """

    __slots__ = ("_starts", "_sizes", "_largest", "_firsts")

    def __init__(self, capacity_bytes: int) -> None:
        # Parallel lists; invariant: no chunk is empty, _firsts[i] == _starts[i][0], _largest[i] == max(_sizes[i]).
        self._starts: list[list[int]] = [[0]]
        self._sizes: list[list[int]] = [[capacity_bytes]]
        self._largest: list[int] = [capacity_bytes]
        self._firsts: list[int] = [0]

    @property
    def largest_bytes(self) -> int:
        """Size of the largest hole; 0 when there is none."""
        return max(self._largest, default=0)

    def holes(self) -> list[tuple[int, int]]:
        """All holes as (start, size), by address."""
        return [hole for chunk in zip(self._starts, self._sizes, strict=True) for hole in zip(*chunk, strict=True)]

    def take(self, nbytes: int) -> int | None:
        """Cut `nbytes` from the low end of the first hole that has them; None when no hole has."""
        for chunk, largest in enumerate(self._largest):
            if largest >= nbytes:
                sizes = self._sizes[chunk]
                at = next(i for i, size in enumerate(sizes) if size >= nbytes)
                start = self._starts[chunk][at]
                if sizes[at] == nbytes:
                    self._remove(chunk, at)
                else:
                    self._resize(chunk, at, start + nbytes, sizes[at] - nbytes)
                return start
        return None

    def give(self, start: int, nbytes: int) -> None:
        """Make [start, start + nbytes) free again, merged with the holes it touches."""
        chunk, at = self._find(start)
        following = self._neighbour(chunk, at, start + nbytes)
        if following is not None:
            nbytes += self._sizes[following[0]][following[1]]
            self._remove(*following)
            chunk, at = self._find(start)  # the removal may have closed a chunk
        if at > 0 and self._starts[chunk][at - 1] + self._sizes[chunk][at - 1] == start:
            self._resize(chunk, at - 1, self._starts[chunk][at - 1], self._sizes[chunk][at - 1] + nbytes)
        else:
            self._insert(chunk, at, start, nbytes)

    def _find(self, start: int) -> tuple[int, int]:
        """Where a hole at `start` belongs: behind the last hole below it."""
        chunk = max(bisect_right(self._firsts, start) - 1, 0)
        return chunk, bisect_left(self._starts[chunk], start) if self._starts else 0

    def _neighbour(self, chunk: int, at: int, start: int) -> tuple[int, int] | None:
        """The hole that begins exactly at `start`, given the place where its left neighbour would go."""
        if chunk < len(self._starts) and at == len(self._starts[chunk]):
            chunk, at = chunk + 1, 0
        if chunk < len(self._starts) and self._starts[chunk][at] == start:
            return chunk, at
        return None

    def _insert(self, chunk: int, at: int, start: int, nbytes: int) -> None:
        if not self._starts:
            self._starts, self._sizes, self._largest, self._firsts = [[start]], [[nbytes]], [nbytes], [start]
            return
        starts, sizes = self._starts[chunk], self._sizes[chunk]
        starts.insert(at, start)
        sizes.insert(at, nbytes)
        self._firsts[chunk] = starts[0]
        self._largest[chunk] = max(self._largest[chunk], nbytes)
        if len(starts) > 2 * _CHUNK:
            self._starts[chunk : chunk + 1] = [starts[:_CHUNK], starts[_CHUNK:]]
            self._sizes[chunk : chunk + 1] = [sizes[:_CHUNK], sizes[_CHUNK:]]
            self._largest[chunk : chunk + 1] = [max(sizes[:_CHUNK]), max(sizes[_CHUNK:])]
            self._firsts[chunk : chunk + 1] = [starts[0], starts[_CHUNK]]

    def _remove(self, chunk: int, at: int) -> None:
        starts, sizes = self._starts[chunk], self._sizes[chunk]
        del starts[at]
        size = sizes.pop(at)
        if not starts:
            del self._starts[chunk], self._sizes[chunk], self._largest[chunk], self._firsts[chunk]
            return
        self._firsts[chunk] = starts[0]
        if size == self._largest[chunk]:
            self._largest[chunk] = max(sizes)

    def _resize(self, chunk: int, at: int, start: int, nbytes: int) -> None:
        before = self._sizes[chunk][at]
        self._starts[chunk][at], self._sizes[chunk][at] = start, nbytes
        self._firsts[chunk] = self._starts[chunk][0]
        if before == self._largest[chunk] or nbytes > self._largest[chunk]:
            self._largest[chunk] = max(self._sizes[chunk])
