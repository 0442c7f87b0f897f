"""Processes of a pipeline that die: what goes on, with nothing lost or twice, and what is an error in its place (P24 of
spec/streams.md). Nodes that die are in processes/test_pipeline_nodes.py.
"""

from __future__ import annotations

import itertools
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import zmreg
from tests.processes.drivers import eventually
from zmreg.core.merging import INTERLEAVE, ZIP
from zmreg.core.outbox import ANEW
from zmreg.flows.pipelines.batches import columns
from zmreg.flows.pipelines.inbox import OVER, REPLACED_S, Inbox, Way
from zmreg.flows.pipelines.pipeline import Pipeline
from zmreg.flows.pipelines.remote_flow import RemoteFlow
from zmreg.flows.pipelines.rooms import roomy
from zmreg.flows.pipelines.stages import stage
from zmreg.model.errors import PipelineError, UnschedulableError


def same(x: Any) -> Any:
    return x


def away(target: Any, **options: Any) -> Any:
    """A stage that never runs in the driver."""
    return stage(target, num_cpus=0.01, **options)


@pytest.mark.usefixtures("cluster")
def test_P24_a_lane_that_dies_comes_back_and_has_its_items_again(tmp_path: Path) -> None:
    def dies_once(x: int) -> int:
        if x == 7 and not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os._exit(3)
        return x

    pipe = Pipeline() | stage(dies_once, concurrency=2, retries=2)
    assert pipe.collect(range(20)) == list(range(20))


@pytest.mark.usefixtures("cluster")
def test_P24_a_stage_that_dies_is_started_anew_and_nothing_is_lost_or_twice(tmp_path: Path) -> None:
    def dies(x: int) -> Iterator[int]:
        yield x
        if x in (17, 40) and not (tmp_path / str(x)).exists():
            (tmp_path / str(x)).touch()
            os._exit(3)
        yield -x

    pipe = Pipeline() | away(same) | stage(dies, num_cpus=0.02, retries=2) | stage(same, num_cpus=0.03, name="last")
    assert pipe.collect(range(60)) == [y for x in range(60) for y in (x, -x)]


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize("where", ["first", "middle", "last"])
def test_P24_the_death_of_a_stage_without_retries_is_an_error_in_place(where: str) -> None:
    def dies(x: int) -> int:
        if x == 5:
            os._exit(3)
        return x

    stages = [
        away(same, name="first"),
        stage(same, num_cpus=0.02, name="middle"),
        stage(same, num_cpus=0.03, name="last"),
    ]
    at = [one.name for one in stages].index(where)
    stages[at] = stage(dies, num_cpus=0.01 * (at + 1), name=where)
    got = []
    with pytest.raises(PipelineError) as caught:
        for y in (Pipeline() | stages[0] | stages[1] | stages[2]).stream(itertools.count()):
            got.append(y)
    assert caught.value.stage == where
    assert got == list(range(len(got)))
    assert len(got) <= 5


def inbox_of_two() -> Inbox:
    ways = [Way(1, "left", None), Way(2, "right", None)]
    inbox = Inbox(ways, ZIP, 4, threading.RLock(), 1 << 40)
    inbox.keeps = True
    return inbox


def sent(inbox: Inbox, place: int, numbers: range, over: Any = None) -> None:
    """Those that a stage has kept for one that is started anew, as it was told of them."""
    entries = [(0, number, 0, number) for number in numbers]
    assert inbox.accept(place, numbers.start, columns(entries), over)


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("pieces", [1, 2, 5])
def test_P24_streams_that_heard_of_other_pairs_begin_with_the_same_one(order: tuple[int, int], pieces: int) -> None:
    """The one before had done 7 pairs, and had told one stream of 3, the other of 7."""
    inbox = inbox_of_two()
    for place in order:
        first = (3, 7)[place]
        for at in range(first, 12, pieces):
            sent(inbox, place, range(at, min(12, at + pieces)))
    sent(inbox, 0, range(12, 12), OVER)
    assert len(inbox) == 10
    found = inbox.poll()
    assert [(left, right) for (_, _, left), (_, _, right) in found] == [(each, each) for each in range(7, 12)]
    assert [number for (_, number, _), _ in found] == [*range(7, 12)]
    assert inbox.is_over


def test_P24_a_stream_that_was_over_by_then_ends_the_pairs() -> None:
    inbox = inbox_of_two()
    sent(inbox, 0, range(2, 4), OVER)
    assert not inbox.is_over
    sent(inbox, 1, range(4, 9))
    assert inbox.poll() == [] and inbox.is_over


