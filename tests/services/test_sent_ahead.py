"""What was sent ahead to a worker whose call is suddenly slow comes back (design.md section 4, rule 3): pure."""

from __future__ import annotations

import contextlib
import threading
from collections import deque

import pytest

from zmreg.core.standstill import STILL_S
from zmreg.model.messages import GaveBack, LeaseGranted, Message, Steal, WantLeases
from zmreg.model.specs import Shape
from zmreg.services.calling.calls import AHEAD_US, MAX_AHEAD, Collecting, Task, Template
from zmreg.services.calling.tasks import Tasks
from zmreg.services.seat.callbacks import Callbacks
from zmreg.services.seat.entries import INLINE, Entry
from zmreg.services.seat.sharing import Sharing
from zmreg.telemetry.past import Past
from zmreg.wire import batches, payload

ME, NODE, SLOW, OTHER = b"caller-1", b"node---1", b"worker-1", b"worker-2"


class Wires:
    """What calls need of their client."""

    def __init__(self) -> None:
        self.me, self.node = ME, NODE
        self.dirty: set[Collecting] = set()
        self.lock = threading.RLock()
        self.callbacks = Callbacks()
        self.past = Past()
        self.time = 100.0
        self.looks = 0
        self.posted: list[tuple[bytes, Message]] = []
        self.sent: list[tuple[bytes, list[batches.Row]]] = []

    def post(self, peer: bytes, message: Message) -> bool:
        self.posted.append((peer, message))
        return True

    def send(self, peer: bytes, frame: bytes) -> bool:
        self.sent.append((peer, batches.decode_rows(frame)))
        return True

    def shield(self) -> contextlib.nullcontext[None]:
        return contextlib.nullcontext()

    def request_turn(self) -> None: ...

    def look_soon(self) -> None:
        self.looks += 1

    def now(self) -> float:
        return self.time


class Owner:
    """A book of tasks of one function that takes 5 us, and the workers it was lent."""

    def __init__(self, *workers: bytes, est_us: float | None = 5.0) -> None:
        self.wires = Wires()
        sharing = Sharing(ME, NODE, self.wires.post, payload.pack_failure, deque())
        self.tasks = Tasks(self.wires, sharing, lambda _: None)
        self.template = Template("f", b"d" * 16, Shape())
        self.template.est_us = est_us
        for worker in workers:
            self.lend(worker)

    def lend(self, worker: bytes) -> None:
        told = self.tasks.pool_for(self.template.shape).told
        told[NODE] = told.get(NODE, 0) + 1
        self.tasks.on_grant(LeaseGranted((), (), "", worker))

    def call(self, *inputs: Task) -> Task:
        number = self.tasks.take_numbers(1)
        task = Task(number, self.template, b"\x80\x05).", 0)
        entry = Entry(ME, number)
        entry.task, task.entries, task.peer = task, (entry,), self.tasks.pool_for(self.template.shape)
        task.deps = [(index, each.entries[0]) for index, each in enumerate(inputs)] or None
        self.tasks.live[number] = task
        self.tasks.start(task)
        return task

    def answer(self, worker: bytes, *tasks: Task) -> None:
        self.tasks.on_results(worker, [[task.counter, 1, payload.pack(0, [])] for task in tasks])

    def at(self, worker: bytes) -> list[Task]:
        lane = self.tasks.lanes[worker]
        lane.flush()
        return list(lane.outstanding.values())

    def stolen(self) -> list[tuple[bytes, Steal]]:
        return [(peer, message) for peer, message in self.wires.posted if isinstance(message, Steal)]

    def look(self, after_s: float) -> None:
        self.wires.time += after_s
        self.tasks.tick(self.wires.time, idle_s=1e9)

    def give_back(self, worker: bytes, *tasks: Task, blocked: bool = False) -> None:
        self.tasks.on_gave_back(worker, GaveBack(tuple(task.counter for task in tasks), blocked))


def test_rule3_calls_behind_one_that_is_suddenly_slow_go_to_who_has_nothing_to_do():
    owner = Owner(SLOW, OTHER)
    for _ in range(10):
        owner.call()
    slow, *behind = owner.at(SLOW)
    owner.answer(OTHER, *owner.at(OTHER))
    assert not owner.stolen(), "if all goes well they are done before such a message arrives"
    assert owner.wires.looks, "and if not, it has to be seen soon"
    owner.look(STILL_S)
    owner.look(1.1 * STILL_S)
    assert owner.stolen() == [(SLOW, Steal(5, riders=True))]
    owner.give_back(SLOW, *behind)
    assert owner.at(OTHER) == behind and owner.at(SLOW) == [slow]


def test_rule3_a_worker_that_stands_still_is_sent_nothing_until_it_answers():
    owner = Owner(SLOW)
    slow, behind = owner.call(), owner.call()
    owner.look(0.25)
    owner.look(0.25)
    owner.wires.posted.clear()
    owner.give_back(SLOW, behind)
    later = owner.call()
    assert owner.at(SLOW) == [slow]
    assert [message.count for _, message in owner.wires.posted if isinstance(message, WantLeases)] == [2, 4]
    owner.answer(SLOW, slow)
    assert behind in owner.at(SLOW) or later in owner.at(SLOW), "it may be the only one there is"


def test_rule3_its_answers_may_cross_with_the_word_that_it_stands_still():
    owner = Owner(SLOW)
    slow, behind = owner.call(), owner.call()
    owner.look(0.25)
    owner.look(0.25)
    owner.answer(SLOW, slow, behind)
    owner.give_back(SLOW)
    assert owner.at(SLOW) == []
    after = owner.call()
    assert owner.at(SLOW) == [after]


def test_rule3_nothing_is_taken_from_who_goes_on():
    owner = Owner(SLOW, OTHER)
    for _ in range(20):
        owner.call()
    owner.answer(OTHER, *owner.at(OTHER))
    for task in owner.at(SLOW):
        owner.look(10 * STILL_S)
        owner.answer(SLOW, task)
    assert not owner.stolen()


@pytest.mark.parametrize("est_us", [None, 10 * AHEAD_US])
def test_rule3_what_was_sent_behind_a_call_that_may_be_long_stays_there(est_us: float | None):
    """Inputs from other nodes come meanwhile."""
    owner = Owner(SLOW, est_us=est_us)
    owner.call()
    lane = owner.tasks.lanes[SLOW]
    ahead = owner.call()
    assert ahead.lane is None
    owner.tasks.pool_for(Shape()).withdraw(ahead)
    lane.push(ahead)
    owner.look(0.25)
    owner.look(0.25)
    assert not owner.stolen()


@pytest.mark.parametrize("blocked", [True, False])
def test_rule3_a_rider_that_found_no_room_starts_when_its_input_is_there(blocked: bool):
    """Its worker blocks, or stands still: it goes back to where all wait, and has to be looked at again from there."""
    owner = Owner(SLOW)
    first, *ahead = [owner.call() for _ in range(MAX_AHEAD)]
    rider = owner.call(ahead[-1], first)
    assert rider in owner.tasks.lanes[SLOW].parked
    owner.look(0.25)
    owner.look(0.25)
    owner.give_back(SLOW, *ahead, blocked=blocked)
    owner.lend(OTHER)
    while left := owner.at(OTHER):
        owner.answer(OTHER, *left)
    assert rider.entries[0].state != INLINE, "its input still runs"
    owner.answer(SLOW, first)
    assert rider in owner.at(SLOW) + owner.at(OTHER)
