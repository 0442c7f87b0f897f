"""Chains of stages in this process: order, kinds of stages, filters, lifecycle, shape. P rows of streams.md."""

from __future__ import annotations

import asyncio
import functools
import re
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from zmreg.flows.pipelines.pipeline import Pipeline
from zmreg.flows.pipelines.stages import ITEM, SOURCE, SPREAD, STREAM, stage
from zmreg.model.errors import CycleError, DuplicateStepError, GraphError, PipelineError


def double(x: int) -> int:
    return x * 2


def add_ten(x: int) -> int:
    return x + 10


async def double_async(x: int) -> int:
    await asyncio.sleep(0)
    return x * 2


def twice(x: int) -> Iterator[int]:
    yield x
    yield x


async def twice_async(x: int) -> AsyncIterator[int]:
    yield x
    await asyncio.sleep(0)
    yield x


def doubled(items: Iterator[int]) -> Iterator[int]:
    for x in items:
        yield x * 2


async def doubled_async(values: Any) -> AsyncIterator[int]:
    async for x in values:
        yield x * 2


class Doubler:
    def __init__(self) -> None:
        self.calls: list[str] = []

    def initialize(self) -> None:
        self.calls.append("initialize")

    def process(self, x: int) -> int:
        return x * 2

    def cleanup(self) -> None:
        self.calls.append("cleanup")


class AsyncDoubler(Doubler):
    async def process(self, x: int) -> int:  # type: ignore[override]
        return x * 2

    async def initialize(self) -> None:  # type: ignore[override]
        self.calls.append("initialize")


class Callable2:
    def __call__(self, x: int) -> int:
        return x * 2


def times(factor: int, x: int) -> int:
    return factor * x


class SpreadingObject:
    def process(self, x: int) -> Iterator[int]:
        yield x * 2


def test_P1_items_pass_in_order() -> None:
    assert (Pipeline() | double | add_ten).collect([5, 7, 3]) == [20, 24, 16]


def test_P1_P26_the_result_is_always_a_list() -> None:
    pipe = Pipeline() | double
    assert [pipe.collect(range(many)) for many in range(3)] == [[], [0], [0, 2]]


KINDS: list[Any] = [
    double, double_async, doubled, doubled_async, Doubler(), AsyncDoubler(), Doubler, Callable2(),
    functools.partial(times, 2), lambda x: x * 2, SpreadingObject(), stage(double, timeout=5.0),
    stage(double_async, timeout=5.0), stage(double, retries=1), stage(double, rate=1e6),
]  # fmt: skip


def called(what):
    """For tests' names, which may have no address in them: two processes collect them (pytest-xdist)."""
    return getattr(what, "__name__", None) or re.sub(r" (object )?at 0x\w+", "", repr(what))[-40:]


@pytest.mark.parametrize("kind", KINDS, ids=called)
def test_P16_every_kind_of_stage_gives_the_same(kind: Any) -> None:
    pipe = Pipeline() | add_ten | kind | add_ten
    assert pipe.collect([1, 2, 3]) == [32, 34, 36]
    assert list(pipe.stream([1, 2, 3])) == [32, 34, 36]


def by_row(row: Any) -> Iterator[Any]:
    yield from row


def annotated(numbers: Iterator[int]) -> Iterator[int]:
    yield from numbers


def makes() -> Iterator[int]:
    yield from range(3)


async def makes_async() -> AsyncIterator[int]:
    for x in range(3):
        yield x


@pytest.mark.parametrize(
    ("target", "kind"),
    [
        (double, ITEM), (double_async, ITEM), (twice, SPREAD), (twice_async, SPREAD), (by_row, SPREAD),
        (doubled, STREAM), (doubled_async, STREAM), (annotated, STREAM), (makes, SOURCE), (makes_async, SOURCE),
        (range(3), SOURCE), (Doubler, ITEM), (SpreadingObject, SPREAD), (SpreadingObject(), SPREAD), (len, ITEM),
        (str, None), ("served", ITEM),
    ],
    ids=called,
)  # fmt: skip
def test_P7_the_kind_is_read_off_the_function(target: Any, kind: str | None) -> None:
    if kind is None:
        with pytest.raises(TypeError, match="is no stage"):
            stage(target)
    else:
        assert stage(target).kind == kind


def test_P7_said_outright_wins_over_what_is_read_off() -> None:
    assert stage(doubled, stream=False).kind == SPREAD
    assert stage(by_row, stream=True).kind == STREAM
    with pytest.raises(ValueError, match="no generator"):
        stage(double, stream=True)


def test_P7_an_async_stage_over_the_stream_gives_as_it_goes() -> None:
    async def slowly(items: AsyncIterator[int]) -> AsyncIterator[tuple[int, float]]:
        async for x in items:
            await asyncio.sleep(0.001)
            yield x, time.monotonic()

    made = (Pipeline() | slowly).collect(range(5))
    assert [x for x, _ in made] == list(range(5))
    assert made[-1][1] - made[0][1] > 0.004