@pytest.mark.parametrize("buffer", [1, 2, 16])
def test_P24_what_a_successor_sends_again_takes_nobodys_room(buffer: int) -> None:
    """While some of it still waits to be read: else nothing is asked for any more, and the pipeline stands still."""
    inbox = Inbox([Way(1, "first", "who dies")], INTERLEAVE, buffer, threading.RLock(), 1 << 40)
    (stream,) = inbox._streams
    count = 3 * buffer
    assert inbox.accept(0, 0, columns([(0, number, 0, number) for number in range(count)]), None, "who dies")
    found = inbox.poll()
    for each in found[:-1]:
        inbox.begin(each)
    with inbox.lock:
        inbox.rewire(0, "successor")
    assert inbox._ask(stream)[0] == ANEW
    late = columns([(0, count, 0, count)])
    assert not inbox.accept(0, count, late, None, "who dies")  # an answer that was under way
    for first in range(0, count, buffer):
        again = columns([(0, number, 0, number) for number in range(first, first + buffer)])
        assert inbox.accept(0, first, again, None, "successor")
        assert inbox._ask(stream)[0] == first + buffer
    inbox.begin(found[-1])
    assert inbox._wants(stream)
    assert inbox._ask(stream)[:4] == (count, count, count, buffer)
    assert len(inbox) == 0
    mixed = columns([(5, 0, 0, "new"), (0, 0, 0, "had")])  # who merges others' streams: the last of it had come, too
    assert inbox.accept(0, count, mixed, None, "successor")
    ((new,),) = inbox.poll()
    assert new == (0, count, "new")
    inbox.begin((new,))
    assert inbox._ask(stream)[:3] == (count + 2, count + 2, count + 2)


@pytest.mark.usefixtures("cluster")
def test_P24_a_stage_that_cannot_be_started_anew_is_an_error_in_its_place(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(self: RemoteFlow, segment: Any) -> None:
        raise UnschedulableError("there is no room")

    one = away(lambda x: (x, os.getpid()), name="one", retries=3)
    run: Any = (Pipeline() | one).stream(itertools.count(), buffer=2)
    got = next(run)
    monkeypatch.setattr(RemoteFlow, "_start", full)
    os.kill(got[1], signal.SIGKILL)
    with pytest.raises(PipelineError, match="there is no room") as caught:
        for _ in run:
            pass
    assert caught.value.stage == "one"
    assert run._flow._replaced == {"one": 1}


def test_a_stage_that_asks_for_nothing_does_not_wait_for_what_others_of_its_pipeline_hold() -> None:
    """A whole CPU beside theirs is waited for only where there is one."""
    plain, held = stage(same, name="plain", locs={"a"}), away(same, name="held")

    def asked(pipe: Any, *nodes: dict[str, Any]) -> float | None:
        made: float | None = roomy(pipe.plan(), nodes)["plain"].terms.num_cpus
        return made

    def node(cpus: float, *locs: str, alive: bool = True) -> dict[str, Any]:
        return {"Alive": alive, "Resources": {"CPU": cpus}, "Locs": list(locs)}

    mixed = Pipeline() | plain | held
    assert asked(mixed, node(1, "a"), node(8), node(8, "a", alive=False)) == 0
    assert asked(mixed, node(1.01, "a")) is None
    assert asked(mixed) == 0
    assert asked(Pipeline() | plain, node(1, "a")) is None
    assert asked(Pipeline() | stage(same, name="plain", num_cpus=2) | held) == 2


@pytest.mark.usefixtures("cluster")
@pytest.mark.parametrize(("buffer", "at"), [(16, 33), (2, 7)])
def test_P24_a_zip_that_is_started_anew_pairs_what_belongs_together(tmp_path: Path, buffer: int, at: int) -> None:
    def join(pair: tuple[int, int]) -> tuple[int, int]:
        if pair[0] == at and not (tmp_path / "died").exists():
            (tmp_path / "died").touch()
            os._exit(3)
        return pair

    fork = Pipeline() | same | [stage(same, name="left"), stage(same, name="right")]
    pipe = fork | stage(join, merge="zip", retries=1)
    assert pipe.collect(range(60), buffer=buffer) == [(x, x) for x in range(60)]
    assert (tmp_path / "died").exists()


@pytest.mark.usefixtures("cluster")
def test_P24_who_is_through_and_dies_is_no_error_until_what_it_kept_is_wanted() -> None:
    """Then it is one at once, and not after the time for which a successor is waited for."""
    gate: zmreg.Queue[None] = zmreg.Queue()

    def stands_still(pair: tuple[int, int]) -> tuple[int, int, int]:
        if pair[0] >= 3:
            gate.get()
        return *pair, os.getpid()

    pipe = Pipeline() | away(lambda x: (x, os.getpid()), name="one") | stage(stands_still, name="other", retries=3)
    run = pipe.stream(range(8), buffer=16)
    got = [next(run) for _ in range(3)]
    flow: Any = run._flow
    eventually(lambda: run.metrics()["other"].depth == 4, 20, "the first stage is not through")
    key = flow._segments["one"].outputs[0].number
    flow._actors["one"].take.remote(key, 8, 0, 0, 1, 16, 1 << 20).get()  # answered with the end, as the other's is
    assert run.metrics()["other"].depth == 4
    os.kill(got[0][1], signal.SIGKILL)
    eventually(lambda: "one" in flow._gone, 20, "nobody has heard of it")
    gate.put(None)
    assert next(run)[0] == 3
    began = time.monotonic()
    os.kill(got[0][2], signal.SIGKILL)
    with pytest.raises(PipelineError) as caught:
        next(run)
    assert caught.value.stage == "other"
    assert time.monotonic() - began < REPLACED_S / 2
    gate.shutdown()
