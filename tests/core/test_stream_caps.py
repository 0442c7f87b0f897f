"""Row 28: all generators of an actor together have at most so many items untaken, and nobody waits for ever for one."""

from __future__ import annotations

import threading

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.effort import examples
from zmreg.core.stream_caps import Budget, CappedOutflow


def test_row28_generators_of_an_actor_share_places() -> None:
    budget = Budget(2, threading.Lock())
    one, two = CappedOutflow(budget, 2), CappedOutflow(budget, 2)
    for _ in range(2):
        assert not one.parked and one.make() >= 0
    assert one.parked and two.parked
    assert one.credit(1) and not two.parked, "the place goes to whoever looks first, and is kept"
    assert one.parked and not two.parked and two.make() == 0
    assert two.parked and not two.credit(0), "old news"
    one.end()
    assert not two.parked and two.make() == 1, "what lies there of one that is over takes no place"
    two.end()
    assert budget.free == 2


def test_row28_whoever_is_waited_for_makes_one_item_over_it() -> None:
    budget = Budget(1, threading.Lock())
    one, two = CappedOutflow(budget, 1), CappedOutflow(budget, 1)
    assert not one.parked and one.make() == 0
    assert two.parked
    two.want(1)
    assert not two.parked and two.make() == 0 and two.parked and budget.free == -1
    two.credit(1)
    assert budget.free == 0 and two.parked, "taken, and nobody waits for the next"
    two.closed = True
    assert not two.parked, "it is to end"


def test_row28_a_replay_takes_no_place_for_what_was_taken_before() -> None:
    budget = Budget(1, threading.Lock())
    flow = CappedOutflow(budget, 1, skip=3, taken=2)
    made = []
    while not flow.parked:
        made.append(flow.make())
    assert made == [-1, -1, -1] and budget.free == 0, "the third lies there, as it did"
    flow.credit(3)
    assert not flow.parked and flow.make() == 3


class Actor(RuleBasedStateMachine):
    """Some generators, and their takers, whose words arrive late but in order."""

    @initialize(cap=st.integers(1, 4), own=st.lists(st.integers(1, 4), min_size=1, max_size=4))
    def begin(self, cap: int, own: list[int]) -> None:
        self.cap = cap
        self.budget = Budget(cap, threading.Lock())
        self.flows = [CappedOutflow(self.budget, min(limit, cap)) for limit in own]
        self.taken = [0] * len(own)
        self.words: list[list[tuple[int, int]]] = [[] for _ in own]
        self.waits = [False] * len(own)

    def _one(self, data: st.DataObject, fits: list[bool]) -> int:
        return data.draw(st.sampled_from([index for index, fit in enumerate(fits) if fit]))

    def _untaken(self, index: int) -> int:
        return self.flows[index].made - self.taken[index]

    @rule(data=st.data())
    def makes_if_it_may(self, data: st.DataObject) -> None:
        index = self._one(data, [True] * len(self.flows))
        flow = self.flows[index]
        if not flow.parked:
            flow.make()
            if self.waits[index]:
                self.waits[index] = False
                self._take(index)

    def _take(self, index: int) -> None:
        self.taken[index] += 1
        self.words[index].append((self.taken[index], 0))

    @rule(data=st.data())
    @precondition(lambda self: any(self._untaken(index) for index in range(len(self.flows))))
    def takes(self, data: st.DataObject) -> None:
        self._take(self._one(data, [bool(self._untaken(index)) for index in range(len(self.flows))]))

    @rule(data=st.data())
    @precondition(lambda self: any(self._may_wait(index) for index in range(len(self.flows))))
    def waits_for_the_next(self, data: st.DataObject) -> None:
        index = self._one(data, [self._may_wait(index) for index in range(len(self.flows))])
        self.waits[index] = True
        self.words[index].append((self.taken[index], self.taken[index] + 1))

    def _may_wait(self, index: int) -> bool:
        return not self._untaken(index) and not self.waits[index]

    @rule(data=st.data())
    @precondition(lambda self: any(self.words))
    def hears(self, data: st.DataObject) -> None:
        index = self._one(data, list(map(bool, self.words)))
        taken, wanted = self.words[index].pop(0)
        self.flows[index].want(wanted)
        self.flows[index].credit(taken)

    @rule(data=st.data())
    def one_ends_and_another_begins(self, data: st.DataObject) -> None:
        index = self._one(data, [True] * len(self.flows))
        self.flows[index].end()
        self.flows[index] = CappedOutflow(self.budget, self.flows[index].limit)
        self.taken[index], self.words[index], self.waits[index] = 0, [], False

    @invariant()
    def never_more_than_allowed(self) -> None:
        if hasattr(self, "flows"):
            lies = sum(max(0, flow.made - flow.taken) for flow in self.flows)
            assert lies <= self.cap + len(self.flows), "each one that is waited for has one more at most"

    def teardown(self) -> None:
        if not hasattr(self, "flows"):
            return
        for index, flow in enumerate(self.flows):  # whoever waits gets what it waits for
            for taken, wanted in self.words[index]:
                flow.want(wanted)
                flow.credit(taken)
            assert not (self.waits[index] and flow.parked)
            flow.end()
        assert self.budget.free == self.cap


TestActor = Actor.TestCase
TestActor.settings = settings(max_examples=examples(60), stateful_step_count=40, deadline=None)
