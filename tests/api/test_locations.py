"""Where values are, how they move and what that costs, between nodes: rows D4-D11, D18-D21 and X5 of the specs."""

from __future__ import annotations

import gc
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import zmreg
from tests.api.objects_help import received
from zmreg.model.errors import ClusterError, TaskError
from zmreg.services.seat.client import current
from zmreg.testing.cluster import LocalCluster, TestNode

BOUND_S = 30.0
MB = 1_000_000


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[TestNode]]:
    """The head, at which the test has its seat, then A with one CPU and B with two."""
    specs = [{"num_cpus": 0}, {"num_cpus": 1}, {"num_cpus": 2, "cache_bytes": 45 * MB}]
    with LocalCluster(nodes=specs) as cluster:
        cluster.attach()
        yield cluster.nodes


def at(node: TestNode, **options: Any) -> dict[str, Any]:
    """Options of a task that has to run there."""
    return {"scheduling_strategy": zmreg.NodeAffinitySchedulingStrategy(node.node_id, soft=False), **options}


@zmreg.remote
def numbers(nbytes: int) -> bytearray:
    return bytearray(nbytes)


@zmreg.remote
def size(value: Any, *more: Any) -> int:
    return len(value)


@zmreg.remote(num_cpus=0)
def node_stats() -> dict[str, Any]:
    return zmreg.stats()


def stats_of(node: TestNode) -> dict[str, Any]:
    """What a node tells of itself."""
    return node_stats.options(**at(node, num_cpus=0)).remote().get(timeout=BOUND_S)


def nothing_is_left(nodes: list[TestNode]) -> None:
    """Of the tests before: what counts is how full the stores are."""
    gc.collect()
    eventually(lambda: not any(stats_of(node)["store"]["used_bytes"] for node in nodes), BOUND_S)


def made_at(node: TestNode, nbytes: int) -> Any:
    """A ref to so many bytes there."""
    ref = numbers.options(**at(node)).remote(nbytes)
    assert zmreg.wait([ref], timeout=BOUND_S, fetch_local=False)[0]
    return ref


def eventually(fact: Callable[[], Any], within_s: float = 5.0) -> Any:
    """What other nodes say takes a moment."""
    deadline = time.monotonic() + within_s
    while not (found := fact()):
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)
    return found


def moved(after: dict[str, Any], before: dict[str, Any], node: TestNode, what: str) -> int:
    """How much of it, between two looks at a node's links to another."""
    count: int = after["links"][node.node_id][what] - before["links"].get(node.node_id, {}).get(what, 0)
    return count


def cached(after: dict[str, Any], before: dict[str, Any]) -> dict[str, int]:
    """What happened between two looks at a node's cache."""
    return {name: after["cache"][name] - before["cache"][name] for name in ("hits", "misses", "evicted")}


def test_D4_an_argument_goes_straight_from_where_it_is_to_where_it_is_needed(nodes: list[TestNode]) -> None:
    head, a, b = nodes
    ref = made_at(a, 10 * MB)
    head_before, before = zmreg.stats(), stats_of(b)
    assert size.options(**at(b)).remote(ref).get(timeout=BOUND_S) == 10 * MB
    head_after, after = zmreg.stats(), stats_of(b)
    assert moved(after, before, a, "objects_received") == 1
    assert 10 * MB <= moved(after, before, a, "bytes_received") < 10 * MB + 1_000
    assert moved(after, before, head, "objects_received") == 0
    for node in (a, b):
        for what in ("objects_received", "bytes_received", "objects_sent", "bytes_sent"):
            assert moved(head_after, head_before, node, what) == 0


def test_D5_D21_five_tasks_with_one_argument_move_it_once(nodes: list[TestNode]) -> None:
    _, a, b = nodes
    ref = made_at(a, 10 * MB)
    before = stats_of(b)
    refs = [size.options(**at(b)).remote(ref) for _ in range(5)]
    assert zmreg.get(refs, timeout=BOUND_S) == [10 * MB] * 5
    after = stats_of(b)
    assert moved(after, before, a, "objects_received") == 1
    assert cached(after, before) == {"hits": 4, "misses": 1, "evicted": 0}


