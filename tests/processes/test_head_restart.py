"""The head is killed and started again, with real nodes: faults 10 to 14 and 40; rows 35, 36 and 72."""

from __future__ import annotations

import contextlib
import os
import random
import resource
import shutil
import signal
import socket
import sqlite3
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

import zmreg
from tests.processes.clusters import PATIENCE_S, ask, log_of, states, until
from zmreg.services.head.ledger import FILE
from zmreg.services.network.succession import EXIT_FORMER_HEAD
from zmreg.testing.cluster import LocalCluster, TestNode

NO_HEAD_S = 2.0
# So long the others have to find the next head.
SILENCE_S = 4.0
AT_B = {"locs": {"b"}, "num_cpus": 0}
DETACHED_AT_B = {**AT_B, "lifetime": "detached"}


@zmreg.remote(num_cpus=0)
class Counter:
    def __init__(self, start=0):
        self.n = start

    def add(self):
        self.n += 1
        return self.n

    def pid(self):
        return os.getpid()

    def node(self):
        return zmreg.get_runtime_context().get_node_id()

    def add_after(self, seconds):
        time.sleep(seconds)
        return self.add()


@zmreg.remote(**AT_B)
def double(value):
    return 2 * value


@zmreg.remote(**AT_B)
def sleep_for(seconds):
    time.sleep(seconds)
    return "done"


def free_ports() -> int:
    """A port below the range that the system gives out by itself, with the next one free, too."""
    chance = random.Random()
    while True:
        port = chance.randrange(20_000, 32_000)
        try:
            for each in (port, port + 1):
                with socket.socket() as probe:
                    probe.bind(("127.0.0.1", each))
        except OSError:
            continue
        return port


class Restartable:
    """A head that hosts work as well, and a node b with our driver at it."""

    def __init__(self, state: Path, *others: dict, head_timeout_s: float = 60.0, **spec: Any) -> None:
        self.state = state
        self.port = free_ports()
        self.spec = spec
        ours = [{"port": self.port, **spec}, {"locs": {"b"}, "head_timeout_s": head_timeout_s, **spec}]
        self.cluster = LocalCluster([*ours, *others], state_dir=str(state))
        self.b = self.cluster.nodes[1]
        self.cluster.attach(self.b.node_id)
        until(self.written, "the head has not written down who its nodes are")  # it need not before it lets them in

    def written(self) -> bool:
        """Whether a head that is killed now knows all its nodes after that."""
        with contextlib.closing(sqlite3.connect(self.state / FILE)) as database:
            there = {row[0].hex() for row in database.execute("SELECT node FROM nodes")}
        return there >= {node.node_id for node in self.cluster.nodes if node is not self.head}

    def buried(self, node: TestNode) -> bool:
        """Whether the head has written down that a node is dead."""
        with contextlib.closing(sqlite3.connect(self.state / FILE)) as database:
            graves = database.execute("SELECT node FROM graves WHERE node = ?", (bytes.fromhex(node.node_id),))
            return graves.fetchone() is not None

    def rewrite(self, *statements: tuple[str, bytes]) -> None:
        """Change what the head has left behind, while there is none: (sql, the id of a node)."""
        with contextlib.closing(sqlite3.connect(self.state / FILE)) as database, database:
            for statement, node in statements:
                database.execute(statement, (node,))

    @property
    def head(self) -> TestNode:
        return next(node for node in self.cluster.nodes if node.address == f"127.0.0.1:{self.port}")

    def kill(self) -> None:
        self.cluster.kill_node(self.head.node_id)

    def start(self, state: Path | None = None) -> TestNode:
        return self.cluster.add_node(contact="", port=self.port, state_dir=str(state or self.state), **self.spec)

    def restart(self) -> TestNode:
        self.kill()
        return self.start()

    def until_headless(self) -> None:
        until(lambda: ask(self.b, "health")["HeadLost"], "b has not missed its head", 5.0)

    def until_followed(self) -> None:
        head = self.head.node_id
        until(lambda: states(self.b).get(head) == "ALIVE" and not ask(self.b, "health")["HeadLost"], "b has no head")


@pytest.fixture
def restartable(tmp_path: Path) -> Iterator[Restartable]:
    made = Restartable(tmp_path)
    with made.cluster:
        yield made


# -- fault 10 ----------------------------------------------------------------------------------------------------------


