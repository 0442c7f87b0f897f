"""Kill -9 of any process at any moment: soon nothing of that run is left, and survivors get a typed error or a retry.

A handful of seeded strikes here; `make chaos` runs fifty (ZMREG_CHAOS, ZMREG_CHAOS_SEED).
"""

from __future__ import annotations

import os
import random
import time

import psutil
import pytest

import zmreg
from tests.footprint import Footprint, is_locked
from tests.processes.drivers import Driver, eventually, session_paths
from zmreg.services.machine.directories import new_session, runtime_root, sweep

# The bound that the promise names.
CLEAN_WITHIN_S = 5.0
STRIKES = int(os.environ.get("ZMREG_CHAOS", "6"))
SEED = int(os.environ.get("ZMREG_CHAOS_SEED", "7"))
VICTIMS = ("driver", "node", "zygote", "worker", "everything", "node")

WORKLOAD = """
try:
    info = zmreg.init(num_cpus=2, object_store_bytes=8 << 20)
except zmreg.errors.ClusterError as error:
    say("round", 0, "ClusterError")
    say("end", None)
    sys.exit()
say("session", info.session)

@zmreg.remote
def small(x):
    return x

@zmreg.remote
def large(n):
    time.sleep(0.01)
    return bytes(n)

@zmreg.remote(max_restarts=-1, max_task_retries=-1)
class Counter:
    def add(self):
        return 1

def round(number):
    counter = Counter.remote()
    spilling = [large.remote(2 << 20) for _ in range(6)]
    refs = [small.remote(i) for i in range(50)] + [counter.add.remote() for _ in range(20)]
    kept = zmreg.put(bytes(1 << 20))
    assert zmreg.get(refs, timeout=30) == [*range(50), *[1] * 20]
    assert [len(ref.get(timeout=30)) for ref in spilling] == [2 << 20] * 6
    assert len(kept.get(timeout=30)) == 1 << 20
    return "good"

ends = time.monotonic() + 2.5
number = 0
while time.monotonic() < ends and zmreg.is_initialized():
    number += 1
    say("round", number, typed(lambda: round(number)))
say("end", typed(zmreg.shutdown))
"""


@pytest.mark.timeout(60 + 15 * STRIKES)
def test_C21_kill_9_at_random_moments_leaves_nothing():
    chance = random.Random(SEED)
    for number in range(STRIKES):
        victim = VICTIMS[number % len(VICTIMS)]
        early = chance.random() < 0.3
        delay = chance.random() * (0.2 if early else 1.5)
        try:
            strike(victim, early, delay, chance)
        except AssertionError as error:
            error.add_note(f"strike {number} of seed {SEED}: {victim}, {'early, ' * early}after {delay:.3f} s")
            raise


def strike(victim: str, early: bool, delay: float, chance: random.Random) -> None:
    """Kill one process, or all, of a cluster that starts (`early`) or is busy."""
    before = Footprint.now()
    with Driver(WORKLOAD) as driver:
        if not early:
            driver.after("session")
        candidates = driver.member("node" if victim in ("driver", "everything") else victim)
        time.sleep(delay)
        if victim == "everything":
            candidates = driver.processes()
        elif victim == "driver":
            candidates = driver.member("driver")
        else:
            candidates = [chance.choice(driver.member(victim))]
        for process in candidates:
            kill(process)
        if victim in ("driver", "everything"):
            driver.end()
        else:
            assert outcome(driver) in (("ClusterError",) if victim == "node" else ("good",))
            assert driver.end() == 0
        assert driver.left(CLEAN_WITHIN_S) == []
    if victim == "everything":  # nobody was left to clean up: the next start does it
        eventually(lambda: sweep(runtime_root()) or not before.leaks(0), CLEAN_WITHIN_S, "locks are still held")
    assert before.leaks(CLEAN_WITHIN_S) == []


def kill(process: psutil.Process) -> None:
    try:
        process.kill()
    except psutil.NoSuchProcess:
        return


def outcome(driver: Driver) -> str:
    """The verdict of the last round; the program ends by itself after it."""
    verdict = "good"
    while not (line := driver.line()).startswith("end"):
        if line.startswith("round"):
            verdict = line.split()[2]
    assert line == "end None", line
    return verdict


@pytest.mark.alone  # whoever starts next sweeps, also another test
def test_fault66_a_session_is_swept_by_its_lock_and_not_by_a_pid():
    session = new_session()
    try:
        (session.path / "a1b2c3").write_bytes(b"")  # a stale socket
        assert sweep(runtime_root()) == [], "its lock is held: it lives"
        session.let_go()
        assert set(sweep(runtime_root())) == {session.path, session.arena, session.spill}
    finally:
        assert session_paths(str(session.path)) == []


@pytest.mark.alone  # whoever starts next sweeps, also another test
def test_fault67_after_kill_9_of_everything_the_next_start_sweeps_and_works():
    with Driver("say('session', zmreg.init(num_cpus=1).session); signal.pause()") as driver:
        session = driver.after("session")
        for process in driver.processes():
            kill(process)
        driver.end()
        assert driver.left(CLEAN_WITHIN_S) == []
    assert len(session_paths(session)) == 3, "nobody was left to remove it; otherwise this test tests nothing"
    # A worker that was just being forked has no environment to be found by, and holds the locks until it has ended.
    eventually(lambda: not any(map(is_locked, session_paths(session))), CLEAN_WITHIN_S, "locks are still held")
    with zmreg.init(num_cpus=1):
        assert session_paths(session) == []
        assert zmreg.remote(len).remote("abc").get(timeout=20) == 3


def test_fault67_node_and_zygote_killed_together_leave_nothing_behind_the_driver():
    with Driver(
        """
        info = zmreg.init(num_cpus=1)
        ref = zmreg.remote(time.sleep).remote(60)
        say('session', info.session)
        say('error', typed(lambda: ref.get(timeout=20)))
        zmreg.shutdown()
        """.replace("\n        ", "\n")
    ) as driver:
        session = driver.after("session")
        for process in [*driver.member("zygote"), *driver.member("node")]:
            kill(process)
        assert driver.after("error") == "ClusterError"
        assert driver.end() == 0
        assert driver.left(CLEAN_WITHIN_S) == []
        assert session_paths(session) == []


def test_C20_a_clean_exit_deletes_logs_spill_files_and_memory():
    with Driver(
        """
        info = zmreg.init(num_cpus=1, object_store_bytes=4 << 20)
        refs = [zmreg.put(bytes(1 << 20)) for _ in range(6)]
        assert len(refs[0].get(timeout=20)) == 1 << 20
        zmreg.remote(print).remote("noise").get(timeout=20)
        say('session', info.session, zmreg.stats()["store"]["spilled_bytes_total"] > 0)
        """.replace("\n        ", "\n")
    ) as driver:
        session, spilled = driver.after("session").split()
        assert spilled == "True"
        assert driver.end() == 0
        assert session_paths(session) == []


def test_C21_processes_started_by_user_code_end_with_the_session():
    with Driver(
        """
        zmreg.init(num_cpus=1)
        @zmreg.remote
        def start():
            import subprocess
            plain = subprocess.Popen(["sleep", "100"])
            apart = subprocess.Popen(["sleep", "100"], start_new_session=True)
            return plain.pid, apart.pid
        say('pids', *start.remote().get(timeout=20))
        signal.pause()
        """.replace("\n        ", "\n")
    ) as driver:
        pids = [int(word) for word in driver.after("pids").split()]
        assert all(psutil.pid_exists(pid) for pid in pids)
        driver.process.kill()
        driver.end()
        assert driver.left(CLEAN_WITHIN_S) == []
