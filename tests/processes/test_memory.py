"""Faults 47 and 48: memory runs short, by figures on paper and in a control group of 400 MB; the machine never is.

The first kind has a /proc and a control group of its own in a directory, and tasks that write there what they take.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

import zmreg
from tests.processes.clusters import ask
from tests.processes.drivers import eventually
from zmreg.services.machine.memory import ROOT_VARIABLE, own_bytes
from zmreg.testing import LocalCluster

pytestmark = pytest.mark.near
MiB = 1 << 20
LIMIT = 1000 * MiB
PATIENCE_S = 30.0
# Memory that a task takes for real, beside what it says on paper: more than core.memory spares anybody for.
REAL = 48 * MiB


class Paper:
    """The control group of paper: `use` says how much of LIMIT is in use."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.group = root / "sys/fs/cgroup/job"
        self.group.mkdir(parents=True)
        (root / "proc/self").mkdir(parents=True)
        (root / "proc/meminfo").write_text(f"MemTotal: {64 << 20} kB\nMemAvailable: {60 << 20} kB\n")
        (root / "proc/self/cgroup").write_text("0::/job\n")
        (root / "sys/fs/cgroup/cgroup.controllers").write_text("memory\n")
        (self.group / "memory.max").write_text(f"{LIMIT}\n")
        (self.group / "memory.stat").write_text("inactive_file 0\n")
        (self.group / "memory.events").write_text("oom_kill 0\n")
        self.use(0.1)

    def use(self, share: float) -> None:
        fresh = self.group / "fresh"
        fresh.write_text(f"{int(share * LIMIT)}\n")
        fresh.rename(self.group / "memory.current")

    def kernel_has_killed(self, count: int) -> None:
        (self.group / "memory.events").write_text(f"oom_kill {count}\n")


