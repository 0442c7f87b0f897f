"""What is lost with a node is made again by its owner, or its loss is told: rows D16, D17, 58, 61 of the specs."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

import zmreg
from zmreg.model.errors import GetTimeoutError, ObjectLostError
from zmreg.services.machine.directories import elsewhere
from zmreg.services.seat.client import Client, current
from zmreg.testing.cluster import LocalCluster, TestNode

# After the node-death notice. Reconnections are refused at once on one machine, so that the notice itself takes little.
REBUILT_S = 8.0
LOST_S = 5.0
NOTICE_S = 10.0
BOUND_S = 30.0


class Nodes:
    """A head without CPUs, at which the test has its seat, and nodes that can be killed."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster
        self.head, *self.others = cluster.nodes

    def kill(self, node: TestNode) -> None:
        """kill -9, and wait until our own node has told us."""
        self.cluster.kill_node(node.node_id)
        gone = bytes.fromhex(node.node_id)
        deadline = time.monotonic() + NOTICE_S
        while gone not in seat().tasks.gone_nodes:
            zmreg.nodes()
            assert time.monotonic() < deadline, "nobody noticed the death of a node"


def wait_until(fact: Callable[[], Any]) -> None:
    """What other processes say takes a moment."""
    deadline = time.monotonic() + BOUND_S
    while not fact():
        assert time.monotonic() < deadline, "not in time"
        time.sleep(0.01)


def seat() -> Client:
    found = current()
    assert found is not None
    return found


@pytest.fixture
def nodes() -> Iterator[Nodes]:
    """Head, A and B: what asks for `a` runs on A while it lives, else on B."""
    with LocalCluster(nodes=[{"num_cpus": 0}, {"resources": {"x": 9, "a": 9}}, {"resources": {"x": 9}}]) as cluster:
        cluster.attach()
        yield Nodes(cluster)


@pytest.fixture
def count(tmp_path: Path) -> Callable[[str], int]:
    """How often functions have noted that they ran, in files."""
    return lambda name: len((tmp_path / name).read_text()) if (tmp_path / name).exists() else 0


def on(node: TestNode) -> Any:
    """There while it lives, else anywhere."""
    return zmreg.NodeAffinitySchedulingStrategy(node.node_id, soft=True)


@zmreg.remote
def make(note: str, n: int) -> list[Any]:
    with open(note, "a") as file:
        file.write(".")
    return [bytes([n]) * 200_000, zmreg.get_runtime_context().get_node_id()]


@zmreg.remote
def step(note: str, before: list[Any]) -> list[Any]:
    with open(note, "a") as file:
        file.write(".")
    return [before[0][:-1], *before[1:], zmreg.get_runtime_context().get_node_id()]


def test_D16_a_result_on_a_dead_node_is_computed_again(
    nodes: Nodes, tmp_path: Path, count: Callable[[str], int]
) -> None:
    a, b = nodes.others
    ref = make.options(scheduling_strategy=on(a)).remote(str(tmp_path / "f"), 7)
    zmreg.wait([ref], timeout=BOUND_S, fetch_local=False)
    assert zmreg.who_has(ref) == {ref: [a.node_id]}
    nodes.kill(a)
    began = time.monotonic()
    assert ref.get(timeout=BOUND_S) == [b"\7" * 200_000, b.node_id]
    assert time.monotonic() - began < REBUILT_S
    assert count("f") == 2
    assert ref.get(timeout=BOUND_S)[1] == b.node_id
    assert count("f") == 2


def test_D16_a_put_object_on_a_dead_node_is_lost_and_says_how(nodes: Nodes) -> None:
    a, _ = nodes.others

    @zmreg.remote(scheduling_strategy=on(a))
    def put() -> list[Any]:
        return [zmreg.put(b"x" * 200_000)]

    inner = put.remote().get(timeout=BOUND_S)[0]
    nodes.kill(a)
    began = time.monotonic()
    with pytest.raises(ObjectLostError, match=inner.hex()[-8:]) as caught:
        inner.get(timeout=BOUND_S)
    assert time.monotonic() - began < LOST_S
    assert caught.value.object_id == inner.hex()


def test_D16_a_list_with_lost_values_comes_in_its_order(nodes: Nodes, tmp_path: Path) -> None:
    a, b = nodes.others
    lost = [make.options(scheduling_strategy=on(a)).remote(str(tmp_path / "f"), n) for n in range(4)]
    kept = make.options(scheduling_strategy=on(b)).remote(str(tmp_path / "f"), 9)
    zmreg.wait([*lost, kept], num_returns=5, timeout=BOUND_S, fetch_local=False)
    nodes.kill(a)
    refs = [lost[2], kept, lost[0], zmreg.put(b"small"), lost[2], lost[3], lost[1]]
    assert [value[0][0] if value != b"small" else 7 for value in zmreg.get(refs, BOUND_S)] == [2, 9, 0, 7, 2, 3, 1]