def test_D5_copies_stay_within_their_bound(nodes: list[TestNode]) -> None:
    _, a, b = nodes
    refs = [made_at(a, 20 * MB) for _ in range(3)]
    before = stats_of(b)
    for ref in refs:
        assert size.options(**at(b)).remote(ref).get(timeout=BOUND_S) == 20 * MB
        assert stats_of(b)["cache"]["bytes"] <= 45 * MB
    after = stats_of(b)
    assert cached(after, before)["evicted"] >= 1
    assert size.options(**at(b)).remote(refs[2]).get(timeout=BOUND_S) == 20 * MB
    assert moved(stats_of(b), after, a, "objects_received") == 0
    assert size.options(**at(b)).remote(refs[0]).get(timeout=BOUND_S) == 20 * MB
    assert moved(stats_of(b), after, a, "objects_received") == 1


def test_D7_twenty_tasks_at_once_share_one_transfer(nodes: list[TestNode]) -> None:
    _, a, b = nodes
    ref = made_at(a, 20 * MB)
    before = stats_of(b)
    refs = [size.options(**at(b, num_cpus=0)).remote(ref) for _ in range(20)]
    assert zmreg.get(refs, timeout=BOUND_S) == [20 * MB] * 20
    after = stats_of(b)
    assert moved(after, before, a, "objects_received") == 1
    assert cached(after, before)["misses"] == 1
    assert cached(after, before)["hits"] == 19


def test_D8_a_large_result_stays_where_it_was_made(nodes: list[TestNode]) -> None:
    _, a, _ = nodes
    made_at(a, 10 * MB)  # what is needed once is there now
    before = zmreg.stats()
    with received() as count:
        ref = made_at(a, 50 * MB)
        meta = ref.meta
        assert count() < 10_000
    after = zmreg.stats()
    assert meta.nbytes >= 50 * MB
    assert meta.type_name == "bytearray"
    assert meta.holders == (a.node_id,)
    assert moved(after, before, a, "bytes_received") == 0
    assert moved(after, before, a, "letter_bytes_received") < 10_000


def test_D9_the_first_get_moves_it_and_the_second_finds_it(nodes: list[TestNode]) -> None:
    _, a, _ = nodes
    ref = made_at(a, 10 * MB)
    before = zmreg.stats()
    assert len(ref.get(timeout=BOUND_S)) == 10 * MB
    after = zmreg.stats()
    assert moved(after, before, a, "objects_received") == 1
    assert len(ref.get(timeout=BOUND_S)) == 10 * MB
    assert moved(zmreg.stats(), after, a, "objects_received") == 0
    assert cached(zmreg.stats(), before) == {"hits": 1, "misses": 1, "evicted": 0}


def test_D11_results_are_copied_to_nobody_who_has_not_asked(nodes: list[TestNode]) -> None:
    head, a, b = nodes
    gc.collect()
    eventually(lambda: stats_of(b)["store"]["used_bytes"] == 0)
    before = stats_of(b), zmreg.stats()["store"]["used_bytes"]
    refs = [made_at(a, 1 * MB) for _ in range(10)]
    assert stats_of(b)["store"]["used_bytes"] == 0
    assert zmreg.stats()["store"]["used_bytes"] == before[1]
    assert zmreg.who_has(refs) == {ref: [a.node_id] for ref in refs}
    assert bytes(refs[3].get(timeout=BOUND_S)) == bytes(MB)
    assert eventually(lambda: sorted(zmreg.who_has(refs[3])[refs[3]]) == sorted([head.node_id, a.node_id]))


def test_D19_dropped_refs_are_freed_on_every_node(nodes: list[TestNode]) -> None:
    _, a, b = nodes
    refs = [made_at(a, 1 * MB) for _ in range(20)]
    zmreg.get(refs, timeout=BOUND_S)
    assert size.options(**at(b)).remote(*refs).get(timeout=BOUND_S) == MB
    del refs
    gc.collect()
    for node in (a, b):
        eventually(lambda node=node: stats_of(node)["store"]["used_bytes"] == 0)
    eventually(lambda: zmreg.stats()["store"]["used_bytes"] == 0)


