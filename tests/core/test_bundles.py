"""Row 69, the part without sockets: plans of placement groups, and that a group has all of its bundles or none."""

from __future__ import annotations

from collections import Counter
from itertools import permutations, product

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from zmreg.core.bundles import Commit, Drop, Group, GroupBook, GroupEffect, GroupState, HoldBack, Prepare, plan
from zmreg.core.effects import Granted, GroupUnknown, Infeasible, Recall, StopWorker
from zmreg.core.leases import LeaseBook
from zmreg.model.ids import NODE_BYTES
from zmreg.model.mesh_messages import NodeRecord
from zmreg.model.record import Resources
from zmreg.model.specs import BUNDLE, CPU, GPU, GROUP, UNIT, Shape, grouped

OWNER = b"owner--A"


def cpus(count: int) -> Resources:
    return ((CPU, count * UNIT),)


def record(node: bytes, available: Resources) -> NodeRecord:
    return NodeRecord(node, "", "", 0, 0, False, "", "", 0, available, available, (), 0, 0, 0, 0)


def nodes(*free: int) -> list[NodeRecord]:
    return [record(b"node%04d" % number, cpus(count)) for number, count in enumerate(free)]


def wanted(*counts: int) -> dict[int, Resources]:
    return {index: cpus(count) for index, count in enumerate(counts)}


@pytest.mark.parametrize(
    ("strategy", "bundles", "free", "used"),
    [
        ("STRICT_PACK", (1, 1), (1, 2), [2]), ("STRICT_PACK", (2, 1), (2, 2), None), ("PACK", (1, 1), (1, 2), [2]),
        ("PACK", (2, 1), (2, 2), [1, 1]), ("PACK", (1, 1, 1, 1), (2, 2, 2), [2, 2]), ("PACK", (3,), (2, 2), None),
        ("SPREAD", (1, 1), (2, 2), [1, 1]), ("SPREAD", (1, 1), (2,), [2]), ("SPREAD", (1, 1, 1), (1, 4), [1, 2]),
        ("STRICT_SPREAD", (1, 1), (2, 2), [1, 1]), ("STRICT_SPREAD", (1, 1), (2,), None),
        ("STRICT_SPREAD", (1, 2, 3), (3, 2, 1), [1, 1, 1]),
    ],
)  # fmt: skip
def test_row_69_strategies(
    strategy: str, bundles: tuple[int, ...], free: tuple[int, ...], used: list[int] | None
) -> None:
    found = plan(wanted(*bundles), strategy, nodes(*free))
    assert (None if found is None else sorted(Counter(found.values()).values())) == (used and sorted(used))