def test_D17_a_chain_of_three_on_a_dead_node_is_made_again_once_each(
    nodes: Nodes, tmp_path: Path, count: Callable[[str], int]
) -> None:
    a, b = nodes.others
    first = make.options(scheduling_strategy=on(a)).remote(str(tmp_path / "1"), 1)
    second = step.options(scheduling_strategy=on(a)).remote(str(tmp_path / "2"), first)
    third = step.options(scheduling_strategy=on(a)).remote(str(tmp_path / "3"), second)
    zmreg.wait([third], timeout=BOUND_S, fetch_local=False)
    nodes.kill(a)
    began = time.monotonic()
    assert third.get(timeout=BOUND_S) == [b"\1" * 199_998, b.node_id, b.node_id, b.node_id]
    assert time.monotonic() - began < REBUILT_S
    assert [count("1"), count("2"), count("3")] == [2, 2, 2]


def test_D17_a_chain_whose_inner_refs_were_dropped_is_made_again_once_each(
    nodes: Nodes, tmp_path: Path, count: Callable[[str], int]
) -> None:
    a, b = nodes.others
    first = make.options(scheduling_strategy=on(a)).remote(str(tmp_path / "1"), 1)
    second = step.options(scheduling_strategy=on(a)).remote(str(tmp_path / "2"), first)
    third = step.options(scheduling_strategy=on(a)).remote(str(tmp_path / "3"), second)
    zmreg.wait([third], timeout=BOUND_S, fetch_local=False)
    del first, second
    nodes.kill(a)
    assert third.get(timeout=BOUND_S) == [b"\1" * 199_998, b.node_id, b.node_id, b.node_id]
    assert [count("1"), count("2"), count("3")] == [2, 2, 2]


def test_core58_each_loss_takes_one_retry_and_the_last_is_told(tmp_path: Path, count: Callable[[str], int]) -> None:
    with LocalCluster(nodes=[{"num_cpus": 0}, {"num_cpus": 2}]) as cluster:
        cluster.attach()
        refs = [make.options(max_retries=n).remote(str(tmp_path / name), 1) for name, n in (("once", 1), ("ever", -1))]
        zmreg.wait(refs, num_returns=2, timeout=BOUND_S, fetch_local=False)
        home = Nodes(cluster)
        for runs in (2, 3):
            after = cluster.add_node(num_cpus=2)
            home.kill(home.others.pop())
            home.others.append(after)
            # Looked at where it is made, so that no copy comes here.
            looks = [zmreg.remote(lambda value: value[1]).remote(ref) for ref in refs]
            assert looks[1].get(timeout=BOUND_S) == after.node_id
            if runs == 2:
                assert looks[0].get(timeout=BOUND_S) == after.node_id
            else:
                with pytest.raises(ObjectLostError, match="2 attempts made, max_retries=1 used up"):
                    looks[0].get(timeout=BOUND_S)
            assert (count("once"), count("ever")) == (2, runs)


def test_core58_what_may_not_run_twice_is_lost_with_its_node(nodes: Nodes, tmp_path: Path) -> None:
    a, _ = nodes.others
    ref = make.options(scheduling_strategy=on(a), max_retries=0).remote(str(tmp_path / "f"), 1)
    zmreg.wait([ref], timeout=BOUND_S, fetch_local=False)
    nodes.kill(a)
    for _ in range(2):
        with pytest.raises(ObjectLostError, match=r"make \(task .*max_retries=0") as caught:
            ref.get(timeout=BOUND_S)
        assert a.node_id[:8] in str(caught.value)
        assert "its node died" in str(caught.value) or "no node has it" in str(caught.value)
    assert ref.meta.state == "failed"
    with pytest.raises(ObjectLostError):
        step.remote(str(tmp_path / "g"), ref).get(timeout=BOUND_S)
    assert not (tmp_path / "g").exists()


def test_core58_a_put_input_that_is_still_held_is_taken_again(nodes: Nodes, tmp_path: Path) -> None:
    a, b = nodes.others
    kept = zmreg.put([bytes(300_000), "here"])
    ref = step.options(scheduling_strategy=on(a)).remote(str(tmp_path / "f"), kept)
    zmreg.wait([ref], timeout=BOUND_S, fetch_local=False)
    nodes.kill(a)
    assert ref.get(timeout=BOUND_S)[1:] == ["here", b.node_id]


