"""The sender's end of a stream: nothing lost, nothing twice, never more out than allowed, in any order of things."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from zmreg.core.outbox import ANEW, Outbox


class Receiver:
    """Takes up to `buffer`, and asks when it has room for half of that."""

    def __init__(self, buffer: int) -> None:
        self.buffer = buffer
        self.come = self.consumed = self.done = 0
        self.is_anew = True
        self.waiting: list[int] = []
        self.seen: list[int] = []

    def ask(self, box: Outbox[int]) -> bool:
        """Whether something came."""
        if len(self.waiting) > self.buffer // 2:
            return False
        box.allow(self.buffer, 100)
        come = ANEW if self.is_anew else self.come
        box.ask(come, self.consumed, self.done)
        if not box.is_ready(come):
            return False
        first, entries, _ = box.give(come, self.buffer - len(self.waiting))
        if self.is_anew:
            self.is_anew, self.come, self.consumed, self.done = False, first, first, first
        assert first == self.come
        self.come += len(entries)
        self.waiting += entries
        return bool(entries)

    def read(self) -> None:
        if self.waiting:
            self.consumed += 1
            self.seen.append(self.waiting.pop(0))


@given(
    buffer=st.integers(1, 5),
    sizes=st.lists(st.integers(1, 120), min_size=1, max_size=30),
    steps=st.lists(st.sampled_from("parrdx"), max_size=150),
)
@settings(max_examples=examples(300))
def test_P12_P24_whatever_happens_all_is_seen_in_order_and_none_is_out_beyond_the_credit(
    buffer: int, sizes: list[int], steps: list[str]
) -> None:
    """p: the sender puts, a: the receiver asks, r: reads, d: is done with what it has read, x: dies, and another one
    begins with what was not done."""
    box: Outbox[int] = Outbox(1, 100, keeps=True)
    receiver = Receiver(buffer)
    kept: list[int] = []
    ahead = 0

    def do(step: str) -> None:
        nonlocal receiver, ahead
        if step == "p" and box.put_count < len(sizes) and box.has_room():
            box.put(box.put_count, sizes[box.put_count])
            ahead = box.put_count - receiver.consumed
        elif step == "a":
            receiver.ask(box)
        elif step == "r":
            receiver.read()
        elif step == "d":
            receiver.done = receiver.consumed
        elif step == "x":
            kept.extend(receiver.seen)
            receiver = Receiver(buffer)

    for step in steps:
        before = box.put_count
        do(step)
        if box.put_count > before and not receiver.is_anew and "x" not in steps:
            assert ahead <= buffer + 1
    for _ in range(len(sizes) * 4 + 8):  # and it always goes on
        for step in "aprd":
            do(step)
    seen = kept + receiver.seen
    assert sorted(set(seen)) == list(range(len(sizes)))
    assert receiver.seen == list(range(receiver.seen[0], len(sizes))) if receiver.seen else "x" in steps
    if "x" not in steps:
        assert seen == list(range(len(sizes)))


def test_P12_a_receiver_that_waits_for_one_gets_it_however_large_what_is_out() -> None:
    box: Outbox[str] = Outbox(4, 10)
    box.put("a", 50)
    assert not box.has_room()
    box.ask(ANEW, 0, 0)
    assert box.give(ANEW, 4) == (0, ["a"], None)
    box.ask(1, 0, 0)  # it has it, and did not read it yet
    assert box.has_room()
    box.put("b", 50)
    assert not box.has_room()


def test_P12_the_end_comes_behind_the_last_entry_and_nothing_behind_the_end() -> None:
    box: Outbox[str] = Outbox(4, 10)
    box.put("a", 1)
    box.put("b", 1)
    box.end("over")
    box.end("for another reason")
    assert box.give(0, 1) == (0, ["a"], None)
    assert box.give(1, 1) == (1, ["b"], "over")
    before = box.is_drained
    box.ask(2, 2, 2)
    assert (before, box.is_drained) == (False, True)
    with pytest.raises(ValueError, match="behind the end"):
        box.put("c", 1)
