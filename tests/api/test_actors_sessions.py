"""Actors across sessions, and actors whose creator was an idle worker: clusters of their own (core-api rows 34, 38)."""

from __future__ import annotations

import gc
import pickle
import time
from pathlib import Path
from typing import Any

import pytest

import zmreg
from tests.processes.drivers import Driver
from zmreg.model.errors import ActorDiedError, StaleRefError
from zmreg.services.seat.seats import client
from zmreg.testing import LocalCluster

T = 30


@zmreg.remote
class Counter:
    def __init__(self, value: int = 0) -> None:
        self.value = value

    def inc(self) -> int:
        self.value += 1
        return self.value


def test_row38_a_handle_from_an_earlier_session_gets_a_clear_error():
    with zmreg.init(num_cpus=1):
        old = Counter.remote()
        assert old.inc.remote().get(timeout=T) == 1
    with zmreg.init(num_cpus=1):
        with pytest.raises(StaleRefError, match="session"):
            zmreg.kill(old)
        error = old.inc.remote().exception(timeout=T)
        assert isinstance(error, ActorDiedError)
        assert "session" in str(error)
        assert Counter.remote(1).inc.remote().get(timeout=T) == 2, "the decorated class works again"


def test_row67_a_ref_from_an_earlier_session_gets_a_clear_error():
    with zmreg.init(num_cpus=1):
        large, small = zmreg.put(bytes(1_000_000)), zmreg.put(7)
    with zmreg.init(num_cpus=1):
        with pytest.raises(StaleRefError, match="session that is over"):
            large.get(timeout=T)
        with pytest.raises(StaleRefError):
            zmreg.remote(len).remote(large).get(timeout=T)
        assert "session that is over" in repr(large)
        assert small.get(timeout=T) == 7, "it was in this process all the time"


def test_row34_an_actor_outlives_the_idle_worker_that_made_it():
    @zmreg.remote
    def make(n: int) -> list[tuple[Any, str]]:
        counter = Counter.options(name=f"counter {n}", num_cpus=0).remote(9)
        counter.inc.remote().get(timeout=T)  # placed: its worker is none of those that will be idle
        mine = counter, zmreg.get_runtime_context().get_worker_id()
        # Blocked while others make theirs: so there are more workers at the end than are kept for one CPU.
        return [mine, *(make.remote(n - 1).get(timeout=T) if n else [])]

    @zmreg.remote
    def use(box: list[Any]) -> int:
        return box[0].inc.remote().get(timeout=T)

    with zmreg.init(num_cpus=1, idle_worker_s=0.2):
        made = make.remote(3).get(timeout=T)
        handles, makers = [each for each, _ in made], {maker for _, maker in made}
        del made
        assert len(makers) == 4
        deadline = time.monotonic() + T
        while len(makers & {each["WorkerID"] for each in client().ask("workers")}) > 1:
            assert time.monotonic() < deadline, "no maker was sent home"
            time.sleep(0.05)
        assert zmreg.get([handle.inc.remote() for handle in handles], timeout=T) == [11] * 4
        assert use.remote(handles[:]).get(timeout=T) == 12
        weak = [zmreg.get_actor(f"counter {n}") for n in range(4)]
        del handles
        gc.collect()
        for each in weak:
            while not isinstance(each.inc.remote().exception(timeout=T), ActorDiedError):
                assert time.monotonic() < deadline, "the last handle is gone, the actor is not"


CALLER = """
import pickle
zmreg.init(address={address!r}, log_to_driver=False)
handle = pickle.loads(bytes.fromhex({handle!r}))
say("first", zmreg.get(handle.inc.remote(), timeout=30))
while not os.path.exists({gate!r}):
    time.sleep(0.01)
say("stale", typed(lambda: zmreg.get(handle.inc.remote(), timeout=30)))
say("second", zmreg.get(zmreg.get_actor("x29").inc.remote(), timeout=30))
zmreg.shutdown()
"""


def test_X29_a_handle_as_bytes_is_good_in_any_program_and_never_reaches_a_successor(tmp_path: Path):
    """Ids of actors are used once, so that who has an old one cannot take the next of that name for it."""
    with LocalCluster([{"num_cpus": 1}, {"num_cpus": 1}]) as cluster:
        cluster.attach()
        first = Counter.options(name="x29").remote(10)
        handle = pickle.dumps(zmreg.get_actor("x29")).hex()
        gate = tmp_path / "gate"
        text = CALLER.format(address=cluster.nodes[1].address, handle=handle, gate=str(gate))
        with Driver(text) as caller:
            assert caller.after("first") == "11"
            zmreg.kill(first)
            second = Counter.options(name="x29").remote(0)
            gate.touch()
            assert caller.after("stale") == "ActorDiedError"
            assert caller.after("second") == "1"
            assert zmreg.get(second.inc.remote(), timeout=T) == 2
