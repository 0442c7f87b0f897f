"""The allocator against a model that marks every page."""

from __future__ import annotations

import time

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, multiple, rule

from zmreg.model.errors import InternalError
from zmreg.store.arena import PAGE, Allocator, round_to_pages
from zmreg.store.extents import Extents, FreeList

PAGES = 64


class AllocatorModel(RuleBasedStateMachine):
    """Pages as a list: None free, else the offset of their block."""

    blocks = Bundle("blocks")

    def __init__(self) -> None:
        super().__init__()
        self.allocator = Allocator(PAGES * PAGE + 17)
        self.pages: list[int | None] = [None] * PAGES
        self.claimed = [False] * PAGES

    def holes(self) -> list[tuple[int, int]]:
        found: list[tuple[int, int]] = []
        for page, owner in enumerate(self.pages):
            if owner is None:
                if found and sum(found[-1]) == page * PAGE:
                    found[-1] = found[-1][0], found[-1][1] + PAGE
                else:
                    found.append((page * PAGE, PAGE))
        return found

    @rule(target=blocks, nbytes=st.integers(0, 20 * PAGE))
    def allocate(self, nbytes: int) -> object:
        need = round_to_pages(nbytes)
        expected = next((start for start, size in self.holes() if size >= need), None)
        offset = self.allocator.allocate(nbytes)
        assert offset == expected  # the lowest address that fits
        if offset is None:
            return multiple()
        for page in range(offset // PAGE, (offset + need) // PAGE):
            assert self.pages[page] is None  # no overlap
            self.pages[page] = offset
        return (offset, nbytes)

    @rule(block=consumes(blocks))
    def free(self, block: tuple[int, int]) -> None:
        offset, nbytes = block
        assert self.allocator.free(offset) == round_to_pages(nbytes)
        self.pages = [None if owner == offset else owner for owner in self.pages]
        with pytest.raises(InternalError, match=f"begins at {offset}"):
            self.allocator.free(offset)

    @rule(block=blocks)
    def claim(self, block: tuple[int, int]) -> None:
        offset, nbytes = block
        self.allocator.mark_claimed(offset, nbytes)
        for page in range(offset // PAGE, (offset + round_to_pages(nbytes)) // PAGE):
            self.claimed[page] = True

    @rule(first=st.integers(0, PAGES - 1), count=st.integers(1, PAGES))
    def is_claimed(self, first: int, count: int) -> None:
        count = min(count, PAGES - first)
        expected = all(self.claimed[first : first + count])
        assert self.allocator.is_claimed(first * PAGE, count * PAGE) == expected

    @invariant()
    def agrees(self) -> None:
        assert self.allocator.holes() == self.holes()  # neighbours are merged
        assert self.allocator.used_bytes == PAGE * sum(owner is not None for owner in self.pages)
        assert self.allocator.largest_free_bytes == max((size for _, size in self.holes()), default=0)
        assert self.allocator.claimed_bytes == PAGE * sum(self.claimed)
        assert [offset for offset, _ in self.allocator.blocks()] == sorted({o for o in self.pages if o is not None})


TestAllocatorModel = AllocatorModel.TestCase


def test_many_holes_stay_sorted_and_fast() -> None:
    """50,000 holes of one page: chunks split and close, and the search for a big hole does not look at each."""
    allocator = Allocator(100_001 * PAGE)
    offsets = [allocator.allocate(PAGE) for _ in range(100_000)]
    for offset in offsets[::2]:
        assert offset is not None
        allocator.free(offset)
    assert len(allocator.holes()) == 50_001

    def seconds(times: int) -> float:
        began = time.perf_counter()
        for _ in range(times):
            block = allocator.allocate(3 * PAGE)
            assert block is None
        return time.perf_counter() - began

    one_by_one = time.perf_counter()
    for _ in range(20):
        assert not any(size >= 2 * PAGE for _, size in allocator.holes())
    one_by_one = time.perf_counter() - one_by_one
    assert seconds(20) < one_by_one / 10
    for offset in offsets[1::2]:
        assert offset is not None
        allocator.free(offset)
    assert allocator.holes() == [(0, 100_001 * PAGE)]
    assert allocator.used_bytes == 0


def test_low_addresses_are_used_again() -> None:
    allocator = Allocator(16 * PAGE)
    first, second, third = (allocator.allocate(PAGE) for _ in range(3))
    assert (first, second, third) == (0, PAGE, 2 * PAGE)
    allocator.free(0)
    assert allocator.allocate(100) == 0


def test_an_arena_needs_a_page_and_a_size_is_not_negative() -> None:
    with pytest.raises(ValueError, match="less than one page"):
        Allocator(PAGE - 1)
    with pytest.raises(ValueError, match="0 or more"):
        Allocator(PAGE).allocate(-1)


def test_a_free_list_can_be_emptied_and_filled() -> None:
    free = FreeList(8)
    assert free.take(8) == 0
    assert free.take(1) is None
    assert free.largest_bytes == 0
    free.give(4, 2)
    free.give(0, 2)
    free.give(2, 2)
    assert free.holes() == [(0, 6)]


def test_extents_merge_what_they_touch() -> None:
    extents = Extents()
    for start, end in ((10, 20), (30, 40), (20, 30), (5, 6), (0, 0)):
        extents.add(start, end)
    assert extents.total_bytes == 31
    assert extents.covers(10, 40)
    assert not extents.covers(5, 10)
    assert extents.covers(7, 7)
