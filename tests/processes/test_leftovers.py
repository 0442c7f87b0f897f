"""Kill -9 of any process at any moment: soon nothing of that run is left, and survivors get a typed error or a retry."""

from __future__ import annotations

import json
import os
import random
import signal
import time

import pytest

from tests.footprint import Footprint
from tests.processes.drivers import Driver, gone, session_paths

# The bound the promise names; the footprint check of every test waits exactly that long too.
CLEAN_WITHIN_S = 5.0

WORKLOAD = """
info = zmreg.init(num_cpus=2, object_store_bytes=8 << 20)
say("session", info.session)
say("pids", pids())

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
    assert zmreg.get(refs, timeout=20) == [*range(50), *[1] * 20]
    assert [len(ref.get(timeout=20)) for ref in spilling] == [2 << 20] * 6
    assert len(kept.get(timeout=20)) == 1 << 20
    return "good"

ends = time.monotonic() + 3
number = 0
while time.monotonic() < ends:
    number += 1
    say("round", number, typed(lambda: round(number)))
say("end", typed(zmreg.shutdown))
"""


@pytest.mark.parametrize("victim", ["driver", "node", "zygote", "worker"])
def test_C21_kill_9_leaves_nothing(victim):
    strike(victim, random.Random(victim))


def strike(victim: str, chance: random.Random) -> None:
    """Kill one process of a busy cluster at a random moment."""
    with Driver(WORKLOAD) as driver:
        session = driver.after("session")
        pids = json.loads(driver.after("pids"))
        time.sleep(chance.random() * 1.5)
        target = chance.choice(pids["workers"]) if victim == "worker" else pids[victim]
        os.kill(target, signal.SIGKILL)
        if victim == "driver":
            driver.end()
        else:
            verdict = "good"
            while (line := driver.line()).startswith("round"):
                verdict = line.split()[2]
            assert line.startswith("end"), line
            assert verdict == ("ClusterError" if victim == "node" else "good")
            assert driver.end() == 0
        everyone = [pids["driver"], pids["node"], pids["zygote"], *pids["workers"]]
        assert gone(everyone, CLEAN_WITHIN_S) == []
        assert session_paths(session) == []
