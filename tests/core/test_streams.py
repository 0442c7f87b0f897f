"""The conversation about a generator's items: nothing twice, nothing lost, never more untaken than allowed."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.effort import examples
from zmreg.core.streams import (
    MOST_CALLS,
    MOST_ITEMS,
    SPAN,
    Inflow,
    Outflow,
    call_of,
    first_number,
    number_behind,
)


@pytest.mark.parametrize("after", [0, 1, 2, SPAN - 1, SPAN, SPAN + 1, SPAN + 2, 7 * SPAN, 7 * SPAN + 7, 7 * SPAN + 8])
def test_every_item_leads_to_its_call_and_numbers_never_meet(after: int) -> None:
    call = first_number(after)
    assert call >= after
    for index in (0, 1, MOST_ITEMS - 1):
        assert call_of(call + 1 + index) == call
    assert call + MOST_ITEMS < number_behind(call) <= first_number(number_behind(call))
    assert call_of(call) == call


def test_neighbouring_calls_differ_in_the_last_digits() -> None:
    calls, after = [], 1
    for _ in range(5):
        calls.append(first_number(after))
        after = number_behind(calls[-1])
    assert len({call & 0xFFFF for call in calls}) == 5


def test_numbers_run_out_with_a_word() -> None:
    last = MOST_CALLS * (SPAN + 1)
    assert first_number(last) == last
    assert number_behind(last) < 1 << 64
    with pytest.raises(OverflowError, match="generator calls"):
        first_number(last + 1)
    flow = Outflow()
    flow.made = MOST_ITEMS
    with pytest.raises(OverflowError, match="start another"):
        flow.make()


def test_row28_a_maker_parks_at_n_untaken_and_goes_on_with_credit() -> None:
    flow = Outflow(limit=2)
    assert [flow.make(), flow.make(), flow.parked] == [0, 1, True]
    assert flow.credit(1)
    assert not flow.parked
    assert flow.make() == 2
    assert flow.parked
    assert not flow.credit(1), "old news changes nothing"
    flow.closed = True
    assert not flow.parked


def test_row27_a_replay_is_told_what_it_need_not_send_and_its_length_is_checked() -> None:
    flow = Outflow(limit=2, skip=3, taken=2)
    assert [flow.make() for _ in range(4)] == [-1, -1, -1, 3]
    assert flow.parked
    assert flow.why_too_short() == ""
    short = Outflow(skip=3)
    short.make()
    assert "yielded 1 items, but 3 the time before" in short.why_too_short()
    short.closed = True
    assert short.why_too_short() == "", "it was told to end"


def test_a_taker_refuses_what_comes_before_its_turn_or_again() -> None:
    flow = Inflow()
    assert flow.arrive(0)
    assert not flow.arrive(0)
    with pytest.raises(ValueError, match="item 2 of a stream came when 1 was due"):
        flow.arrive(2)
    assert flow.end(1) == ""
    assert not flow.arrive(1)


def test_a_missing_item_is_an_error_and_no_end() -> None:
    flow = Inflow()
    flow.arrive(0)
    assert "ended after 3 items, of which 1 have come" in flow.end(3)


@pytest.mark.parametrize(("limit", "due"), [(1, [True, True, True]), (4, [False, True, False])])
def test_credit_is_said_often_enough(limit: int, due: list[bool]) -> None:
    flow = Inflow(limit)
    said = []
    for _ in due:
        said.append(flow.take())
        if said[-1]:
            flow.tell()
    assert said == due


class Conversation(RuleBasedStateMachine):
    """A maker that may die and be replaced at any time, a taker, and a way between them that keeps order."""

    def __init__(self) -> None:
        super().__init__()
        self.total = 0
        self.items: list[int] = []
        self.words: list[int] = []
        self.taken: list[int] = []
        self.waiting: list[int] = []

    @initialize(limit=st.integers(0, 4), total=st.integers(0, 12))
    def begin(self, limit: int, total: int) -> None:
        self.limit, self.total = limit, total
        self.taker = Inflow(limit)
        self._start()

    def _start(self) -> None:
        self.maker = Outflow(*self.taker.restart())

    @precondition(lambda self: not self.maker.parked and self.maker.made < self.total)
    @rule()
    def make(self) -> None:
        index = self.maker.make()
        if index >= 0:
            self.items.append(index)

    @precondition(lambda self: self.items)
    @rule(again=st.booleans())
    def arrive(self, again: bool) -> None:
        index = self.items.pop(0)
        if self.taker.arrive(index):
            self.waiting.append(index)
        if again:
            assert not self.taker.arrive(index)

    @precondition(lambda self: self.waiting)
    @rule()
    def take(self) -> None:
        self.taken.append(self.waiting.pop(0))
        if self.taker.take():
            self.say()

    @rule()
    def say(self) -> None:
        """At the latest at the next turn."""
        if (word := self.taker.tell()) >= 0:
            self.words.append(word)

    @precondition(lambda self: self.words)
    @rule()
    def hear(self) -> None:
        self.maker.credit(self.words.pop(0))

    @rule(lost=st.integers(0, 12))
    def die(self, lost: int) -> None:
        """What was on its way comes, up to somewhere, then the call is sent once more; old words may still come."""
        for _ in range(max(0, len(self.items) - lost)):
            self.arrive(again=False)
        self.items.clear()
        self._start()

    @invariant()
    def never_more_untaken_than_allowed(self) -> None:
        if self.total and self.limit:
            assert len(self.waiting) + len(self.items) <= self.limit

    @invariant()
    def each_once_and_in_order(self) -> None:
        assert self.taken + self.waiting == list(range(len(self.taken) + len(self.waiting)))

    def teardown(self) -> None:
        """Left alone, it comes to its end."""
        if not hasattr(self, "maker"):
            return
        for _ in range(8 * self.total + 8):
            if self.maker.made < self.total and not self.maker.parked:
                self.make()
            while self.items:
                self.arrive(again=False)
            while self.waiting:
                self.take()
            self.say()
            while self.words:
                self.hear()
        assert self.taken == list(range(self.total))
        assert self.maker.why_too_short() == ""
        assert self.taker.end(self.maker.made) == ""


TestConversation = Conversation.TestCase
TestConversation.settings = settings(max_examples=examples(60), stateful_step_count=40, deadline=None)
