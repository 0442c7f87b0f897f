"""Row X17: reports of what ran, and the profiler, on a cluster."""

from __future__ import annotations

import json
import os
import re
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import zmreg
from zmreg.model.look_messages import Look, Looked
from zmreg.services.seat import profiled
from zmreg.services.seat.client import current
from zmreg.testing.cluster import LocalCluster
from zmreg.wire import batches

BOUND_S = 30.0


@pytest.fixture(scope="module")
def nodes():
    """The head, at which the test has its seat, then one with two CPUs: whatever runs is on another node."""
    with LocalCluster(nodes=[{"num_cpus": 0}, {"num_cpus": 2}]) as cluster:
        cluster.attach()
        yield cluster.nodes


def facts_in(path: Path) -> dict[str, Any]:
    return json.loads(re.search(r'type="application/json">(.*?)</script>', path.read_text(), re.DOTALL)[1])


@zmreg.remote
def spins(until: str) -> int:
    """Ends when the file is there."""
    rounds = 0
    while not Path(until).exists():
        rounds += kernel()
    return rounds


def kernel() -> int:
    ends = time.monotonic() + 0.02
    while time.monotonic() < ends:
        pass
    return 1


@zmreg.remote
def quick(value: int) -> int:
    return value


@zmreg.remote
def fails() -> None:
    raise ValueError("<b>no</b>")


def test_X17_a_report_has_what_ran_in_its_block(nodes, tmp_path):
    path = tmp_path / "r.html"
    quick.remote(0).get()
    with zmreg.performance_report(path):
        assert zmreg.get([quick.remote(n) for n in range(5)]) == list(range(5))
        with pytest.raises(ValueError):
            fails.remote().get()
    quick.remote(9).get()
    told = facts_in(path)
    rows = {row[0]: row[1:4] for row in told["Functions"]["Rows"]}
    assert rows == {"quick": ["5", "0", "0"], "fails": ["1", "1", "0"]}
    assert "ValueError: <b>no</b>" in told["Failures"]["Rows"][0][5] and "<b>" not in path.read_text()
    assert len(told["Bars"]) == 6 and set(told["Names"]) == {"quick", "fails"}
    assert len(told["Nodes"]["Rows"]) == 2 and told["Profile"] is None and told["Error"] == "" and told["Notes"] == []
    assert os.listdir(tmp_path) == ["r.html"]


def test_X17_a_report_says_when_calls_of_its_block_are_forgotten(nodes, tmp_path, monkeypatch):
    path = tmp_path / "r.html"
    monkeypatch.setattr(current().past, "_most", current().past.count + 3)
    with zmreg.performance_report(path):
        quick.remote(1).get()
    assert facts_in(path)["Notes"] == [], "what is forgotten was before"
    monkeypatch.setattr(current().past, "_most", 3)
    with zmreg.performance_report(path):
        for number in range(6):
            quick.remote(number).get()
    (note,) = facts_in(path)["Notes"]
    assert "the latest 3 are known" in note


def test_X17_a_block_that_raises_is_reported_and_its_error_goes_through(nodes, tmp_path):
    path = tmp_path / "r.html"
    with pytest.raises(KeyError), zmreg.performance_report(path):
        quick.remote(1).get()
        raise KeyError("mine")
    told = facts_in(path)
    assert told["Error"] == "KeyError: 'mine'" and told["Functions"]["Rows"][0][0] == "quick"
    (tmp_path / "d").mkdir()
    with pytest.raises(KeyError) as raised, zmreg.performance_report(tmp_path / "d" / "r.html"):
        (tmp_path / "d").rmdir()
        raise KeyError("mine")
    assert "could not write" in raised.value.__notes__[0]


def test_X17_what_cannot_be_written_is_said_before_the_block(nodes, tmp_path):
    for path, error in ((tmp_path / "no" / "r.html", FileNotFoundError), (tmp_path, IsADirectoryError)):
        with pytest.raises(error, match="report"), zmreg.performance_report(path):
            pytest.fail("the block has begun")
    for interval, error in ((0.0, ValueError), (2.0, ValueError), ("1", TypeError), (True, TypeError)):
        with pytest.raises(error, match="interval"), zmreg.performance_report(tmp_path / "r.html", interval=interval):
            pytest.fail("the block has begun")
    with pytest.raises(ValueError, match="seconds"):
        zmreg.profile(-1)


