"""A node leaves while the head is away, or whoever was to take over dies: rows 53, 71 and C5, fault 10."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zmreg
from tests.processes.clusters import PATIENCE_S, ask, states, until
from tests.processes.test_head_restart import NO_HEAD_S, Restartable
from tests.processes.test_leaving import LARGE, begun, there, wait_for_file
from zmreg.model.errors import HeadUnavailableError, OwnerDiedError

AT_C: dict[str, Any] = {"num_cpus": 0, "locs": {"c"}}
# What c waits for one that is silent (services/network/leaving.py), and what may come before and after that.
AWAY_S = 8.0 + 12.0


@zmreg.remote(**AT_C)
def make_and_put(number):
    """Refs to objects that the worker owns: one in its node's store, one in its own memory, one inside another."""
    large, small = zmreg.put(np.full(LARGE, number, np.uint8)), zmreg.put(number)
    return [large, small, zmreg.put([large, small])]


@zmreg.remote(**AT_C)
def put_small(number):
    """Without anything in a store, so that nothing has to be copied before an heir is chosen."""
    small = zmreg.put(number)
    return [small, zmreg.put([small])]


@zmreg.remote(**AT_C)
def fill(number):
    return np.full(LARGE, number, np.uint8)


@zmreg.remote(**AT_C, max_retries=0)
def work(path, gate):
    with open(path, "a") as file:
        file.write("begun\n")
    wait_for_file(gate)
    return "done"


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Restartable]:
    """A head, b with our driver, and c."""
    cluster = Restartable(tmp_path / "state", {"locs": {"c"}}, head_timeout_s=NO_HEAD_S)
    with cluster.cluster:
        yield cluster


class Drain(threading.Thread):
    """Has c leave; what came of it."""

    def __init__(self, node_id: str, **options: Any) -> None:
        super().__init__()
        self.error: BaseException | None = None
        self._node_id = node_id
        self._options = options
        self.start()

    def run(self) -> None:
        try:
            zmreg.drain_node(self._node_id, **self._options)
        except BaseException as error:  # noqa: BLE001  looked at by the test
            self.error = error


def test_row71_fault10_a_drain_goes_on_while_the_head_restarts(made: Restartable, tmp_path: Path) -> None:
    _, b, c = made.cluster.nodes
    path, gate = tmp_path / "calls", tmp_path / "gate"
    refs, filled = make_and_put.remote(3).get(timeout=PATIENCE_S), fill.remote(5)
    running = work.remote(str(path), str(gate))
    until(lambda: begun(path), "it does not run")
    zmreg.wait([filled], timeout=PATIENCE_S, fetch_local=False)
    drain = Drain(c.node_id, grace=PATIENCE_S)
    until(lambda: states(b)[c.node_id] == "DRAINING", "nobody has heard that it leaves")
    made.kill()
    made.until_headless()
    gate.touch()
    assert running.get(timeout=PATIENCE_S) == "done"
    made.start()
    drain.join(PATIENCE_S)
    assert not drain.is_alive() and drain.error is None
    assert states(b)[c.node_id] == "LEFT"
    assert int(filled.get(timeout=PATIENCE_S).sum()) == 5 * LARGE
    large, small, box = refs
    assert (small.get(timeout=PATIENCE_S), int(large.get(timeout=PATIENCE_S)[0])) == (3, 3)
    assert box.get(timeout=PATIENCE_S)[1].get(timeout=PATIENCE_S) == 3


def test_row71_fault10_a_drain_whose_node_dies_without_a_head_ends_with_an_error(
    made: Restartable, tmp_path: Path
) -> None:
    """Only a head could say that it is dead, and there is none: not for ever."""
    _, b, c = made.cluster.nodes
    path = tmp_path / "calls"
    running = work.remote(str(path), str(tmp_path / "gate"))
    until(lambda: begun(path), "it does not run")
    drain = Drain(c.node_id, grace=PATIENCE_S)
    until(lambda: states(b)[c.node_id] == "DRAINING", "nobody has heard that it leaves")
    made.kill()
    made.cluster.kill_node(c.node_id)
    drain.join(PATIENCE_S)
    assert isinstance(drain.error, HeadUnavailableError)
    del running


def test_C5_who_was_to_take_over_stands_still_and_another_takes_over(made: Restartable) -> None:
    head, b, c = made.cluster.nodes
    small, box = put_small.remote(3).get(timeout=PATIENCE_S)
    made.cluster.signal_node(head.node_id, signal.SIGSTOP)
    drain = Drain(c.node_id, grace=0.1)
    drain.join(PATIENCE_S + AWAY_S)
    assert not drain.is_alive() and drain.error is None
    made.kill()
    made.start()
    assert small.get(timeout=PATIENCE_S) == 3
    assert box.get(timeout=PATIENCE_S)[0].get(timeout=PATIENCE_S) == 3
    assert ask(b, "stats")["adopted"] == 2


def test_C5_what_was_left_to_a_node_that_dies_is_lost_with_its_story(made: Restartable) -> None:
    """Who asks before that, and who asks later; and what its owner can make again is made again."""
    _, b, c = made.cluster.nodes
    large, small, box = make_and_put.remote(3).get(timeout=PATIENCE_S)
    ours = fill.options(locs=(), scheduling_strategy=there(c)).remote(5)
    zmreg.wait([ours], timeout=PATIENCE_S, fetch_local=False)
    made.cluster.end_node(c.node_id)
    until(lambda: ask(made.head, "stats")["adopted"] == 3, "the head has not inherited")
    heard: list[BaseException] = []

    def wait() -> None:
        try:
            box.get(timeout=PATIENCE_S)
        except OwnerDiedError as error:
            heard.append(error)

    made.cluster.signal_node(made.head.node_id, signal.SIGSTOP)
    waiting = threading.Thread(target=wait)
    waiting.start()
    until(lambda: zmreg.wait([box], timeout=0)[1], "it cannot be there")
    made.kill()
    made.start()
    began = time.monotonic()
    waiting.join(PATIENCE_S)
    assert len(heard) == 1 and "which answered for what it owned" in str(heard[0])
    for ref in (small, large):
        with pytest.raises(OwnerDiedError):
            ref.get(timeout=PATIENCE_S)
    assert time.monotonic() - began < 10
    assert int(ours.get(timeout=PATIENCE_S).sum()) == 5 * LARGE
    assert states(b)[c.node_id] == "LEFT"
