"""Who leaves in peace takes nothing away that others need: nodes that are drained, and programs that end.

Rows of core-api.md (X15, C5, 53, 71) and of the fault table (8, 9, 15, 16), with real processes on loopback.
"""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zmreg
from tests.processes.clusters import PATIENCE_S, ask, states, until
from tests.processes.drivers import Driver
from zmreg.model.errors import ActorDiedError, ClusterError, OwnerDiedError, WorkerDiedError
from zmreg.services.network.verdicts import EXIT_FENCED
from zmreg.testing.cluster import LocalCluster, TestNode

# A silence of so long is death in these tests, and of a third of it suspicion: 10 s and 3 s are as good, only slower.
DEAD_S = 3.0
LARGE = 3_000_000


@zmreg.remote(num_cpus=0, locs={"b"})
def make(number, nbytes=LARGE):
    return np.full(nbytes, number, np.uint8)


@zmreg.remote(num_cpus=0, locs={"b"})
def make_and_put(number):
    """Refs to objects that the worker owns: one in its node's store, one in its own memory, one inside another."""
    large, small = zmreg.put(np.full(LARGE, number, np.uint8)), zmreg.put(number)
    return [large, small, zmreg.put([large, small])]


@zmreg.remote(resources={"work": 1}, num_cpus=0)
def work(path, name, gate):
    """Notes that it began, and goes on when the gate is there."""
    with open(path, "a") as file:
        file.write(f"{name} {zmreg.get_runtime_context().get_node_id()}\n")
    wait_for_file(gate)
    return name


def wait_for_file(path):
    deadline = time.monotonic() + PATIENCE_S
    while not Path(path).exists() and time.monotonic() < deadline:
        time.sleep(0.01)


@zmreg.remote(num_cpus=0, resources={"work": 0.01})
class Counter:
    def __init__(self):
        self.count = 0

    def add(self):
        self.count += 1
        return self.count

    def node(self):
        return zmreg.get_runtime_context().get_node_id()

    def hold(self, path, gate):
        self.count += 1
        with open(path, "a") as file:
            file.write("held\n")
        wait_for_file(gate)
        return self.count

    def keep(self, boxed):
        self.kept = boxed
        return True

    def value_of_kept(self):
        return [int(np.asarray(zmreg.get(ref)).sum()) for ref in self.kept]


def there(node: TestNode) -> Any:
    return zmreg.NodeAffinitySchedulingStrategy(node.node_id, soft=True)


def begun(path: Path) -> list[list[str]]:
    return [line.split() for line in path.read_text().splitlines()] if path.exists() else []


def no_errors() -> None:
    """Nothing went wrong behind anybody's back."""
    assert zmreg.stats()["errors"] == {"internal": 0, "protocol": 0}
    assert zmreg.stats()["protocol_errors"] == 0


@pytest.fixture
def three() -> Iterator[LocalCluster]:
    """A head that has no CPU, and two nodes, b and c, that can do the same."""
    nodes: list[dict[str, Any]] = [{"num_cpus": 0}]
    nodes += [{"num_cpus": 2, "resources": {"work": 2}, "locs": {each}, "drain_grace_s": 5.0} for each in "bc"]
    with LocalCluster(nodes) as cluster:
        cluster.attach()
        yield cluster


# -- what a node has --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("scope", ["all", "owner"])
def test_X15_the_only_copies_of_a_node_that_leaves_go_to_others(scope: str):
    setting = {"registry_scope": scope}
    with LocalCluster([{"num_cpus": 0, **setting}, {"locs": {"b"}, **setting}, {"locs": {"c"}, **setting}]) as cluster:
        cluster.attach()
        refs = [make.remote(number) for number in range(8)]
        zmreg.wait(refs, num_returns=8, timeout=PATIENCE_S, fetch_local=False)
        cluster.end_node(cluster.nodes[1].node_id)
        values = zmreg.get(refs, timeout=PATIENCE_S)
        assert [int(value[0]) for value in values] == list(range(8)) and {len(value) for value in values} == {LARGE}
        assert zmreg.stats()["tasks"]["rebuilt"] == 0, "they were computed again"
        no_errors()


