"""What few ask for of a worker: an environment (row 10), a priority (X18), labels of its node (rows 9 and 70)."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmreg.core import labels, placement
from zmreg.core.effects import AtCap, Granted, Infeasible, LeaseEffect, Recall, StartWorker, StopWorker
from zmreg.core.leases import LeaseBook
from zmreg.model.mesh_messages import NodeRecord
from zmreg.model.specs import ENV, LABEL, PRIORITY, UNIT, WISH, Shape

A, B = b"owner--A", b"owner--B"
c0, c1 = Shape.of(0), Shape.of(1)


def env(key: str, shape: Shape = c1) -> Shape:
    return shape.with_terms({ENV: key})


def urgent(priority: int) -> Shape:
    return c1.with_terms({PRIORITY: str(priority)})


def book(cpus: int = 2, max_workers: int = 8) -> LeaseBook:
    return LeaseBook({"CPU": cpus * UNIT}, frozenset(), max_workers)


class World:
    """A book whose wishes for processes come true when somebody says so."""

    def __init__(self, leases: LeaseBook) -> None:
        self.leases = leases
        self.to_start = self.born = 0
        self.ending: list[bytes] = []
        self.held: dict[bytes, tuple[bytes, Shape]] = {}
        self.env_of: dict[bytes, str] = {}
        self.recalled: list[bytes] = []

    def perform(self, effects: list[LeaseEffect]) -> None:
        for effect in effects:
            match effect:
                case StartWorker():
                    self.to_start += 1
                case StopWorker(worker):
                    self.ending.append(worker)
                case Granted(owner, shape, worker):
                    assert self.env_of.setdefault(worker, shape.term(ENV)) == shape.term(ENV), "of another environment"
                    self.held[worker] = owner, shape
                case Recall(_, worker):
                    self.recalled.append(worker)
                case AtCap():
                    continue
                case _:
                    pytest.fail(f"not expected: {effect}")

    def want(self, owner: bytes, shape: Shape, count: int) -> None:
        self.perform(self.leases.want(owner, shape, count))

    def give_back(self, worker: bytes) -> None:
        owner, _ = self.held.pop(worker)
        self.perform(self.leases.returned(owner, worker))

    def run(self) -> None:
        """Everything that was asked of the world happens, recalls aside."""
        while self.to_start or self.ending:
            if self.to_start:
                self.to_start, self.born = self.to_start - 1, self.born + 1
                self.perform(self.leases.worker_started(b"worker%02d" % self.born))
            else:
                worker = self.ending.pop()
                self.held.pop(worker, None)
                self.perform(self.leases.worker_died(worker))

    def holders(self) -> list[Shape]:
        return [shape for _, shape in self.held.values()]


def test_row_10_an_idle_worker_of_another_environment_makes_room_at_the_cap() -> None:
    world = World(book(max_workers=2))
    world.want(A, env("x"), 2)
    world.run()
    assert world.holders() == [env("x")] * 2
    world.want(A, env("x"), 0)
    for worker in list(world.held):
        world.give_back(worker)
    world.want(A, c1, 1)
    assert len(world.ending) == 1, "no more than what is needed"
    world.run()
    assert world.holders() == [c1] and world.born == 3
    world.want(A, env("x"), 1)
    assert sorted(map(str, world.holders())) == sorted(map(str, [c1, env("x")])), "its own is there still"


def test_row_14_a_program_that_has_ended_leaves_no_idle_worker_and_others_keep_theirs() -> None:
    """The environment of a program that shares its cluster begins with its own id (services/worker/environments.py)."""
    mine, other = b"node0001", b"node0002"
    leases = book(cpus=4)
    shapes = [(mine, env(mine.hex())), (mine, env(mine.hex() + "0f")), (other, env(other.hex()))]
    for number, (owner, shape) in enumerate(shapes):
        leases.want(owner, shape, 1)
        assert leases.worker_started(b"worker%d" % number) == [Granted(owner, shape, b"worker%d" % number)]
        leases.want(owner, shape, 0)
        leases.returned(owner, b"worker%d" % number)
    leases.want(other, shapes[2][1], 1)
    assert leases.owner_died(mine) == [StopWorker(b"worker0"), StopWorker(b"worker1")]
    leases.want(other, shapes[2][1], 0)
    leases.returned(other, b"worker2")
    assert leases.jobs_ended(b"node") == [StopWorker(b"worker2")]


def test_row73_the_program_that_a_worker_serves_is_known_as_long_as_the_worker_is() -> None:
    leases, job = book(cpus=4), b"driver-A"
    for number, key in enumerate((job.hex(), job.hex() + "0123", "", "no hex")):
        worker, known = b"worker%d" % number, job if job.hex() in key else b""
        leases.want(A, env(key), 1)
        leases.worker_started(worker)
        leases.want(A, env(key), 0)
        assert leases.holder(worker) == A and leases.job_of(worker) == known
        leases.returned(A, worker)
        leases.dismiss(worker)
        assert leases.job_of(worker) == known, "nobody holds it, and it is about to end"
        leases.worker_died(worker)
        assert leases.job_of(worker) == b""


def test_row_10_a_busy_worker_of_another_environment_is_called_back_at_the_cap() -> None:
    world = World(book(max_workers=1))
    world.want(A, env("x"), 1)
    world.run()
    world.want(B, env("y"), 1)
    assert world.recalled == list(world.held)
    world.want(A, env("x"), 0)
    world.give_back(world.recalled.pop())
    world.run()
    assert world.holders() == [env("y")]


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 3), st.lists(st.tuples(st.sampled_from("wrt"), st.sampled_from("xyz-"), st.integers(0, 3))))
def test_row_10_no_worker_serves_two_environments_and_all_are_served(
    cap: int, steps: list[tuple[str, str, int]]
) -> None:
    world, now = World(book(cpus=2, max_workers=cap)), 0.0
    shapes = {key: c1 if key == "-" else env(key) for key in "xyz-"}
    for what, key, count in steps:
        if what == "w":
            world.want(A, shapes[key], count)
        elif what == "r":
            for worker in [worker for worker, (_, shape) in world.held.items() if shape == shapes[key]][:count]:
                world.give_back(worker)
        else:
            now += 1.0
            world.perform(world.leases.tick(now))
            world.run()
    world.run()
    for key, shape in shapes.items():  # one after the other, all else given back
        for other in shapes.values():
            world.want(A, other, 0)
        for worker in list(world.held):
            world.give_back(worker)
        world.want(A, shape, 1)
        world.run()
        assert shape in world.holders(), f"{key} is not served"


def test_X18_a_higher_priority_is_served_first_and_takes_what_is_lent() -> None:
    world = World(book(cpus=1))
    world.want(A, c1, 1)
    world.run()
    world.want(B, c1, 1)
    world.want(B, urgent(5), 1)
    world.want(A, urgent(9), 1)
    (worker,) = world.held
    assert world.recalled == [worker]
    for expected in (urgent(9), urgent(5)):
        world.want(*world.held[worker], 0)
        world.give_back(worker)
        assert world.holders() == [expected]
    world.want(B, urgent(5), 0)
    world.give_back(worker)
    assert world.held[worker] == (B, c1), "the lowest is last, whoever came first"


def test_X18_a_lower_priority_takes_nothing_from_a_higher_one() -> None:
    world = World(book(cpus=2))
    world.want(A, urgent(1), 4)
    world.run()
    world.want(B, c1, 1)
    world.want(B, urgent(-1), 1)
    assert world.recalled == [] and world.holders() == [urgent(1)] * 2
    world.want(B, urgent(1), 1)
    assert len(world.recalled) == 1, "an equal has its share"


@pytest.mark.parametrize(
    ("wanted", "serves"),
    [
        ("a", {"a"}), ("!a", {"b", "none"}), ("in(a, c)", {"a"}), ("in(a,b)", {"a", "b"}), ("!in(a,c)", {"b", "none"}),
    ],
)  # fmt: skip
def test_row_70_label_expressions(wanted: str, serves: set[str]) -> None:
    nodes = {"a": {"zone": "a"}, "b": {"zone": "b"}, "none": {}}
    shape = c1.with_terms({LABEL + "zone": wanted})
    assert {name for name, named in nodes.items() if labels.fit(named, shape)} == serves


def record(name: str, **named: str) -> NodeRecord:
    cpus = (("CPU", UNIT),)
    return NodeRecord(
        name.encode() * 8, name, "h", 1, 2, False, "", "", 1, cpus, cpus, (), 0, 0, 0, 0, labels=tuple(named.items())
    )


def test_row_9_hard_labels_choose_and_soft_ones_prefer() -> None:
    nodes = [record("h"), record("a", zone="a"), record("b", zone="b", disk="fast")]
    hard, none = c1.with_terms({LABEL + "zone": "!a"}), c1.with_terms({LABEL + "zone": "c"})
    soft = c1.with_terms({WISH + "disk": "fast", WISH + "zone": "b"})
    assert placement.everywhere(nodes, hard) == (nodes[0].node, nodes[2].node)
    assert placement.choose(nodes, none, {}) is None and placement.choose(nodes[1:], hard, {}) == nodes[2].node
    assert placement.choose(nodes, soft, {}) == nodes[2].node and placement.preferred(nodes, soft) == (nodes[2].node,)
    assert placement.preferred(nodes[2:], soft) == () and placement.choose(nodes[:1], soft, {}) == nodes[0].node
    assert "labels zone=a" in placement.why_not([nodes[1]], none)


def test_row_70_a_node_refuses_what_its_labels_are_not_unless_another_has_them() -> None:
    leases = book()
    leases.labels = {"zone": "a"}
    shape = c1.with_terms({LABEL + "zone": "b"})
    leases.want(A, shape, 1)
    leases.others = [({"CPU": UNIT}, frozenset(), {"zone": "b"})]
    leases.tick(0.0)
    assert leases.tick(10.0) == []
    leases.others = []
    leases.tick(11.0)
    assert [type(each) for each in leases.tick(20.0)] == [Infeasible]