def test_core58_a_dropped_ref_inside_arguments_is_made_again(
    nodes: Nodes, tmp_path: Path, count: Callable[[str], int]
) -> None:
    """Row 58's trap: inputs of inputs. Inside containers they are known by their ids, which live twice then."""
    a, b = nodes.others

    @zmreg.remote(scheduling_strategy=on(a))
    def merge(note: str, parts: dict[str, list[Any]]) -> list[Any]:
        with open(note, "a") as file:
            file.write(".")
        values = zmreg.get(parts["refs"])
        return [b"".join(value[0] for value in values), [value[1] for value in values]]

    for _ in range(2):  # the second time all of it is where nobody has freed anything
        note = str(tmp_path / "part")
        parts = [make.options(scheduling_strategy=on(a)).remote(note, n) for n in (1, 2)]
        whole = merge.remote(str(tmp_path / "merge"), {"refs": parts})
        assert zmreg.wait([whole], timeout=BOUND_S, fetch_local=False)[0]
        del parts
        if a in nodes.cluster.nodes:
            nodes.kill(a)
            assert whole.get(timeout=BOUND_S) == [b"\1" * 200_000 + b"\2" * 200_000, [b.node_id, b.node_id]]
            assert (count("part"), count("merge")) == (4, 2)
    del whole
    wait_until(lambda: zmreg.stats()["store"]["used_bytes"] == 0)


def test_D16_a_lost_input_is_made_again_and_the_call_is_not_charged(
    nodes: Nodes, tmp_path: Path, count: Callable[[str], int]
) -> None:
    a, b = nodes.others

    @zmreg.remote(max_retries=0)
    def attempt(value: list[Any], other: list[Any]) -> tuple[str, str, int]:
        return value[1], other[1], zmreg.get_runtime_context().get_attempt_number()

    refs = [make.options(scheduling_strategy=on(a)).remote(str(tmp_path / name), 1) for name in "fg"]
    zmreg.wait(refs, num_returns=2, timeout=BOUND_S, fetch_local=False)
    nodes.kill(a)
    assert attempt.remote(*refs).get(timeout=BOUND_S) == (b.node_id, b.node_id, 0)
    assert (count("f"), count("g")) == (2, 2)


def test_D16_many_who_wait_for_one_lost_object_cause_one_run(
    nodes: Nodes, tmp_path: Path, count: Callable[[str], int]
) -> None:
    a, b = nodes.others
    ref = make.options(scheduling_strategy=on(a)).remote(str(tmp_path / "f"), 1)
    zmreg.wait([ref], timeout=BOUND_S, fetch_local=False)
    nodes.kill(a)
    where = zmreg.remote(lambda value: value[1])
    calls = [where.remote(ref) for _ in range(10)]
    futures = [ref.future() for _ in range(5)]
    assert [future.result(BOUND_S)[1] for future in futures] == [b.node_id] * 5
    assert zmreg.get(calls, timeout=BOUND_S) == [b.node_id] * 10
    assert count("f") == 2


@zmreg.remote
class Reader:
    """Borrows refs."""

    def keep(self, refs: list[Any]) -> None:
        self.refs = refs

    def read(self) -> list[Any]:
        return [ref.get(timeout=BOUND_S) for ref in self.refs]

    def where(self, value: list[Any]) -> str:
        return str(value[1])


def test_D16_a_borrower_has_the_owner_make_it_again(nodes: Nodes, tmp_path: Path, count: Callable[[str], int]) -> None:
    a, b = nodes.others
    reader = Reader.options(scheduling_strategy=on(b)).remote()
    ref = make.options(scheduling_strategy=on(a)).remote(str(tmp_path / "f"), 1)
    once = make.options(scheduling_strategy=on(a), max_retries=0).remote(str(tmp_path / "g"), 1)
    zmreg.wait([ref, once], num_returns=2, timeout=BOUND_S, fetch_local=False)
    reader.keep.remote([ref]).get(timeout=BOUND_S)
    assert reader.read.remote().get(timeout=BOUND_S)[0][1] == a.node_id
    reader.keep.remote([once]).get(timeout=BOUND_S)
    nodes.kill(a)
    with pytest.raises(ObjectLostError, match="max_retries=0"):
        reader.read.remote().get(timeout=BOUND_S)
    assert (count("f"), count("g")) == (1, 1)