def test_X15_a_node_that_leaves_while_its_last_copy_is_on_the_way(three: LocalCluster):
    """Retire while the last copy is in flight: readers who have begun get it, from there or from elsewhere."""
    _, b, c = three.nodes
    refs = [make.remote(number, 40_000_000) for number in range(3)]
    zmreg.wait(refs, num_returns=3, timeout=PATIENCE_S, fetch_local=False)
    found: list[int] = []
    reader = threading.Thread(
        target=lambda: found.extend(int(each[-1]) for each in zmreg.get(refs, timeout=PATIENCE_S))
    )
    reader.start()
    three.end_node(b.node_id)
    reader.join(PATIENCE_S)
    assert found == [0, 1, 2]
    assert zmreg.stats()["tasks"]["rebuilt"] == 0


def test_X15_what_is_on_disk_goes_along(tmp_path: Path):
    nodes: list[dict[str, Any]] = [{"num_cpus": 0}, {"locs": {"b"}, "object_store_bytes": 8 << 20}]
    with LocalCluster(nodes) as cluster:
        cluster.attach()
        refs = [make.remote(number) for number in range(6)]
        zmreg.wait(refs, num_returns=6, timeout=PATIENCE_S, fetch_local=False)
        assert ask(cluster.nodes[1], "stats")["store"]["spilled"] > 0
        cluster.end_node(cluster.nodes[1].node_id)
        assert [int(value[0]) for value in zmreg.get(refs, timeout=PATIENCE_S)] == list(range(6))
        assert zmreg.stats()["tasks"]["rebuilt"] == 0


def test_C5_objects_of_workers_that_have_left_outlive_their_node_and_the_next(three: LocalCluster):
    _, b, c = three.nodes
    large, small, box = make_and_put.remote(3).get(timeout=PATIENCE_S)
    three.end_node(b.node_id)
    assert small.get(timeout=PATIENCE_S) == 3
    three.add_node(num_cpus=1, locs={"d"})
    three.end_node(c.node_id)
    assert int(large.get(timeout=PATIENCE_S).sum()) == 3 * LARGE
    again, inner = box.get(timeout=PATIENCE_S)
    assert inner.get(timeout=PATIENCE_S) == 3 and int(again.get(timeout=PATIENCE_S)[0]) == 3
    no_errors()


def test_C5_a_ref_to_what_a_node_left_behind_can_be_given_to_a_node_that_came_later(three: LocalCluster):
    _, b, _ = three.nodes
    large, small, _ = make_and_put.remote(5).get(timeout=PATIENCE_S)
    three.end_node(b.node_id)
    three.add_node(num_cpus=1, locs={"late"})
    total = zmreg.remote(lambda boxed: [int(np.sum(each)) for each in zmreg.get(boxed)])
    assert total.options(locs={"late"}).remote([large, small]).get(timeout=PATIENCE_S) == [5 * LARGE, 5]


def test_row53_what_the_heir_answers_for_is_freed_when_nobody_holds_it(three: LocalCluster):
    head, b, c = three.nodes
    kept = make_and_put.remote(7).get(timeout=PATIENCE_S)
    before = [ask(node, "stats")["store"]["sealed"] for node in (head, c)]
    three.end_node(b.node_id)
    until(lambda: ask(head, "stats")["adopted"] == 3, "the head has not inherited")
    assert sum(ask(node, "stats")["store"]["sealed"] for node in (head, c)) == sum(before) + 1
    kept.clear()
    until(lambda: ask(head, "stats")["adopted"] == 0, "somebody still holds it")
    until(lambda: not sum(ask(node, "stats")["store"]["sealed"] for node in (head, c)), "its bytes are not freed")


# -- what runs on it --------------------------------------------------------------------------------------------------


def test_row71_tasks_finish_within_the_grace_and_others_go_elsewhere(three: LocalCluster, tmp_path: Path):
    _, b, c = three.nodes
    path, gate = tmp_path / "calls", tmp_path / "gate"
    refs = [work.remote(str(path), f"w{number}", str(gate)) for number in range(6)]
    until(lambda: len(begun(path)) == 4, "not two on each node")
    drained = threading.Thread(target=three.end_node, args=(b.node_id,))
    drained.start()
    until(lambda: states(c).get(b.node_id) == "DRAINING", "nobody has heard that it leaves")
    gate.touch()
    assert zmreg.get(refs, timeout=PATIENCE_S) == [f"w{number}" for number in range(6)]
    drained.join(PATIENCE_S)
    calls = begun(path)
    assert len(calls) == 6, "something ran twice"
    assert [node for _, node in calls[4:]] == [c.node_id] * 2
    no_errors()


