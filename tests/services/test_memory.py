"""Fault 47: what counts as memory in use, by a /proc and control groups made of paper; and tasks that rest."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from zmreg.core.memory import GIB, MIB
from zmreg.model.settings import Settings
from zmreg.model.specs import Shape
from zmreg.services.calling.calls import Task, Template
from zmreg.services.calling.resting import MAX_PAUSE_S, Resting
from zmreg.services.machine.memory import ROOT_VARIABLE, Meter, own_bytes
from zmreg.services.node.guard import Guard, _Doing
from zmreg.services.node.node import Node
from zmreg.services.node.nursery import Child
from zmreg.services.setup.launch import filled

UNLIMITED_V1 = 9223372036854771712


def machine(root: Path, total: int = 16 * GIB, available: int = 4 * GIB, groups: str = "") -> Path:
    (root / "proc/self").mkdir(parents=True)
    (root / "proc/meminfo").write_text(f"MemTotal: {total // 1024} kB\nMemAvailable: {available // 1024} kB\nNone: 0\n")
    if groups:
        (root / "proc/self/cgroup").write_text(groups)
    return root


def group(root: Path, path: str, limit: object, used: int, cache: int = 0, kills: int = 0) -> None:
    """One of version 2."""
    there = root / "sys/fs/cgroup" / path
    there.mkdir(parents=True, exist_ok=True)
    (root / "sys/fs/cgroup/cgroup.controllers").write_text("memory pids\n")
    (there / "memory.max").write_text(f"{limit}\n")
    (there / "memory.current").write_text(f"{used}\n")
    (there / "memory.stat").write_text(f"anon {used - cache}\ninactive_file {cache}\nactive_file 0\nshmem 7\n")
    (there / "memory.events").write_text(f"low 0\noom 1\noom_kill {kills}\n")


def group_v1(root: Path, path: str, limit: int, used: int, cache: int = 0, kills: int = 0) -> None:
    there = root / "sys/fs/cgroup/memory" / path
    there.mkdir(parents=True, exist_ok=True)
    (there / "memory.limit_in_bytes").write_text(f"{limit}\n")
    (there / "memory.usage_in_bytes").write_text(f"{used}\n")
    (there / "memory.stat").write_text(f"cache {cache}\ntotal_inactive_file 0\ntotal_active_file {cache}\n")
    (there / "memory.oom_control").write_text(f"oom_kill_disable 0\nunder_oom 0\noom_kill {kills}\n")


def test_fault47_the_machine_counts_where_no_group_has_a_limit(tmp_path: Path):
    root = machine(tmp_path, groups="0::/user.slice/mine\n")
    group(root, "user.slice/mine", "max", 5 * GIB, kills=3)
    reading = Meter(root).read()
    assert reading is not None
    assert (reading.used, reading.limit, reading.kills) == (12 * GIB, 16 * GIB, 3)
    assert reading.source == "the machine's memory"


def test_fault47_the_narrowest_limit_counts_whichever_level_has_it(tmp_path: Path):
    root = machine(tmp_path, groups="0::/pod/box\n")
    group(root, "pod/box", "max", 1 * GIB)
    group(root, "pod", 2 * GIB, 1900 * MIB, cache=100 * MIB)
    meter = Meter(root)
    reading = meter.read()
    assert reading is not None
    assert (reading.used, reading.limit) == (1800 * MIB, 2 * GIB), "page cache is given up by the kernel"
    assert reading.source.endswith("/sys/fs/cgroup/pod/memory.max")
    group(root, "pod/box", 1100 * MIB, 1 * GIB)
    narrower = meter.read()
    assert narrower is not None and narrower.source.endswith("pod/box/memory.max"), "a limit may change any time"


def test_fault47_a_container_that_sees_only_the_top_of_its_groups(tmp_path: Path):
    root = machine(tmp_path, groups="0::/host/path/of/it\n")
    group(root, "", 1 * GIB, 900 * MIB)
    reading = Meter(root).read()
    assert reading is not None and (reading.used, reading.limit) == (900 * MIB, 1 * GIB)


def test_fault47_groups_of_version_1(tmp_path: Path):
    root = machine(tmp_path, groups="3:cpu,cpuacct:/x\n4:memory:/docker/abc\n0::/elsewhere\n")
    group_v1(root, "", UNLIMITED_V1, 9 * GIB)
    group_v1(root, "docker/abc", 1 * GIB, 950 * MIB, cache=50 * MIB, kills=2)
    reading = Meter(root).read()
    assert reading is not None
    assert (reading.used, reading.limit, reading.kills) == (900 * MIB, 1 * GIB, 2)


def test_fault47_no_proc_no_watch(tmp_path: Path):
    assert Meter(tmp_path).read() is None


def test_fault47_this_machine_can_be_read():
    reading = Meter(Path("/")).read()
    assert reading is not None and 0 < reading.used < reading.limit


# In a process of its own: in this one, whatever other tests have left may go at any moment.
TAKES = """
import os
from zmreg.services.machine.memory import own_bytes

