"""Row X17: the profiler of one process, and the program's side of it with nodes that are played here."""

from __future__ import annotations

import sys
import threading
import time
import zlib
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

import zmreg.services
from zmreg.model.errors import ClusterError
from zmreg.services.machine import sampling
from zmreg.services.machine.sampling import LEASE_S, MOST_SAMPLERS, Reader, Sampler, sampled
from zmreg.services.seat.profiling import Profile
from zmreg.telemetry.profile import CallTree
from zmreg.wire import batches

ROOM = Path(zmreg.services.__file__).parent
MINE, OTHERS = "/home/me/work.py", "/x/site-packages/numpy/core.py"
LIBRARY, SOCKETS = threading.__file__, "/x/site-packages/zmq/sugar/poll.py"
OURS, LOOP, BASE = str(ROOM / "seat/client.py"), str(ROOM / "worker/worker.py"), str(ROOM / "node/zygote.py")
BOUND_S = 20.0


def stack(*places: tuple[str, str]) -> FrameType:
    """The innermost of frames that call each other: (file, function), the outermost first."""
    calls = []
    for file, name in places:
        text = f"def {name}(calls): return calls[0](calls[1:]) if calls else look()"
        made: dict[str, Any] = {"look": sys._getframe}
        exec(compile(text, file, "exec"), made)
        calls.append(made[name])
    found: FrameType = calls[0](calls[1:])
    return found


def shown(*places: tuple[str, str]) -> list[str]:
    """What a tree has of such a stack in a process that a node has started."""
    tree = CallTree()
    tree.add(Reader(tree).path(stack((BASE, "main"), *places)), 1)
    return [each.frame[0] for each in tree.nodes()]


def test_X17_of_a_stack_users_frames_are_kept_and_zmregs_waiting_is_one():
    assert shown((LOOP, "run"), (MINE, "work"), (OTHERS, "dot")) == ["work", "dot"]
    assert shown((MINE, "work"), (OURS, "get"), (OURS, "wait"), (LIBRARY, "acquire")) == ["work", "get (zmreg)"]
    assert shown((MINE, "work"), (LIBRARY, "join"), (LIBRARY, "wait")) == ["work", "join", "wait"]
    assert shown((MINE, "work"), (OURS, "map"), (LIBRARY, "submit"), (MINE, "each")) == ["work", "map (zmreg)", "each"]


@pytest.mark.parametrize(
    ("file", "kind"),
    [(MINE, "_USER"), (OTHERS, "_USER"), (LIBRARY, "_LIBRARY"), (SOCKETS, "_LIBRARY"), ("<frozen runpy>", "_LIBRARY"),
     ("<stdin>", "_USER"), (OURS, "_OURS"), (BASE, "_BASE")],
)  # fmt: skip
def test_X17_whose_a_frame_is_is_told_by_its_file(file, kind):
    assert sampling.kind_of(file) == getattr(sampling, kind)


def test_X17_a_thread_without_users_code_is_not_counted():
    tree = CallTree()
    reader = Reader(tree)

    def idle() -> None:
        time.sleep(0)

    done = threading.Event()
    thread = threading.Thread(target=done.wait)  # the standard library's alone
    thread.start()
    try:
        assert reader.path(sys._current_frames()[thread.ident]) == []
        assert reader.path(sys._getframe()) != []
    finally:
        done.set()
        thread.join()


def test_X17_one_that_nobody_renews_ends_by_itself():
    sampler = Sampler(0.001)
    assert sampler.until > time.monotonic() + LEASE_S - BOUND_S
    sampler.until = 0.0
    assert sampler._over.wait(BOUND_S)
    sampler._thread.join(BOUND_S)
    assert not sampler._thread.is_alive()


def test_X17_each_program_has_its_own_and_there_are_so_many():
    tokens = [f"t{number}" for number in range(MOST_SAMPLERS)]
    try:
        ids = {sampled(token, 1_000)["Sampler"] for token in tokens}
        assert len(ids) == MOST_SAMPLERS and sampled("one more", 1_000) is None
        assert sampled(tokens[0], 1_000)["Sampler"] in ids, "asked again it goes on"
        deadline = time.monotonic() + BOUND_S
        while not (told := sampled(tokens[0], 1_000))["Samples"]:
            assert time.monotonic() < deadline
        assert any("test_X17" in frame[0] for frame in told["Frames"])
    finally:
        for token in tokens:
            assert sampled(token, 0) is not None
    assert sampled(tokens[0], 0) is None and not [t for t in threading.enumerate() if t.name == "zmreg-sampler"]


# -- the program's side ------------------------------------------------------------------------------------------------


class Seat:
    """A program's, at a cluster that is played."""

    def __init__(self) -> None:
        self.me, self.closed = b"driver00", None
        self.answers: dict[str, list[object] | None] = {}
        self.asked: list[str] = []
        self.is_gone = False
        self.round = threading.Event()

    def ask(self, topic: str, key: str = "", timeout: float = 0.0) -> object:
        if self.is_gone:
            raise ClusterError("the node is gone")
        if topic == "nodes":
            return [{"NodeID": each, "Alive": True} for each in sorted(self.answers)]
        node, _, rest = key.partition(" ")
        self.asked.append(rest)
        rows = self.answers[node]
        self.round.set()
        return (
            None
            if rows is None
            else zlib.compress(batches.pack_plain([{"Name": "worker", "Pid": 7, "Told": each} for each in rows]))
        )

    def check(self) -> None:
        if self.is_gone:
            raise ClusterError("the node is gone")


def seen(sampler: str, us: int) -> dict[str, object]:
    tree = CallTree()
    tree.add([tree.number(("f", "/f", 1))], us)
    return {"Sampler": sampler, **tree.plain()}


def test_X17_the_latest_word_of_each_process_counts_and_once():
    seat = Seat()
    seat.answers = {"a": [seen("s1", 5), {}], "b": [seen("s2", 1)]}
    profile = Profile(seat, 0.01)
    seat.answers = {"a": [seen("s1", 7)], "b": []}  # one has ended meanwhile
    found = profile.end()
    assert [(each.self_us, each.frame[0]) for each in found.tree.nodes()] == [(8, "f")]
    assert found.processes == 2 and found.silent == [] and found.seconds > 0
    assert seat.asked[0].split(" ")[1:] == ["10000", seat.me.hex()] and seat.asked[-1].split(" ")[1] == "0"


def test_X17_who_is_silent_is_told_and_counts_as_far_as_it_was_heard():
    seat = Seat()
    seat.answers = {"a": [seen("s1", 5)], "b": []}
    profile = Profile(seat, 0.01)
    seat.answers = {"a": [None], "b": None}
    found = profile.end()
    assert found.silent == ["worker pid=7", "node b"] and found.tree.nodes()[0].self_us == 5


def test_X17_newcomers_are_asked_in_the_midst_and_a_cluster_that_is_gone_ends_nothing():
    seat = Seat()
    seat.answers = {"a": [seen("s1", 5)]}
    profile = Profile(seat, 0.01)
    seat.answers = {"a": [seen("s1", 6), seen("s2", 3)]}
    seat.round.clear()
    assert seat.round.wait(BOUND_S) and len({each.split(" ")[0] for each in seat.asked}) == 1
    deadline = time.monotonic() + BOUND_S
    while profile._processes < 2:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    seat.is_gone = True
    found = profile.end()
    assert found.processes == 2 and found.tree.nodes()[0].self_us == 9 and "gone" in found.silent[0]
