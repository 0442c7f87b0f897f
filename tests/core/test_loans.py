"""The owner's book of loans: held while anybody owes, released once, dead processes swept (row 54)."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.effort import examples
from zmreg.core.loans import Loans

X, Y = b"owner--Aobject-X", b"owner--Aobject-Y"
P, Q = b"process1", b"process2"


def test_row54_only_the_first_loan_asks_the_owner_to_hold_on() -> None:
    loans = Loans()
    assert loans.lend(X, P) is True
    assert loans.lend(X, P) is False
    assert loans.lend(X, Q) is False
    assert loans.lend(Y, Q) is True
    assert loans.borrowers(X) == (P, Q)
    assert len(loans) == 2


def test_row54_the_last_return_releases_once() -> None:
    loans = Loans()
    loans.lend(X, P)
    loans.lend(X, Q)
    assert loans.returned(X, P, 1) is False
    assert loans.returned(X, Q, 1) is True
    assert loans.returned(X, Q, 1) is False
    assert X not in loans


def test_row54_a_return_does_not_take_along_a_hand_over_still_on_its_way() -> None:
    """Two were booked, the borrower has seen one when it lets go: the object must live until it has seen the other."""
    loans = Loans()
    loans.lend(X, P)
    loans.lend(X, P)
    assert loans.returned(X, P, 1) is False
    assert loans.returned(X, P, 1) is True


def test_row54_what_was_never_lent_can_not_be_returned() -> None:
    loans = Loans()
    assert loans.returned(X, P, 1) is False
    loans.lend(X, Q)
    assert loans.returned(X, P, 5) is False
    assert loans.borrowers(X) == (Q,)


def test_row54_a_dead_process_owes_nothing() -> None:
    loans = Loans()
    loans.lend(X, P)
    loans.lend(X, Q)
    loans.lend(Y, P)
    assert loans.process_died(P) == [Y]
    assert loans.process_died(P) == []
    assert loans.borrowers(X) == (Q,)
    assert loans.process_died(Q) == [X]


def test_row54_a_borrower_can_state_anew_what_it_owes() -> None:
    loans = Loans()
    loans.lend(X, P)
    assert loans.restate(X, P, 3) is False
    assert loans.returned(X, P, 2) is False
    assert loans.returned(X, P, 1) is True
    loans.lend(X, P)
    loans.lend(X, Q)
    assert loans.restate(X, P, 0) is False
    assert loans.restate(X, Q, 0) is True
    assert loans.restate(X, Q, 0) is False


OBJECTS = [b"owner--Aobject-%d" % number for number in range(3)]
PROCESSES = [b"process%d" % number for number in range(3)]
objects = st.sampled_from(OBJECTS)
processes = st.sampled_from(PROCESSES)
counts = st.integers(1, 3)


class AnyOrder(RuleBasedStateMachine):
    """Against a plain table of numbers: (object, process) -> hand-overs owed."""

    def __init__(self) -> None:
        super().__init__()
        self.loans = Loans()
        self.owed: dict[tuple[bytes, bytes], int] = {}
        self.held: set[bytes] = set()

    def owing(self, object_id: bytes) -> bool:
        return any(count for (each, _), count in self.owed.items() if each == object_id)

    def release(self, object_id: bytes) -> None:
        assert object_id in self.held, "released twice, or never lent"
        assert not self.owing(object_id), "released while somebody owes"
        self.held.discard(object_id)

    @rule(object_id=objects, process=processes)
    def lend(self, object_id: bytes, process: bytes) -> None:
        first = self.loans.lend(object_id, process)
        assert first is (object_id not in self.held)
        self.held.add(object_id)
        self.owed[object_id, process] = self.owed.get((object_id, process), 0) + 1

    @rule(object_id=objects, process=processes, count=counts)
    def returned(self, object_id: bytes, process: bytes, count: int) -> None:
        key = (object_id, process)
        if key in self.owed:
            self.owed[key] = max(0, self.owed[key] - count)
        if self.loans.returned(object_id, process, count):
            self.release(object_id)

    @rule(object_id=objects, process=processes, count=st.integers(0, 3))
    def restate(self, object_id: bytes, process: bytes, count: int) -> None:
        self.owed[object_id, process] = count
        if count:
            self.held.add(object_id)
        if self.loans.restate(object_id, process, count):
            self.release(object_id)

    @rule(process=processes)
    def process_dies(self, process: bytes) -> None:
        self.owed = {key: count for key, count in self.owed.items() if key[1] != process}
        for object_id in self.loans.process_died(process):
            self.release(object_id)

    @invariant()
    def books_agree(self) -> None:
        assert self.held == {each for each in OBJECTS if self.owing(each)}, "not released in time"
        for object_id in OBJECTS:
            assert (object_id in self.loans) is (object_id in self.held)
            owing = {process for (each, process), count in self.owed.items() if each == object_id and count}
            assert set(self.loans.borrowers(object_id)) == owing
        assert len(self.loans) == len(self.held)

    def teardown(self) -> None:
        """Everybody dies: each object still held is released exactly once, and nothing is remembered."""
        for process in PROCESSES:
            self.process_dies(process)
        assert self.held == set()
        assert len(self.loans) == 0


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=examples(30), stateful_step_count=40, deadline=None)