def test_D20_an_error_goes_through_nodes_and_what_needs_the_value_does_not_run(nodes: list[TestNode]) -> None:
    _, a, b = nodes

    @zmreg.remote(**at(a))
    def fails() -> None:
        raise LookupError("not found")

    ran = zmreg.remote(**at(b))(lambda value: pytest.fail("it ran"))
    with pytest.raises(LookupError, match="not found") as caught:
        ran.remote(fails.remote()).get(timeout=BOUND_S)
    assert isinstance(caught.value, TaskError)


def test_wait_fetches_what_is_ready_only_when_asked(nodes: list[TestNode]) -> None:
    head, a, _ = nodes
    ref = numbers.options(**at(a)).remote(10 * MB)
    before = zmreg.stats()
    zmreg.wait([ref], timeout=BOUND_S, fetch_local=False)
    assert zmreg.who_has(ref) == {ref: [a.node_id]}
    assert moved(zmreg.stats(), before, a, "bytes_received") == 0
    zmreg.wait([ref], timeout=BOUND_S)
    eventually(lambda: head.node_id in zmreg.who_has(ref)[ref])
    assert moved(zmreg.stats(), before, a, "objects_received") == 1


def test_core15_inputs_come_while_the_call_before_runs(nodes: list[TestNode], tmp_path: Any) -> None:
    """The trap of row 15: a worker must not stand still for bytes that could have come before."""
    _, a, b = nodes
    ref = made_at(b, 10 * MB)
    gate = tmp_path / "open"

    @zmreg.remote(**at(a))
    def waits() -> None:
        eventually(gate.exists, BOUND_S)

    running = waits.remote()
    behind = zmreg.remote(**at(a))(len).remote(ref)
    eventually(lambda: a.node_id in zmreg.who_has(ref)[ref], BOUND_S)
    assert not running.done()
    gate.touch()
    assert behind.get(timeout=BOUND_S) == 10 * MB


def test_X5_replicas_are_there_when_put_returns(nodes: list[TestNode]) -> None:
    ref = zmreg.put(bytes(MB), replicas=3)
    assert sorted(zmreg.who_has(ref)[ref]) == sorted(node.node_id for node in nodes)
    with pytest.raises(ClusterError, match="4 copies need 4 nodes"):
        zmreg.replicate(ref, 4)
    with pytest.raises(ValueError, match="replicas=0"):
        zmreg.put(1, replicas=0)
    small = zmreg.put(1, replicas=3)
    assert small.get() == 1


def test_X5_replicate_keeps_a_copy_that_is_there_already(nodes: list[TestNode]) -> None:
    _, a, b = nodes
    ref = made_at(a, 10 * MB)
    size.options(**at(b)).remote(ref).get(timeout=BOUND_S)
    eventually(lambda: b.node_id in zmreg.who_has(ref)[ref])
    before = stats_of(b)
    zmreg.replicate([ref, ref], 2)
    after = stats_of(b)
    assert moved(after, before, a, "objects_received") == 0
    assert after["cache"]["bytes"] < before["cache"]["bytes"]
    others = [made_at(a, 20 * MB) for _ in range(3)]
    for other in others:  # more than the bound of B's copies
        size.options(**at(b)).remote(other).get(timeout=BOUND_S)
    assert b.node_id in zmreg.who_has(ref)[ref]


def test_X6_who_has_what_seen_from_values_and_from_nodes(nodes: list[TestNode]) -> None:
    _, a, b = nodes
    large, small, tiny = made_at(a, 3 * MB), made_at(a, 2 * MB), zmreg.put(1)
    mine = zmreg.put(bytes(MB))
    known = {large.hex(), small.hex()}
    eventually(lambda: known <= zmreg.has_what(a.node_id)[a.node_id].keys(), BOUND_S)
    found = zmreg.has_what()
    assert set(found) == {node.node_id for node in nodes}
    assert [key for key in found[a.node_id] if key in known] == [large.hex(), small.hex()], "the largest first"
    assert found[a.node_id][large.hex()] == large.meta.nbytes
    assert mine.hex() in found[nodes[0].node_id] and not known & found[b.node_id].keys()
    assert tiny.hex() not in {key for rows in found.values() for key in rows}, "it rides in messages"
    assert len(zmreg.has_what([a.node_id], limit=1)[a.node_id]) == 1
    with pytest.raises(ClusterError, match="no living node"):
        zmreg.has_what("beef")
    gone = large.hex()
    del large
    eventually(lambda: gone not in zmreg.has_what(a.node_id)[a.node_id], BOUND_S)


