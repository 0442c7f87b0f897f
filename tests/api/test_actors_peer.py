"""The caller's side of an actor without processes: a reply in the very instant of sending, deaths and answers in any
order (core-api C41, row 40)."""

from __future__ import annotations

import contextlib
import threading
from collections import deque
from typing import Any

import pytest

from zmreg.core.leases import LeaseBook
from zmreg.model.errors import ActorDiedError, ActorUnavailableError
from zmreg.model.messages import ActorState, CreateActor, KillActor, Message, ProcessDied, WatchActor
from zmreg.model.specs import Shape
from zmreg.services.calling.calls import Lane, Task, Template, riding_lane
from zmreg.services.calling.kinds import RELEASE
from zmreg.services.calling.tasks import Tasks
from zmreg.services.head.head import EARLY_S, Head
from zmreg.services.seat.callbacks import Callbacks
from zmreg.services.seat.entries import FAILED, INLINE, Entry
from zmreg.services.seat.sharing import Sharing
from zmreg.telemetry.past import Past
from zmreg.wire import batches, payload

ME, NODE, WORKER, NEXT = b"caller-1", b"node---1", b"worker-1", b"worker-2"
ACTOR = ME + b"\0\0\0\0\0\0\0\x07"


class Wires:
    """What calls need of their client. `answer` makes replies arrive inside `send`."""

    def __init__(self) -> None:
        self.me, self.node = ME, NODE
        self.dirty: set[Lane] = set()
        self.lock = threading.RLock()
        self.sent: deque[list[batches.Row]] = deque()
        self.answer: Any = None
        self.callbacks = Callbacks()
        self.past = Past()

    def post(self, peer: bytes, message: Message) -> bool:
        return True

    def send(self, peer: bytes, frame: bytes) -> bool:
        rows = batches.decode_rows(frame)
        self.sent.append(rows)
        if self.answer is not None:
            self.answer(peer, [[row[0], 1, payload.pack(row[0], [])] for row in rows])
        return True

    def shield(self) -> contextlib.nullcontext[None]:
        return contextlib.nullcontext()

    def request_turn(self) -> None: ...

    def look_soon(self) -> None: ...

    def now(self) -> float:
        return 0.0


class Caller:
    """A task book and one actor that lives on WORKER."""

    def __init__(self) -> None:
        self.wires = Wires()
        self.tasks = Tasks(
            self.wires, Sharing(ME, NODE, self.wires.post, payload.pack_failure, deque()), lambda _: None
        )
        self.peer = self.tasks.peer_for(ACTOR, "Actor", True)
        self.template = Template("Actor.m", "m", Shape())
        self.template.max_retries = 0
        self.state("alive", WORKER)

    def state(self, state: str, worker: bytes = b"", failure: bytes = b"gone") -> None:
        self.tasks.on_actor_state(ActorState(ACTOR, state, worker, 1, failure, False, 0))

    def call(self) -> Task:
        number = self.tasks.take_numbers(1)
        task = Task(number, self.template, b"\x80\x05).", 0)
        entry = Entry(ME, number)
        entry.task, task.entries, task.peer = task, (entry,), self.peer
        self.tasks.live[number] = task
        self.tasks.start(task)
        return task

    def died(self, worker: bytes, running: Task | None) -> None:
        board = b"" if running is None else ME + running.counter.to_bytes(8, "big")
        self.tasks.process_died(ProcessDied(worker, None, 9, board, "SIGKILL", "", False))

    def results(self, *tasks: Task) -> None:
        self.tasks.on_results(WORKER, [[task.counter, 1, payload.pack(0, [])] for task in tasks])

    def error(self, task: Task) -> BaseException | None:
        entry = task.entries[0]
        if entry.state != FAILED:
            return None
        failure = getattr(entry, "failure", None) or entry.value
        assert isinstance(failure, bytes)
        return payload.unpack_failure(failure)


def test_C41_a_reply_inside_the_send_finds_its_request():
    caller = Caller()
    caller.wires.answer = caller.tasks.on_results
    tasks = [caller.call() for _ in range(10)]
    assert all(task.entries[0].state == INLINE for task in tasks)
    assert not caller.tasks.live and not caller.tasks.late_answers


@pytest.mark.parametrize("last_word", ["dead", "restarting"])
def test_row40_an_answer_behind_the_news_of_the_death_still_counts(last_word):
    """Messages of the worker and of the node come by different connections: within one round in any order."""
    caller = Caller()
    done, lost = caller.call(), caller.call()
    caller.died(WORKER, lost)
    caller.state(last_word)
    caller.results(done)  # it was there all the time
    caller.tasks.settle_departed()
    assert done.entries[0].state == INLINE
    expected = ActorDiedError if last_word == "dead" else ActorUnavailableError
    assert isinstance(caller.error(lost), expected)