def test_fault10_names_state_and_running_calls_outlive_the_head(restartable: Restartable) -> None:
    named = Counter.options(name="far", **DETACHED_AT_B).remote(10)
    anonymous = Counter.options(**AT_B).remote()
    assert (named.add.remote().get(timeout=10), anonymous.add.remote().get(timeout=10)) == (11, 1)
    pids = zmreg.get([named.pid.remote(), anonymous.pid.remote()], timeout=10)
    call, task = anonymous.add_after.remote(3.0), sleep_for.remote(3.0)

    restartable.kill()
    began = time.monotonic()
    assert named.add.remote().get(timeout=2) == 12, "a known way needs no head"
    found: list[object] = []
    looking = threading.Thread(target=lambda: found.append(zmreg.get_actor("far").add.remote().get(timeout=30)))
    looking.start()
    restartable.until_headless()
    assert not found, "nobody could have answered"
    restartable.start()
    looking.join(PATIENCE_S)

    assert found == [13] and time.monotonic() - began < 10
    assert zmreg.get([call, task], timeout=10) == [2, "done"]
    assert zmreg.get([named.pid.remote(), anonymous.pid.remote()], timeout=10) == pids
    with pytest.raises(zmreg.errors.ActorExistsError, match="'far' is taken"):
        Counter.options(name="far").remote()
    other = Counter.options(name="new", **DETACHED_AT_B).remote()
    assert other.add.remote().get(timeout=10) == 1
    zmreg.kill(named)
    until(lambda: "far" not in {row["Name"] for row in ask(restartable.head, "actors")}, "it was not killed")


def test_fault10_detached_actors_of_the_heads_own_machine_are_made_again_and_others_die(
    restartable: Restartable,
) -> None:
    head = restartable.head.node_id
    strategy = zmreg.NodeAffinitySchedulingStrategy(head, soft=True)
    detached = Counter.options(name="here", lifetime="detached", scheduling_strategy=strategy).remote(5)
    mortal = Counter.options(scheduling_strategy=strategy).remote()
    second_life = Counter.options(scheduling_strategy=strategy, max_restarts=1, max_task_retries=1).remote()
    assert zmreg.get([each.node.remote() for each in (detached, mortal, second_life)], timeout=10) == [head] * 3
    assert detached.add.remote().get(timeout=10) == 6
    restartable.restart()
    assert zmreg.get_actor("here").add.remote().get(timeout=20) == 6, "made anew, from its arguments"
    assert detached.add.remote().get(timeout=20) == 7, "the old handle finds it"
    assert second_life.add.remote().get(timeout=20) == 1
    with pytest.raises(zmreg.errors.ActorDiedError):
        mortal.add.remote().get(timeout=20)


def test_fault10_an_actor_that_was_alive_is_not_made_anew_because_the_head_had_not_written_it_down(
    restartable: Restartable,
) -> None:
    strategy = zmreg.NodeAffinitySchedulingStrategy(restartable.head.node_id, soft=True)
    mortals = [Counter.options(scheduling_strategy=strategy).remote() for _ in range(4)]
    assert zmreg.get([each.add.remote() for each in mortals], timeout=10) == [1] * 4
    restartable.restart()
    for mortal in mortals:
        with pytest.raises(zmreg.errors.ActorDiedError):
            mortal.add.remote().get(timeout=20)


def test_fault10_what_happens_while_there_is_no_head_is_made_up_for(restartable: Restartable) -> None:
    restarts = Counter.options(name="restarts", max_restarts=1, **DETACHED_AT_B).remote(3)
    dies = Counter.options(name="dies", **AT_B).remote()
    pids = zmreg.get([restarts.pid.remote(), dies.pid.remote()], timeout=10)
    restartable.kill()
    restartable.until_headless()
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    made = Counter.options(**AT_B).remote(100)  # ordered from nobody
    call = made.add.remote()
    until(lambda: not {row["Pid"] for row in ask(restartable.b, "workers")} & set(pids), "they are still there")
    restartable.start()
    assert call.get(timeout=20) == 101
    assert restarts.add.remote().get(timeout=20) == 4
    with pytest.raises(zmreg.errors.ActorDiedError):
        dies.add.remote().get(timeout=20)
    with pytest.raises(ValueError, match="dies"):
        zmreg.get_actor("dies")


def test_jobs_survive_the_head(restartable: Restartable) -> None:
    def running() -> list[dict]:
        return [job for job in ask(restartable.head, "jobs") if job["Status"] == "RUNNING"]

    (before,) = until(running, "the head does not know us")
    restartable.restart()
    restartable.until_followed()
    (after,) = until(running, "the next head does not know us")
    assert before == after and time.time() - after["Started"] < 300
    assert after["Name"] and " ".join(psutil.Process().cmdline()[1:]).startswith(after["Name"])


