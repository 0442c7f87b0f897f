"""Leases under every order of events hypothesis can think of, and under owners that only ever play fair."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field
from random import Random

from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from tests.effort import examples
from zmreg.core.effects import (
    AtCap,
    CannotStart,
    Granted,
    Hosted,
    Infeasible,
    LeaseEffect,
    Recall,
    StartWorker,
    StopWorker,
)
from zmreg.core.leases import LeaseBook
from zmreg.model.specs import CPU, GPU, UNIT, Shape, actor_shapes

OWNERS = [b"owner--A", b"owner--B", b"owner--C"]
SHAPES = [
    Shape.of(1), Shape.of(0), Shape.of(2), Shape.of(0.5), Shape.of(1, 1), Shape.of(0, 2), Shape.of(0, 0.5),
    Shape.of(1, 0.6), Shape.of(64),
]  # fmt: skip
TOTAL = {"CPU": 3 * UNIT, "GPU": 2 * UNIT}
FEASIBLE = SHAPES[:-1]
c1 = SHAPES[0]


def charge(shape: Shape, blocked: bool) -> Counter[str]:
    return Counter({name: units for name, units in shape.resources if not (blocked and name == CPU)})


class AnyOrder(RuleBasedStateMachine):
    """Plays the node and the owners; keeps its own account of who holds what from the effects alone."""

    owners = st.sampled_from(OWNERS)
    pausing = False
    trimming = False

    @initialize(max_workers=st.integers(1, 6), keep_idle=st.integers(0, 3))
    def start(self, max_workers: int, keep_idle: int) -> None:
        self.book = LeaseBook(TOTAL, frozenset(), max_workers, keep_idle, idle_s=5.0)
        self.max_workers = max_workers
        self.now = 0.0
        self.born = 0
        self.starting = 0
        self.idle: set[bytes] = set()
        self.used: set[bytes] = set()
        self.stopping: set[bytes] = set()
        self.leases: dict[bytes, tuple[bytes, Shape]] = {}
        self.hosts: dict[bytes, tuple[bytes, Shape]] = {}
        self.asked: dict[bytes, tuple[Shape, Shape]] = {}
        self.blocked: set[bytes] = set()
        self.recalled: set[bytes] = set()
        self.dead: set[bytes] = set()
        self.told: dict[bytes, tuple[str, ...]] = {}

    def perform(self, effects: list[LeaseEffect]) -> None:
        for effect in effects:
            match effect:
                case StartWorker():
                    self.starting += 1
                case StopWorker(worker):
                    assert worker not in self.stopping, "stopped once"
                    if worker in self.idle and not self.trimming:
                        self.check_makes_room(worker)
                    self.forget(worker)
                    self.stopping.add(worker)
                case Granted(owner, shape, worker, devices):
                    self.check_devices(worker, shape, devices)
                    assert worker in self.idle, "granted twice, or never started, or stopped"
                    assert owner not in self.dead
                    self.idle.remove(worker)
                    self.used.add(worker)
                    self.leases[worker] = (owner, shape)
                    self.check_not_overdrawn(shape)
                case Hosted(actor_id, worker, devices):
                    self.check_devices(worker, self.asked[actor_id][1], devices)
                    assert worker in self.idle
                    assert worker not in self.used, "what tasks have put there would die with the actor"
                    place, hold = self.asked[actor_id]
                    self.idle.remove(worker)
                    self.hosts[worker] = (actor_id, hold)
                    self.check_not_overdrawn(hold)
                case Recall(owner, worker):
                    assert self.leases[worker][0] == owner
                    assert worker not in self.recalled, "asked once per lease"
                    self.recalled.add(worker)
                case Infeasible(_, actor_id, shape, _):
                    assert not shape.fits(TOTAL)
                    self.asked.pop(actor_id or b"", None)
                case CannotStart(_, actor_id, _, _):
                    assert not self.starting
                    self.asked.pop(actor_id or b"", None)
                case AtCap():
                    assert len(self.workers()) + self.starting == self.max_workers or self.pausing

    def workers(self) -> set[bytes]:
        return self.idle | self.stopping | set(self.leases) | set(self.hosts)

    def forget(self, worker: bytes) -> None:
        self.idle.discard(worker)
        self.stopping.discard(worker)
        self.leases.pop(worker, None)
        actor = self.hosts.pop(worker, None)
        if actor is not None:
            self.asked.pop(actor[0], None)
        self.blocked.discard(worker)
        self.recalled.discard(worker)

    def left(self) -> dict[str, int]:
        taken: Counter[str] = Counter()
        for worker, (_, shape) in [*self.leases.items(), *self.hosts.items()]:
            taken += charge(shape, worker in self.blocked)
        return {name: units - taken[name] for name, units in TOTAL.items()}

    def check_not_overdrawn(self, shape: Shape) -> None:
        left = self.left()
        assert all(left[name] >= 0 for name, _ in shape.resources), "only `unblocked` may oversubscribe"

    def check_devices(self, worker: bytes, shape: Shape, news: tuple[str, ...] | None) -> None:
        """What the worker believes to have, by what it has been told, is what it has; and nobody else has it."""
        if news is not None:
            self.told[worker] = news
        units = {each: shape.amount(GPU) for each, (_, shape) in [*self.leases.items(), *self.hosts.items()]}
        units[worker] = shape.amount(GPU)
        use: Counter[str] = Counter()
        for each, amount in units.items():
            ids = self.told.get(each, ())
            assert len(set(ids)) == len(ids) == -(-amount // UNIT)
            use.update({name: min(UNIT, amount) for name in ids})
        assert all(amount <= UNIT for amount in use.values())

    def check_makes_room(self, worker: bytes) -> None:
        """An idle worker ends for an actor only at the cap, only when it is of no use to it, and one for each."""
        assert worker in self.used
        assert len(self.workers()) + self.starting == self.max_workers
        assert not self.idle - self.used, "a fresh one would have done"
        unplaced = set(self.asked) - {actor_id for actor_id, _ in self.hosts.values()}
        assert len(self.stopping) < len(unplaced), "those leaving already would have done"

    @rule(
        owner=st.sampled_from(OWNERS), shape=st.sampled_from(SHAPES), count=st.integers(0, 9), depth=st.integers(0, 2)
    )
    def want(self, owner: bytes, shape: Shape, count: int, depth: int) -> None:
        self.perform(self.book.want(owner, shape, count, depth))

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.leases)))
        owner = self.leases[worker][0]
        self.forget(worker)
        self.idle.add(worker)
        self.perform(self.book.returned(owner, worker))

    @precondition(lambda self: self.starting)
    @rule()
    def worker_up(self) -> None:
        self.starting -= 1
        self.pausing = False
        self.born += 1
        worker = b"worker%02d" % self.born
        self.idle.add(worker)
        self.perform(self.book.worker_started(worker))

    @precondition(lambda self: self.starting)
    @rule()
    def worker_not_up(self) -> None:
        self.starting -= 1
        self.pausing = True
        self.perform(self.book.worker_start_failed("EAGAIN"))

    @precondition(lambda self: self.workers())
    @rule(data=st.data())
    def worker_dies(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(self.workers())))
        self.forget(worker)
        self.perform(self.book.worker_died(worker))

    @precondition(lambda self: self.leases or self.hosts)
    @rule(data=st.data())
    def block_or_unblock(self, data: st.DataObject) -> None:
        worker = data.draw(st.sampled_from(sorted(set(self.leases) | set(self.hosts))))
        if worker in self.blocked:
            self.blocked.remove(worker)
            self.perform(self.book.unblocked(worker))
        else:
            self.blocked.add(worker)
            self.perform(self.book.blocked(worker))

    @rule(owner=st.sampled_from(OWNERS[1:]))
    def owner_dies(self, owner: bytes) -> None:
        self.dead.add(owner)
        self.perform(self.book.owner_died(owner))
        assert all(held_by != owner for held_by, _ in self.leases.values())

    @rule(number=st.integers(0, 4), gpus=st.sampled_from([None, 1]), depth=st.integers(0, 2))
    def host(self, number: int, gpus: int | None, depth: int) -> None:
        actor_id = b"actor%d" % number
        self.asked.setdefault(actor_id, actor_shapes(num_gpus=gpus))
        self.perform(self.book.host(actor_id, *self.asked[actor_id], depth))

    @rule(number=st.integers(0, 4))
    def unhost(self, number: int) -> None:
        self.perform(self.book.unhost(b"actor%d" % number))
        self.asked.pop(b"actor%d" % number, None)

    @rule(seconds=st.sampled_from([0.0, 0.1, 1.0, 6.0]))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.pausing = self.pausing and seconds < 6.0
        self.trimming = True
        self.perform(self.book.tick(self.now))
        self.trimming = False

    @rule()
    def nonsense_is_ignored(self) -> None:
        assert self.book.worker_died(b"nobody") == []
        assert self.book.returned(OWNERS[0], b"nobody") == []
        assert self.book.blocked(b"nobody") == self.book.unblocked(b"nobody") == []
        assert self.book.unhost(b"nobody") == []

    @invariant()
    def accounts_agree(self) -> None:
        now = self.book.statistics()
        assert dict(now.available) == self.left()
        assert (now.workers, now.starting) == (len(self.workers()), self.starting)
        assert now.workers + now.starting <= self.max_workers
        assert (now.leased, now.actors) == (len(self.leases), len(self.hosts))
        assert now.idle == len(self.idle)
        assert now.blocked == len(self.blocked)

    @invariant()
    def no_actor_waits_while_a_worker_could_have_been_its_own(self) -> None:
        """With nothing else wanted, an actor that fits is served, or its worker is on its way."""
        waiting = [each for each in self.asked if each not in {actor_id for actor_id, _ in self.hosts.values()}]
        now = self.book.statistics()
        if self.pausing or now.waiting != len(waiting) or not waiting:
            return
        left = self.left()
        fitting = [each for each in waiting if self.asked[each][0].fits(left)]
        if fitting == waiting and not now.leased:
            room = self.max_workers - now.workers
            assert self.starting or self.stopping or not (self.idle or room), "nothing is under way for it"

    def teardown(self) -> None:
        """After all owners and actors are gone, everything is available again and nothing is left but workers."""
        if not hasattr(self, "book"):
            return
        for owner in OWNERS:
            self.dead.add(owner)
            self.perform(self.book.owner_died(owner))
        for actor_id in list(self.asked):
            self.perform(self.book.unhost(actor_id))
        assert dict(self.book.statistics().available) == TOTAL
        assert self.book.statistics().waiting == 0
        assert not self.leases
        assert not self.hosts


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=examples(30), stateful_step_count=40, deadline=None)


@dataclass
class Backlog:
    """One owner's tasks of one shape, and the leases it holds for them."""

    owner: bytes
    shape: Shape
    todo: int
    depth: int
    held: set[bytes] = field(default_factory=set)