def test_X5_scatter_spreads_values_or_puts_them_everywhere(nodes: list[TestNode]) -> None:
    head, a, b = nodes
    refs = zmreg.scatter([bytes([n]) * MB for n in range(6)])
    held = [set(zmreg.who_has(ref)[ref]) for ref in refs]
    assert all(head.node_id in each for each in held)
    assert sum(a.node_id in each for each in held) == 2
    assert sum(b.node_id in each for each in held) == 2
    assert [value[0] for value in zmreg.get(refs)] == list(range(6))
    everywhere = zmreg.scatter([bytes(MB), 7], broadcast=True)
    assert zmreg.who_has(everywhere[0])[everywhere[0]][0] == head.node_id
    assert len(zmreg.who_has(everywhere[0])[everywhere[0]]) == 3
    assert everywhere[1].get() == 7
    named = zmreg.scatter({"large": bytes(MB), "small": 7}, broadcast=True)
    assert list(named) == ["large", "small"] and zmreg.gather(named)["small"] == 7
    assert len(zmreg.who_has(named["large"])[named["large"]]) == 3
    for no_values in ("text", b"bytes", 5):
        with pytest.raises(TypeError, match="several values"):
            zmreg.scatter(no_values)  # type: ignore[arg-type]


def test_X5_rebalance_moves_what_fills_one_node_to_empty_ones(nodes: list[TestNode]) -> None:
    head, a, b = nodes
    nothing_is_left(nodes)
    refs = [made_at(a, 20 * MB) for _ in range(6)]
    inside = [zmreg.put([refs[0]])]
    moved_bytes = zmreg.rebalance()
    assert moved_bytes == sum(ref.meta.nbytes for ref in refs[:4]), "a third of it stays"
    keys = {ref.hex() for ref in refs}

    def places() -> list[int]:
        return [len(keys & rows.keys()) for rows in zmreg.has_what().values()]

    eventually(lambda: places() == [2, 2, 2], BOUND_S)
    assert zmreg.rebalance(refs) == 0, "it is level"
    assert [size.options(**at(a)).remote(ref).get(timeout=BOUND_S) for ref in refs] == [20 * MB] * 6
    assert [len(value) for value in zmreg.get(refs, timeout=BOUND_S)] == [20 * MB] * 6
    assert len(inside[0].get()[0].get(timeout=BOUND_S)) == 20 * MB
    del refs, inside
    gc.collect()
    eventually(lambda: places() == [0, 0, 0], BOUND_S)


def test_X5_rebalance_keeps_the_number_of_copies_and_what_is_read(nodes: list[TestNode]) -> None:
    head, a, b = nodes
    nothing_is_left(nodes)
    mine = [zmreg.put(np.zeros(20 * MB, np.uint8)) for _ in range(3)]
    views = zmreg.get(mine)
    zmreg.replicate(mine[1], 3)
    assert zmreg.rebalance(mine, [head.node_id, a.node_id]) in {mine[0].meta.nbytes, mine[2].meta.nbytes}
    assert len(zmreg.who_has(mine[1])[mine[1]]) == 3
    assert not any(view.any() for view in views), "read in place, wherever the copy is that stays"
    assert [len(value) for value in zmreg.get(mine, timeout=BOUND_S)] == [20 * MB] * 3
    with pytest.raises(ClusterError, match="no living node"):
        zmreg.rebalance(mine, "beef")
    theirs = zmreg.remote(lambda: [zmreg.put(bytes(MB))]).options(**at(b)).remote().get(timeout=BOUND_S)
    with pytest.raises(ValueError, match="belongs to process"):
        zmreg.rebalance(theirs)


def test_a_seat_stays_whole(nodes: list[TestNode]) -> None:
    seat = current()
    assert seat is not None
    assert (seat.internal_errors, seat.protocol_errors) == (0, 0)
    assert [stats_of(node)["protocol_errors"] for node in nodes[1:]] == [0, 0]
