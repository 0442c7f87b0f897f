"""Kill -9 of what a run consists of, at random moments: driver, worker, node, the sink's process (runs W3, W25).

Whatever dies, and when: rows of a phase that counts as done are there, and rows that were accepted one by one; no row
is there twice; finished parts stay what they are; and once the run is resumed, it is completed without a phase that was
done being run again. A strike on each here; `make chaos` has fifty (ZMREG_CHAOS, ZMREG_CHAOS_SEED).
"""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tests.processes.drivers import Driver, eventually
from zmreg import Sink
from zmreg.flows.results.result_dirs import LOCK, checksum, is_written, read_manifest
from zmreg.flows.runs.journal import is_running, summary_of
from zmreg.testing import LocalCluster

VICTIMS = ("driver", "worker", "node", "sink")
STRIKES = int(os.environ.get("ZMREG_CHAOS", str(len(VICTIMS))))
SEED = int(os.environ.get("ZMREG_CHAOS_SEED", "7"))
STAGE = {"num_cpus": 1, "locs": {"stage"}}
# A strike costs one run at least, and each one after it begins with phases less.
MOST_RUNS = 4
ITEMS = 30
# What phases write, themselves or as their results. "flow" makes numbers, which are no rows.
ROWS = {
    "first": {f"first/{n}" for n in range(ITEMS)},
    "last": {f"last/{n}" for n in range(ITEMS)},
}

PROGRAM = """
from pathlib import Path
where = Path(os.environ["WHERE"])
COUNT = 30

def note(name, word):
    with open(where / name, "a") as file:
        file.write(word + "\\n")

def first(item, sink):
    note("calls", "first")
    time.sleep(0.005)
    durable = item % 10 == 0
    sink.write({"id": f"first/{item}", "n": item}, durable=durable)
    if durable:
        note("accepted", f"first/{item}")
    return item

def plus(n):
    note("calls", "flow")
    time.sleep(0.005)
    return n + 1

def last(item, flow):
    note("calls", "last")
    time.sleep(0.005)
    return {"id": f"last/{item}", "n": flow[item]}

zmreg.init(os.environ["ADDRESS"])
place = {"stage"}
pipe = zmreg.Pipeline() | zmreg.stage(plus, locs=place, retries=2) | zmreg.stage(lambda n: n, name="same", locs=place)
phases = [
    zmreg.Phase("first", first, foreach=range(COUNT), locs=place, retries=2),
    zmreg.Phase("flow", pipe, ["first"], foreach="first"),
    zmreg.Phase("last", last, ["flow"], foreach=range(COUNT), locs=place, retries=2),
]
sink = zmreg.Sink(where / "rows", os.environ["FORMAT"], key="id", flush_interval=None)
say("begun")
result = typed(lambda: zmreg.run(phases, id="run", folder=where, resume=True, sink=sink))
if isinstance(result, str):
    say("end", result)
else:
    assert not result.ok or result["flow"] == [*range(1, COUNT + 1)]
    say("end", result.status, *result.reused)
zmreg.shutdown()
"""


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(nodes=[{"num_cpus": 0}, STAGE, STAGE]) as made:
        yield made


@pytest.mark.timeout(60 + 20 * STRIKES)
def test_W25_kill_9_at_random_moments_loses_no_row_and_repeats_no_phase(cluster: LocalCluster, tmp_path: Path) -> None:
    chance = random.Random(SEED)
    for number in range(STRIKES):
        victim, delay = VICTIMS[number % len(VICTIMS)], chance.random() * 1.2
        form = chance.choice(["jsonl", "parquet"])
        where = tmp_path / str(number)
        where.mkdir()
        try:
            strike(cluster, where, victim, delay, form, chance)
        except BaseException as error:
            error.add_note(f"strike {number} of seed {SEED}: {victim}, {form}, after {delay:.3f} s")
            raise