def test_a_head_that_was_stopped_in_peace_is_followed_as_well(restartable: Restartable) -> None:
    head = restartable.head.node_id
    strategy = zmreg.NodeAffinitySchedulingStrategy(head, soft=True)
    here = Counter.options(name="here", lifetime="detached", scheduling_strategy=strategy, max_task_retries=1).remote(1)
    there = Counter.options(name="there", **DETACHED_AT_B).remote(1)
    assert zmreg.get([here.add.remote(), there.add.remote()], timeout=10) == [2, 2]
    restartable.cluster.end_node(head)
    restartable.until_headless()
    restartable.start()
    assert zmreg.get_actor("there").add.remote().get(timeout=20) == 3
    assert here.add.remote().get(timeout=20) == 2, "that its machine was stopped is not its death"


def test_a_head_that_keeps_nothing_starts_anew(tmp_path: Path) -> None:
    port = free_ports()
    with LocalCluster([{"port": port}, {"locs": {"b"}}]) as cluster:
        head, b = cluster.nodes
        cluster.attach(b.node_id)
        old = Counter.options(name="old", **DETACHED_AT_B).remote()
        assert old.add.remote().get(timeout=10) == 1
        group = zmreg.placement_group([{"CPU": 1}])
        inside = Counter.options(scheduling_strategy=zmreg.PlacementGroupSchedulingStrategy(group)).remote()
        assert inside.add.remote().get(timeout=10) == 1 and group.wait(10)
        cluster.kill_node(head.node_id)
        cluster.add_node(contact="", port=port)
        with pytest.raises(zmreg.errors.PlacementGroupRemovedError):
            until(lambda: group.ready().get(timeout=20) is None, "the group stays", 10.0)
        assert Counter.options(name="old", **DETACHED_AT_B).remote().add.remote().get(timeout=20) == 1
        with pytest.raises(zmreg.errors.ActorDiedError, match="unknown here"):
            until(lambda: old.add.remote().get(timeout=20) is None, "the new head knows it", 10.0)
        assert {path.name for path in tmp_path.iterdir()} == set()


def test_fault10_a_node_that_does_not_come_back_is_dead_after_the_grace(tmp_path: Path) -> None:
    silence = {"dead_after_s": SILENCE_S}
    made = Restartable(tmp_path, {"locs": {"c", "spare"}, **silence}, {"locs": {"spare"}, **silence}, **silence)
    with made.cluster:
        _, _, c, other = made.cluster.nodes
        spare = Counter.options(name="spare", lifetime="detached", locs={"spare"}, num_cpus=0, max_task_retries=1)
        actor = spare.remote(7)
        while actor.node.remote().get(timeout=10) != c.node_id:
            zmreg.kill(actor)
            actor = spare.remote(7)
        made.kill()
        made.cluster.kill_node(c.node_id)
        began = time.monotonic()
        made.start()
        assert zmreg.get_actor("spare").add.remote().get(timeout=SILENCE_S + 20) == 8
        assert time.monotonic() - began > SILENCE_S, "it might have come"
        assert actor.node.remote().get(timeout=10) == other.node_id


# -- fault 11 ----------------------------------------------------------------------------------------------------------


@pytest.mark.timeout(120)
def test_fault11_five_kills_at_any_moment_lose_no_registration(restartable: Restartable) -> None:
    acknowledged: list[str] = []
    handles = []
    stop = threading.Event()

    def register() -> None:
        number = 0
        while not stop.is_set():
            number += 1
            handles.append(Held.options(name=f"n{number}", lifetime="detached", num_cpus=0).remote(gate))
            acknowledged.append(f"n{number}")

    gate = waiting_forever.remote()  # they wait for it, and take no process
    chance = random.Random(11)
    registering = threading.Thread(target=register)
    registering.start()
    for _ in range(5):
        had = len(acknowledged)
        until(lambda had=had: len(acknowledged) > had + 2, "no name was acknowledged", 30.0)
        stop.wait(chance.random() / 10)
        restartable.restart()
    had = len(acknowledged)
    until(lambda: len(acknowledged) > had, "no name was acknowledged", 30.0)
    stop.set()
    registering.join(PATIENCE_S)
    rows = {row["Name"] for row in ask(restartable.head, "actors")}
    assert set(acknowledged) <= rows and len(acknowledged) >= 15
    restartable.kill()
    assert epoch_of(restartable.state) == 6
    restartable.start()


@zmreg.remote(num_cpus=0)
class Held:
    def __init__(self, gate):
        self.gate = gate


@zmreg.remote(**AT_B)
def waiting_forever():
    time.sleep(600)


def epoch_of(state: Path) -> int:
    with contextlib.closing(sqlite3.connect(state / FILE)) as database:
        return int(database.execute("SELECT value FROM meta WHERE name = 'epoch'").fetchone()[0])


