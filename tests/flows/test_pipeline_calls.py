"""Stages whose work somebody else does: tasks, actors, functions by their names. P16 and P27 of streams.md."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

import zmreg
from zmreg import Pipeline, stage
from zmreg.model.errors import PipelineError

pytestmark = pytest.mark.usefixtures("cluster")


def double(x: int) -> int:
    return x * 2


@zmreg.remote
def double_far(x: int) -> int:
    return x * 2


@zmreg.remote
def twice_far(x: int) -> Iterator[int]:
    yield x
    yield x


@zmreg.remote
def three_far() -> Iterator[int]:
    yield from range(3)


@zmreg.remote
class Doubler:
    def process(self, x: int) -> int:
        return x * 2

    def other(self, x: int) -> int:
        return x * 2


def test_P16_whoever_is_called_gives_the_same() -> None:
    doubler = Doubler.remote()
    zmreg.register("pipeline_double", double)
    try:
        for kind in (
            double,
            double_far,
            doubler,
            doubler.other,
            "pipeline_double",
            stage("pipeline_double", retries=1),
        ):
            pipe = Pipeline() | (lambda x: x + 1) | kind | (lambda x: x + 1)
            assert pipe.plan().here
            assert pipe.collect([1, 2, 3]) == [5, 7, 9]
    finally:
        zmreg.withdraw("pipeline_double")
        zmreg.kill(doubler)


def test_P8_P16_a_remote_generator_is_flattened_and_may_be_the_source() -> None:
    assert (Pipeline(three_far) | twice_far | double).collect() == [0, 0, 2, 2, 4, 4]


def test_P17_P27_errors_and_clocks_of_who_is_called() -> None:
    @zmreg.remote
    def fails(x: int) -> int:
        raise ValueError("from afar")

    @zmreg.remote
    def slow(x: int) -> int:
        time.sleep(0.5)
        return x

    cases: list[tuple[Any, type[Exception]]] = [(stage(fails), ValueError), (stage(slow, timeout=0.05), TimeoutError)]
    for failing, kind in cases:
        with pytest.raises(PipelineError) as caught:
            (Pipeline() | failing).collect([1])
        assert isinstance(caught.value.cause, kind)
