"""Actors under every order of facts: moves stay in the table, names stay unique, the dead let go of everything."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from tests.effort import examples
from zmreg.core.actors import MOVES, ActorBook, ActorState
from zmreg.core.effects import (
    ActorCreated,
    ActorEffect,
    ActorRefused,
    Construct,
    HostActor,
    KillWorker,
    RetireActor,
    TellActor,
    UnhostActor,
)
from zmreg.model.specs import ActorEntry

OWNERS = [b"owner--A", b"owner--B"]
ACTORS = [OWNERS[number % 2] + b"actor--%d" % number for number in range(5)]
CALLERS = [b"caller-A", b"caller-B"]
STEPS = {(before.value, after.value) for (before, _), after in MOVES.items()}

actors = st.sampled_from(ACTORS)


class AnyOrder(RuleBasedStateMachine):
    """Plays the nodes (places and workers) and the callers; believes only what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.book = ActorBook()
        self.entries: dict[bytes, ActorEntry] = {}
        self.placing: set[bytes] = set()
        self.worker_of: dict[bytes, bytes] = {}  # actor -> the worker given last, until unhosted or dead
        self.workers: set[bytes] = set()  # running processes
        self.seen: dict[tuple[bytes, bytes], TellActor] = {}
        self.killed: set[bytes] = set()
        self.left: set[bytes] = set()  # asked to restart never again: killed for good or exited
        self.dead_callers: set[bytes] = set()
        self.now = 0.0
        self.born = 0

    def perform(self, effects: list[ActorEffect]) -> None:
        for effect in effects:
            match effect:
                case HostActor(actor_id, _, _):
                    assert actor_id not in self.placing, "one place asked for at a time"
                    assert actor_id not in self.worker_of, "not while it has a worker"
                    assert actor_id not in self.left
                    self.placing.add(actor_id)
                case UnhostActor(actor_id):
                    self.placing.discard(actor_id)
                    self.worker_of.pop(actor_id, None)
                case Construct(actor_id, worker, _):
                    assert self.worker_of[actor_id] == worker
                case KillWorker(worker):
                    assert worker not in self.killed
                    self.killed.add(worker)
                case RetireActor(actor_id, worker):
                    assert self.worker_of[actor_id] == worker
                case TellActor(process, actor_id, state):
                    self.check_step(self.seen.get((process, actor_id)), effect)
                    assert state in {each.value for each in ActorState}
                    self.seen[process, actor_id] = effect
                case ActorCreated() | ActorRefused():
                    pass

    def check_step(self, before: TellActor | None, after: TellActor) -> None:
        if before is None or before.state == after.state:
            return
        assert (before.state, after.state) in STEPS
        assert before.incarnation <= after.incarnation
        assert before.restarts_used <= after.restarts_used

    @rule(
        actor_id=actors,
        name=st.sampled_from(["", "one", "two"]),
        max_restarts=st.sampled_from([0, 1, -1]),
        detached=st.booleans(),
    )
    def create(self, actor_id: bytes, name: str, max_restarts: int, detached: bool) -> None:
        entry = ActorEntry(actor_id, actor_id[:8], name, "space", max_restarts=max_restarts, detached=detached)
        taken = self.book.lookup("space", name)
        effects = self.book.create(entry, self.now)
        if actor_id in self.entries:
            assert effects == [ActorCreated(actor_id)]
        elif isinstance(effects[0], ActorCreated):
            assert taken is None
            self.entries[actor_id] = entry
        self.perform(effects)

    @rule(actor_id=actors)
    def hosted(self, actor_id: bytes) -> None:
        if actor_id in self.placing:
            self.placing.remove(actor_id)
            self.born += 1
            worker = b"worker%02d" % self.born
            self.workers.add(worker)
            self.worker_of[actor_id] = worker
            self.perform(self.book.hosted(actor_id, worker))

    @rule(actor_id=actors, failed=st.booleans())
    def constructed(self, actor_id: bytes, failed: bool) -> None:
        worker = self.worker_of.get(actor_id, b"")
        self.perform(self.book.constructed(actor_id, worker, b"packed" if failed else None))

    @rule(data=st.data())
    def worker_dies(self, data: st.DataObject) -> None:
        if self.workers:
            worker = data.draw(st.sampled_from(sorted(self.workers)))
            self.workers.remove(worker)
            for actor_id in [actor_id for actor_id, its in self.worker_of.items() if its == worker]:
                del self.worker_of[actor_id]
            self.perform(self.book.worker_died(worker, b"exit -9"))

    @rule(actor_id=actors, no_restart=st.booleans())
    def kill(self, actor_id: bytes, no_restart: bool) -> None:
        name = self.entries[actor_id].name if actor_id in self.entries else ""
        was = self.book.lookup("space", name)
        self.perform(self.book.kill(actor_id, no_restart))
        if no_restart and actor_id in self.entries:
            self.left.add(actor_id)
            assert self.book.state(actor_id) is ActorState.DEAD
            assert was is None or was.actor_id != actor_id or self.book.lookup("space", name) is None

    @rule(actor_id=actors)
    def release(self, actor_id: bytes) -> None:
        self.perform(self.book.release(actor_id))

    @rule(actor_id=actors)
    def exits(self, actor_id: bytes) -> None:
        worker = self.worker_of.get(actor_id)
        if worker is not None:
            self.left.add(actor_id)
            self.perform(self.book.exiting(actor_id, worker))

    @rule(actor_id=actors, process=st.sampled_from(CALLERS))
    def subscribe(self, actor_id: bytes, process: bytes) -> None:
        if actor_id in self.entries and process not in self.dead_callers:
            self.perform(self.book.subscribe(actor_id, process))

    @rule(actor_id=actors)
    def place_lost(self, actor_id: bytes) -> None:
        if actor_id in self.placing:
            self.placing.remove(actor_id)
            self.perform(self.book.host_lost(actor_id))
            assert actor_id in self.placing

    @rule()
    def caller_dies(self) -> None:
        self.dead_callers.add(CALLERS[1])
        self.perform(self.book.process_died(CALLERS[1]))

    @rule()
    def owner_dies(self) -> None:
        self.perform(self.book.owner_died(OWNERS[1]))
        assert all(
            self.book.state(actor_id) is ActorState.DEAD
            for actor_id, entry in self.entries.items()
            if entry.owner == OWNERS[1] and not entry.detached
        )

    @rule(seconds=st.sampled_from([0.5, 6.0]))
    def tick(self, seconds: float) -> None:
        self.now += seconds
        self.perform(self.book.tick(self.now))

    @invariant()
    def names_belong_to_the_living(self) -> None:
        for name in self.book.names("space"):
            entry = self.book.lookup("space", name)
            assert entry is not None
            assert entry.name == name
            assert self.book.state(entry.actor_id) is not ActorState.DEAD

    @invariant()
    def the_dead_hold_nothing(self) -> None:
        for actor_id in self.entries:
            if self.book.state(actor_id) is ActorState.DEAD:
                assert actor_id not in self.placing
                worker = self.worker_of.get(actor_id)
                assert worker is None or worker in self.killed or worker in self.book._exiting

    @invariant()
    def restarts_stay_within_the_budget(self) -> None:
        for (_, actor_id), tell in self.seen.items():
            budget = self.entries[actor_id].max_restarts
            assert budget == -1 or tell.restarts_used <= budget

    def teardown(self) -> None:
        for actor_id in self.entries:
            self.perform(self.book.kill(actor_id))
        assert not any((self.book._actors, self.book._names, self.book._by_worker, self.book._subscribed))


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=examples(40), stateful_step_count=50, deadline=None)