def profile_of_a_call(path: Path, until: Path) -> tuple[set[str], list[str]]:
    """({outermost/.../innermost}, hot functions) of a call that runs for half a second, and of who waits for it."""
    until.unlink(missing_ok=True)
    with zmreg.performance_report(path, interval=0.005):
        ref = spins.remote(str(until))
        timer = threading.Timer(0.5, until.touch)
        timer.start()
        assert ref.get(timeout=BOUND_S) > 0
        timer.join()
    profile = facts_in(path)["Profile"]
    paths: list[str] = []
    for parent, frame, _, _ in profile["Nodes"]:
        paths.append((paths[parent] + "/" if parent >= 0 else "") + profile["Frames"][frame][0])
    return set(paths), [row[3] for row in profile["Hot"]["Rows"]]


def test_X17_the_profile_shows_where_workers_on_other_nodes_and_the_program_spend_their_time(nodes, tmp_path):
    deadline = time.monotonic() + BOUND_S
    while True:  # on a machine that has no time, half a second may go by without a look
        paths, hot = profile_of_a_call(tmp_path / "r.html", tmp_path / "go")
        waits = [each for each in paths if each.endswith("profile_of_a_call/get (zmreg)")]
        if "spins/kernel" in paths and waits and "kernel" in hot:
            break
        assert time.monotonic() < deadline, (paths, hot)
    assert not [each for each in paths if "kernel" in each and not each.startswith("spins/kernel")], "nothing around it"
    assert not [thread for thread in threading.enumerate() if thread.name in ("zmreg-sampler", "zmreg-profile")]


def test_X17_a_profile_is_had_as_plain_dicts_too(nodes, tmp_path):
    until = tmp_path / "go"
    ref = spins.remote(str(until))
    try:
        deadline = time.monotonic() + BOUND_S
        while not (rows := [row for row in zmreg.profile(0.3) if row["Name"] == "spins"]):
            assert time.monotonic() < deadline
    finally:
        until.touch()
    ref.get(timeout=BOUND_S)
    inner = {row["Name"]: row for row in rows[0]["Calls"]}
    assert inner["kernel"]["File"] == __file__ and 0 < inner["kernel"]["TotalSeconds"] <= rows[0]["TotalSeconds"]


def test_X17_without_a_cluster_at_the_end_there_is_what_the_program_knows(tmp_path, nodes):
    path = tmp_path / "r.html"
    with zmreg.performance_report(path):
        quick.remote(1).get()
        seat = current()
        ask, seat.ask = seat.ask, lambda *_, **__: (_ for _ in ()).throw(zmreg.errors.ClusterError("the node is gone"))
    seat.ask = ask
    told = facts_in(path)
    assert told["Functions"]["Rows"][0][:2] == ["quick", "1"] and "the node is gone" in told["Notes"][0]


def test_X17_a_node_passes_no_nonsense_on_to_its_processes(nodes):
    for node in current().ask("nodes"):
        for rest in ("", "token", "token x 00", "token 1000 00 more"):
            assert current().ask("profile", f"{node['NodeID']} {rest}", timeout=BOUND_S) is None


def test_X17_another_programs_profile_is_none_of_ours():
    """A program answers its own question; workers answer anybody's of their cluster."""
    heard: list[Looked] = []
    done = threading.Event()

    class Seat:
        me, closed, lock = b"driver01", None, threading.RLock()

        def tell_node(self, message: Looked) -> None:
            heard.append(message)
            done.set()

    for asker in (b"driver02", b"driver01"):
        for interval in (10_000, 0):
            done.clear()
            profiled.tell(Seat(), Look(1, f"profile token {interval} {asker.hex()}"))
            assert done.wait(BOUND_S)
    told = [batches.unpack_plain(each.body) for each in heard]
    assert told[:2] == [{}, {}] and told[2]["Sampler"] == told[3]["Sampler"]
