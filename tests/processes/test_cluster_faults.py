"""Nodes that die, and nodes that are cut off from the head: faults 7 and 18 to 20, with real processes on loopback."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import zmreg
from tests.processes.clusters import DEATH_S, PATIENCE_S, ask, states, until, until_agreed, until_state
from zmreg.model.settings import Settings
from zmreg.services.network.verdicts import EXIT_FENCED
from zmreg.testing.cluster import LocalCluster, TestNode

WORK = {"resources": {"work": 1}}
# Of the clusters in which somebody has to be silent for so long: 10 s are as good, only slower. Half-open lines are cut
# after 8 s more, which is no setting.
HASTY_S = 5.0


@zmreg.remote(resources={"work": 1}, num_cpus=0)
def note(path, number, seconds):
    """Writes down that it began, and where."""
    with open(path, "a") as file:
        file.write(f"{number} {zmreg.get_runtime_context().get_node_id()}\n")
    time.sleep(seconds)
    return number


def note_first_at(node: TestNode) -> Any:
    """Something begins there, however soon the others are done elsewhere; it is tried again anywhere."""
    return note.options(scheduling_strategy=zmreg.NodeAffinitySchedulingStrategy(node.node_id, soft=True))


@zmreg.remote(locs={"b"}, num_cpus=0)
def at_b(path, number, nbytes):
    with open(path, "a") as file:
        file.write(f"{number} b\n")
    return bytes(nbytes)


def begun(path: Path) -> list[tuple[int, str]]:
    """(number, node) of each call that has begun."""
    if not path.exists():
        return []
    return [(int(number), node) for number, node in map(str.split, path.read_text().splitlines())]


@pytest.fixture
def dead_after_s() -> float:
    """Of all nodes of `three`; as it comes, unless a test says otherwise."""
    return Settings().dead_after_s


@pytest.fixture
def three(dead_after_s: float) -> Iterator[LocalCluster]:
    """A head that works for nobody but itself, and two nodes for one noted call each, b and c."""
    specs: list[dict[str, Any]] = [{"num_cpus": 1}, {**WORK, "locs": {"b"}}, {**WORK, "locs": {"c"}}]
    nodes = [{**spec, "dead_after_s": dead_after_s} for spec in specs]
    with LocalCluster(nodes, wired=True) as cluster:
        cluster.attach()
        yield cluster


def test_fault7_a_killed_node_loses_its_tasks_to_others_and_its_workers_end(three: LocalCluster, tmp_path: Path):
    head, b, c = three.nodes
    refs = [note_first_at(b).remote(str(tmp_path / "calls"), 0, 0.3)]
    refs += [note.remote(str(tmp_path / "calls"), number, 0.3) for number in range(1, 10)]
    until(lambda: b.node_id in dict(map(reversed, begun(tmp_path / "calls"))), "nothing runs on b")
    workers = [psutil.Process(row["Pid"]) for row in ask(b, "workers")]
    killed = time.monotonic()
    three.kill_node(b.node_id)
    _, alive = psutil.wait_procs(workers, timeout=5.0)
    assert alive == []
    assert zmreg.get(refs, timeout=PATIENCE_S) == list(range(10))
    for node in (head, c):
        until_state(node, b.node_id, "DEAD")
    assert time.monotonic() - killed < DEATH_S
    counts = Counter(number for number, _ in begun(tmp_path / "calls"))
    assert sorted(counts) == list(range(10)) and sum(counts.values()) <= 11  # what b was in may have begun twice
    until_agreed(three)


def test_fault7_a_waiting_get_is_told_when_nobody_can_take_over(three: LocalCluster, tmp_path: Path):
    ref = at_b.remote(str(tmp_path / "calls"), 1, 1 << 20)
    zmreg.wait([ref], timeout=PATIENCE_S, fetch_local=False)
    three.kill_node(three.nodes[1].node_id)
    with pytest.raises(zmreg.errors.ZmregError) as caught:
        ref.get(timeout=PATIENCE_S)
    assert not isinstance(caught.value, zmreg.errors.GetTimeoutError)


def test_fault18_a_partition_of_five_seconds_from_the_head_costs_nothing_but_time(three: LocalCluster, tmp_path: Path):
    head, b, c = three.nodes
    seen: set[str] = set()
    link = three.link(head.node_id, b.node_id)
    link.stall()
    refs = [at_b.remote(str(tmp_path / "calls"), number, 200_000) for number in range(5)]
    until_healed = time.monotonic() + 5.0
    until(lambda: seen.update(states(head).values()) or time.monotonic() > until_healed, "time stands still")
    link.heal()
    assert [len(value) for value in zmreg.get(refs, timeout=PATIENCE_S)] == [200_000] * 5
    until_state(head, b.node_id, "ALIVE")
    assert "SUSPECTED" in seen and "DEAD" not in seen, "the fault has not bitten, or too hard"
    assert Counter(begun(tmp_path / "calls")) == {(number, "b"): 1 for number in range(5)}
    until_agreed(three)


@pytest.mark.parametrize(
    ("lost", "dead_after_s"), [("both", Settings().dead_after_s), ("to the node", HASTY_S), ("to the head", HASTY_S)]
)
def test_fault19_fault20_a_long_partition_or_loss_one_way_ends_the_node_and_it_comes_back_as_another(
    three: LocalCluster, tmp_path: Path, lost: str, dead_after_s: float
):
    head, b, c = three.nodes
    path = tmp_path / "calls"
    refs = [
        note_first_at(b).remote(str(path), 0, 2.0),
        *(note.remote(str(path), number, 2.0) for number in range(1, 4)),
    ]
    until(lambda: b.node_id in dict(map(reversed, begun(path))), "nothing runs on b")
    link = three.link(head.node_id, b.node_id)
    if lost == "both":
        link.stall()
    else:
        link.mute({"to the node": "b", "to the head": "a"}[lost])
    began = time.monotonic()
    until_state(head, b.node_id, "DEAD", DEATH_S + 10)  # one way: only when TCP gives up does silence begin
    assert time.monotonic() - began > dead_after_s / 2, "silence was not given its time"
    until_state(c, b.node_id, "DEAD")
    until(lambda: ask(b, "health")["HeadLost"], "b still believes in its head", DEATH_S)
    assert zmreg.get(refs, timeout=PATIENCE_S) == list(range(4))
    link.heal()
    assert three.await_end(b.node_id, PATIENCE_S) == EXIT_FENCED
    assert states(head)[b.node_id] == "DEAD"
    again = three.add_node(**WORK, locs={"b"}, dead_after_s=dead_after_s)
    assert again.node_id != b.node_id
    assert len(at_b.remote(str(path), 9, 300_000).get(timeout=PATIENCE_S)) == 300_000
    until_agreed(three)
    assert zmreg.get(refs, timeout=PATIENCE_S) == list(range(4)), "no late answer has changed anything"


@pytest.mark.parametrize("dead_after_s", [HASTY_S])
def test_fault20_a_node_that_hears_nobody_is_no_ghost_for_its_own_program(three: LocalCluster, tmp_path: Path):
    """A program on the node that is cut off: its waits end, too."""
    head, b, _ = three.nodes
    zmreg.shutdown()
    three.attach(b.node_id)
    ref = note.options(locs={"c"}).remote(str(tmp_path / "calls"), 1, 60.0)
    until(lambda: begun(tmp_path / "calls"), "it does not run")
    for other in (head, three.nodes[2]):
        three.link(b.node_id, other.node_id).stall()
    until_state(head, b.node_id, "DEAD")
    for other in (head, three.nodes[2]):
        three.link(b.node_id, other.node_id).heal()
    with pytest.raises(zmreg.errors.ClusterError):
        ref.get(timeout=PATIENCE_S)
    assert three.await_end(b.node_id) == EXIT_FENCED
    assert os.path.exists(head.session)
