"""The threads of a serving process: who runs a call, and that none is left lying. No sockets: `receive` is ours."""

from __future__ import annotations

import queue
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from zmreg.net.waiting import Waiter
from zmreg.services.calling.hosts import MAX_THREADS
from zmreg.services.worker.crew import Crew

PATIENCE_S = 10


class Door:
    """In the place of the pump: who receives takes what came from a queue, and puts it to the crew on its thread."""

    def __init__(self) -> None:
        self.came: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.ran: queue.SimpleQueue[tuple[object, str]] = queue.SimpleQueue()
        self.receiving: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.crew = Crew(self.run)
        self.stopped = False

    def run(self, call: Any) -> None:
        """A call is a pair: what it is called, and an event to wait for, or None."""
        self.ran.put((call[0], threading.current_thread().name))
        if call[1] is not None:
            assert call[1].wait(PATIENCE_S)

    def receive(self, waiter: Waiter) -> None:
        """Until the waiter is done, as `Pump.wait`."""
        self.receiving.put(threading.current_thread().name)
        while not waiter.done and not self.stopped:
            try:
                call, quick = self.came.get(timeout=0.01)
            except queue.Empty:
                continue
            self.crew.put(call, quick)

    def attended(self) -> str:
        """By whom: one call from elsewhere, whose thread then stays to receive."""
        self.crew.attend(self.receive)
        self.crew.put(("first", None), False)
        assert self.next_ran()[0] == "first"
        return self.receiving.get(timeout=PATIENCE_S)

    def next_ran(self) -> tuple[object, str]:
        """What ran next, and where."""
        return self.ran.get(timeout=PATIENCE_S)


@pytest.fixture
def door() -> Iterator[Door]:
    made = Door()
    yield made
    made.stopped = True
    made.crew.close()
    for thread in made.crew._threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


def test_a_quick_call_is_run_by_the_thread_that_received_it_and_then_receives_again(door):
    attendant = door.attended()
    for number in range(3):
        door.came.put(((number, None), True))
        assert door.next_ran() == (number, attendant)
        assert door.receiving.get(timeout=PATIENCE_S) == attendant


def test_a_call_that_may_take_long_does_not_keep_the_receiving_thread_from_receiving(door):
    attendant = door.attended()
    held = threading.Event()
    door.came.put((("long", held), False))
    assert door.next_ran()[1] != attendant
    door.came.put((("quick", None), True))  # it is received meanwhile
    assert door.next_ran() == ("quick", attendant)
    held.set()


def test_of_a_batch_the_first_is_kept_and_the_others_run_beside_it(door):
    attendant = door.attended()
    held = threading.Event()

    def batch(waiter: Waiter) -> None:
        for number in range(3):
            door.crew.put((number, held), True)

    door.crew.attend(batch)  # lets the one that receives go; who is idle next receives this batch
    door.crew.put(("next", None), False)
    assert door.next_ran()[0] == "next"
    ran = dict(door.next_ran() for _ in range(3))
    assert set(ran) == {0, 1, 2} and len(set(ran.values())) == 3
    door.crew.attend(None)
    held.set()
    assert attendant


def test_calls_from_another_thread_go_to_the_idle_one_that_receives(door):
    attendant = door.attended()
    door.crew.put(("elsewhere", None), False)
    assert door.next_ran() == ("elsewhere", attendant)


def test_with_all_threads_busy_the_one_that_receives_takes_a_long_call_too_and_no_more_than_so_many_run(door):
    door.attended()
    held = threading.Event()
    for number in range(MAX_THREADS + 5):
        door.came.put(((number, held), False))
    names = {door.next_ran()[1] for _ in range(MAX_THREADS)}
    assert len(names) == len(door.crew._threads) == MAX_THREADS
    while not door.came.empty():  # received by the pump's own thread then
        call, quick = door.came.get()
        door.crew.put(call, quick)
    held.set()
    assert {door.next_ran()[0] for _ in range(5)} == set(range(MAX_THREADS, MAX_THREADS + 5))


def test_when_there_is_nothing_to_receive_any_more_the_threads_wait_for_calls(door):
    door.attended()
    door.stopped = True
    for number in range(3):
        door.crew.put((number, None), True)
        assert door.next_ran()[0] == number


def test_who_receives_has_left_before_the_door_is_taken_away(door: Door):
    """At its end a serving process closed its sockets while that thread still polled them: a traceback each time."""
    door.attended()
    left = door.crew.attend(None)
    assert left is not None and left.wait(PATIENCE_S)
    assert door.crew.attend(None) is None, "nobody is there any more"
