"""The receiving side of one process, over real sockets: who sleeps at the door sleeps over nothing."""

from __future__ import annotations

import os
import select
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from zmreg.model.ids import ProcessId, new_node_id, worker_id
from zmreg.net.pump import Pump
from zmreg.net.sockets import Ends
from zmreg.net.waiting import HandlerSwap, Waiter

NODE = new_node_id()
ME, PEER = worker_id(NODE, 1), worker_id(NODE, 2)
LONG_S = 20.0


class Seat:
    """A pump that notes what it is given, and finishes the waiter of each frame it knows."""

    def __init__(self, session: Path, me: ProcessId) -> None:
        self.heard: list[bytes] = []
        self.turns = 0
        self.waiters: dict[bytes, Waiter] = {}
        self.turned = threading.Event()
        self.came = threading.Event()
        """Something was heard."""
        self.ends = Ends(session, me)
        self.pump = Pump(self.ends, self._hear, self._turn, HandlerSwap())

    def _hear(self, sender: bytes, frame: bytes) -> None:
        self.heard.append(frame[2:])
        self.came.set()
        if frame[2:] in self.waiters:
            self.waiters[frame[2:]].finish()

    def _turn(self) -> None:
        self.turns += 1
        self.turned.set()

    def until(self, word: bytes) -> Waiter:
        """A waiter that is done once `word` was heard."""
        return self.waiters.setdefault(word, Waiter())


@contextmanager
def seat_of(session: Path, me: ProcessId) -> Iterator[Seat]:
    seat = Seat(session, me)
    try:
        yield seat
    finally:
        seat.pump.stop()
        seat.ends.close(clean=False)


@pytest.fixture
def seat(tmp_path: Path) -> Iterator[Seat]:
    """It has no I/O thread: whoever waits does it all."""
    with seat_of(tmp_path, ME) as made:
        yield made


@pytest.fixture
def peer(tmp_path: Path, seat: Seat) -> Iterator[Ends]:
    ends = Ends(tmp_path, PEER)
    yield ends
    ends.close(clean=False)


def say(peer: Ends, *words: bytes) -> None:
    for word in words:
        assert peer.send(ME, b"ZR" + word)


def test_what_a_caller_left_in_the_door_is_there_for_the_next_one(seat: Seat, peer: Ends) -> None:
    """A caller goes on as soon as it has its own answer; no later message makes the descriptor readable again."""
    say(peer, b"warm")
    assert seat.pump.wait(seat.until(b"warm"), LONG_S)
    first, last = seat.until(b"first"), seat.until(b"last")
    say(peer, b"first", *[b"more"] * 50, b"last")
    assert seat.pump.wait(first, LONG_S)
    while not seat.ends.pending():  # asked once, and the descriptor says no more of what is there
        select.select([seat.ends.door_fd], [], [], LONG_S)
    assert seat.pump.wait(last, LONG_S)
    assert seat.heard == [b"warm", b"first", *[b"more"] * 50, b"last"]


def test_the_turn_that_a_caller_left_comes_with_the_next_wait(seat: Seat, peer: Ends) -> None:
    say(peer, b"one")
    assert seat.pump.wait(seat.until(b"one"), LONG_S)
    before = seat.turns
    say(peer, b"two")
    assert seat.pump.wait(seat.until(b"two"), LONG_S)
    assert seat.turns > before


def test_a_wish_for_a_turn_ends_a_sleep(seat: Seat, peer: Ends) -> None:
    done = Waiter()
    other = threading.Thread(target=seat.pump.wait, args=(done, LONG_S))
    other.start()
    while not seat.pump.polling:  # nothing tells of it, and it takes microseconds
        assert other.is_alive()
    seat.turned.clear()
    seat.pump.request_turn()
    assert seat.turned.wait(LONG_S)
    done.finish()
    seat.pump.wake()
    other.join(LONG_S)
    assert not other.is_alive()


def test_a_watched_descriptor_is_told_of_once(seat: Seat, peer: Ends) -> None:
    ours, theirs = os.pipe()
    told: list[str] = []
    done = Waiter()

    def gone() -> None:
        told.append("gone")
        done.finish()

    seat.pump.watch(ours, gone)
    os.close(theirs)
    try:
        assert seat.pump.wait(done, LONG_S)
        say(peer, b"after")
        assert seat.pump.wait(seat.until(b"after"), LONG_S)
    finally:
        os.close(ours)
    assert told == ["gone"]


def test_a_short_timeout_is_kept_and_not_spun_away(seat: Seat) -> None:
    assert not seat.pump.wait(Waiter(), 0.0005)
    assert seat.turns <= 3


def test_the_io_thread_takes_over_when_nobody_waits_and_ends_at_once(tmp_path: Path, seat: Seat, peer: Ends) -> None:
    seat.pump.start()
    one = seat.until(b"one")
    say(peer, b"one")
    assert seat.pump.wait(one, LONG_S)  # a caller: the I/O thread is parked now
    seat.came.clear()
    say(peer, b"two")
    assert seat.came.wait(LONG_S)
    seat.pump.stop()
    assert not seat.pump._thread.is_alive()