def test_D16_a_borrower_gets_what_was_made_again(nodes: Nodes, tmp_path: Path, count: Callable[[str], int]) -> None:
    a, b = nodes.others
    reader = Reader.options(scheduling_strategy=on(b)).remote()
    ref = make.options(scheduling_strategy=on(a)).remote(str(tmp_path / "f"), 1)
    zmreg.wait([ref], timeout=BOUND_S, fetch_local=False)
    reader.keep.remote([ref]).get(timeout=BOUND_S)
    nodes.kill(a)
    assert reader.read.remote().get(timeout=BOUND_S)[0][1] == b.node_id
    assert ref.get(timeout=BOUND_S)[1] == b.node_id
    assert count("f") == 2


def test_D16_an_actors_call_waits_for_its_lost_input(nodes: Nodes, tmp_path: Path, count: Callable[[str], int]) -> None:
    """At most once as ever: the call had not begun."""
    a, b = nodes.others
    plain, threaded = (Reader.options(scheduling_strategy=on(b), max_concurrency=n).remote() for n in (1, 2))
    zmreg.get([plain.keep.remote([]), threaded.keep.remote([])], BOUND_S)
    refs = [make.options(scheduling_strategy=on(a)).remote(str(tmp_path / "f"), n) for n in (1, 2)]
    zmreg.wait(refs, num_returns=2, timeout=BOUND_S, fetch_local=False)
    nodes.kill(a)
    calls = [plain.where.remote(refs[0]), plain.where.remote(refs[1]), threaded.where.remote(refs[0])]
    assert zmreg.get(calls, BOUND_S) == [b.node_id] * 3
    assert count("f") == 4


def test_D6_a_cached_copy_outlives_its_source_without_another_run(
    nodes: Nodes, tmp_path: Path, count: Callable[[str], int]
) -> None:
    a, b = nodes.others
    ref = make.options(scheduling_strategy=on(a)).remote(str(tmp_path / "f"), 1)
    assert zmreg.remote(scheduling_strategy=on(b))(len).remote(ref).get(timeout=BOUND_S) == 2
    wait_until(lambda: b.node_id in zmreg.who_has(ref)[ref])
    nodes.kill(a)
    assert ref.get(timeout=BOUND_S)[1] == a.node_id
    assert count("f") == 1


def test_X5_a_replica_outlives_its_source(nodes: Nodes, tmp_path: Path, count: Callable[[str], int]) -> None:
    a, b = nodes.others
    ref = make.options(scheduling_strategy=on(a), max_retries=0).remote(str(tmp_path / "f"), 1)
    zmreg.replicate(ref, 3, timeout=BOUND_S)
    nodes.kill(a)
    assert zmreg.remote(lambda value: value[1]).remote(ref).get(timeout=BOUND_S) == a.node_id
    assert ref.get(timeout=BOUND_S)[1] == a.node_id
    assert sorted(zmreg.who_has(ref)[ref]) == sorted([nodes.head.node_id, b.node_id])


def test_X5_what_was_moved_outlives_the_node_it_came_from(nodes: Nodes) -> None:
    a, b = nodes.others
    large = 20_000_000
    fill = zmreg.remote(max_retries=0, scheduling_strategy=on(a))(lambda nbytes: bytearray(nbytes))
    refs = [fill.remote(large) for _ in range(4)]
    zmreg.wait(refs, num_returns=4, timeout=BOUND_S, fetch_local=False)
    assert zmreg.rebalance(refs, [a.node_id, b.node_id]) >= 2 * large
    wait_until(lambda: sum(zmreg.who_has(ref)[ref] == [b.node_id] for ref in refs) == 2)
    moved = [ref for ref in refs if zmreg.who_has(ref)[ref] == [b.node_id]]
    stayed = next(ref for ref in refs if ref not in moved)
    nodes.kill(a)
    assert [len(value) for value in zmreg.get(moved, timeout=BOUND_S)] == [large] * 2
    with pytest.raises(ObjectLostError):
        stayed.get(timeout=BOUND_S)


def test_D16_one_of_several_values_is_made_again_beside_the_others(
    nodes: Nodes, tmp_path: Path, count: Callable[[str], int]
) -> None:
    a, b = nodes.others

    @zmreg.remote(num_returns=3, scheduling_strategy=on(a))
    def three(note: str) -> tuple[Any, ...]:
        with open(note, "a") as file:
            file.write(".")
        where = zmreg.get_runtime_context().get_node_id()
        return [bytes(200_000), where], [bytes(200_000), where], where

    lost, kept, small = three.remote(str(tmp_path / "f"))
    assert kept.get(timeout=BOUND_S)[1] == a.node_id
    nodes.kill(a)
    assert lost.get(timeout=BOUND_S)[1] == b.node_id
    assert kept.get(timeout=BOUND_S)[1] == a.node_id
    assert small.get(timeout=BOUND_S) == a.node_id
    assert count("f") == 2