def strike(cluster: LocalCluster, where: Path, victim: str, delay: float, form: str, chance: random.Random) -> None:
    """One run, one death, and as many runs as it takes to complete it."""
    for attempt in range(MOST_RUNS):
        done, parts, calls = done_of(where), parts_of(where), calls_of(where)
        with Driver(PROGRAM, env={"WHERE": str(where), "ADDRESS": cluster.address, "FORMAT": form}) as driver:
            driver.after("begun")
            if attempt == 0:
                time.sleep(delay)  # the moment of death is what this is about
                kill(cluster, driver, where, victim, chance)
            if attempt == 0 and victim == "driver":
                driver.end()
                outcome = ["killed"]
            else:
                outcome = driver.after("end").split()
                assert driver.end() == 0
        assert not is_running(where / "run")
        if attempt or chance.random() < 0.5:  # else the next run begins while the sink still saves what it has
            eventually(lambda: not is_written(where / "rows"), 20, "the sink's process is still there")
            nothing_is_lost(where, parts)
        for phase in done:
            assert calls_of(where)[phase] == calls[phase], f"{phase} was done, and was run again"
        if outcome[0] == "completed":
            assert set(outcome[1:]) == done, "what was done is reused, and nothing else"
            break
    else:
        raise AssertionError(f"not completed after {MOST_RUNS} runs, the last one ended with {outcome}")
    ids = [row["id"] for row in Sink.read(where / "rows")]
    assert len(ids) == len(set(ids)) and set(ids) == ROWS["first"] | ROWS["last"]
    manifest = read_manifest(where / "rows")
    assert manifest is not None and manifest["complete"] is True and manifest["rows"] == len(ids)


def nothing_is_lost(where: Path, parts: dict[str, str]) -> None:
    """Rows that count are there and there once; finished parts are whole, and those of before have not changed."""
    ids = Counter(row["id"] for row in Sink.read(where / "rows"))
    assert max(ids.values(), default=1) == 1, f"twice: {[each for each, times in ids.items() if times > 1]}"
    accepted = where / "accepted"
    promised = set(accepted.read_text().split()) if accepted.exists() else set()
    for phase in done_of(where):
        promised |= ROWS.get(phase, set())
    assert promised <= ids.keys(), f"lost: {sorted(promised - ids.keys())}"
    after = parts_of(where)
    assert after.items() >= parts.items()
    assert all(checksum(where / "rows" / name) == digest for name, digest in after.items())


def kill(cluster: LocalCluster, driver: Driver, where: Path, victim: str, chance: random.Random) -> None:
    if victim == "driver":
        driver.process.kill()
    elif victim == "node":
        cluster.kill_node(chance.choice(cluster.nodes[1:]).node_id)
        cluster.add_node(**STAGE)
    else:
        found = writers_of(where) if victim == "sink" else workers_of(cluster)
        with contextlib.suppress(psutil.NoSuchProcess):  # it ends by itself at this moment
            if found:  # there may be none yet, or none any more
                chance.choice(found).kill()


def workers_of(cluster: LocalCluster) -> list[psutil.Process]:
    """Those of the stages' nodes: a node has a zygote, and that has workers."""
    zygotes = [child for node in cluster.nodes[1:] for child in psutil.Process(node.pid).children()]
    return [worker for zygote in zygotes for worker in zygote.children()]


def writers_of(where: Path) -> list[psutil.Process]:
    """The process that has the sink's files."""
    inode = (where / "rows" / LOCK).stat().st_ino
    locks = [line.split() for line in Path("/proc/locks").read_text().splitlines()]
    return [psutil.Process(int(line[4])) for line in locks if line[1] == "FLOCK" and line[5].endswith(f":{inode}")]


def done_of(where: Path) -> set[str]:
    """Phases that count as done."""
    found = summary_of(where / "run")
    return {name for name, row in found.phases.items() if row.state in ("done", "reused")} if found else set()


def parts_of(where: Path) -> dict[str, str]:
    """{finished part: its checksum}."""
    manifest = read_manifest(where / "rows") or {"parts": []}
    return {part["name"]: part["sha256"] for part in manifest["parts"]}


def calls_of(where: Path) -> Counter[str]:
    """How often functions of each phase were called so far."""
    calls = where / "calls"
    return Counter(calls.read_text().split() if calls.exists() else ())