def test_row39_who_left_in_peace_may_answer_until_its_process_is_gone():
    caller = Caller()
    done, behind = caller.call(), caller.call()
    caller.state("dead", WORKER, b"exited by itself")
    caller.tasks.settle_departed()
    late = caller.call()
    assert isinstance(caller.error(late), ActorDiedError), "new calls fail at once"
    assert caller.error(behind) is None
    caller.results(done)
    caller.died(WORKER, None)
    caller.tasks.settle_departed()
    assert done.entries[0].state == INLINE
    assert isinstance(caller.error(behind), ActorDiedError)


def test_row40_only_what_had_begun_is_in_doubt():
    caller = Caller()
    first, running, *behind = (caller.call() for _ in range(5))
    caller.died(WORKER, running)
    caller.state("restarting")
    caller.tasks.settle_departed()
    assert isinstance(caller.error(first), ActorUnavailableError)
    assert isinstance(caller.error(running), ActorUnavailableError)
    caller.wires.sent.clear()
    caller.state("alive", NEXT)
    caller.peer.lane.flush()
    assert [row[0] for rows in caller.wires.sent for row in rows] == [task.counter for task in behind]


def test_row40_the_call_whose_answer_died_with_the_process_is_in_doubt_too():
    caller = Caller()
    answered, unanswered, behind = (caller.call() for _ in range(3))
    caller.results(answered)
    caller.died(WORKER, unanswered)  # the last one begun: over, but its answer never left
    caller.state("restarting")
    caller.tasks.settle_departed()
    assert isinstance(caller.error(unanswered), ActorUnavailableError)
    assert caller.error(behind) is None and behind in caller.peer.queue


def test_row40_an_earlier_death_says_nothing_about_a_later_kill():
    caller = Caller()
    old = caller.call()
    caller.died(WORKER, old)
    caller.state("restarting")
    caller.state("alive", NEXT)
    sent = [caller.call() for _ in range(3)]
    caller.state("restarting")  # killed, restart allowed: what it ran is not known yet
    caller.tasks.settle_departed()
    assert all(isinstance(caller.error(task), ActorUnavailableError) for task in [old, *sent])


# -- the head's side ---------------------------------------------------------------------------------------------


class FakeNode:
    """What a head needs of its node."""

    def __init__(self) -> None:
        self.clients = {ME: None, b"other--1": None}
        self.leaving: set[bytes] = set()
        self.leases = LeaseBook({}, frozenset(), 4)
        self.posted: list[tuple[bytes, Message]] = []

    def post(self, peer: bytes, message: Message) -> bool:
        self.posted.append((peer, message))
        return True

    def tell(self, node: bytes, message: Message) -> None: ...

    @property
    def placing(self) -> FakeNode:
        return self

    def choose_for_actor(self, place: Shape, placed: Any) -> bytes:
        return NODE

    def other_nodes(self) -> list[bytes]:
        return []

    def perform(self, effects: Any) -> None: ...


def create(head: Any) -> None:
    head.hears(ME, CreateActor(ACTOR, "", "", "Actor", (), (), (), 0, False, 0, b"", b"", b"", b"", False))


def test_row34_a_borrower_may_be_faster_than_the_order_of_the_actor():
    node = FakeNode()
    head = Head(node)  # type: ignore[arg-type]
    head.hears(b"other--1", WatchActor(ACTOR))
    assert not node.posted, "its owner lives and may just have ordered it"
    create(head)
    assert [(peer, message.state) for peer, message in node.posted] == [(b"other--1", "pending")]
    head = Head(node)  # type: ignore[arg-type]
    head.hears(b"other--1", KillActor(ACTOR, True))
    create(head)
    assert ACTOR not in head.actors


def test_row34_an_actor_that_is_never_ordered_is_dead_for_who_asks():
    for end in ("time", "owner", "stranger"):
        node = FakeNode()
        head = Head(node)  # type: ignore[arg-type]
        if end == "stranger":
            del node.clients[ME]
        head.hears(b"other--1", WatchActor(ACTOR))
        if end == "time":
            head.tick(1e9 + EARLY_S)
        elif end == "owner":
            head.process_died(ME, "killed", ())
        assert [(peer, message.state) for peer, message in node.posted] == [(b"other--1", "dead")], end


def test_X31_a_call_that_waits_without_the_actor_had_begun_whatever_was_answered_since():
    caller = Caller()
    first, waiting, answered, behind = (caller.call() for _ in range(4))
    waiting.template = Template("m", "m" + RELEASE, Shape())
    waiting.template.max_retries = 0
    caller.results(first)
    caller.results(answered)
    caller.died(WORKER, answered)
    caller.state("restarting")
    caller.tasks.settle_departed()
    assert isinstance(caller.error(waiting), ActorUnavailableError)
    assert caller.error(behind) is None and behind in caller.peer.queue


def test_X31_nothing_rides_behind_a_call_that_lets_others_go_first():
    caller = Caller()
    producer = caller.call()
    rider = Task(99, producer.template, b"", 0)
    rider.deps, rider.peer = [(0, producer.entries[0])], caller.peer
    assert riding_lane(rider) is caller.peer.lane
    producer.template = Template("m", "m" + RELEASE, Shape())
    assert riding_lane(rider) is None