@pytest.mark.parametrize("spread", [twice, twice_async])
def test_P8_what_is_yielded_for_an_item_is_flattened(spread: Callable[..., Any]) -> None:
    assert (Pipeline() | spread | add_ten).collect([1, 2]) == [11, 11, 12, 12]


def test_P8_a_returned_list_is_one_item_and_no_yield_a_filter() -> None:
    def odd(x: int) -> Iterator[int]:
        if x % 2:
            yield x

    assert (Pipeline() | (lambda x: [x, x])).collect([1, 2]) == [[1, 1], [2, 2]]
    run = (Pipeline() | odd).run(range(4))
    assert run.outputs == {"odd": [1, 3]}
    assert run.metrics()["odd"].filtered == 2


@pytest.mark.parametrize("source", ["sync", "async"])
def test_P9_the_first_output_comes_before_the_second_item_is_made(source: str) -> None:
    taken = threading.Event()

    def items() -> Iterator[int]:
        yield 0
        assert taken.wait(5.0)
        yield 1

    async def items_async() -> AsyncIterator[int]:
        yield 0
        assert await asyncio.get_running_loop().run_in_executor(None, taken.wait, 5.0)
        yield 1

    made = iter((Pipeline(items if source == "sync" else items_async) | double | doubled).stream())
    assert next(made) == 0
    taken.set()
    assert list(made) == [4]


GIVEN_NONE = [0, None, "", False, 3]


async def same_async(x: object) -> object:
    return x


def same_spread(x: object) -> Iterator[object]:
    yield x


def same_stream(items: Iterator[object]) -> Iterator[object]:
    yield from items


@pytest.mark.parametrize("same", [lambda x: x, same_async, same_spread, same_stream], ids=range(4))
def test_P10_none_is_dropped_and_nothing_else(same: Any) -> None:
    assert repr((Pipeline() | same).collect(GIVEN_NONE)) == repr([0, "", False, 3])
    assert repr((Pipeline() | stage(same, keep_none=True)).collect(GIVEN_NONE)) == repr(GIVEN_NONE)


def test_P12_a_slow_reader_holds_up_the_source() -> None:
    made, taken, ahead = 0, 0, 0

    def items() -> Iterator[int]:
        nonlocal made, ahead
        for number in range(200):
            made += 1
            ahead = max(ahead, made - taken)
            yield number

    for number in (Pipeline(items) | double | add_ten | double).stream(buffer=4):
        assert number == (taken * 2 + 10) * 2
        taken += 1
    assert taken == 200
    assert ahead <= 3 * 4 + 3


def test_P14_a_rate_is_kept() -> None:
    began = time.monotonic()
    assert len((Pipeline() | stage(double, rate=100)).collect(range(21))) == 21
    assert 0.2 <= time.monotonic() - began < 2.0


class Staged:
    def __init__(self, fails: str = "", at: int = -1) -> None:
        self.calls: list[str] = []
        self.fails = fails
        self.at = at

    def _enter(self, name: str) -> None:
        self.calls.append(name)
        if self.fails == name:
            raise OSError(f"{name} fails")

    def initialize(self) -> None:
        self._enter("initialize")

    def process(self, x: int) -> int:
        if x == self.at:
            raise ValueError("bad item")
        return x

    def flush(self) -> Iterator[int]:
        self._enter("flush")
        yield 100
        yield 101

    def cleanup(self) -> None:
        self._enter("cleanup")


def test_P15_flush_gives_the_last_items_and_cleanup_follows() -> None:
    stages = [Staged(), Staged()]
    pipe = Pipeline() | stages[0] | add_ten | stages[1]
    assert pipe.collect([1, 2]) == [11, 12, 110, 111, 100, 101]
    assert [one.calls for one in stages] == [["initialize", "flush", "cleanup"]] * 2


@pytest.mark.parametrize("how", ["collect", "stream"])
def test_P15_cleanup_is_called_once_whatever_fails(how: str) -> None:
    stages = [Staged(), Staged(at=3), Staged()]
    pipe = Pipeline() | stages[0] | stages[1] | stages[2]
    with pytest.raises(PipelineError) as caught:
        pipe.collect(range(5)) if how == "collect" else list(pipe.stream(range(5)))
    assert (caught.value.stage, caught.value.index) == ("Staged_2", 3)
    assert [one.calls for one in stages] == [["initialize", "cleanup"]] * 3


def test_P15_an_error_of_initialize_fails_the_run_and_the_others_are_cleaned() -> None:
    stages = [Staged(), Staged(fails="initialize"), Staged()]
    pipe = Pipeline() | stages[0] | stages[1] | stages[2]
    with pytest.raises(PipelineError, match="initialize fails") as caught:
        pipe.collect(range(5))
    assert caught.value.index == -1
    assert [one.calls for one in stages] == [["initialize", "cleanup"], ["initialize"], []]