# -- fault 12 ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def impatient(tmp_path: Path) -> Iterator[Restartable]:
    """Its node b gives up soon."""
    made = Restartable(tmp_path, head_timeout_s=NO_HEAD_S)
    with made.cluster:
        yield made


def test_fault12_without_a_head_names_fail_by_a_deadline_and_all_else_goes_on(impatient: Restartable) -> None:
    restartable = impatient
    known = Counter.options(**AT_B).remote()
    assert known.add.remote().get(timeout=10) == 1
    large = zmreg.put(bytes(1 << 20))
    restartable.kill()
    began = time.monotonic()
    ordered = Counter.options(**AT_B).remote()  # in good hope
    call = ordered.add.remote()
    with pytest.raises(zmreg.errors.HeadUnavailableError, match="no head for 2 s"):
        zmreg.get_actor("anything")
    assert NO_HEAD_S < time.monotonic() - began < NO_HEAD_S + 10
    with pytest.raises(zmreg.errors.HeadUnavailableError):
        call.get(timeout=5)
    began = time.monotonic()
    for order in (lambda: Counter.remote(), lambda: Counter.options(name="x").remote(), lambda: zmreg.get_actor("x")):
        with pytest.raises(zmreg.errors.HeadUnavailableError, match="same state directory"):
            order()
    assert time.monotonic() - began < 1, "that there is none is known by now"
    assert known.add.remote().get(timeout=5) == 2
    assert double.remote(4).get(timeout=10) == 8
    assert len(large.get(timeout=5)) == 1 << 20
    restartable.start()
    restartable.until_followed()
    assert ordered.add.remote().get(timeout=20) == 1, "it was never forgotten"
    assert Counter.options(**AT_B).remote().add.remote().get(timeout=20) == 1


# -- faults 13 and 14 --------------------------------------------------------------------------------------------------


def test_fault13_a_second_head_with_the_same_state_is_refused_with_the_pid_of_the_first(
    restartable: Restartable,
) -> None:
    with pytest.raises(zmreg.errors.StateLockedError, match=f"held by pid {restartable.head.pid}"):
        restartable.start()
    assert double.remote(1).get(timeout=10) == 2


def test_fault14_a_head_from_a_copy_of_the_state_ends_with_an_alarm(restartable: Restartable, tmp_path: Path) -> None:
    named = Counter.options(name="far", **DETACHED_AT_B).remote()
    assert named.add.remote().get(timeout=10) == 1
    restartable.kill()
    copy = tmp_path / "copy"
    copy.mkdir(mode=0o700)
    for path in restartable.state.glob("head.*"):
        shutil.copy(path, copy / path.name)
    for _ in range(2):
        restartable.start()
        restartable.until_followed()
        restartable.kill()
    restartable.until_headless()
    former = restartable.start(copy)
    log = former.session / "logs" / "node.log"
    assert restartable.cluster.await_end(former.node_id, 15.0) == EXIT_FORMER_HEAD
    assert not log.exists() or "old copy" in log.read_text()
    assert "was started" in log_of(restartable.b) or ask(restartable.b, "health")["HeadLost"]
    restartable.start()
    restartable.until_followed()
    assert zmreg.get_actor("far").add.remote().get(timeout=20) == 2


# -- fault 40 ----------------------------------------------------------------------------------------------------------


def test_fault40_a_head_that_cannot_write_refuses_names_and_goes_on(restartable: Restartable) -> None:
    kept = Counter.options(name="kept", **DETACHED_AT_B).remote()
    assert kept.add.remote().get(timeout=10) == 1
    wal = restartable.state / f"{FILE}-wal"
    limits = resource.prlimit(restartable.head.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(restartable.head.pid, resource.RLIMIT_FSIZE, (wal.stat().st_size, limits[1]))
    with pytest.raises(zmreg.errors.StateError, match="cannot write its state"):
        Counter.options(name="late", **DETACHED_AT_B).remote()
    assert Counter.options(**AT_B).remote().add.remote().get(timeout=20) == 1, "nobody was promised anything there"
    assert zmreg.get_actor("kept").add.remote().get(timeout=10) == 2
    resource.prlimit(restartable.head.pid, resource.RLIMIT_FSIZE, limits)
    made: list[object] = []

    def again() -> bool:
        try:
            made.append(Counter.options(name="late", **DETACHED_AT_B).remote())
        except zmreg.errors.StateError:
            return False
        return True

    until(again, "it does not write although it could")
    restartable.restart()
    assert zmreg.get_actor("late").add.remote().get(timeout=20) == 1
