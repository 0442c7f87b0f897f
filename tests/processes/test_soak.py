"""Random faults on a cluster under load, from a seed; afterwards everything acknowledged is there, and nothing else.

A short form here; `make soak` runs half an hour (ZMREG_SOAK_S, ZMREG_SOAK_SEED). Fault 68.
"""

from __future__ import annotations

import gc
import os
import random
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from types import FrameType
from typing import Any

import psutil
import pytest

import zmreg
from tests.processes.clusters import PATIENCE_S, ask, states, until, until_agreed
from zmreg.services.network import failpoints
from zmreg.services.seat.entries import Stored
from zmreg.testing.cluster import LocalCluster, TestNode

SOAK_S = float(os.environ.get("ZMREG_SOAK_S", "10"))
# Rounds of work that there has to have been, however slow the machine is.
LEAST = 3
SEED = int(os.environ.get("ZMREG_SOAK_SEED", "7"))
MiB = 1 << 20
OBJECTS_KEPT = 24
# What a round may take with every fault at once; nothing may wait longer.
ROUND_S = 60.0
# Beside 2 %: allocators and caches, which a young process is still filling.
HEAP_SLACK = (4 if SOAK_S >= 600 else 16) * MiB
# An id of 16 bytes among the keys of a dict.
FREE_BYTES = 116

Spec = dict[str, Any]
WORKERS: Spec = {"num_cpus": 2, "resources": {"work": 100}, "object_store_bytes": 128 * MiB}


def content(number: int, nbytes: int) -> bytes:
    return random.Random(number).randbytes(1_000).ljust(nbytes, b"-")


# Four deaths can follow each other while one call waits behind a link that stands still: 3 retries need not do.
@zmreg.remote(resources={"work": 1}, num_cpus=0.1, max_retries=20)
def make(number, nbytes):
    return content(number, nbytes)


@zmreg.remote(resources={"work": 1}, num_cpus=0.1, max_retries=20)
def check(number, value):
    return value == content(number, len(value))


class Notes:
    """Writes each number down before it answers."""

    def add(self, path, number):
        with open(path, "a") as file:
            file.write(f"{number}\n")
        return number


# Calls of the one may fail, and none runs twice; those of the other may run twice, and none fails.
Once = zmreg.remote(Notes).options(resources={"work": 1}, num_cpus=0.1, max_restarts=-1)
Again = zmreg.remote(Notes).options(resources={"work": 1}, num_cpus=0.1, max_restarts=-1, max_task_retries=-1)


class Ledger:
    """What was acknowledged: values that can be read, numbers that an actor has written down."""

    def __init__(self, directory: Path) -> None:
        self.objects: dict[int, tuple[Any, int]] = {}
        self.paths = {"once": directory / "once", "again": directory / "again"}
        self.acknowledged: dict[str, set[int]] = {"once": set(), "again": set()}
        self.outcomes: Counter[str] = Counter()
        self.numbers = iter(range(1 << 62))

    def keep(self, number: int, ref: Any, nbytes: int) -> None:
        self.objects[number] = (ref, nbytes)
        while len(self.objects) > OBJECTS_KEPT:
            del self.objects[next(iter(self.objects))]

    def read_back(self) -> None:
        """Every value that was acknowledged and is still referred to is there, and right."""
        for number, (ref, nbytes) in self.objects.items():
            assert ref.get(timeout=ROUND_S) == content(number, nbytes), f"object {number} is another now"

    def compare(self) -> None:
        """Whatever was acknowledged was done, and what may run once did not run twice."""
        for name, path in self.paths.items():
            done = Counter(map(int, path.read_text().split()))
            lost = self.acknowledged[name] - done.keys()
            assert not lost, f"{name}: acknowledged and not done: {sorted(lost)[:10]}"
            if name == "once":
                assert max(done.values()) == 1, f"ran twice: {done.most_common(3)}"