def test_P15_an_error_of_cleanup_is_told_and_the_others_are_cleaned() -> None:
    stages = [Staged(fails="cleanup"), Staged()]
    made = (Pipeline() | stages[0] | stages[1]).stream([1])
    with pytest.raises(PipelineError, match="cleanup fails"):
        list(made)
    assert stages[1].calls[-1] == "cleanup"


def test_P23_what_makes_no_sense_is_said_before_anything_runs() -> None:
    begun = Staged()
    with pytest.raises(GraphError, match="without stages"):
        Pipeline().collect([1])
    with pytest.raises(DuplicateStepError):
        Pipeline() | stage(begun, name="a") | stage(double, name="a")
    with pytest.raises(CycleError):
        Pipeline.graph({"a": begun, "b": double}, [("a", "b"), ("b", "a")])
    with pytest.raises(GraphError, match="no stage 'c'"):
        Pipeline.graph({"a": begun, "b": double}, [("a", "c")])
    with pytest.raises(GraphError, match="makes its items itself"):
        Pipeline() | begun | makes
    with pytest.raises(GraphError, match="whole stream"):
        stage(doubled, concurrency=2)
    with pytest.raises(TypeError, match="items=5 cannot be iterated over"):
        (Pipeline() | double).collect(5)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="takes items"):
        (Pipeline() | begun).collect()
    with pytest.raises(TypeError, match="give none"):
        Pipeline(makes).collect([1])
    for wrong in ({"buffer": 0}, {"retries": -1}, {"rate": 0}, {"merge": "mix"}, {"on_error": "hide"}):
        with pytest.raises(ValueError, match=next(iter(wrong))):
            stage(double, **wrong)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="no option 'timeouts'"):
        stage(double, timeouts=1)  # type: ignore[call-arg]
    assert begun.calls == []


def test_P23_info_says_what_it_looks_like() -> None:
    chain = (Pipeline() | double | add_ten | double).info
    assert (chain.nodes, chain.sources, chain.sinks) == (3, ("double",), ("double_2",))
    assert (chain.execution_order, chain.strategy) == (("double", "add_ten", "double_2"), "linear")
    fork = (Pipeline() | double | [add_ten, Pipeline() | twice | add_ten] | doubled).info
    assert (fork.nodes, fork.sources, fork.sinks, fork.strategy) == (5, ("double",), ("doubled",), "graph")


def test_P2_two_chains_beside_each_other_are_not_one() -> None:
    pipe = Pipeline.graph({"a": double, "b": double, "c": add_ten, "d": add_ten}, [("a", "b"), ("c", "d")])
    plan = pipe.plan()
    assert pipe.info.strategy == "graph"
    assert [segment.stages for segment in plan.segments] == [("a", "b"), ("c", "d")]
    assert not plan.here


def test_P2_a_chain_is_one_stretch_and_wishes_cut_it() -> None:
    chain = Pipeline() | double | add_ten | double
    assert (len(chain.plan().segments), chain.plan().here) == (1, True)
    assert (len(chain.plan(fuse=False).segments), chain.plan(fuse=False).here) == (3, False)
    wishing = Pipeline() | double | stage(add_ten).on(locs="gpu") | stage(double, locs={"gpu"}) | double
    assert [segment.stages for segment in wishing.plan().segments] == [
        ("double",), ("add_ten", "double_2"), ("double_3",),
    ]  # fmt: skip


def drop_threes(x: int) -> int | None:
    return None if x % 3 == 0 else x


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.sampled_from(["double", "add", "drop", "twice", "stream"]), min_size=1, max_size=6),
       st.lists(st.integers(-50, 50), max_size=120), st.integers(1, 5))  # fmt: skip
def test_P1_any_chain_equals_the_plain_loops(names: list[str], items: list[int], buffer: int) -> None:
    stages = {"double": double, "add": add_ten, "drop": drop_threes, "twice": twice, "stream": doubled}
    pipe, wanted = Pipeline(), list(items)
    for name in names:
        pipe |= stages[name]
        wanted = {
            "double": lambda given: [x * 2 for x in given], "add": lambda given: [x + 10 for x in given],
            "drop": lambda given: [x for x in given if x % 3], "twice": lambda given: [x for x in given for _ in "ab"],
            "stream": lambda given: [x * 2 for x in given],
        }[name](wanted)  # fmt: skip
    assert pipe.collect(items) == wanted
    run = pipe.stream(items, buffer=buffer)
    assert list(run) == wanted
    passed = len(items)
    for one in run.metrics().stages:  # counts are exact, whatever was measured by sample
        assert one.items_in == passed
        passed = one.items_out
    assert passed == len(wanted)