@settings(max_examples=examples(75), deadline=None)
@given(
    st.lists(
        st.tuples(st.sampled_from(OWNERS), st.sampled_from(FEASIBLE), st.integers(1, 12), st.integers(0, 2)), min_size=1
    ),
    st.integers(0, 3),
    st.integers(1, 5),
    st.integers(0, 2**32),
)
def test_every_feasible_want_is_granted_while_others_return_what_is_called_back(
    wants: list[tuple[bytes, Shape, int, int]], actors: int, max_workers: int, seed: int
) -> None:
    chance = Random(seed)
    book = LeaseBook(TOTAL, frozenset(), max_workers)
    backlogs = {(owner, shape): Backlog(owner, shape, todo, depth) for owner, shape, todo, depth in wants}
    recalled: set[bytes] = set()
    hosted: dict[bytes, bytes] = {}
    inbox: list[LeaseEffect] = []
    for each in backlogs.values():
        inbox += book.want(each.owner, each.shape, each.todo, each.depth)
    for number in range(actors):
        inbox += book.host(b"actor%d" % number, *actor_shapes())
    born = 0
    met: set[bytes] = set()
    used: set[bytes] = set()

    def give_back(each: Backlog, worker: bytes) -> None:
        each.held.remove(worker)
        recalled.discard(worker)
        inbox.extend(book.returned(each.owner, worker))

    for _ in range(5_000):
        if inbox:
            match inbox.pop(0):
                case StartWorker():
                    born += 1
                    inbox += book.worker_started(b"worker%03d" % born)
                case Granted(owner, shape, worker):
                    backlogs[owner, shape].held.add(worker)
                    used.add(worker)
                case Recall(_, worker):
                    recalled.add(worker)
                case Hosted(actor_id, worker):
                    assert worker not in used
                    hosted[actor_id] = worker
                    met.add(actor_id)
                case StopWorker(worker):
                    inbox += book.worker_died(worker)
            continue
        # Everything is said: now one worker finishes one task, or one actor ends.
        busy = [(each, worker) for each in backlogs.values() for worker in sorted(each.held)]
        if hosted and (not busy or chance.random() < 0.1):
            actor_id, _ = hosted.popitem()
            inbox += book.unhost(actor_id)
        elif busy:
            each, worker = chance.choice(busy)
            each.todo = max(0, each.todo - 1)
            if each.todo == 0:
                inbox += book.want(each.owner, each.shape, 0)
            if each.todo == 0 or worker in recalled:
                give_back(each, worker)
        else:
            break
    assert {key: each.todo for key, each in backlogs.items() if each.todo} == {}
    assert len(met) == actors
    assert dict(book.statistics().available) == TOTAL


