"""Processes with a name (X33): one for each name on a node, lent to one owner at a time, lodgers beside."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.effort import examples
from zmreg.core.effects import (
    AtCap,
    CannotStart,
    Granted,
    Hosted,
    LeaseEffect,
    Recall,
    StartLodger,
    StartWorker,
    StopWorker,
)
from zmreg.core.leases import LeaseBook
from zmreg.model.specs import CPU, ENV, GROUP, PROCESS, UNIT, Shape, actor_shapes, grouped

A, B = b"owner--A", b"owner--B"
JOB = b"jobjobjo"
OWNERS = [A, B, b"owner--C"]
NAMES = ["one", "two", JOB.hex() + "three"]
TOTAL = {"CPU": 3 * UNIT}
GROUP_ID = b"g" * 16
OF_GROUP = grouped(((CPU, UNIT),), GROUP_ID, 0)
c1 = Shape.of(1)


def named(name: str, shape: Shape = c1) -> Shape:
    return shape.with_terms({ENV: name, PROCESS: name})


def actor(name: str, cpus: float | None = None) -> tuple[Shape, Shape]:
    place, hold = actor_shapes(num_cpus=cpus)
    return named(name, place), named(name, place) if hold == place else hold


def book(cpus: int = 3, max_workers: int = 8) -> LeaseBook:
    return LeaseBook({"CPU": cpus * UNIT}, frozenset(), max_workers)


def only(effects: list[LeaseEffect], kind: type) -> LeaseEffect:
    found = [each for each in effects if isinstance(each, kind)]
    assert len(found) == 1, effects
    return found[0]


def opened(leases: LeaseBook, name: str = "one", worker: bytes = b"worker01") -> bytes:
    """A named process that has nothing to do."""
    assert leases.want(A, named(name), 1) == [StartWorker()]
    only(leases.worker_started(worker), Granted)
    leases.want(A, named(name), 0)
    leases.returned(A, worker)
    return worker


def test_X33_many_calls_of_a_name_get_one_worker_and_others_start_more() -> None:
    leases = book()
    assert leases.want(A, named("one"), 16) == [StartWorker()]
    assert leases.worker_started(b"worker01") == [Granted(A, named("one"), b"worker01")]
    assert leases.want(A, named("one", Shape.of(0)), 9) == [Recall(A, b"worker01")], "another shape, the same process"
    assert leases.want(A, named("two"), 4) == [StartWorker()]
    assert leases.want(A, c1, 1) == [StartWorker()]


def test_X33_the_next_owner_gets_the_process_when_it_comes_back_and_asks_for_it() -> None:
    leases = book()
    leases.want(A, c1, 1)
    leases.worker_started(b"worker00")
    leases.want(A, named("one"), 4)
    leases.worker_started(b"worker01")
    assert leases.want(B, named("one"), 4) == [Recall(A, b"worker01")], "that one, and not the plain one"
    assert only(leases.returned(A, b"worker01"), Granted) == Granted(B, named("one"), b"worker01")


def test_X33_it_is_not_idle_for_others_nor_for_too_long() -> None:
    leases = book()
    worker = opened(leases)
    assert leases.want(B, c1, 1) == [StartWorker()]
    leases.tick(10.0)
    assert leases.tick(1000.0) == []
    assert leases.use_of(worker) == "idle"


def test_X33_at_the_cap_it_makes_room_as_the_last_one() -> None:
    leases = book(max_workers=2)
    opened(leases)
    leases.want(A, c1, 1)
    leases.worker_started(b"worker02")
    leases.want(A, c1, 0)
    leases.returned(A, b"worker02")
    assert leases.host(b"plain", *actor_shapes()) == [StopWorker(b"worker02")]
    leases.worker_died(b"worker02")
    only(leases.worker_started(b"worker03"), Hosted)
    assert leases.host(b"another", *actor_shapes()) == [StopWorker(b"worker01")]


def test_X33_one_in_which_somebody_lodges_makes_no_room() -> None:
    leases = book(max_workers=1)
    opened(leases)
    lodger = only(leases.host(b"actor1", *actor("one")), StartLodger).worker  # type: ignore[attr-defined]
    assert leases.host(b"plain", *actor_shapes()) == []
    assert leases.dismiss(b"worker01") == []
    leases.worker_started(lodger)
    only(leases.unhost(b"actor1"), StopWorker)
    assert only(leases.worker_died(lodger), StopWorker) == StopWorker(b"worker01")


def test_X33_actors_of_a_name_lodge_in_one_process_and_each_holds_its_own() -> None:
    leases = book()
    assert leases.host(b"actor1", *actor("one", 1)) == [StartWorker()]
    assert leases.host(b"actor2", *actor("one", 1)) == []
    begun = leases.worker_started(b"worker01")
    assert [each.house for each in begun if isinstance(each, StartLodger)] == [b"worker01"] * 2
    assert dict(leases.statistics().available) == {"CPU": UNIT}
    assert leases.hosts() == {b"actor1": b"", b"actor2": b""}
    first, second = [each.worker for each in begun if isinstance(each, StartLodger)]
    assert leases.worker_started(first) == [Hosted(b"actor1", first)]
    assert leases.hosts() == {b"actor1": first, b"actor2": b""}
    only(leases.want(A, named("one"), 5), Granted)
    assert leases.unhost(b"actor1") == [StopWorker(first)]
    assert leases.worker_started(second) == [Hosted(b"actor2", second)]
    assert leases.use_of(b"worker01") == "leased"


def test_X33_what_a_dead_owner_had_there_ends_by_itself_and_the_process_stays() -> None:
    leases = book()
    leases.want(A, named("one"), 1)
    leases.worker_started(b"worker01")
    assert leases.owner_died(A) == []
    only(leases.want(B, named("one"), 1), Granted)


def test_X33_it_ends_with_its_program_and_its_last_lodger() -> None:
    leases = book()
    name = NAMES[2]
    opened(leases, name)
    lodger = only(leases.host(b"actor1", *actor(name)), StartLodger).worker  # type: ignore[attr-defined]
    leases.worker_started(lodger)
    assert leases.jobs_ended(JOB) == [], "a detached actor lives on there"
    assert leases.unhost(b"actor1") == [StopWorker(lodger)]
    assert leases.worker_died(lodger) == [StopWorker(b"worker01")]


def in_group(leases: LeaseBook) -> dict[str, str]:
    """What a call of a name and of a group, for which 1 CPU is set aside, asks for."""
    assert leases.prepare(GROUP_ID, [(0, ((CPU, UNIT),))]) and not leases.commit(GROUP_ID)
    return {ENV: "one", PROCESS: "one", GROUP: GROUP_ID.hex()}


def test_X33_it_ends_with_its_placement_group_and_so_does_what_runs_there() -> None:
    """Nobody could ever use it again, and what it ran went on beside whoever got its CPU."""
    leases = book()
    terms = in_group(leases)
    assert leases.want(A, Shape(OF_GROUP).with_terms(terms), 1) == [StartWorker()]
    only(leases.worker_started(b"worker01"), Granted)
    lodger = Shape(()).with_terms(terms)
    lodges = only(leases.host(b"actor", lodger, lodger), StartLodger)
    opened(leases, "other", b"worker02")
    stopped = [each for each in leases.drop(GROUP_ID, (), True) if isinstance(each, StopWorker)]
    assert [each.worker for each in stopped] == [lodges.worker, b"worker01"]
    assert all(each.reason == "its placement group was removed" for each in stopped)
    leases.worker_died(lodges.worker)
    leases.worker_died(b"worker01")
    assert leases.statistics().workers == 1


def test_X33_it_ends_with_its_placement_group_when_nobody_uses_it() -> None:
    leases = book()
    task = Shape(OF_GROUP).with_terms(in_group(leases))
    leases.want(A, task, 1)
    leases.worker_started(b"worker01")
    leases.want(A, task, 0)
    leases.returned(A, b"worker01")
    assert only(leases.drop(GROUP_ID, (), True), StopWorker).worker == b"worker01"


def test_X33_its_death_is_that_of_all_in_it_and_the_next_one_gets_another() -> None:
    leases = book()
    opened(leases)
    lodger = only(leases.host(b"actor1", *actor("one")), StartLodger).worker  # type: ignore[attr-defined]
    leases.worker_started(lodger)
    assert leases.worker_died(b"worker01") == []
    assert leases.worker_died(lodger) == []
    assert leases.host(b"actor1", *actor("one")) == [StartWorker()], "restarted"


def test_X33_a_lodger_that_cannot_come_is_tried_again_after_a_pause() -> None:
    leases = book()
    opened(leases)
    first = only(leases.host(b"actor1", *actor("one")), StartLodger).worker  # type: ignore[attr-defined]
    assert leases.lodger_failed(first, "can't start new thread") == []
    assert leases.tick(0.01) == []
    second = only(leases.tick(5.0), StartLodger).worker  # type: ignore[attr-defined]
    assert second != first
    assert leases.lodger_failed(second, "again") == []
    third = only(leases.tick(10.0), StartLodger).worker  # type: ignore[attr-defined]
    only(leases.lodger_failed(third, "and again"), CannotStart)


def test_X33_only_the_process_itself_is_told_that_it_may_run_its_own_call() -> None:
    leases = book()
    leases.want(A, named("one"), 1)
    leases.worker_started(b"worker01")
    leases.blocked(b"worker01")
    assert leases.want(B, named("one"), 1) == []
    assert leases.want(b"worker01", named("one"), 1) == [AtCap(b"worker01", named("one"))]


def test_X33_who_waits_for_a_process_that_is_on_its_way_has_nobody_else_give_up_a_worker() -> None:
    leases = book(max_workers=2)
    zero = named("one", Shape.of(0))
    leases.want(A, zero, 1)
    leases.worker_started(b"worker01")
    leases.want(A, Shape.of(0), 1)
    leases.worker_died(b"worker01")
    leases.worker_started(b"worker02")
    assert leases.host(b"actor1", *actor("one")) == []
    assert only(leases.worker_started(b"worker03"), StartLodger)


class AnyOrder(RuleBasedStateMachine):
    """Plays the node, the owners and the head; keeps its own account of who is in which process."""

    @initialize(max_workers=st.integers(1, 4))
    def start(self, max_workers: int) -> None:
        self.book = LeaseBook(TOTAL, frozenset(), max_workers, idle_s=5.0)
        self.max_workers = max_workers
        self.now = 0.0
        self.born = self.starting = 0
        self.processes: set[bytes] = set()
        self.name_of: dict[bytes, str] = {}
        self.leases: dict[bytes, tuple[bytes, Shape]] = {}
        self.coming: dict[bytes, bytes] = {}
        self.lodgers: dict[bytes, bytes] = {}
        self.hosted: dict[bytes, bytes] = {}
        self.asked: dict[bytes, tuple[Shape, Shape]] = {}
        self.stopping: set[bytes] = set()
        self.blocked: set[bytes] = set()
        self.recalled: set[bytes] = set()
        self.over: set[bytes] = set()

    def perform(self, effects: list[LeaseEffect]) -> None:
        for effect in effects:
            match effect:
                case StartWorker():
                    self.starting += 1
                    assert len(self.processes) + self.starting <= self.max_workers
                case StartLodger(worker, house):
                    assert house in self.processes
                    assert house not in self.stopping
                    self.coming[worker] = house
                    name = self.lodging_of(house)
                    self.is_the_one(house, name)
                case StopWorker(worker):
                    assert worker not in self.stopping
                    assert worker not in self.lodgers.values()
                    assert worker not in self.coming.values()
                    self.stopping.add(worker)
                    self.leases.pop(worker, None)
                    self.recalled.discard(worker)
                    self.blocked.discard(worker)
                case Granted(owner, shape, worker):
                    assert worker in self.processes
                    assert worker not in self.leases
                    assert worker not in self.stopping
                    self.leases[worker] = owner, shape
                    self.is_the_one(worker, shape.term(PROCESS))
                case Hosted(actor_id, worker):
                    name = self.asked[actor_id][0].term(PROCESS)
                    if name:
                        house = self.lodgers[worker]
                        assert self.name_of[house] == name
                    self.hosted[worker] = actor_id
                case Recall(owner, worker):
                    assert self.leases[worker][0] == owner
                    assert worker not in self.recalled
                    self.recalled.add(worker)
                case CannotStart(_, actor_id):
                    self.asked.pop(actor_id or b"", None)
                case AtCap():
                    continue
                case _:
                    pytest.fail(f"not expected: {effect}")

    def lodging_of(self, house: bytes) -> str:
        """The name of a house; a new one is told apart by who waits to lodge there."""
        return self.name_of.get(house, "") or next(
            seat.env for seat in self.book._seats.by_worker.values() if seat.worker == house
        )

    def is_the_one(self, worker: bytes, name: str) -> None:
        assert self.name_of.setdefault(worker, name) == name, "of another name"
        if name:
            same = [each for each in self.processes - self.stopping if self.name_of.get(each) == name]
            assert same == [worker], "two processes of one name"

    @rule(
        owner=st.sampled_from(OWNERS), name=st.sampled_from(["", *NAMES]), cpus=st.sampled_from([0, 1, 2]),
        count=st.integers(0, 5),
    )  # fmt: skip
    def want(self, owner: bytes, name: str, cpus: int, count: int) -> None:
        shape = Shape.of(cpus)
        self.perform(self.book.want(owner, named(name, shape) if name else shape, count))

    @rule(number=st.integers(0, 3), name=st.sampled_from(["", *NAMES]), cpus=st.sampled_from([None, 1]))
    def host(self, number: int, name: str, cpus: int | None) -> None:
        actor_id = b"actor%d" % number
        if actor_id not in self.asked:
            self.asked[actor_id] = actor(name, cpus) if name else actor_shapes(num_cpus=cpus)
            self.perform(self.book.host(actor_id, *self.asked[actor_id]))

    @rule(number=st.integers(0, 3))
    def unhost(self, number: int) -> None:
        self.perform(self.book.unhost(b"actor%d" % number))
        self.asked.pop(b"actor%d" % number, None)

    @precondition(lambda self: self.starting)
    @rule(fails=st.booleans())
    def worker_up(self, fails: bool) -> None:
        self.starting -= 1
        if fails:
            self.perform(self.book.worker_start_failed("EAGAIN"))
            return
        self.born += 1
        worker = b"worker%02d" % self.born
        self.processes.add(worker)
        self.perform(self.book.worker_started(worker))

    @precondition(lambda self: self.coming)
    @rule(fails=st.booleans(), data=st.data())
    def lodger_up(self, fails: bool, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.coming)))
        house = self.coming.pop(worker)
        if fails:
            self.stopping.discard(worker)
            self.perform(self.book.lodger_failed(worker, "no thread"))
            return
        self.lodgers[worker] = house
        self.name_of.setdefault(house, self.lodging_of(house))
        self.perform(self.book.worker_started(worker))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.leases)))
        owner, _ = self.leases.pop(worker)
        self.recalled.discard(worker)
        self.blocked.discard(worker)
        self.perform(self.book.returned(owner, worker))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def block_or_unblock(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.leases)))
        now_blocked = worker not in self.blocked
        (self.blocked.add if now_blocked else self.blocked.discard)(worker)
        self.perform((self.book.blocked if now_blocked else self.book.unblocked)(worker))

    @precondition(lambda self: self.processes)
    @rule(data=st.data())
    def process_dies(self, data: st.DataObject) -> None:
        """And whoever lodges in it, of which the book hears afterwards."""
        house = data.draw(st.sampled_from(sorted(self.processes)))
        self.processes.discard(house)
        self.leaves(house)
        self.perform(self.book.worker_died(house))
        for worker in [each for each, home in self.lodgers.items() if home == house]:
            self.lodger_ends(worker)
        for worker in [each for each, home in self.coming.items() if home == house]:
            del self.coming[worker]
            self.stopping.discard(worker)
            self.perform(self.book.lodger_failed(worker, "its process died"))

    @precondition(lambda self: self.lodgers)
    @rule(data=st.data())
    def lodger_dies(self, data: st.DataObject) -> None:
        self.lodger_ends(data.draw(st.sampled_from(sorted(self.lodgers))))

    def lodger_ends(self, worker: bytes) -> None:
        del self.lodgers[worker]
        self.leaves(worker)
        self.perform(self.book.worker_died(worker))

    def leaves(self, worker: bytes) -> None:
        self.stopping.discard(worker)
        self.leases.pop(worker, None)
        self.recalled.discard(worker)
        self.blocked.discard(worker)
        actor_id = self.hosted.pop(worker, b"")
        if actor_id in self.book.hosts() and self.book.hosts()[actor_id] == worker:
            self.asked.pop(actor_id, None)

    @rule(owner=st.sampled_from(OWNERS[1:]))
    def owner_dies(self, owner: bytes) -> None:
        self.over.add(owner)
        for worker in [each for each, (holder, _) in self.leases.items() if holder == owner]:
            if self.leases[worker][1].term(PROCESS):
                del self.leases[worker]
                self.blocked.discard(worker)
                self.recalled.discard(worker)
        self.perform(self.book.owner_died(owner))

    @rule()
    def program_ends(self) -> None:
        self.perform(self.book.jobs_ended(JOB))

    @rule(seconds=st.sampled_from([0.0, 0.2, 6.0]))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.perform(self.book.tick(self.now))

    @invariant()
    def accounts_agree(self) -> None:
        if not hasattr(self, "book"):
            return
        now = self.book.statistics()
        assert now.workers == len(self.processes) + len(self.coming) + len(self.lodgers)
        assert now.starting == self.starting
        assert len(self.processes) + self.starting <= self.max_workers
        assert now.leased == len(self.leases)
        taken: Counter[str] = Counter()
        for worker, (_, shape) in self.leases.items():
            taken[CPU] += 0 if worker in self.blocked else shape.amount(CPU)
        for actor_id, (_, hold) in self.asked.items():
            claim = self.book._actors.get(actor_id)
            taken[CPU] += hold.amount(CPU) if claim is not None and claim.seats else 0
        assert dict(now.available)[CPU] == TOTAL[CPU] - taken[CPU]

    def teardown(self) -> None:
        """What is wanted is there in the end, when owners give back and the world does as it is told."""
        if not hasattr(self, "book"):
            return
        for owner in OWNERS:
            self.owner_dies(owner)
        for _ in range(200):
            self.now += 10.0
            self.perform(self.book.tick(self.now))
            if self.starting:
                self.starting -= 1
                self.born += 1
                self.processes.add(b"worker%02d" % self.born)
                self.perform(self.book.worker_started(b"worker%02d" % self.born))
            elif self.coming:
                worker, house = self.coming.popitem()
                self.lodgers[worker] = house
                self.name_of.setdefault(house, self.lodging_of(house))
                self.perform(self.book.worker_started(worker))
            elif self.stopping:
                worker = self.stopping.pop()
                self.processes.discard(worker)
                self.lodgers.pop(worker, None)
                self.perform(self.book.worker_died(worker))
        for actor_id in list(self.asked):
            self.perform(self.book.unhost(actor_id))
        assert dict(self.book.statistics().available) == TOTAL
        assert self.book.statistics().waiting == 0
        assert not self.book._seats.houses or not self.book.jobs_ended(b"nobodies")


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=examples(30), stateful_step_count=40, deadline=None)
