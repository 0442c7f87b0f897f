"""Which node: small clusters of three, by what they have told of themselves."""

from __future__ import annotations

from zmreg.core import placement
from zmreg.model.messages import NodeRecord
from zmreg.model.specs import CPU, GPU, ON, SPREAD, TRY, UNIT, Shape

c1, c2 = Shape.of(1), Shape.of(2)


def node(name: str, cpus: int = 2, free: int | None = None, **more: object) -> NodeRecord:
    record = NodeRecord(
        name.encode() * 4 + bytes(4), name, "127.0.0.1", 1, 2, name == "h", "3.11.4", "1", 1,
        ((CPU, cpus * UNIT),), ((CPU, (cpus if free is None else free) * UNIT),), (), 0, 0, 0, 0,
    )  # fmt: skip
    return record.but(**more)


H, A, B = node("h"), node("a"), node("b")


def test_R18_a_node_without_locs_only_passes_on() -> None:
    assert (placement.role(A), placement.role(node("c", locs=("m1",)))) == ("BALANCER", "SERVER")


def test_room_is_what_is_free_unless_others_wait():
    assert placement.room(node("a", 4, 3), c1) == 3
    assert placement.room(node("a", 4, 3), c2) == 1
    assert placement.room(node("a", 4, 3, waiting=1), c1) == 0
    assert placement.room(A, Shape.of(1, locs={"x"})) == 0


def test_what_cannot_be_had_here_is_offered_by_those_with_most_room():
    others = [node("a", 4, 1), node("b", 4, 3)]
    assert placement.elsewhere(others, c1, 8, True) == [(others[1].node, 3), (others[0].node, 1)]
    assert placement.elsewhere(others, c1, 2, True) == [(others[1].node, 2)]


def test_C17_who_is_not_feasible_here_waits_where_it_is():
    full = node("a", 2, 0)
    assert placement.elsewhere([full], c1, 5, True) == []
    assert placement.elsewhere([full], c1, 5, False) == [(full.node, 1)]
    assert placement.elsewhere([full], Shape.of(9), 5, False) == []


def test_row9_an_actor_goes_where_it_is_sent():
    nodes = [H, A, B]
    assert placement.choose(nodes, c1.with_strategy(ON + A.node.hex()), {}) == A.node
    assert placement.choose(nodes, Shape.of(9, strategy=ON + A.node.hex()), {}) is None
    assert placement.choose(nodes, c1.with_strategy(ON + bytes(8).hex()), {}) is None
    assert placement.choose(nodes, c1.with_strategy(TRY + bytes(8).hex()), {}) == H.node, "soft: it is gone"


def test_row9_spread_actors_go_where_there_are_fewest():
    spread = c1.with_strategy(SPREAD)
    assert placement.choose([H, A, B], spread, {H.node: 2, A.node: 1}) == B.node
    assert placement.choose([H, A], spread, {H.node: 2, A.node: 1}) == A.node


def with_gpus(name: str, *free: float, **more: object) -> NodeRecord:
    """A node with so much free of each of its GPUs, and no end of CPUs."""
    units = tuple(round(each * UNIT) for each in free)
    plain = node(name, 64)
    return plain.but(
        total=((CPU, 64 * UNIT), (GPU, len(free) * UNIT)), available=((CPU, 64 * UNIT), (GPU, sum(units))),
        devices=units, **more,
    )  # fmt: skip


def test_row70_two_halves_on_two_devices_have_no_room_for_more_than_a_half():
    """Named reproduction: 0.6 of a GPU was sent to where 0.5 was free of each of two."""
    halves, share = with_gpus("h", 0.5, 0.5), Shape.of(0, 0.6)
    assert placement.room(halves, share) == 0
    assert placement.room(halves, Shape.of(0, 0.5)) == 2
    assert placement.room(halves, Shape.of(0, 1)) == 0
    whole = with_gpus("a", 1.0, workers=9)
    assert placement.choose([halves, whole], share, {}) == whole.node
    assert placement.elsewhere([halves, whole], share, 2, True) == [(whole.node, 1)]
    assert placement.choose([halves], share, {}) == halves.node, "able, so it waits there"


