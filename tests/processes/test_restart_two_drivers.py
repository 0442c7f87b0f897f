"""X16 with two programs at one cluster: who did not ask for a clean cluster sees all workers die at once."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import zmreg
from tests.processes.clusters import PATIENCE_S, ask, until
from tests.processes.drivers import Driver
from zmreg.model.errors import TaskCancelledError
from zmreg.testing.cluster import LocalCluster

OTHER = """
zmreg.init(address={address!r}, log_to_driver=False)

def wait_for(path):
    deadline = time.monotonic() + 60
    while not os.path.exists(path) and time.monotonic() < deadline:
        time.sleep(0.01)

def note(path):
    with open(path, "a") as file:
        file.write("begun\\n")

@zmreg.remote(max_retries=1)
def patient(path, gate):
    note(path)
    wait_for(gate)
    return "patient"

@zmreg.remote(max_retries=0)
def once(path, gate):
    note(path)
    wait_for(gate)
    return "once"

@zmreg.remote(max_restarts=1)
class Keeper:
    def add(self):
        return 1

keeper = Keeper.remote()
assert keeper.add.remote().get(timeout=30) == 1
large = zmreg.put(bytes(1_000_000))
owned = zmreg.remote(lambda: [zmreg.put(bytes(500_000))]).remote().get(timeout=30)[0]
path, gate, end = {path!r}, {gate!r}, {gate!r} + ".end"
refs = [patient.remote(path, gate), once.remote(path, gate)]
queued = [patient.remote(path, gate) for _ in range(4)]
say("submitted")
wait_for(gate)
say("results", *[typed(lambda: ref.get(timeout=60)) for ref in (*refs, *queued)])
say("actor", typed(lambda: keeper.add.remote().get(timeout=30)))
say("values", len(large.get(timeout=30)), typed(lambda: owned.get(timeout=30)))
again = Keeper.remote()
say("again", again.add.remote().get(timeout=30), zmreg.stats()["errors"]["internal"])
zmreg.restart()
say("restarted", patient.remote(path, gate).get(timeout=30))
wait_for(end)
zmreg.shutdown()
say("over")
"""


@zmreg.remote
def one():
    return 1


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster([{"num_cpus": 1}, {"num_cpus": 2}]) as made:
        made.attach()
        yield made


@pytest.mark.timeout(150)
@pytest.mark.parametrize("place", [0, 1], ids=["at the same node", "at another node"])
def test_x16_another_programs_tasks_are_tried_again_and_its_actors_die(
    cluster: LocalCluster, tmp_path: Path, place: int
) -> None:
    path, gate = tmp_path / "calls", tmp_path / "gate"
    text = OTHER.format(address=cluster.nodes[place].address, path=str(path), gate=str(gate))
    with Driver(text) as other:
        other.after("submitted")
        until(lambda: path.exists() and path.read_text().count("begun") >= 2, "nothing has begun")
        before = {row["Pid"] for node in cluster.nodes for row in ask(node, "workers")}
        mine = one.remote()  # behind all that
        zmreg.restart()
        after = {row["Pid"] for node in cluster.nodes for row in ask(node, "workers") if row["Ready"]}
        assert not before & after
        with pytest.raises(TaskCancelledError):
            mine.get(timeout=PATIENCE_S)
        gate.touch()
        assert other.after("results").split() == ["patient", "WorkerDiedError", *["patient"] * 4]
        assert other.after("actor").split() == ["ActorDiedError"]
        assert other.after("values").split() == ["1000000", "OwnerDiedError"]
        assert other.after("again").split() == ["1", "0"]
        waiting = [one.remote() for _ in range(20)]
        assert other.after("restarted").split() == ["patient"]
        assert zmreg.get(waiting, timeout=PATIENCE_S) == [1] * 20
        gate.with_suffix(".end").touch()
        other.after("over")
    assert zmreg.stats()["errors"]["internal"] == 0


@pytest.mark.timeout(120)
def test_x16_two_programs_restart_the_cluster_at_the_same_time(cluster: LocalCluster) -> None:
    text = f"""
zmreg.init(address={cluster.nodes[1].address!r}, log_to_driver=False)
one = zmreg.remote(max_retries=-1)(lambda: 1)
for _ in range(5):
    refs = [one.remote() for _ in range(20)]
    zmreg.restart()
    assert all(ref.done() for ref in refs)
say("sum", sum(zmreg.get([one.remote() for _ in range(20)], timeout=60)))
zmreg.shutdown()
"""
    many = one.options(max_retries=-1)
    with Driver(text) as other:
        for _ in range(5):
            refs = [many.remote() for _ in range(20)]
            zmreg.restart()
            assert all(ref.done() for ref in refs)
        assert zmreg.get([many.remote() for _ in range(20)], timeout=60) == [1] * 20
        assert other.after("sum").split() == ["20"]