@pytest.fixture
def paper(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Paper:
    monkeypatch.setenv(ROOT_VARIABLE, str(tmp_path / "root"))
    return Paper(tmp_path / "root")


@pytest.fixture
def two_cpus(paper: Paper) -> Iterator[Paper]:
    zmreg.init(num_cpus=2)
    yield paper
    zmreg.shutdown()


def note(path: Path, name: str) -> None:
    """One line in a file that several processes write to."""
    with path.open("a") as file:
        file.write(f"{name} {os.getpid()}\n")


def take_and_wait(name: str, path: Path, until: Path) -> str:
    """Take REAL bytes, say so, and hold them until there is a file."""
    held = bytearray(os.urandom(1)) * REAL
    note(path, name)
    while not until.exists():
        time.sleep(0.01)
    return f"{name} {len(held)}"


def lines(path: Path) -> list[str]:
    return path.read_text().splitlines() if path.exists() else []


def begun(path: Path, name: str, times: int = 1) -> Callable[[], bool]:
    return lambda: sum(line.startswith(f"{name} ") for line in lines(path)) >= times


def ended() -> int:
    return int(zmreg.stats()["memory"]["ended"])


def test_fault47_the_newest_task_is_ended_and_tried_again(two_cpus: Paper, tmp_path: Path):
    """It comes back after a second, on an attempt that is not counted."""
    path, go = tmp_path / "log", tmp_path / "go"
    task = zmreg.remote(take_and_wait)
    old = task.remote("old", path, go)
    eventually(begun(path, "old"), PATIENCE_S, "the first has not begun")
    two_cpus.use(0.9)  # near: who is in what is looked at from now on
    eventually(lambda: zmreg.stats()["memory"]["used_bytes"] >= 0.9 * LIMIT, PATIENCE_S, "nobody has looked")
    new = task.remote("new", path, go)
    eventually(begun(path, "new"), PATIENCE_S, "the second has not begun")
    two_cpus.use(0.96)
    eventually(lambda: ended() == 1, PATIENCE_S, "nobody was ended")
    two_cpus.use(0.5)
    eventually(begun(path, "new", 2), PATIENCE_S, "it was not tried again")
    go.touch()
    assert zmreg.get([old, new], timeout=PATIENCE_S) == [f"old {REAL}", f"new {REAL}"]
    assert ended() == 1 and not begun(path, "old", 2)()


def test_fault47_what_is_tried_again_goes_before_a_newer_one_that_is_not(two_cpus: Paper, tmp_path: Path):
    path, go = tmp_path / "log", tmp_path / "go"
    two_cpus.use(0.9)
    task = zmreg.remote(take_and_wait)
    again = task.remote("again", path, go)
    eventually(begun(path, "again"), PATIENCE_S, "the first has not begun")
    once = task.options(max_retries=0).remote("once", path, go)
    eventually(begun(path, "once"), PATIENCE_S, "the second has not begun")
    two_cpus.use(0.96)
    eventually(lambda: ended() == 1, PATIENCE_S, "nobody was ended")
    two_cpus.use(0.2)
    eventually(begun(path, "again", 2), PATIENCE_S, "it was not tried again")
    go.touch()
    assert zmreg.get([again, once], timeout=PATIENCE_S) == [f"again {REAL}", f"once {REAL}"]


def test_fault47_a_real_process_that_grows_ends_as_a_typed_error_with_figures(two_cpus: Paper, tmp_path: Path):
    def grow(current: Path) -> None:
        held = []
        while True:
            held.append(bytearray(os.urandom(1)) * (8 * MiB))
            fresh = current.with_name(f"grown-{os.getpid()}")
            fresh.write_text(f"{700 * MiB + 8 * MiB * len(held)}\n")
            fresh.rename(current)
            time.sleep(0.02)

    task = zmreg.remote(max_retries=0, name="grower")(grow)
    with pytest.raises(zmreg.errors.OutOfMemoryError) as caught:
        task.remote(two_cpus.group / "memory.current").get(timeout=PATIENCE_S)
    error = caught.value
    assert isinstance(error, MemoryError) and not isinstance(error, zmreg.errors.WorkerDiedError)
    assert error.rss_bytes is not None and 200 * MiB < error.rss_bytes < 700 * MiB
    for part in (
        "grower",
        "of 1000 MiB",
        "memory_threshold=0.95",
        "memory.max",
        "of its own",
        "driver pid=",
        "max_retries",
    ):
        assert part in str(error), str(error)
    two_cpus.use(0.1)
    assert zmreg.get(zmreg.remote(lambda: 7).remote(), timeout=PATIENCE_S) == 7


def test_fault47_a_task_that_always_needs_too_much_is_told_so(two_cpus: Paper, tmp_path: Path):
    """Its own budget, as large as max_retries, with a pause before each."""
    path, never = tmp_path / "log", tmp_path / "never"
    task = zmreg.remote(max_retries=1)(take_and_wait)
    two_cpus.use(0.97)
    ref = task.remote("much", path, never)
    began = time.monotonic()
    with pytest.raises(zmreg.errors.OutOfMemoryError, match="ended 2 times for want of memory"):
        ref.get(timeout=PATIENCE_S)
    assert time.monotonic() - began >= 1.0
    assert len(lines(path)) <= 2 and ended() == 2


def test_fault47_an_actor_that_is_ended_dies_with_the_figures(two_cpus: Paper):
    @zmreg.remote
    class Hoard:
        def __init__(self) -> None:
            self.held = bytearray(os.urandom(1)) * REAL

        def pid(self) -> int:
            return os.getpid()

    for_good, again = Hoard.remote(), Hoard.options(max_restarts=1, max_task_retries=2).remote()
    first, before = zmreg.get([for_good.pid.remote(), again.pid.remote()], timeout=PATIENCE_S)
    two_cpus.use(0.96)
    eventually(lambda: ended() == 1, PATIENCE_S, "nobody was ended")
    two_cpus.use(0.1)
    after = zmreg.get(again.pid.remote(), timeout=PATIENCE_S)
    assert after != before, "the one that comes back goes first"
    assert zmreg.get(for_good.pid.remote(), timeout=PATIENCE_S) == first
    zmreg.kill(again)
    two_cpus.use(0.96)
    eventually(lambda: ended() == 2, PATIENCE_S, "nobody was ended")
    two_cpus.use(0.1)
    with pytest.raises(zmreg.errors.ActorDiedError, match="memory_threshold") as caught:
        for_good.pid.remote().get(timeout=PATIENCE_S)
    assert isinstance(caught.value.cause, zmreg.errors.OutOfMemoryError)
    assert caught.value.cause.rss_bytes is not None and caught.value.cause.rss_bytes >= REAL


def test_fault47_memory_that_is_somebody_elses_ends_nobody(two_cpus: Paper, tmp_path: Path):
    two_cpus.use(0.99)
    square = zmreg.remote(lambda number: number * number)
    assert zmreg.get([square.remote(number) for number in range(200)], timeout=PATIENCE_S)[-1] == 199 * 199
    eventually(lambda: zmreg.stats()["memory"]["used_bytes"] >= 0.99 * LIMIT, PATIENCE_S, "nobody has looked")
    assert zmreg.get(square.remote(3), timeout=PATIENCE_S) == 9
    assert ended() == 0


@pytest.mark.parametrize("off", [{"memory_threshold": 0.0}, {"memory_check_s": 0.0}], ids=str)
def test_fault47_it_can_be_switched_off(paper: Paper, tmp_path: Path, off: dict[str, float]):
    paper.use(0.99)
    with zmreg.init(num_cpus=1, **off):
        path, go = tmp_path / "log", tmp_path / "go"
        ref = zmreg.remote(max_retries=0)(take_and_wait).remote("held", path, go)
        eventually(begun(path, "held"), PATIENCE_S, "it has not begun")
        with pytest.raises(zmreg.errors.GetTimeoutError):
            ref.get(timeout=1.0)
        go.touch()
        assert ref.get(timeout=PATIENCE_S) == f"held {REAL}"


def test_fault47_while_memory_is_short_nothing_new_is_lent(two_cpus: Paper, tmp_path: Path):
    """The soft step: one task goes on, another waits, although there is a CPU for it."""
    path, go = tmp_path / "log", tmp_path / "go"

    def small(name: str, path: Path, until: Path) -> None:
        note(path, name)
        while not until.exists():
            time.sleep(0.01)

    task = zmreg.remote(small)
    first = task.remote("first", path, go)
    eventually(begun(path, "first"), PATIENCE_S, "the first has not begun")
    two_cpus.use(0.99)
    eventually(lambda: zmreg.stats()["memory"]["used_bytes"] >= 0.99 * LIMIT, PATIENCE_S, "nobody has looked")
    second = task.remote("second", path, go)
    with pytest.raises(zmreg.errors.GetTimeoutError):
        second.get(timeout=1.0)
    assert not begun(path, "second")()
    go.touch()
    zmreg.get([first, second], timeout=PATIENCE_S)


def test_fault47_the_kernel_is_named_when_it_may_have_done_it(two_cpus: Paper):
    def die(paper: Paper) -> None:
        paper.kernel_has_killed(1)
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(zmreg.errors.WorkerDiedError, match="most likely by the kernel"):
        zmreg.remote(max_retries=0)(die).remote(two_cpus).get(timeout=PATIENCE_S)
    with pytest.raises(zmreg.errors.WorkerDiedError) as caught:  # nothing new since
        zmreg.remote(max_retries=0)(die).remote(two_cpus).get(timeout=PATIENCE_S)
    assert "kernel" not in str(caught.value)


def test_fault48_the_kernel_is_told_to_end_workers_first(two_cpus: Paper):
    def scores() -> tuple[int, int, int]:
        zygote = os.getppid()
        node = int(re.search(r"PPid:\s+(\d+)", Path(f"/proc/{zygote}/status").read_text()).group(1))  # type: ignore[union-attr]
        mine, theirs, nodes = (
            int(Path(f"/proc/{pid}/oom_score_adj").read_text()) for pid in (os.getpid(), zygote, node)
        )
        return mine, theirs, nodes

    worker, zygote, node = zmreg.get(zmreg.remote(scores).remote(), timeout=PATIENCE_S)
    assert worker == 1000
    assert zygote == node <= int(Path("/proc/self/oom_score_adj").read_text()), "-500 where that may be set"


GROUPS = Path("/sys/fs/cgroup/memory")
IN_A_GROUP = """
import os, sys, time
import zmreg

def grow(step, pause):
    held = []
    while True:
        held.append(bytearray(os.urandom(1)) * step)
        time.sleep(pause)

zmreg.init(num_cpus=1, object_store_bytes=64 << 20, memory_threshold=float(sys.argv[1]))
daemons = zmreg.nodes()[0]["Pid"], zmreg.stats()["zygote_pid"]
try:
    zmreg.remote(max_retries=0)(grow).remote(4 << 20, 0.02).get(timeout=40)
except zmreg.errors.ZmregError as error:
    print(type(error).__name__, str(error).replace(chr(10), " "))
assert zmreg.remote(lambda: 7).remote().get(timeout=20) == 7
assert daemons == (zmreg.nodes()[0]["Pid"], zmreg.stats()["zygote_pid"])
print("goes on")
zmreg.shutdown()
"""


@pytest.fixture
def in_a_group() -> Iterator[Callable[..., str]]:
    """Run IN_A_GROUP in a control group of 400 MB of its own; its output."""
    group = GROUPS / f"zmreg-test-{os.getpid()}"
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(400 * MiB))
    except OSError as error:
        pytest.skip(f"no control group of version 1 can be made here: {error}")

    def run(threshold: float) -> str:
        def enter() -> None:
            (group / "cgroup.procs").write_text("0")

        done = subprocess.run(
            [sys.executable, "-c", IN_A_GROUP, str(threshold)],
            preexec_fn=enter, capture_output=True, text=True, timeout=55, cwd=Path(__file__).parents[2],
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    yield run
    eventually(lambda: not (group / "cgroup.procs").read_text(), 10, "processes are left in the group")
    group.rmdir()


def test_fault47_in_a_real_control_group_the_guard_is_before_the_kernel(in_a_group: Callable[..., str]):
    said = in_a_group(0.8)
    assert said.startswith("OutOfMemoryError") and "goes on" in said
    assert "of 400 MiB" in said and "memory.limit_in_bytes" in said


def test_fault48_in_a_real_control_group_the_kernel_ends_the_worker_and_no_daemon(in_a_group: Callable[..., str]):
    said = in_a_group(0.0)
    assert said.startswith("WorkerDiedError") and "goes on" in said
    assert "most likely by the kernel" in said


def test_own_bytes_of_a_process_include_what_it_has_started():
    code = "import subprocess, sys; held = bytearray(b'1') * (40 << 20); print('up', flush=True); sys.stdin.read()"
    outer = f"import subprocess, sys; subprocess.run([sys.executable, '-c', {code!r}])"
    with subprocess.Popen([sys.executable, "-c", outer], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None and process.stdout.readline() == b"up\n"
        assert own_bytes(process.pid) - own_bytes(process.pid, with_children=False) >= 40 * MiB
        process.communicate()


def test_fault47_owners_on_other_nodes_are_asked_and_told(paper: Paper, tmp_path: Path):
    """The driver's seat is at one node, the work at another: who is tried again is ended, and comes back."""
    with LocalCluster([{"num_cpus": 0}, {"num_cpus": 2}]) as cluster:
        cluster.attach()
        path, go = tmp_path / "log", tmp_path / "go"
        task = zmreg.remote(take_and_wait)
        again = task.remote("again", path, go)
        eventually(begun(path, "again"), PATIENCE_S, "the first has not begun")
        once = task.options(max_retries=0).remote("once", path, go)
        eventually(begun(path, "once"), PATIENCE_S, "the second has not begun")
        paper.use(0.9)
        eventually(lambda: ask(cluster.nodes[1], "stats")["memory"]["used_bytes"] >= 0.9 * LIMIT, PATIENCE_S, "no look")
        paper.use(0.96)
        eventually(lambda: ask(cluster.nodes[1], "stats")["memory"]["ended"] == 1, PATIENCE_S, "nobody was ended")
        paper.use(0.2)
        eventually(begun(path, "again", 2), PATIENCE_S, "it was not tried again")
        last = task.options(max_retries=0, num_cpus=0).remote("last", path, tmp_path / "never")
        eventually(begun(path, "last"), PATIENCE_S, "the third has not begun")
        go.touch()
        assert zmreg.get([again, once], timeout=PATIENCE_S) == [f"again {REAL}", f"once {REAL}"]
        paper.use(0.96)
        with pytest.raises(zmreg.errors.OutOfMemoryError, match="of its own"):
            last.get(timeout=PATIENCE_S)