@settings(max_examples=300, deadline=None)
@given(
    st.sampled_from(["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]),
    st.lists(st.integers(1, 4), min_size=1, max_size=4),
    st.lists(st.integers(0, 5), max_size=4),
)
def test_row_69_a_plan_never_takes_more_than_a_node_has(strategy: str, bundles: list[int], free: list[int]) -> None:
    cluster = nodes(*free)
    found = plan(wanted(*bundles), strategy, cluster)
    if found is not None:
        assert found.keys() == set(range(len(bundles)))
        for node, has in zip(cluster, free, strict=True):
            assert sum(bundles[index] for index, place in found.items() if place == node.node) <= has
    if strategy == "STRICT_SPREAD":
        ways = (all(b <= f for b, f in zip(bundles, way, strict=True)) for way in permutations(free, len(bundles)))
        assert (found is not None) == any(ways)
        assert found is None or len(set(found.values())) == len(bundles)
    elif strategy == "STRICT_PACK":
        assert (found is not None) == any(sum(bundles) <= has for has in free)
        assert found is None or len(set(found.values())) == 1
    elif found is None:  # largest first may miss a way that a search finds, but not a loose fit
        assert not any(
            all(2 * sum(b for b, at in zip(bundles, way, strict=True) if at == n) <= has for n, has in enumerate(free))
            for way in product(range(len(free)), repeat=len(bundles))
        )


class World:
    """A head's book, nodes with lease books, and what is under way between them: in order from one to the other."""

    def __init__(self, *free: int) -> None:
        self.book = GroupBook()
        self.nodes = {
            b"node%04d" % number: LeaseBook({CPU: count * UNIT}, frozenset(), 8) for number, count in enumerate(free)
        }
        self.size = {node: count * UNIT for node, count in zip(self.nodes, free, strict=True)}
        self.down: dict[bytes, list[GroupEffect]] = {node: [] for node in self.nodes}
        self.up: list[tuple[bytes, bytes, int, bool]] = []
        self.ids: list[bytes] = []
        self.now = 0.0

    def perform(self, effects: list[GroupEffect]) -> None:
        for effect in effects:
            if effect.node in self.nodes:
                self.down[effect.node].append(effect)

    def create(self, bundles: list[int], strategy: str) -> bytes:
        group_id = b"group%03d" % len(self.ids) + OWNER
        self.ids.append(group_id)
        assert self.book.create(Group(group_id, OWNER, "", tuple(map(cpus, bundles)), strategy, False))
        return group_id

    def look(self) -> None:
        rows = [record(node, leases.statistics().available) for node, leases in self.nodes.items()]
        self.perform(self.book.look(rows, self.now))

    def deliver(self, node: bytes) -> None:
        if self.down[node]:
            leases = self.nodes[node]
            match self.down[node].pop(0):
                case Prepare(_, group_id, turn, bundles):
                    self.up.append((node, group_id, turn, leases.prepare(group_id, bundles)))
                case Commit(_, group_id):
                    leases.commit(group_id)
                case Drop(_, group_id, indexes, removed):
                    leases.drop(group_id, indexes, removed)

    def answer(self) -> None:
        if self.up:
            node, group_id, turn, agreed = self.up.pop(0)
            if node in self.nodes:
                self.perform(self.book.prepared(node, group_id, turn, agreed))

    def kill(self, node: bytes) -> None:
        del self.nodes[node], self.down[node]
        self.perform(self.book.node_gone(node))

    def crown(self) -> None:
        """Another head: what was under way is lost, and it knows the groups and not where they are."""
        known, self.book = list(self.book.groups.values()), GroupBook()
        self.down, self.up = {node: [] for node in self.nodes}, []
        for each in known:
            self.book.create(Group(each.group_id, OWNER, "", each.bundles, each.strategy, each.detached))
        for node, leases in self.nodes.items():
            for group_id, standing, prepared in leases.groups():
                self.book.claim(node, group_id, standing, prepared)
        self.perform(self.book.all_home())

    def settle(self) -> None:
        for _ in range(200):
            self.look()
            for node in list(self.nodes):
                while self.down[node]:
                    self.deliver(node)
            while self.up:
                self.answer()
        assert not any(self.down.values())

    def held(self, node: bytes, group_id: bytes) -> set[int]:
        return set(self.nodes[node]._bundles.get(group_id, {}))

    def check(self) -> None:
        for node, leases in self.nodes.items():
            available = dict(leases.statistics().available)
            aside = sum(units for held in leases._bundles.values() for each in held.values() for _, units in each)
            assert 0 <= available[CPU] == self.size[node] - aside


@settings(max_examples=200, deadline=None)
@given(
    st.lists(st.integers(1, 3), min_size=1, max_size=4),
    st.lists(
        st.tuples(
            st.sampled_from("cldaarkh"), st.integers(0, 7), st.lists(st.integers(1, 3), min_size=1, max_size=3),
            st.sampled_from(["PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"]),
        ),
        max_size=40,
    ),
)  # fmt: skip
def test_row_69_all_bundles_or_none_whatever_happens(
    free: list[int], steps: list[tuple[str, int, list[int], str]]
) -> None:
    world = World(*free)
    for what, number, bundles, strategy in steps:
        alive = list(world.nodes)
        if what == "c":
            world.create(bundles, strategy)
        elif what == "l":
            world.look()
        elif what == "d" and alive:
            world.deliver(alive[number % len(alive)])
        elif what == "a":
            world.answer()
        elif what == "r" and world.ids:
            world.perform(world.book.remove(world.ids[number % len(world.ids)], list(world.nodes)))
        elif what == "h":
            world.crown()
        elif what == "k" and len(alive) > 1:
            world.kill(alive[number % len(alive)])
        world.check()
    world.settle()
    world.check()
    for group_id in world.ids:
        group = world.book.groups.get(group_id)
        places = {} if group is None else group.places
        for node in world.nodes:
            assert world.held(node, group_id) == {index for index, place in places.items() if place == node}
        if group is not None and group.state is GroupState.PENDING:
            rows = [record(node, leases.statistics().available) for node, leases in world.nodes.items()]
            assert plan(group.missing, group.strategy, rows) is None, "it waits though there is room"


def test_row_69_a_bundle_that_two_nodes_have_set_aside_for_the_next_head_is_let_go_of_by_one() -> None:
    """The first one's order to let go was on its way when its head died."""
    world = World(1, 1, 1)
    group_id = world.create([1, 1], "PACK")
    world.look()
    world.kill(b"node0000")
    world.look()
    world.deliver(b"node0001")
    world.deliver(b"node0002")
    assert world.held(b"node0001", group_id) & world.held(b"node0002", group_id)
    world.crown()
    world.settle()
    assert sorted([*world.held(b"node0001", group_id), *world.held(b"node0002", group_id)]) == [0, 1]


def test_row_69_two_groups_that_need_the_same_are_served_one_after_the_other() -> None:
    world = World(1, 1)
    first, second = world.create([1, 1], "STRICT_SPREAD"), world.create([1, 1], "SPREAD")
    world.settle()
    assert [world.book.groups[each].state for each in (first, second)] == [GroupState.CREATED, GroupState.PENDING]
    world.perform(world.book.remove(first, list(world.nodes)))
    world.settle()
    assert world.book.groups[second].state is GroupState.CREATED


def test_row_69_a_refusal_rolls_everything_back() -> None:
    world = World(1, 1)
    group_id = world.create([1, 1], "STRICT_SPREAD")
    world.look()
    other = b"node0001"
    assert world.nodes[other].prepare(b"another", [(0, cpus(1))]), "what the head has not heard of"
    world.deliver(b"node0000")
    world.deliver(other)
    world.answer()
    world.answer()
    world.deliver(b"node0000")
    world.check()
    assert world.held(b"node0000", group_id) == set()
    assert world.book.groups[group_id].state is GroupState.PENDING


def test_row_69_a_node_that_dies_takes_its_bundles_and_only_these_are_asked_for_anew() -> None:
    world = World(1, 1, 1)
    group_id = world.create([1, 1], "STRICT_SPREAD")
    world.settle()
    group = world.book.groups[group_id]
    kept, lost = group.places[0], group.places[1]
    world.kill(lost)
    assert group.state is GroupState.RESCHEDULING
    world.settle()
    assert group.state is GroupState.CREATED and group.places[0] == kept and group.places[1] not in (kept, lost)


def test_row_69_another_head_finishes_what_the_last_one_had_begun_to_say() -> None:
    world = World(1, 1)
    whole = world.create([1, 1], "STRICT_SPREAD")
    world.look()
    for node in world.nodes:
        world.deliver(node)
        world.answer()
    world.deliver(b"node0000")  # it stands here, and the other one has not heard so
    world.crown()
    assert world.book.groups[whole].state is GroupState.CREATED
    assert world.down == {b"node0000": [], b"node0001": [Commit(b"node0001", whole)]}


def test_row_69_another_head_lets_go_of_a_group_that_was_half_asked_for_and_of_one_that_is_unknown() -> None:
    world = World(1, 1, 1)
    world.create([1, 1], "STRICT_SPREAD")
    world.look()
    world.deliver(b"node0000")
    assert world.nodes[b"node0002"].prepare(b"unknown-", [(0, cpus(1))])
    (index,) = world.held(b"node0000", world.ids[0])
    world.crown()
    assert world.down[b"node0000"] == [Drop(b"node0000", world.ids[0], (index,), False)]
    assert world.down[b"node0002"] == [Drop(b"node0002", b"unknown-", (), True)]


def test_row_69_a_claim_that_comes_before_its_order_is_kept_for_it() -> None:
    book = GroupBook()
    book.claim(b"node0000", b"group000" + OWNER, (0,), ())
    assert book.create(Group(b"group000" + OWNER, OWNER, "", (cpus(1),), "PACK", False))
    assert book.all_home() == [] and book.groups[b"group000" + OWNER].state is GroupState.CREATED


def test_row_69_groups_of_programs_on_a_node_that_dies_end_but_for_detached_ones() -> None:
    book = GroupBook()
    for number, detached in enumerate((False, True)):
        book.create(Group(b"group%03d" % number + OWNER, OWNER, "", (cpus(1),), "PACK", detached))
    effects = book.node_gone(OWNER[:NODE_BYTES] + b"--", [b"node0000"])
    assert effects == [Drop(b"node0000", b"group000" + OWNER, (), True)]
    assert [each.detached for each in book.groups.values()] == [True]


class TestAtANode:
    GROUP_ID = b"group--1" + OWNER

    def shape(self, index: int = -1, count: int = 1) -> Shape:
        amounts = grouped((*cpus(count), (BUNDLE, 1)), self.GROUP_ID, index)
        return Shape(tuple(each for each in amounts if each[1])).with_terms({GROUP: self.GROUP_ID.hex()})

    def test_row_69_its_tasks_wait_for_the_group_and_use_its_bundles_only(self) -> None:
        leases = LeaseBook({CPU: 3 * UNIT}, frozenset(), 8)
        for number in range(4):
            leases.worker_started(b"worker%02d" % number)
        assert leases.want(OWNER, self.shape(), 4) == []
        leases.tick(0.0)
        assert leases.tick(10.0) == [GroupUnknown(self.GROUP_ID)], "it may come, and the head knows"
        assert leases.prepare(self.GROUP_ID, [(0, cpus(1)), (1, cpus(1))])
        assert leases.want(OWNER, self.shape(), 3) == [], "not before all nodes have agreed"
        assert len(leases.commit(self.GROUP_ID)) == 2
        assert dict(leases.statistics().available)[CPU] == UNIT
        (granted,) = leases.want(OWNER, Shape.of(1), 2)
        assert isinstance(granted, Granted) and granted.shape == Shape.of(1)

    def test_row_69_removal_ends_who_is_in_it_and_refuses_who_comes(self) -> None:
        leases = LeaseBook({CPU: 2 * UNIT}, frozenset(), 8)
        for number in range(3):
            leases.worker_started(b"worker%02d" % number)
        leases.prepare(self.GROUP_ID, [(0, cpus(2))])
        leases.commit(self.GROUP_ID)
        leases.want(OWNER, self.shape(0), 1)
        actor = b"actor--1" + OWNER
        leases.host(actor, self.shape(0), self.shape(0))
        effects = leases.drop(self.GROUP_ID, (), True)
        assert {(each.owner, each.actor_id) for each in effects if isinstance(each, Infeasible)} == {
            (OWNER, None), (None, actor),
        }  # fmt: skip
        ended = [each for each in effects if isinstance(each, StopWorker)]
        assert len(ended) == 2 and all("placement group" in each.reason for each in ended)
        assert leases.statistics().available == ((CPU, 2 * UNIT),) == leases.total()
        assert [type(each) for each in leases.want(OWNER, self.shape(), 1)] == [Infeasible]
        assert leases.drop(self.GROUP_ID, (), True) == []

    def test_row_69_a_blocked_worker_lends_its_bundles_cpu(self) -> None:
        leases = LeaseBook({CPU: UNIT}, frozenset(), 8)
        for number in range(2):
            leases.worker_started(b"worker%02d" % number)
        leases.prepare(self.GROUP_ID, [(0, cpus(1))])
        leases.commit(self.GROUP_ID)
        (granted,) = leases.want(OWNER, self.shape(0), 1)
        assert isinstance(granted, Granted)
        assert not any(isinstance(each, Granted) for each in leases.want(b"another!", self.shape(0), 1))
        (lent,) = leases.blocked(granted.worker)
        assert isinstance(lent, Granted) and lent.owner == b"another!"


def gpus(count: float) -> Resources:
    return ((GPU, round(count * UNIT)),)


def test_row_69_a_plan_sees_that_no_share_of_a_gpu_lies_across_two() -> None:
    halves = record(b"halves--", gpus(1)).but(devices=(UNIT // 2, UNIT // 2))
    whole = record(b"whole---", gpus(1)).but(devices=(UNIT,))
    for strategy in ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD"):
        assert plan({0: gpus(1)}, strategy, [halves]) is None
        assert plan({0: gpus(1)}, strategy, [halves, whole]) == {0: b"whole---"}
    assert plan({0: gpus(0.5), 1: gpus(0.5)}, "STRICT_PACK", [halves]) == {0: b"halves--", 1: b"halves--"}
    assert plan({0: gpus(0.7), 1: gpus(0.3)}, "PACK", [halves]) is None


class TestGpusAtANode:
    GROUP_ID = b"group--1" + OWNER

    def book(self, devices: int, *bundles: float) -> LeaseBook:
        leases = LeaseBook({GPU: devices * UNIT}, frozenset(), 8)
        for number in range(6):
            leases.worker_started(b"worker%02d" % number)
        assert leases.prepare(self.GROUP_ID, [(index, gpus(each)) for index, each in enumerate(bundles)])
        leases.commit(self.GROUP_ID)
        return leases

    def granted(self, leases: LeaseBook, owner: bytes, units: float, index: int = -1, count: int = 1) -> list[Granted]:
        shape = Shape(grouped((*gpus(units), (BUNDLE, 1)), self.GROUP_ID, index)).with_terms(
            {GROUP: self.GROUP_ID.hex()}
        )
        effects = leases.want(owner, shape, count)
        return [each for each in effects if isinstance(each, Granted)]

    def test_row_69_each_bundle_has_its_devices_and_nobody_else_gets_them(self) -> None:
        leases = self.book(3, 1, 1.5)
        assert leases.free_devices() == (0, UNIT // 2, 0), "the larger one took a whole and a half"
        assert [each.devices for each in self.granted(leases, b"in-one--", 1.5, 1)] == [("0", "1")]
        assert [each.devices for each in self.granted(leases, b"in-zero-", 1, 0)] == [("2",)]
        outside = leases.want(b"outside-", Shape.of_units({GPU: UNIT}), 1)
        assert not any(isinstance(each, Granted) for each in outside)
        (share,) = leases.want(b"shares--", Shape.of_units({GPU: UNIT // 2}), 1)
        assert isinstance(share, Granted) and share.devices == ("1",)

    def test_row_69_any_bundle_is_one_that_has_room(self) -> None:
        leases = self.book(2, 1, 1)
        (one, two) = self.granted(leases, b"any-----", 1, count=2)
        assert sorted([one.devices, two.devices]) == [("0",), ("1",)]
        assert self.granted(leases, b"another-", 1, 0) == []
        effects = leases.returned(b"any-----", one.worker)
        assert not any(isinstance(each, Granted) for each in effects) or one.devices == ("0",)

    def test_row_69_shares_in_a_bundle_lie_on_its_device(self) -> None:
        leases = self.book(2, 0.5, 1)
        shares = self.granted(leases, b"shares--", 0.25, 1, count=5)
        assert [each.devices for each in shares] == [("0",)] * 4
        assert [each.devices for each in self.granted(leases, b"others--", 0.5, 0)] == [("1",)]

    def test_row_69_what_a_removed_group_had_is_whole_again(self) -> None:
        leases = self.book(2, 0.5, 1.5)
        self.granted(leases, b"shares--", 0.25, count=3)
        leases.drop(self.GROUP_ID, (), True)
        assert leases.free_devices() == (UNIT, UNIT) and leases.statistics().available == gpus(2)

    def test_row_69_no_room_on_the_devices_is_a_refusal_that_changes_nothing(self) -> None:
        leases = self.book(2, 0.6)
        other = b"group--2" + OWNER
        assert leases.want(b"outside-", Shape.of_units({GPU: 6_000}), 1)
        assert not leases.prepare(other, [(0, gpus(0.5))]), "0.8 are free, in two parts"
        assert leases.free_devices() == (4_000, 4_000)
        assert leases.prepare(other, [(0, gpus(0.4)), (1, gpus(0.4))])


class TestHoldingBack:
    GROUP_ID = b"group--1" + OWNER

    def full(self) -> tuple[LeaseBook, list[Granted]]:
        """A node of two CPUs, and an owner with more than enough to do."""
        leases = LeaseBook({CPU: 2 * UNIT}, frozenset(), 8)
        for number in range(3):
            leases.worker_started(b"worker%02d" % number)
        return leases, [each for each in leases.want(OWNER, Shape.of(1), 9) if isinstance(each, Granted)]

    def test_row_69_what_comes_free_is_the_groups_and_leases_are_called_back(self) -> None:
        leases, granted = self.full()
        effects = leases.hold_back(self.GROUP_ID, cpus(2), 10.0)
        assert {each.worker for each in effects if isinstance(each, Recall)} == {each.worker for each in granted}
        assert leases.hold_back(self.GROUP_ID, cpus(2), 10.0) == [], "they come back once"
        for each in granted:
            assert not any(isinstance(effect, Granted) for effect in leases.returned(OWNER, each.worker))
        assert not leases.prepare(b"another-", [(0, cpus(1))])
        assert leases.prepare(self.GROUP_ID, [(0, cpus(2))])
        leases.commit(self.GROUP_ID)
        assert leases.total() == tuple(
            sorted((*cpus(2), *grouped((*cpus(2), (BUNDLE, 100_000 * UNIT)), self.GROUP_ID, 0)))
        )

    def test_row_69_what_the_group_leaves_is_lent_and_what_nobody_fetches_as_well(self) -> None:
        leases, (first, second) = self.full()
        assert len(leases.hold_back(self.GROUP_ID, cpus(1), 10.0)) == 1
        assert not any(isinstance(each, Granted) for each in leases.returned(OWNER, first.worker))
        assert any(isinstance(each, Granted) for each in leases.returned(OWNER, second.worker)), "one is not held back"
        assert not any(isinstance(each, Granted) for each in leases.tick(9.0))
        assert any(isinstance(each, Granted) for each in leases.tick(10.0))

    def test_row_69_a_removed_group_holds_nothing_back(self) -> None:
        leases, (first, _) = self.full()
        leases.hold_back(self.GROUP_ID, cpus(2), 10.0)
        leases.returned(OWNER, first.worker)
        assert any(isinstance(each, Granted) for each in leases.drop(self.GROUP_ID, (), True))

    def test_row_69_who_waits_long_is_given_what_comes_free_for_a_while_and_again_after_ever_longer_pauses(
        self,
    ) -> None:
        book, group_id = GroupBook(), self.GROUP_ID
        book.create(Group(group_id, OWNER, "", (cpus(1), cpus(2)), "PACK", False))
        busy = [each.but(available=cpus(0)) for each in nodes(2, 1)]
        held = [now for now in range(100) if book.look(busy, float(now))]
        assert held == [5, 20, 40, 70]
        assert book._hold_back(busy, 200.0) == [
            HoldBack(b"node0000", group_id, cpus(2), 10.0), HoldBack(b"node0001", group_id, cpus(1), 10.0)
        ]  # fmt: skip
        assert [type(each) for each in book.look(nodes(2, 1), 201.0)] == [Prepare, Prepare]

    def test_row_69_nothing_is_held_back_for_what_no_end_of_others_would_make_room_for(self) -> None:
        book = GroupBook()
        book.create(Group(self.GROUP_ID, OWNER, "", (cpus(2),), "PACK", False))
        taken = grouped((*cpus(1), (BUNDLE, UNIT)), b"another-" + OWNER, 0)
        has = [each.but(total=(*each.total, *taken)) for each in nodes(2)]
        assert not any(book.look([each.but(available=cpus(1)) for each in has], float(now)) for now in range(100))