class Load:
    """Rounds of work: tasks and their arguments, actors of two kinds, values put by the program."""

    def __init__(self, ledger: Ledger, chance: random.Random) -> None:
        self.ledger = ledger
        self.chance = chance
        self.once, self.again = Once.remote(), Again.remote()

    def round(self) -> None:
        ledger, chance = self.ledger, self.chance
        made = {}
        for _ in range(4):
            number, nbytes = next(ledger.numbers), chance.choice((10, 80_000, MiB, 3 * MiB))
            made[number] = (make.remote(number, nbytes), nbytes)
        own = next(ledger.numbers)
        ledger.keep(own, zmreg.put(content(own, 200_000)), 200_000)
        checks = [check.remote(number, ref) for number, (ref, _) in made.items()]
        again = [next(ledger.numbers) for _ in range(20)]
        calls = [self.again.add.remote(str(ledger.paths["again"]), number) for number in again]
        once = [self.once.add.remote(str(ledger.paths["once"]), number) for number in again]
        self.settle(checks, lambda _, value: value is True)
        for number, (ref, nbytes) in made.items():
            ledger.keep(number, ref, nbytes)
        for number, call in zip(again, calls, strict=True):
            assert call.get(timeout=ROUND_S) == number
            ledger.acknowledged["again"].add(number)
        for call in once:
            try:
                ledger.acknowledged["once"].add(call.get(timeout=ROUND_S))
            except zmreg.errors.ActorUnavailableError:
                ledger.outcomes["unavailable"] += 1
        for number in self.chance.sample(list(ledger.objects), 2):
            ref, nbytes = ledger.objects[number]
            assert ref.get(timeout=ROUND_S) == content(number, nbytes)
        ledger.outcomes["rounds"] += 1

    def settle(self, refs: list[Any], good: Callable[[int, Any], bool]) -> None:
        for place, ref in enumerate(refs):
            assert good(place, ref.get(timeout=ROUND_S))


class Harm:
    """Faults, one after the other or at once, each healed after its time. A head is not harmed, but its links are."""

    def __init__(self, cluster: LocalCluster, chance: random.Random) -> None:
        self.cluster = cluster
        self.chance = chance
        self.story: list[str] = []
        self.done: Counter[str] = Counter()

    def strike(self) -> None:
        """One fault at random, from beginning to end."""
        deed = self.chance.choice(
            (self.cut, self.cut, self.stall, self.mute, self.delay, self.throttle, self.kill_worker, self.kill_worker,
             self.kill_node, self.stop_node, self.isolate)
        )  # fmt: skip
        if deed == self.isolate and SOAK_S < 60:  # takes 15 s
            deed = self.mute
        self.done[deed.__name__] += 1
        self.story.append(deed.__name__)
        deed()

    def _link(self) -> Any:
        a, b = self.chance.sample(self.cluster.nodes, 2)
        self.story[-1] += f" {a.node_id[:4]}-{b.node_id[:4]}"
        return self.cluster.link(a.node_id, b.node_id)

    def _victim(self) -> TestNode:
        victim: TestNode = self.chance.choice(self.cluster.nodes[1:])
        self.story[-1] += f" {victim.node_id[:4]}"
        return victim

    def _for_a_while(self, least: float, most: float) -> None:
        threading.Event().wait(self.chance.uniform(least, most))

    def cut(self) -> None:
        link = self._link()
        for _ in range(self.chance.randrange(1, 5)):
            link.cut()
            self._for_a_while(0.01, 0.5)

    def stall(self) -> None:
        link = self._link()
        link.stall()
        self._for_a_while(0.5, 5.0)
        link.heal()

    def mute(self) -> None:
        link = self._link()
        link.mute(self.chance.choice(("", "a", "b")))
        self._for_a_while(0.5, 5.0)
        link.heal()

    def delay(self) -> None:
        link = self._link()
        link.delay(self.chance.uniform(0.01, 0.2), 0.01)
        self._for_a_while(1.0, 3.0)
        link.heal()

    def throttle(self) -> None:
        link = self._link()
        link.throttle(self.chance.randrange(1, 8) * MiB)
        self._for_a_while(1.0, 3.0)
        link.heal()

    def kill_worker(self) -> None:
        workers = [row["Pid"] for row in ask(self._victim(), "workers") if row["Ready"]]
        if workers:
            with suppress(psutil.NoSuchProcess):  # killed by the deed before, and not yet missed
                psutil.Process(self.chance.choice(workers)).kill()

    def kill_node(self) -> None:
        self.cluster.kill_node(self._victim().node_id)
        self._for_a_while(0.0, 2.0)
        self.cluster.add_node(**WORKERS)

    def stop_node(self) -> None:
        victim = self._victim().node_id
        self.cluster.signal_node(victim, signal.SIGSTOP)
        self._for_a_while(0.2, 5.0)
        self.cluster.signal_node(victim, signal.SIGCONT)

    def isolate(self) -> None:
        """Cut off from the head until it is declared dead, then fenced; another comes in its place."""
        head, victim = self.cluster.nodes[0], self._victim().node_id
        link = self.cluster.link(head.node_id, victim)
        link.mute()
        until(lambda: states(head).get(victim) == "DEAD", "it is not declared dead", PATIENCE_S)
        link.heal()
        self.cluster.await_end(victim, PATIENCE_S)
        self.cluster.add_node(**WORKERS)


