"""Pipelines over several nodes: what travels where, and what happens when a node dies (spec/streams.md, P24)."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterator
from typing import Any

import pytest

import zmreg
from tests.processes.drivers import eventually
from zmreg.flows.pipelines.inbox import REPLACED_S
from zmreg.flows.pipelines.pipeline import Pipeline
from zmreg.flows.pipelines.stages import stage
from zmreg.model.errors import PipelineError
from zmreg.testing import LocalCluster


@pytest.fixture
def three() -> Iterator[LocalCluster]:
    with LocalCluster(nodes=[{"num_cpus": 1}, {"locs": {"a"}}, {"locs": {"b"}}]) as cluster:
        cluster.attach()
        yield cluster


def here(_: Any) -> str:
    return zmreg.get_runtime_context().get_node_id()


def test_P24_stages_are_where_they_are_wanted_and_only_outputs_come_to_the_driver(three: LocalCluster) -> None:
    first, second = (node.node_id for node in three.nodes[1:])

    def numbers() -> Iterator[bytes]:
        for _ in range(40):
            yield bytes(200_000)

    def measure(x: bytes) -> tuple[int, str]:
        return len(x), zmreg.get_runtime_context().get_node_id()

    def made(x: bytes) -> bytes:
        return x + zmreg.get_runtime_context().get_node_id().encode()

    pipe = Pipeline(stage(numbers, locs={"a"})) | stage(made, locs={"a"}) | stage(measure, locs={"b"})
    before = _bytes_here()
    got = pipe.collect(buffer=4)
    assert got == [(200_000 + len(first), second)] * 40
    assert _bytes_here() - before < 1_000_000  # of 8 MB between the stages


def _bytes_here() -> int:
    return sum(
        sum(number for name, number in link.items() if "bytes" in name) for link in zmreg.stats()["links"].values()
    )


@pytest.mark.parametrize("retries", [0, 1])
def test_P24_the_death_of_a_stages_node(three: LocalCluster, retries: int) -> None:
    """With retries it goes on at another node that has its locs; without, it is an error in its place."""
    three.add_node(num_cpus=2, locs={"a"})
    pipe = Pipeline() | stage(here, locs={"a"}, retries=retries) | stage(lambda x: x, locs={"b"}, name="last")
    got: list[str] = []

    def read(items: Any) -> None:
        for x in pipe.stream(items, buffer=4):
            got.append(x)
            if len(got) == 20:
                three.kill_node(got[0])

    if retries:
        read(range(200))
        assert len(got) == 200
        assert len(set(got)) == 2
    else:
        with pytest.raises(PipelineError) as caught:
            read(itertools.count())
        assert caught.value.stage == "here"
        assert len(got) >= 20


def test_P24_two_neighbours_that_die_together_are_an_error_in_its_place(three: LocalCluster) -> None:
    """Each is what the other would go on from. What came before is whole and in order, and it is told at once."""
    three.add_node(num_cpus=2, locs={"a"})
    one = stage(lambda x: (x, zmreg.get_runtime_context().get_node_id()), name="one", locs={"a"}, retries=3)
    other = stage(lambda x: x, name="other", locs={"a"}, num_cpus=0.01, retries=3)
    pipe = Pipeline() | one | other | stage(lambda x: x, locs={"b"}, name="last")
    assert len(pipe.plan().segments) == 3
    got: list[tuple[int, str]] = []
    with pytest.raises(PipelineError) as caught:
        for x in pipe.stream(range(2_000), buffer=4):
            got.append(x)
            if len(got) == 20:
                three.kill_node(got[0][1])
    assert caught.value.stage in ("one", "other")
    assert [x for x, _ in got] == list(range(len(got)))
    assert 20 <= len(got) < 2_000


def of_both(three: LocalCluster) -> str:
    """The only node that has "a"."""
    return three.nodes[1].node_id


def test_P24_two_that_die_together_go_on_when_one_that_lives_is_between_them(three: LocalCluster) -> None:
    """It has items in its hand that the first sends again, and the third wants again."""
    killed: zmreg.Queue[None] = zmreg.Queue(actor_options={"locs": {"b"}})

    def stands_still(pair: tuple[int, str]) -> tuple[int, str]:
        if pair[0] == 24:
            killed.get()
        return pair

    first = stage(lambda x: (x, here(x)), name="first", locs={"a"}, retries=1)
    third = stage(lambda pair: (*pair, here(pair)), name="third", locs={"a"}, num_cpus=0.01, retries=1)
    pipe = Pipeline() | first | stage(stands_still, name="second", locs={"b"}) | third
    run = pipe.stream(range(100), buffer=4)
    got = [next(run) for _ in range(20)]
    assert {node for _, *both in got for node in both} == {of_both(three)}
    three.add_node(num_cpus=2, locs={"a"})
    three.kill_node(of_both(three))
    flow: Any = run._flow
    eventually(lambda: flow._replaced == {"first": 1, "third": 1}, 20, "they were not started anew")
    killed.put(None)
    got += run
    assert [x for x, *_ in got] == list(range(100))
    assert len({one for _, one, _ in got}) == len({other for *_, other in got}) == 2
    killed.shutdown()


def test_P24_who_kept_what_is_to_be_done_again_and_died_too_is_told_at_once(three: LocalCluster) -> None:
    """The first stage is through, and nobody waits for its process any more."""
    never: zmreg.Queue[None] = zmreg.Queue(actor_options={"locs": {"b"}})

    def stands_still(x: int) -> str:
        if x == 5:
            never.get()
        return here(x)

    one = stage(lambda x: x, name="one", locs={"a"}, retries=3)
    run = (Pipeline() | one | stage(stands_still, name="other", locs={"a"}, num_cpus=0.01, retries=3)).stream(range(12))
    got = [next(run) for _ in range(5)]
    assert set(got) == {of_both(three)}
    eventually(lambda: run.metrics()["one"].items_out == 12, 20, "the first stage is not through")
    three.add_node(num_cpus=2, locs={"a"})
    began = time.monotonic()
    three.kill_node(of_both(three))
    with pytest.raises(PipelineError) as caught:
        next(run)
    assert caught.value.stage in ("one", "other")
    assert time.monotonic() - began < REPLACED_S / 2
    never.shutdown()


def test_a_stage_that_asks_for_nothing_begins_where_another_holds_a_part_of_the_only_cpu() -> None:
    with LocalCluster(nodes=[{"num_cpus": 1}]) as cluster:
        cluster.attach()
        pipe = Pipeline() | stage(lambda x: x, name="holds", num_cpus=0.5) | stage(lambda x: x + 1, name="plain")
        run = pipe.stream(range(1, 4))
        assert list(run) == [2, 3, 4]
