"""What a node tells of itself: a change soon, and no look at each turn of a busy loop."""

from __future__ import annotations

from zmreg.model.messages import NodeRecord
from zmreg.services.network.bulletin import Bulletin

RECORD = NodeRecord(b"node-one", "one", "h", 1, 2, True, "3.11.7", "0", 7, (), (), (), 0, 0, 0, 0)


class Board:
    """A node whose number of workers changes."""

    def __init__(self) -> None:
        self.workers = self.looks = 0
        self.told: list[int] = []
        self.bulletin = Bulletin(self.record, lambda record: self.told.append(record.workers))

    def record(self) -> NodeRecord:
        self.looks += 1
        return RECORD.but(workers=self.workers)


def test_a_change_after_a_pause_is_told_at_once() -> None:
    board = Board()
    assert board.bulletin.tick(0.0) is None
    board.workers = 1
    board.bulletin.tick(0.1)
    assert board.told == [0, 1]


def test_a_change_between_two_looks_is_told_when_it_said_that_it_would_look_again() -> None:
    board = Board()
    board.bulletin.tick(0.0)
    board.workers = 1
    again = board.bulletin.tick(0.001)
    assert again is not None and board.told == [0]
    board.bulletin.tick(again)
    assert board.told == [0, 1]


def test_a_busy_loop_looks_two_hundred_times_a_second_and_tells_twice() -> None:
    board = Board()
    for turn in range(10_000):
        board.bulletin.tick(turn / 10_000)
    assert board.looks <= 201 and board.told == [0, 0]


def test_a_node_that_only_passes_on_does_not_look() -> None:
    board = Board()
    board.bulletin.tick(0.0)
    for turn in range(1, 49):
        board.bulletin.tick(turn / 100, moved=False)
    assert board.looks == 1
    board.bulletin.tick(0.51, moved=False)
    assert board.looks == 2 and board.told == [0, 0], "it is said twice a second, whatever happens"


def test_what_has_moved_is_looked_at_when_it_is_time() -> None:
    board = Board()
    board.bulletin.tick(0.0)
    board.workers = 1
    again = board.bulletin.tick(0.001, moved=True)
    assert again is not None and again < 0.1
    board.bulletin.tick(again, moved=False)
    assert board.told == [0, 1]
