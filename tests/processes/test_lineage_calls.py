"""What calls under way, constructors and calls with large plain arguments lose with a node is made again, too: D16."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import zmreg
from tests.processes.test_lineage import BOUND_S, Nodes, make, on, seat, wait_until
from zmreg.model.errors import ActorDiedError, ObjectLostError
from zmreg.testing.cluster import LocalCluster

LARGE = 200_000


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    """Head, A and B: what asks for `a` runs on A while it lives, else on B."""
    with LocalCluster(nodes=[{"num_cpus": 0}, {"num_cpus": 2}, {"num_cpus": 2}]) as cluster:
        cluster.attach()
        yield Nodes(cluster)


@pytest.fixture
def count(tmp_path: Path) -> Callable[[str], int]:
    """How often functions have noted that they ran, in files."""
    return lambda name: len((tmp_path / name).read_text()) if (tmp_path / name).exists() else 0


# -- what constructors take --------------------------------------------------------------------------------------------


@zmreg.remote
class Keeper:
    """Keeps what its constructor got."""

    def __init__(self, value: Any, other: Any = None) -> None:
        self.kept = value, other

    def where(self) -> list[Any]:
        return [each[1] for each in self.kept if each is not None]


@pytest.mark.parametrize("options", [{}, {"max_concurrency": 2}], ids=["plain", "threads"])
def test_D16_the_input_of_a_constructor_is_made_again(
    nodes: Nodes, tmp_path: Path, count: Callable[[str], int], options: dict[str, Any]
) -> None:
    a, b = nodes.others
    refs = [make.options(scheduling_strategy=on(a)).remote(str(tmp_path / "f"), n) for n in (1, 2)]
    zmreg.wait(refs, num_returns=2, timeout=BOUND_S, fetch_local=False)
    nodes.kill(a)
    keeper = Keeper.options(**options).remote(refs[0], other=refs[1])
    assert keeper.where.remote().get(timeout=BOUND_S) == [b.node_id] * 2
    assert count("f") == 4


def test_D16_the_input_of_a_constructor_that_is_just_made_again_is_waited_for(
    nodes: Nodes, tmp_path: Path, count: Callable[[str], int]
) -> None:
    """One was there when the actor was ordered, and is lost and found lost before the other has come."""
    a, b = nodes.others
    gate, open_gate = tmp_path / "open", zmreg.remote(gated)
    (tmp_path / "other").touch()
    early = open_gate.options(scheduling_strategy=on(a)).remote(str(tmp_path / "f"), str(tmp_path / "other"))
    late = open_gate.options(scheduling_strategy=on(b)).remote(str(tmp_path / "g"), str(gate))
    zmreg.wait([early], timeout=BOUND_S, fetch_local=False)
    keeper = Keeper.remote(early, late)
    (tmp_path / "other").unlink()
    nodes.kill(a)
    assert zmreg.wait([zmreg.remote(len).remote(early)], timeout=0.5)[1], "it is made again, and not there yet"
    gate.touch()
    zmreg.wait([late], timeout=BOUND_S, fetch_local=False)
    (tmp_path / "other").touch()
    assert keeper.where.remote().get(timeout=BOUND_S) == [b.node_id] * 2


def test_D16_the_input_of_a_constructor_that_cannot_be_made_again_ends_the_actor(nodes: Nodes, tmp_path: Path) -> None:
    a, _ = nodes.others
    ref = make.options(scheduling_strategy=on(a), max_retries=0).remote(str(tmp_path / "f"), 1)
    zmreg.wait([ref], timeout=BOUND_S, fetch_local=False)
    nodes.kill(a)
    with pytest.raises(ActorDiedError, match="max_retries=0"):
        Keeper.remote(ref).where.remote().get(timeout=BOUND_S)


def test_D16_a_restarted_actor_has_its_lost_input_made_again(
    nodes: Nodes, tmp_path: Path, count: Callable[[str], int]
) -> None:
    a, b = nodes.others
    ref = make.options(scheduling_strategy=on(a)).remote(str(tmp_path / "f"), 1)
    keeper = Keeper.options(scheduling_strategy=on(a), max_restarts=1).remote(ref)
    assert keeper.where.remote().get(timeout=BOUND_S) == [a.node_id]
    nodes.kill(a)
    assert keeper.where.remote().get(timeout=BOUND_S) == [b.node_id]
    assert count("f") == 2


# -- some values of a call ---------------------------------------------------------------------------------------------


def gated(note: str, gate: str) -> list[Any]:
    """Large, when the gate is open."""
    with open(note, "a") as file:
        file.write(".")
    deadline = time.monotonic() + BOUND_S
    while not Path(gate).exists():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return [bytes(LARGE), zmreg.get_runtime_context().get_node_id()]


@zmreg.remote(num_returns=3)
def parts(note: str, gate: str) -> Iterator[Any]:
    """Two large values at once, and a small one when the gate is open."""
    with open(note, "a") as file:
        file.write(".")
    where = zmreg.get_runtime_context().get_node_id()
    yield [bytes(LARGE), where]
    yield [bytes(LARGE), where]
    gated(note + ".gate", gate)
    yield where


def test_D16_a_part_lost_with_the_worker_that_runs_the_call_comes_from_the_next_run(
    nodes: Nodes, tmp_path: Path, count: Callable[[str], int]
) -> None:
    a, b = nodes.others
    gate = tmp_path / "open"
    first, second, last = parts.options(scheduling_strategy=on(a)).remote(str(tmp_path / "f"), str(gate))
    zmreg.wait([first, second], num_returns=2, timeout=BOUND_S, fetch_local=False)
    nodes.kill(a)
    assert first.get(timeout=BOUND_S)[1] == b.node_id, "while the call runs"
    gate.touch()
    assert last.get(timeout=BOUND_S) == b.node_id
    assert second.get(timeout=BOUND_S)[1] == b.node_id
    assert count("f") == 2


def test_D16_a_part_of_the_next_run_that_comes_before_its_loss_is_noticed_takes_its_place(
    nodes: Nodes, tmp_path: Path, count: Callable[[str], int]
) -> None:
    """It was dropped as one that is there already; who looked for it before b had published it had a third run."""
    a, b = nodes.others
    gate = tmp_path / "open"
    first, second, last = parts.options(scheduling_strategy=on(a)).remote(str(tmp_path / "f"), str(gate))
    zmreg.wait([first, second], num_returns=2, timeout=BOUND_S, fetch_local=False)
    nodes.kill(a)
    wait_until(lambda: count("f.gate") == 2)
    gate.touch()
    assert last.get(timeout=BOUND_S) == b.node_id
    assert all(bytes.fromhex(b.node_id) in ref._entry.value.copies for ref in (first, second))
    assert [first.get(timeout=BOUND_S)[1], second.get(timeout=BOUND_S)[1]] == [b.node_id] * 2
    assert count("f") == 2


def test_D16_a_part_lost_while_its_call_goes_on_is_made_by_one_more_run(
    tmp_path: Path, count: Callable[[str], int]
) -> None:
    """The bytes are spilled and spoilt; the worker lives, has sent this part, and sends it no more."""
    from zmreg.services.machine.directories import elsewhere

    gate = tmp_path / "open"
    with zmreg.init(num_cpus=2, object_store_bytes=2 << 20) as info:
        first, second, last = parts.remote(str(tmp_path / "f"), str(gate))
        zmreg.wait([first, second], num_returns=2, timeout=BOUND_S)
        fillers = [zmreg.put(bytes(900_000)) for _ in range(3)]
        wait_until(lambda: zmreg.stats()["store"]["spilled"] >= 1)
        for path in elsewhere(Path(info.session))[1].glob("*.spill"):
            path.write_bytes(b"spoilt")
        del fillers
        assert zmreg.wait([zmreg.remote(len).remote(first)], timeout=0.5)[1], "it is lost, and not made again yet"
        gate.touch()
        assert last.get(timeout=BOUND_S)
        assert len(first.get(timeout=BOUND_S)[0]) == LARGE
        assert len(second.get(timeout=BOUND_S)[0]) == LARGE
        assert count("f") == 2


def test_core58_a_part_that_may_not_be_made_twice_is_lost_and_nobody_waits_for_it(tmp_path: Path) -> None:
    from zmreg.services.machine.directories import elsewhere

    gate = tmp_path / "open"
    with zmreg.init(num_cpus=2, object_store_bytes=2 << 20) as info:
        first, second, last = parts.options(max_retries=0).remote(str(tmp_path / "f"), str(gate))
        zmreg.wait([first, second], num_returns=2, timeout=BOUND_S)
        fillers = [zmreg.put(bytes(900_000)) for _ in range(3)]
        wait_until(lambda: zmreg.stats()["store"]["spilled"] >= 2)
        for path in elsewhere(Path(info.session))[1].glob("*.spill"):
            path.write_bytes(b"spoilt")
        del fillers
        with pytest.raises(ObjectLostError, match="max_retries=0"):
            first.get(timeout=BOUND_S)
        gate.touch()
        assert last.get(timeout=BOUND_S)


def test_D16_parts_that_were_dropped_are_made_again_for_what_was_made_of_them(
    nodes: Nodes, tmp_path: Path, count: Callable[[str], int]
) -> None:
    """What took a part began while its call still ran, and outlives the part."""
    a, b = nodes.others
    gate = tmp_path / "open"
    refs = parts.options(scheduling_strategy=on(a)).remote(str(tmp_path / "f"), str(gate))
    made = zmreg.remote(lambda value: [*value, zmreg.get_runtime_context().get_node_id()])
    taken = made.options(scheduling_strategy=on(a)).remote(refs[0])
    zmreg.wait([taken], timeout=BOUND_S, fetch_local=False)
    gate.touch()
    assert refs[2].get(timeout=BOUND_S) == a.node_id
    del refs
    nodes.kill(a)
    assert taken.get(timeout=BOUND_S)[1:] == [b.node_id, b.node_id]
    assert count("f") == 2


# -- large plain arguments ---------------------------------------------------------------------------------------------


@zmreg.remote
def largest(value: Any, other: Any = b"") -> list[Any]:
    return [bytes(len(value)), len(other), zmreg.get_runtime_context().get_node_id()]


@pytest.mark.parametrize("kind", [bytes, bytearray], ids=["shared by identity", "whole arguments"])
def test_core58_large_plain_arguments_are_there_for_another_run(nodes: Nodes, kind: Any) -> None:
    a, b = nodes.others
    refs = [largest.options(scheduling_strategy=on(a)).remote(kind(300_000), other=kind(n)) for n in (LARGE, 5)]
    zmreg.wait(refs, num_returns=2, timeout=BOUND_S, fetch_local=False)
    nodes.kill(a)
    for ref, n in zip(refs, (LARGE, 5), strict=True):
        value = ref.get(timeout=BOUND_S)
        assert (len(value[0]), *value[1:]) == (300_000, n, b.node_id)
    del refs, ref, value
    wait_until(lambda: zmreg.stats()["store"]["sealed"] == 0)


def test_core58_large_plain_arguments_are_kept_within_bounds_and_the_error_says_so(nodes: Nodes) -> None:
    a, b = nodes.others
    seat().tasks.lineage.arguments.limit_bytes = 700_000
    refs = []
    for _ in range(3):  # in this order: whose result is there first is forgotten first
        refs.append(largest.options(scheduling_strategy=on(a)).remote(bytearray(300_000)))
        zmreg.wait(refs[-1:], timeout=BOUND_S, fetch_local=False)
    wait_until(lambda: zmreg.stats()["store"]["sealed"] == 2)
    nodes.kill(a)
    assert [ref.get(timeout=BOUND_S)[2] for ref in refs[1:]] == [b.node_id] * 2
    with pytest.raises(ObjectLostError, match=r"large plain value.*put\(\) it"):
        refs[0].get(timeout=BOUND_S)


def test_core58_plain_arguments_of_what_is_here_are_not_kept(tmp_path: Path) -> None:
    """What is in our own node's store is lost only together with its owner."""
    with zmreg.init(num_cpus=1):
        ref = largest.remote(bytearray(300_000))
        assert len(ref.get(timeout=BOUND_S)[0]) == 300_000
        wait_until(lambda: zmreg.stats()["store"]["sealed"] == 1)