@contextmanager
def loaded(directory: Path, cluster: LocalCluster) -> Iterator[tuple[Ledger, list[BaseException]]]:
    """Work goes on in a thread of its own; what it ended with is in the list."""
    ledger, failures, over = Ledger(directory), [], threading.Event()
    load = Load(ledger, random.Random(f"load/{SEED}"))
    load.round()

    def work() -> None:
        try:
            while not over.is_set():
                load.round()
        except BaseException as error:  # noqa: BLE001 - the test raises it
            failures.append(error)

    thread = threading.Thread(target=work, name="load")
    thread.start()
    try:
        yield ledger, failures
    finally:
        over.set()
        thread.join(2 * ROUND_S)
    assert not thread.is_alive(), "the load hangs"


def footprint(head: TestNode) -> dict[str, int]:
    """Of the node that lives through it all. `heap` is without what it remembers by design, up to a bound of 8 MiB of
    operations on its table and 100,000 frees."""
    process = psutil.Process(head.pid)
    store = ask(head, "stats")["store"]
    remembered = ask(head, "network")["Remembered"]
    heap = next(
        line.split()[1]
        for line in Path(f"/proc/{head.pid}/status").read_text().splitlines()
        if line.startswith("RssAnon")
    )
    by_design = remembered["Frees"] * FREE_BYTES + remembered["ReplayBytes"]
    return {
        "heap": (int(heap) << 10) - by_design, "fds": process.num_fds(), "store": store["used_bytes"],
        "remembered": by_design,
    }  # fmt: skip


def _holders(depth: int = 6) -> list[str]:
    """Of each stored value of ours that lives: what refers to it, and to that, and so on."""
    found = []
    for stored in [each for each in gc.get_objects() if isinstance(each, Stored)][:5]:
        level, seen, chain = [stored], {id(stored)}, []
        for _ in range(depth):
            level = [
                each
                for each in gc.get_referrers(*level)
                if id(each) not in seen and not isinstance(each, FrameType) and each is not level
            ][:4]
            seen |= {id(each) for each in level}
            chain.append(" + ".join(f"{type(each).__name__} {str(each)[:80]}" for each in level))
        found.append(f"{stored.object_id.hex()}: {' <- '.join(chain)}")
    return found


@pytest.mark.timeout(int(SOAK_S) + 300)
def test_fault68_random_faults_lose_nothing_that_was_acknowledged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv(
        failpoints.VARIABLE, "letters.duplicate:0.01,letters.drop:0.005,delta.drop:0.02,chunks.drop:0.01"
    )
    monkeypatch.setenv(failpoints.SEED_VARIABLE, str(SEED))
    specs: list[Spec] = [{"num_cpus": 1, "object_store_bytes": 256 * MiB}, WORKERS, WORKERS]
    with LocalCluster(specs, wired=True, seed=SEED) as cluster:
        cluster.attach()
        head = cluster.nodes[0]
        harm = Harm(cluster, random.Random(f"harm/{SEED}"))
        with loaded(tmp_path, cluster) as (ledger, failures):
            begin, early = time.monotonic(), None
            while (time.monotonic() - begin < SOAK_S or ledger.outcomes["rounds"] <= LEAST) and not failures:
                if early is None and time.monotonic() - begin > SOAK_S / 5:
                    early = footprint(head)
                try:
                    harm.strike()
                except BaseException as error:
                    error.add_note(f"seed {SEED}: {'; '.join(harm.story)}; {failures}")
                    raise
        story = f"seed {SEED}: {'; '.join(harm.story)}; {dict(ledger.outcomes)}"
        print(story)
        if failures:
            failures[0].add_note(story)
            raise failures[0]
        ledger.read_back()
        ledger.compare()
        until_agreed(cluster)
        _leaves_little(head, ledger, early)


def _leaves_little(head: TestNode, ledger: Ledger, early: dict[str, int] | None) -> None:
    """With nothing referred to, the store is empty, and the node as large as it was."""
    ledger.objects.clear()

    def is_empty() -> bool:
        gc.collect()  # again and again: what ends late, as a task that was run twice, may leave a circle behind
        return footprint(head)["store"] == 0

    try:
        until(is_empty, "the store is not empty")
    except AssertionError as error:
        error.add_note(f"there are {ask(head, 'objects')[:5]}; {zmreg.stats()['refs']}; {zmreg.stats()['tasks']}")
        error.add_note(f"held by {_holders()}")
        raise
    assert early is not None
    until(lambda: footprint(head)["fds"] <= early["fds"] * 1.02 + 4, f"descriptors: {early} -> {footprint(head)}")
    after = footprint(head)
    assert after["heap"] <= early["heap"] * 1.02 + HEAP_SLACK, f"{early} -> {after}"
    print(f"head: {early} -> {after}")