@zmreg.remote
class Maker:
    """Makes large values."""

    def __init__(self) -> None:
        self.calls = 0

    def make(self) -> list[Any]:
        self.calls += 1
        return [bytes(200_000), self.calls, zmreg.get_runtime_context().get_node_id()]


def test_core58_an_actors_result_is_made_again_only_if_calls_may_repeat(nodes: Nodes) -> None:
    a, b = nodes.others
    options: dict[str, Any] = {"scheduling_strategy": on(a), "max_restarts": 1}
    careful = Maker.options(**options).remote()
    repeating = Maker.options(**options, max_task_retries=2).remote()
    refs = [careful.make.remote(), repeating.make.remote()]
    zmreg.wait(refs, num_returns=2, timeout=BOUND_S, fetch_local=False)
    nodes.kill(a)
    with pytest.raises(ObjectLostError, match="max_task_retries=0"):
        refs[0].get(timeout=BOUND_S)
    assert refs[1].get(timeout=BOUND_S)[1:] == [1, b.node_id]


def test_D16_a_deadline_holds_while_a_value_is_made_again(nodes: Nodes, tmp_path: Path) -> None:
    a, _ = nodes.others
    gate = tmp_path / "open"
    gate.touch()

    @zmreg.remote(scheduling_strategy=on(a))
    def gated() -> bytes:
        wait_until(gate.exists)
        return bytes(200_000)

    ref = gated.remote()
    zmreg.wait([ref], timeout=BOUND_S, fetch_local=False)
    gate.unlink()
    nodes.kill(a)
    with pytest.raises(GetTimeoutError):
        ref.get(timeout=0.5)
    assert zmreg.wait([ref], timeout=0.1) == ([], [ref])
    gate.touch()
    assert len(ref.get(timeout=BOUND_S)) == 200_000


def test_core61_a_spoilt_file_is_made_again(tmp_path: Path, count: Callable[[str], int]) -> None:
    """The only bytes are a spilled file that cannot be read: as good as a dead node."""
    with zmreg.init(num_cpus=1, object_store_bytes=2 << 20) as info:
        ref = make.remote(str(tmp_path / "f"), 1)
        zmreg.wait([ref], timeout=BOUND_S)
        fillers = [zmreg.put(bytes(900_000)) for _ in range(3)]
        wait_until(lambda: zmreg.stats()["store"]["spilled"] >= 1)
        files = list(elsewhere(Path(info.session))[1].glob("*.spill"))
        for path in files:
            path.write_bytes(b"spoilt")
        del fillers
        assert ref.get(timeout=BOUND_S)[0] == b"\1" * 200_000
        assert count("f") == 2


def test_lineage_is_bounded_and_the_oldest_is_forgotten(tmp_path: Path) -> None:
    with zmreg.init(num_cpus=1):
        lineage = seat().tasks.lineage
        refs = [make.remote(str(tmp_path / "f"), n) for n in range(4)]
        zmreg.wait(refs, num_returns=4, timeout=BOUND_S)
        assert zmreg.stats()["tasks"]["recipes"] == 4
        each = lineage.nbytes // 4
        lineage.limit_bytes = 3 * each + each // 2
        refs.append(make.remote(str(tmp_path / "f"), 9))
        zmreg.wait(refs, num_returns=5, timeout=BOUND_S)
        assert zmreg.stats()["tasks"]["recipes"] == 3
        recipes = [ref._entry.value.recipe.why_not for ref in refs]  # type: ignore[union-attr]
        assert ["forgotten" in each for each in recipes] == [True, True, False, False, False]
        del refs
        wait_until(lambda: zmreg.stats()["tasks"]["recipes"] == 0)


def test_lineage_holds_no_value(tmp_path: Path) -> None:
    """Specs are kept, values are not: what nobody holds is freed, whatever was made of it."""
    with zmreg.init(num_cpus=1):
        first = make.remote(str(tmp_path / "f"), 1)
        put = zmreg.put([bytes(500_000)])
        last = [step.remote(str(tmp_path / "g"), each) for each in (first, put)]
        zmreg.wait(last, num_returns=2, timeout=BOUND_S)
        before = zmreg.stats()["store"]["sealed"]
        del first, put
        wait_until(lambda: zmreg.stats()["store"]["sealed"] == before - 2)


def test_lineage_of_small_results_costs_nothing() -> None:
    with zmreg.init(num_cpus=1):
        one = zmreg.remote(lambda: 1)
        refs = [one.remote() for _ in range(100)]
        assert sum(zmreg.get(refs)) == 100
        assert zmreg.stats()["tasks"]["recipes"] == 0