def test_row71_what_does_not_finish_in_time_is_tried_again_elsewhere_at_no_charge(three: LocalCluster, tmp_path: Path):
    _, b, c = three.nodes
    path, gate = tmp_path / "calls", tmp_path / "gate"
    once = work.options(max_retries=1, scheduling_strategy=there(b)).remote(str(path), "once", str(gate))
    never = work.options(max_retries=0, scheduling_strategy=there(b)).remote(str(path), "never", str(gate))
    until(lambda: len(begun(path)) == 2, "they do not run")
    zmreg.drain_node(b.node_id, timeout=PATIENCE_S, grace=0.2)
    until(lambda: ["once", c.node_id] in begun(path), "it is not tried again")
    worker = next(row["Pid"] for row in ask(c, "tasks") if row["Name"] == "worker")
    subprocess.run(["kill", "-9", str(worker)], check=True)  # the one retry that it has is still there
    gate.touch()
    assert once.get(timeout=PATIENCE_S) == "once"
    with pytest.raises(WorkerDiedError, match="drained"):
        never.get(timeout=PATIENCE_S)
    assert len(begun(path)) == 4


def test_row71_actors_go_elsewhere_at_no_charge_and_lose_no_call(three: LocalCluster, tmp_path: Path):
    _, b, c = three.nodes
    path, gate = tmp_path / "calls", tmp_path / "gate"
    moves = Counter.options(max_restarts=1, scheduling_strategy=there(b)).remote()
    stays = Counter.options(name="kept", lifetime="detached", scheduling_strategy=there(b)).remote()
    ends = Counter.options(scheduling_strategy=there(b)).remote()
    assert zmreg.get([each.node.remote() for each in (moves, stays, ends)], timeout=PATIENCE_S) == [b.node_id] * 3
    held = [each.hold.remote(str(path), str(gate)) for each in (moves, ends)]
    until(lambda: len(begun(path)) == 2, "they do not run")
    drained = threading.Thread(target=three.end_node, args=(b.node_id,))
    drained.start()
    until(lambda: stays.node.remote().get(timeout=PATIENCE_S) == c.node_id, "it has not moved")
    later = [moves.add.remote() for _ in range(50)]
    gate.touch()
    assert zmreg.get(held, timeout=PATIENCE_S) == [1, 1], "calls under way are answered from where they run"
    assert zmreg.get(later, timeout=PATIENCE_S) == list(range(1, 51)), "in order, and once each"
    drained.join(PATIENCE_S)
    assert moves.node.remote().get(timeout=PATIENCE_S) == c.node_id
    with pytest.raises(ActorDiedError, match="its node was drained"):
        ends.add.remote().get(timeout=PATIENCE_S)
    rows = {row["ActorID"][-8:]: row["NumRestarts"] for row in ask(three.nodes[0], "actors")}
    assert set(rows.values()) == {0}, "a restart was charged"
    zmreg.kill(stays)


def test_row71_an_actor_that_is_called_all_the_time_moves_too(three: LocalCluster):
    _, b, c = three.nodes
    actor = Counter.options(max_restarts=1, scheduling_strategy=there(b)).remote()
    assert actor.add.remote().get(timeout=PATIENCE_S) == 1
    answers: list[int] = []
    stop = threading.Event()

    def call() -> None:
        while not stop.is_set():
            answers.extend(zmreg.get([actor.add.remote() for _ in range(20)], timeout=PATIENCE_S))

    caller = threading.Thread(target=call)
    caller.start()
    three.end_node(b.node_id)
    until(lambda: len(answers) > 40 and answers[-1] > 40 and 1 in answers, "no calls get through")
    stop.set()
    caller.join(PATIENCE_S)
    assert answers.count(1) == 1 and actor.node.remote().get(timeout=PATIENCE_S) == c.node_id
    first = answers.index(1)
    assert answers[:first] == list(range(2, first + 2)), "before it moved"
    assert answers[first:] == list(range(1, len(answers) - first + 1)), "after it moved"


@zmreg.remote(num_cpus=0, resources={"work": 0.01})
class Concurrent:
    def run(self, path, gate):
        with open(path, "a") as file:
            file.write("begun\n")
        wait_for_file(gate)
        return zmreg.get_runtime_context().get_node_id()