@dataclass(eq=False)
class Frame:
    """A task under way: children not yet started, children started and not finished, and whom to tell at the end."""

    todo: list[int]
    under_way: int = 0
    parent: Frame | None = None


class Recursion:
    """Tasks that start tasks and wait for them. A task is a number: task n starts `fan` tasks n-1; task 0 just ends.

    A blocked worker that hears AtCap runs one of its own children on top of the task that waits (C9).
    """

    def __init__(self, cpus: int, max_workers: int, fan: int, seed: int) -> None:
        self.book = LeaseBook({"CPU": cpus * UNIT}, frozenset(), max_workers)
        self.fan = fan
        self.chance = Random(seed)
        self.stacks: dict[bytes, list[Frame]] = {}  # per owner, driver included; the last frame runs
        self.leases: dict[bytes, bytes] = {}  # worker -> owner
        self.inbox: list[LeaseEffect] = []
        self.born = 0
        self.done = 0

    def run(self, task: int) -> None:
        driver = OWNERS[0]
        self.stacks[driver] = [Frame([task])]
        self.say(driver)
        for _ in range(20_000):
            if self.inbox:
                self.hear(self.inbox.pop(0))
                continue
            running = [owner for owner, stack in self.stacks.items() if stack and self.is_over(stack[-1])]
            if not running:
                break
            self.finish(self.chance.choice(running))

    def is_over(self, frame: Frame) -> bool:
        return not frame.todo and not frame.under_way

    def say(self, owner: bytes) -> None:
        held = sum(each == owner for each in self.leases.values())
        todo = sum(len(frame.todo) for frame in self.stacks[owner])
        self.inbox += self.book.want(owner, c1, held + todo if todo else 0, depth=len(self.stacks[owner]))

    def hear(self, effect: LeaseEffect) -> None:
        match effect:
            case StartWorker():
                self.born += 1
                self.stacks[b"worker%03d" % self.born] = []
                self.inbox += self.book.worker_started(b"worker%03d" % self.born)
            case Granted(owner, _, worker):
                self.leases[worker] = owner
                self.feed(worker)
            case AtCap(owner, _):
                loaded = next((frame for frame in self.stacks[owner][::-1] if frame.todo), None)
                if loaded is not None and owner != OWNERS[0] and not self.is_over(self.stacks[owner][-1]):
                    self.inbox += self.book.unblocked(owner)
                    self.push(owner, loaded)

    def feed(self, worker: bytes) -> None:
        """The worker is free: the next task of its lease's owner, or back with the lease."""
        owner = self.leases[worker]
        loaded = next((frame for frame in self.stacks[owner][::-1] if frame.todo), None)
        if loaded is not None:
            self.push(worker, loaded)
        else:
            del self.leases[worker]
            # The level first: a lease returned while it is still wanted would be granted again at once.
            self.say(owner)
            self.inbox += self.book.returned(owner, worker)

    def push(self, worker: bytes, parent: Frame) -> None:
        task = parent.todo.pop()
        parent.under_way += 1
        self.stacks[worker].append(Frame([task - 1] * self.fan if task else [], 0, parent))
        if task:
            self.inbox += self.book.blocked(worker)
            self.say(worker)

    def finish(self, owner: bytes) -> None:
        frame = self.stacks[owner].pop()
        self.done += 1
        if frame.parent is None:
            return
        frame.parent.under_way -= 1
        parent_owner = next(each for each, stack in self.stacks.items() if frame.parent in stack)
        # Only the topmost frame of a worker can go on: one below it that is over still waits for what runs on top.
        if parent_owner != OWNERS[0] and frame.parent is self.stacks[parent_owner][-1] and self.is_over(frame.parent):
            self.inbox += self.book.unblocked(parent_owner)
            self.say(parent_owner)
        if self.stacks[owner]:
            # An inline child is done; the task below waits on, or is over too.
            if not self.is_over(self.stacks[owner][-1]):
                self.inbox += self.book.blocked(owner)
                self.say(owner)
        else:
            self.feed(owner)


@settings(max_examples=examples(20), deadline=None)
@given(st.integers(1, 3), st.integers(1, 6), st.integers(0, 2**32))
# A frame ends that lies below another one of its worker, which goes on waiting: no owner may say `unblocked` then.
@example(cpus=1, max_workers=3, seed=6909250)
def test_c9_a_tree_of_waiting_tasks_ends_at_any_cap(cpus: int, max_workers: int, seed: int) -> None:
    tree = Recursion(cpus, max_workers, fan=2, seed=seed)
    tree.run(5)
    assert tree.done == 1 + sum(2**level for level in range(6)), "the driver's frame and all 63 tasks"
    assert tree.born <= max_workers


def test_fault_55_a_hundred_deep_on_one_cpu_with_four_workers() -> None:
    chain = Recursion(cpus=1, max_workers=4, fan=1, seed=0)
    chain.run(100)
    assert chain.done == 102
    assert chain.born == 4