before = own_bytes(os.getpid())
held = bytearray(b"x") * (64 << 20)
print(own_bytes(os.getpid()) - before)
"""


def test_fault47_own_memory_grows_by_what_is_taken():
    child = subprocess.run([sys.executable, "-c", TAKES], capture_output=True, text=True, timeout=30, check=True)
    assert 60 * MIB < int(child.stdout) < 80 * MIB
    assert own_bytes(2**22 + 1) == 0, "nobody"


@pytest.mark.parametrize("wrong", [{"memory_threshold": 95.0}, {"memory_threshold": -0.1}, {"memory_check_s": -1.0}])
def test_fault47_a_threshold_that_is_no_share_is_refused(wrong: dict[str, float]):
    with pytest.raises(ValueError, match="memory_threshold"):
        filled(Settings(**wrong))


def test_fault47_a_task_rests_longer_each_time_and_not_when_it_has_ended():
    started: list[int] = []
    resting = Resting(lambda task: started.append(task.counter))
    template = Template("f", b"", Shape())
    tasks = [Task(counter, template, b"", 0) for counter in (1, 2, 3)]
    for task in tasks:
        resting.put(task, task.counter, now=100.0)
    resting.put(Task(9, template, b"", 0), 50, now=100.0)
    alive = {1, 2, 9}
    for now in (100.9, 101.0, 101.9, 102.0, 104.1, 100.0 + MAX_PAUSE_S):
        resting.tick(now, lambda task: task.counter in alive)
        if now == 101.9:
            assert started == [1]
    assert started == [1, 2, 9], "3 was cancelled meanwhile"
    assert not resting


class _Recorder:
    """A node with nothing but what the guard needs: no workers, and lease books that note what they are told."""

    def __init__(self, root: Path) -> None:
        self.settings = Settings()
        self.config = {"session": str(root)}
        self.leases = SimpleNamespace(tight=False)
        self.nursery = SimpleNamespace(children={})


def test_fault47_nothing_is_held_up_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A task that looks for the end of another, without waiting in a call of ours, needs that one to begin."""
    monkeypatch.setenv(ROOT_VARIABLE, str(machine(tmp_path, available=GIB // 4)))
    node = _Recorder(tmp_path)
    guard = Guard(cast(Node, node))
    held = []
    for now in (1.0, 10.0, 30.9, 31.1, 50.0):
        guard.tick(now)
        held.append(node.leases.tight)
    assert held == [True, True, True, False, False]
    (tmp_path / "proc/meminfo").unlink()
    guard.tick(60.0)
    assert not node.leases.tight
    (tmp_path / "proc/meminfo").write_text(f"MemTotal: {1 << 20} kB\nMemAvailable: 1 kB\n")
    guard.tick(70.0)
    assert node.leases.tight, "another shortage"


@pytest.mark.parametrize(("restarts", "rank"), [((), ("task", True)), ((True,), ("actor", True))])
def test_X33_who_lodges_in_a_process_is_spared_like_any_actor(
    tmp_path: Path, restarts: tuple[bool, ...], rank: tuple[str, bool]
):
    """Its task would be tried again, so that it went first, with actors in it that nobody makes anew."""
    node = _Recorder(tmp_path)
    node.leases.use_of = lambda worker: "leased"
    guard, house = Guard(cast(Node, node)), b"house---"
    node.nursery.children[house] = Child(house, os.getpid(), ready=True)
    guard._doing[house] = _Doing(bytes(16), 1.0, True)
    for number, each in enumerate(restarts):
        lodger = b"lodger-%d" % number
        node.nursery.children[lodger] = Child(lodger, os.getpid(), is_actor=True, restarts=each, house=house)
    (found,) = guard._occupants()
    assert (found.use, found.again) == rank
    node.nursery.children[b"one more"] = Child(b"one more", os.getpid(), is_actor=True, house=house)
    (found,) = guard._occupants()
    assert (found.use, found.again) == ("actor", False)