@zmreg.remote(num_cpus=0, resources={"work": 0.01})
class Async:
    async def run(self, path, gate):
        import asyncio

        with open(path, "a") as file:
            file.write("begun\n")
        await asyncio.to_thread(wait_for_file, gate)
        return zmreg.get_runtime_context().get_node_id()


@pytest.mark.parametrize("cls", [Concurrent, Async], ids=["threads", "async"])
def test_row71_a_concurrent_actor_finishes_what_it_has_begun(three: LocalCluster, tmp_path: Path, cls: Any):
    _, b, c = three.nodes
    path, gate = tmp_path / "calls", tmp_path / "gate"
    actor = cls.options(max_restarts=1, max_concurrency=4, scheduling_strategy=there(b)).remote()
    running = [actor.run.remote(str(path), str(gate)) for _ in range(3)]
    until(lambda: len(begun(path)) == 3, "they do not run")
    drained = threading.Thread(target=three.end_node, args=(b.node_id,))
    drained.start()
    until(lambda: states(c).get(b.node_id) == "DRAINING", "nobody has heard that it leaves")
    later = [actor.run.remote(str(path), str(gate)) for _ in range(3)]
    gate.touch()
    assert zmreg.get(running, timeout=PATIENCE_S) == [b.node_id] * 3
    assert zmreg.get(later, timeout=PATIENCE_S) == [c.node_id] * 3
    drained.join(PATIENCE_S)
    assert len(begun(path)) == 6


def test_row71_drain_says_no_where_it_makes_no_sense(three: LocalCluster):
    head, b, c = three.nodes
    with pytest.raises(ValueError, match="its seat"):
        zmreg.drain_node(head.node_id)
    with pytest.raises(ClusterError, match="no node"):
        zmreg.drain_node("00" * 8)
    with pytest.raises(ValueError, match="grace"):
        zmreg.drain_node(b.node_id, grace=-1)
    zmreg.shutdown()
    zmreg.init(address=c.address)
    with pytest.raises(ClusterError, match="head"):
        zmreg.drain_node(head.node_id)
    zmreg.drain_node(b.node_id, timeout=PATIENCE_S)
    assert states(c)[b.node_id] == "LEFT"