def test_row70_room_counts_what_the_devices_take_one_after_the_other():
    assert placement.room(with_gpus("a", 1.0, 0.7, 0.2), Shape.of(0, 0.3)) == 5
    assert placement.room(with_gpus("a", 1.0, 1.0, 1.0), Shape.of(0, 1.5)) == 2, "two halves of the third"
    assert placement.room(with_gpus("a", 1.0, 1.0, 0.4, 0.4, 0.4), Shape.of(0, 1.5)) == 1
    assert placement.room(with_gpus("a", 1.0, 1.0), Shape.of(1)) == 64


def test_row70_who_says_nothing_of_devices_is_taken_by_its_sum():
    """A node without GPUs has none to speak of, and the sum says so, too."""
    assert placement.room(with_gpus("a", 0.5, 0.5).but(devices=()), Shape.of(0, 0.6)) == 1
    assert placement.room(A, Shape.of(0, 0.6)) == 0


def test_an_actor_goes_to_the_least_loaded_that_has_room():
    assert placement.choose([node("h", workers=4), node("a", workers=1)], c1, {}) == A.node
    assert placement.choose([node("h", 2, 2, workers=4), node("a", 2, 0)], c1, {}) == H.node
    assert placement.choose([H], Shape.of(9), {}) is None


def test_C17_the_reason_shows_the_request_beside_the_nearest_node():
    text = placement.why_not([H, node("a", 8, locs=("x",))], Shape.of(9, locs={"x"}))
    assert "9 CPU" in text
    assert "8 CPU, locs x" in text
    assert "2 nodes, a" in text


# -- actors that wait --------------------------------------------------------------------------------------------------

FULL = node("f", 2, 0, waiting=1)


def waits(count: int, shape: Shape = c1, place: NodeRecord = FULL, shunned: tuple[bytes, ...] = ()):
    return [(bytes([number]) * 16, place.node, shape, shunned) for number in range(count)]


def moved(nodes: list[NodeRecord], waiting: list[placement.Waiting], filled: tuple[bytes, ...] = ()) -> list[bytes]:
    return [to for _, _, to in placement.moves(nodes, filled, waiting)]


def test_row9_as_many_actors_move_as_there_is_room_for():
    assert moved([FULL, node("a", 4, 2), node("b", 4, 1)], waits(5)) == [node("a").node, node("b").node, node("a").node]
    assert placement.moves([FULL, A], (), waits(1)) == [(bytes(16), FULL.node, A.node)]


def test_row9_an_actor_stays_where_only_its_worker_has_to_start_or_its_place_is_not_said_to_wait():
    assert moved([node("f", 2, 1, waiting=1), A], waits(1)) == []
    assert moved([node("f", 2, 0), A], waits(1)) == []


def test_row9_an_actor_moves_from_a_node_that_is_silent():
    assert moved([A], waits(1)) == [A.node]


def test_row9_an_actor_does_not_move_where_others_wait_or_where_it_was_or_by_old_news():
    assert moved([FULL, node("a", 4, 2, waiting=1)], waits(1)) == []
    assert moved([FULL, A], waits(1, shunned=(A.node,))) == []
    assert moved([FULL, A], waits(1), filled=(A.node,)) == []
    assert moved([FULL, A, B], waits(1, shunned=(A.node,))) == [B.node]


def test_row9_an_actor_that_was_sent_to_a_node_by_name_stays():
    assert moved([FULL, A], waits(1, c1.with_strategy(ON + FULL.node.hex()))) == []
    assert moved([FULL, A], waits(1, c1.with_strategy(TRY + FULL.node.hex()))) == []
    assert moved([FULL, A], waits(1, c1.with_strategy(TRY + B.node.hex()))) == [A.node], "not where it was sent to"


def test_row9_one_actor_with_a_gpu_moves_at_a_time():
    gpu = Shape.of(0, 1)
    some = node("g", total=((GPU, 4 * UNIT),), available=((GPU, 4 * UNIT),), devices=(UNIT,) * 4)
    none = node("f", total=((GPU, UNIT),), available=((GPU, 0),), devices=(0,), waiting=2)
    assert moved([none, some], waits(2, gpu, none)) == [some.node]


def test_who_asks_for_a_loc_that_nobody_has_is_told_that_it_is_missing():
    told = placement.why_not([A, B], Shape.of(locs={"nowhere"}))
    assert told == "asked for [1 CPU, locs nowhere], but the nearest of 2 nodes, a, has only [2 CPU, no locs] in total"
