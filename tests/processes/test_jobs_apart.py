"""Programs of one cluster share no worker (core-api row 14): nothing that one leaves behind is found by another."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import zmreg
from tests.processes.clusters import ask, until
from tests.processes.drivers import Driver
from zmreg.testing.cluster import LocalCluster

OTHER = """
zmreg.init(address={address!r}, log_to_driver=False)

@zmreg.remote
def leaves(nested):
    os.environ["LEFT"] = "something"
    os.chdir("/")
    sys.path.insert(0, "/left")
    sys.modules["left"] = os
    return zmreg.get(leaves.remote(False)) + [os.getpid()] if nested else [os.getpid()]

say("pids", *set(sum(zmreg.get([leaves.remote(True) for _ in range(4)], timeout=30), [])))
deadline = time.monotonic() + 60
while not os.path.exists({gate!r}) and time.monotonic() < deadline:
    time.sleep(0.01)
zmreg.shutdown()
say("over")
"""


@zmreg.remote
def found(nested: bool) -> list[tuple[object, ...]]:
    left = os.environ.get("LEFT"), os.getcwd() == "/", "/left" in sys.path, "left" in sys.modules
    children: list[tuple[object, ...]] = zmreg.get(found.remote(False)) if nested else []
    return [(os.getpid(), *left), *children]


def test_row14_what_a_program_leaves_in_its_workers_no_other_finds_and_they_end_with_it(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    with LocalCluster([{"num_cpus": 1}]) as cluster:
        [node] = cluster.nodes
        cluster.attach()
        zmreg.get(found.remote(True), timeout=30)
        with Driver(OTHER.format(address=node.address, gate=str(gate))) as other:
            theirs = {int(pid) for pid in other.after("pids").split()}
            seen = [row for rows in zmreg.get([found.remote(True) for _ in range(4)], timeout=30) for row in rows]
            assert {row[1:] for row in seen} == {(None, False, False, False)}
            assert theirs and not theirs & {row[0] for row in seen}
            gate.touch()
            other.after("over")
        until(lambda: not theirs & {row["Pid"] for row in ask(node, "workers")}, "its workers are still there")