def test_row71_zmreg_drain(three: LocalCluster):
    _, b, c = three.nodes
    done = subprocess.run(
        [sys.executable, "-m", "zmreg", "drain", b.node_id[:8], "--address", c.address, "--json"],
        capture_output=True, text=True, timeout=PATIENCE_S,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert '"fate": "left"' in done.stdout
    assert states(c)[b.node_id] == "LEFT"


@zmreg.remote(resources={"work": 1}, num_cpus=0)
def at_the_second_attempt(mark):
    """The first one never ends."""
    if not Path(mark).exists():
        Path(mark).touch()
        threading.Event().wait()
    return zmreg.get_runtime_context().get_node_id()


@zmreg.remote(resources={"there": 1}, num_cpus=0)
def when_told(gate):
    wait_for_file(gate)
    return np.full(LARGE, 7, np.uint8)


@zmreg.remote(resources={"here": 1}, num_cpus=0)
def submit(gate):
    return [zmreg.put(np.full(LARGE, 6, np.uint8)), when_told.remote(gate)]


def test_row71_a_worker_whose_tasks_run_elsewhere_outlives_the_grace_with_all_that_it_owns(tmp_path: Path):
    """Its own code is over. It was killed with those that still ran, and had left nothing of what it owned."""
    gate, mark = tmp_path / "gate", str(tmp_path / "mark")
    spec: dict[str, Any] = {"resources": {"work": 1, "here": 1}, "drain_grace_s": 0.5}
    with LocalCluster([{"num_cpus": 0}, spec]) as cluster:
        cluster.attach()
        head, b = cluster.nodes
        stubborn = at_the_second_attempt.remote(mark)
        wait_for_file(mark)
        c = cluster.add_node(resources={"work": 1, "there": 1})
        large, later = submit.remote(str(gate)).get(timeout=PATIENCE_S)
        leaver = threading.Thread(target=cluster.end_node, args=(b.node_id,))
        leaver.start()
        assert stubborn.get(timeout=PATIENCE_S) == c.node_id, "the grace is over"
        gate.touch()
        assert [int(ref.get(timeout=PATIENCE_S)[-1]) for ref in (large, later)] == [6, 7]
        leaver.join(PATIENCE_S)
        assert states(head)[b.node_id] == "LEFT"
        no_errors()


@zmreg.remote(num_cpus=0.5, resources={"work": 0.5})
def nest(number):
    """Refs that its worker owns: in its store, inside another value, and of a task of its own."""
    large = zmreg.put(np.full(200_000, number, np.uint8))
    return [large, zmreg.put({"inner": large}), fill.remote(number)]


@zmreg.remote(num_cpus=0.5, resources={"work": 0.5})
def fill(number, nbytes=150_000):
    return np.full(nbytes, number, np.uint8)


def test_row71_nodes_come_and_go_under_load_and_nobody_notices():
    """Also two at once. Nothing fails, nothing is computed twice, no call of an actor is lost, nothing leaks."""
    spec: dict[str, Any] = {"num_cpus": 2, "resources": {"work": 2}, "drain_grace_s": 5.0}
    wrong: list[BaseException] = []
    rounds = [0, 0, 0]
    stop = threading.Event()

    def tasks() -> None:
        refs = [fill.remote(number, size) for number, size in enumerate([100, 150_000, 1_000_000] * 4)]
        assert [int(value[-1]) for value in zmreg.get(refs, timeout=PATIENCE_S)] == list(range(12))

    def refs_in_refs() -> None:
        large, box, made = nest.remote(rounds[1] % 250).get(timeout=PATIENCE_S)
        values = [large.get(timeout=PATIENCE_S), box.get(timeout=PATIENCE_S)["inner"].get(timeout=PATIENCE_S)]
        assert {int(value[5]) for value in (*values, made.get(timeout=PATIENCE_S))} == {rounds[1] % 250}

    def calls() -> None:
        first = actor.add.remote().get(timeout=PATIENCE_S)
        later = zmreg.get([actor.add.remote() for _ in range(20)], timeout=PATIENCE_S)
        after = next((place for place, count in enumerate(later) if count == 1), len(later))  # it has moved there
        assert later[:after] == list(range(first + 1, first + 1 + after))
        assert later[after:] == list(range(1, len(later) - after + 1))

    def again_and_again(number: int, act: Any) -> None:
        try:
            while not stop.is_set():
                act()
                rounds[number] += 1
                stop.wait(0.02)  # what is under way when they leave counts, not how much of it
        except BaseException as error:  # noqa: BLE001  looked at below
            wrong.append(error)

    with LocalCluster([{"num_cpus": 0}, spec, spec, spec]) as cluster:
        cluster.attach()
        head = cluster.nodes[0]
        actor = Counter.options(max_restarts=1).remote()
        threads = [
            threading.Thread(target=again_and_again, args=each) for each in enumerate((tasks, refs_in_refs, calls))
        ]
        for thread in threads:
            thread.start()
        for at_once in (1, 2, 1):
            leavers = [
                threading.Thread(target=cluster.end_node, args=(node.node_id,))
                for node in [node for node in cluster.nodes if node != head][:at_once]
            ]
            so_far = list(rounds)
            until(lambda: wrong or all(now > then for now, then in zip(rounds, so_far, strict=True)), "it stands still")  # noqa: B023
            for leaver in leavers:
                leaver.start()
            for leaver in leavers:
                leaver.join(PATIENCE_S)
                cluster.add_node(**spec)
        stop.set()
        for thread in threads:
            thread.join(PATIENCE_S)
        assert wrong == []
        assert set(states(head).values()) == {"ALIVE", "LEFT"}
        assert zmreg.stats()["tasks"]["rebuilt"] == 0
        no_errors()
        until(lambda: not any(ask(node, "stats")["adopted"] for node in cluster.nodes), "somebody answers for nothing")
        until(lambda: not any(ask(node, "stats")["store"]["sealed"] for node in cluster.nodes), "bytes are left")


def test_the_head_too_leaves_its_objects_to_others():
    """Nothing is placed any more, and nobody is admitted; what is there can be read."""
    with LocalCluster([{"num_cpus": 1, "locs": {"b"}}, {"num_cpus": 1}, {"num_cpus": 1}]) as cluster:
        cluster.attach(cluster.nodes[1].node_id)
        refs = [make.remote(number) for number in range(3)]
        zmreg.wait(refs, num_returns=3, timeout=PATIENCE_S, fetch_local=False)
        owned = make_and_put.remote(4).get(timeout=PATIENCE_S)
        cluster.end_node(cluster.nodes[0].node_id)
        assert [int(value[0]) for value in zmreg.get(refs, timeout=PATIENCE_S)] == [0, 1, 2]
        assert int(owned[0].get(timeout=PATIENCE_S)[0]) == 4 and owned[1].get(timeout=PATIENCE_S) == 4


def test_a_whole_cluster_that_ends_hands_nothing_over():
    """All nodes are told at once: none of them waits for what runs, or copies what nobody will read."""
    with LocalCluster([{"num_cpus": 1}, {"num_cpus": 1, "locs": {"b"}}, {"num_cpus": 1}]) as cluster:
        cluster.attach()
        refs = [make.remote(number, 20_000_000) for number in range(3)]
        endless = zmreg.remote(time.sleep).remote(60)
        zmreg.wait(refs, num_returns=3, timeout=PATIENCE_S, fetch_local=False)
        del endless
        began = time.monotonic()
        cluster.close()
        assert time.monotonic() - began < 5.0


# -- programs that leave ----------------------------------------------------------------------------------------------

SEAT = "zmreg.init(address={address!r})"
OWN_NODE = """
import zmreg.api.cluster
from zmreg.model.settings import Listening, Settings
from zmreg.services.setup.embedding import embed

zmreg.api.cluster._embedded = embed(
    Settings(num_cpus=0.0, object_store_bytes=64 << 20), {{"log_to_driver": False}},
    Listening(key_file={key!r}, contact={address!r}, name="own"),
)
"""

PROGRAM = """
import numpy as np

keeper = zmreg.get_actor("keeper")
large, small = zmreg.put(np.full({large}, 2, np.uint8)), zmreg.put(11)
assert keeper.keep.remote([large, small]).get(timeout=30)

@zmreg.remote(num_cpus=0, resources={{"work": 1}})
def forever(path):
    open(path, "a").write("begun\\n")
    time.sleep(600)

@zmreg.remote(num_cpus=0)
class Mine:
    def ready(self):
        return True

@zmreg.remote(num_cpus=0)
class Detached:
    def answer(self):
        return 42

mine = Mine.options(name="mine").remote()
detached = Detached.options(name="detached", lifetime="detached").remote()
zmreg.get([mine.ready.remote(), detached.answer.remote()], timeout=30)
endless = forever.remote({path!r})
while not os.path.exists({path!r}):
    time.sleep(0.01)
say("up")
"""


def keeper_on(cluster: LocalCluster) -> Any:
    actor = Counter.options(name="keeper", lifetime="detached", scheduling_strategy=there(cluster.nodes[2])).remote()
    actor.node.remote().get(timeout=PATIENCE_S)
    return actor


def until_its_actors_are_gone(cluster: LocalCluster, path: Path) -> None:
    def named() -> set[str]:
        return {row["Name"] for row in ask(cluster.nodes[0], "actors")}

    until(lambda: "mine" not in named(), "the program's own actor lives on")
    assert "detached" in named(), "a detached actor does not depend on who made it"
    until(lambda: not [row for node in cluster.nodes for row in ask(node, "tasks") if row["Name"] == "worker"],
          "its task still runs")  # fmt: skip


def program_at(cluster: LocalCluster, start: str, at: int, path: Path) -> str:
    address = cluster.nodes[at].address
    return (start + PROGRAM).format(address=address, key=cluster.key_file, large=LARGE, path=str(path))


@pytest.mark.parametrize(("start", "at"), [(SEAT, 0), (SEAT, 1), (OWN_NODE, 0)], ids=["head", "b", "own node"])
def test_fault16_C5_a_program_that_ends_leaves_what_others_hold_and_ends_quietly(
    three: LocalCluster, tmp_path: Path, start: str, at: int
):
    keeper = keeper_on(three)
    path = tmp_path / "calls"
    with Driver(program_at(three, start, at, path)) as program:
        program.after("up")
        until(lambda: begun(path), "its task does not run")
        began = time.monotonic()
        assert (program.end(), program.stderr()) == (0, "")
        assert time.monotonic() - began < 4.0
    assert keeper.value_of_kept.remote().get(timeout=PATIENCE_S) == [2 * LARGE, 11]
    until_its_actors_are_gone(three, path)
    zmreg.kill(zmreg.get_actor("detached"))
    zmreg.kill(keeper)
    until(lambda: not any(ask(node, "stats")["store"]["sealed"] for node in three.nodes), "bytes are left")
    until(lambda: not any(ask(node, "stats")["adopted"] for node in three.nodes), "something is still answered for")


@pytest.mark.parametrize(("start", "at"), [(SEAT, 1), (OWN_NODE, 0)], ids=["b", "own node"])
def test_fault15_a_program_that_is_killed_loses_what_it_owned_and_nothing_else(
    three: LocalCluster, tmp_path: Path, start: str, at: int
):
    keeper = keeper_on(three)
    path = tmp_path / "calls"
    with Driver(program_at(three, start, at, path) + "time.sleep(600)") as program:
        program.after("up")
        until(lambda: begun(path), "its task does not run")
        program.process.kill()
    with pytest.raises(OwnerDiedError):
        keeper.value_of_kept.remote().get(timeout=PATIENCE_S)
    until_its_actors_are_gone(three, path)
    until(lambda: not any(ask(node, "stats")["store"]["sealed"] for node in three.nodes), "bytes are left", 30.0)
    assert zmreg.get_actor("detached").answer.remote().get(timeout=PATIENCE_S) == 42
    zmreg.kill(zmreg.get_actor("detached"))
    zmreg.kill(keeper)
    assert "DEAD" not in states(three.nodes[0]).values(), "its own node has left in peace"
    no_errors()


# -- nodes that stand still -------------------------------------------------------------------------------------------


@pytest.fixture
def paused() -> Iterator[LocalCluster]:
    nodes: list[dict[str, Any]] = [{"num_cpus": 0, "dead_after_s": DEAD_S}]
    nodes += [{"resources": {"work": 1}, "locs": {each}, "dead_after_s": DEAD_S} for each in "bc"]
    with LocalCluster(nodes) as cluster:
        cluster.attach()
        yield cluster


def test_fault8_a_node_that_stands_still_for_half_the_time_is_suspected_and_runs_nothing_twice(
    paused: LocalCluster, tmp_path: Path
):
    head, b, c = paused.nodes
    path, gate = tmp_path / "calls", tmp_path / "gate"
    gate.touch()
    here = work.options(locs={"b"})
    assert here.remote(str(path), "first", str(gate)).get(timeout=PATIENCE_S) == "first"
    paused.signal_node(b.node_id, signal.SIGSTOP)
    stopped = time.monotonic()
    refs = [here.remote(str(path), f"w{number}", str(gate)) for number in range(5)]
    until(lambda: states(head)[b.node_id] == "SUSPECTED", "it is not suspected")
    until(lambda: time.monotonic() - stopped > DEAD_S / 2, "time stands still")
    paused.signal_node(b.node_id, signal.SIGCONT)
    assert zmreg.get(refs, timeout=PATIENCE_S) == [f"w{number}" for number in range(5)]
    until(lambda: states(head)[b.node_id] == "ALIVE", "it is still suspected")
    assert sorted(name for name, _ in begun(path)) == ["first", *(f"w{number}" for number in range(5))]
    no_errors()


def test_fault9_a_node_that_stands_still_for_too_long_is_dead_and_ends_when_it_goes_on(
    paused: LocalCluster, tmp_path: Path
):
    head, b, c = paused.nodes
    path, gate = tmp_path / "calls", tmp_path / "gate"
    ref = work.options(scheduling_strategy=there(b)).remote(str(path), "w", str(gate))
    until(lambda: ["w", b.node_id] in begun(path), "it does not run")
    workers = [row["Pid"] for row in ask(b, "workers")]
    paused.signal_node(b.node_id, signal.SIGSTOP)
    until(lambda: states(head)[b.node_id] == "DEAD", "it is not declared dead", DEAD_S * 3)
    until(lambda: ["w", c.node_id] in begun(path), "its task is not tried elsewhere")
    gate.touch()  # the first one ends as well, and its answer must not count
    assert ref.get(timeout=PATIENCE_S) == "w"
    paused.signal_node(b.node_id, signal.SIGCONT)
    assert paused.await_end(b.node_id, PATIENCE_S) == EXIT_FENCED
    until(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), "its workers live on")
    assert [name for name, _ in begun(path)] == ["w", "w"]
    again = paused.add_node(resources={"work": 1}, locs={"b"}, dead_after_s=DEAD_S)  # as a supervisor would
    assert again.node_id != b.node_id
    assert work.options(locs={"b"}).remote(str(path), "after", str(gate)).get(timeout=PATIENCE_S) == "after"
    assert zmreg.stats()["errors"]["internal"] == 0
