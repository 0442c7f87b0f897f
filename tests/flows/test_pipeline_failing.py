"""Errors, retries, clocks, early ends, sessions and metrics of pipelines in this process. P rows of streams.md."""

from __future__ import annotations

import asyncio
import gc
import json
import pickle
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import pytest

from zmreg.core.flow_metrics import Times
from zmreg.flows.pipelines.pipeline import Pipeline
from zmreg.flows.pipelines.stages import stage
from zmreg.model.errors import PipelineError


def plus_one(x: int) -> int:
    return x + 1


def bad_at(number: int) -> Callable[[int], int]:
    def check(x: int) -> int:
        if x == number:
            raise ValueError(f"{x} is bad")
        return x

    return check


async def bad_three_async(x: int) -> int:
    if x == 3:
        raise ValueError("3 is bad")
    return x


def bad_three_spread(x: int) -> Iterator[int]:
    yield bad_at(3)(x)


def bad_three_stream(items: Iterator[int]) -> Iterator[int]:
    for x in items:
        yield bad_at(3)(x)


async def bad_three_astream(items: AsyncIterator[int]) -> AsyncIterator[int]:
    async for x in items:
        yield bad_at(3)(x)


FAILING = [bad_at(3), bad_three_async, bad_three_spread, bad_three_stream, bad_three_astream]


@pytest.mark.parametrize("failing", FAILING, ids=lambda failing: failing.__name__)
def test_P17_outputs_before_the_error_come_first(failing: Any) -> None:
    made = []
    run = (Pipeline() | plus_one | stage(failing, name="check") | plus_one).stream(range(-1, 4))
    with pytest.raises(PipelineError, match="3 is bad") as caught:
        for out in run:
            made.append(out)
    assert made == [1, 2, 3]
    error = caught.value
    assert (error.stage, error.index, error.preview, error.node) == ("check", 3, "3", "")
    assert isinstance(error.cause, ValueError)
    assert "is bad" in error.remote_traceback
    assert "zmreg/flows/segments" not in error.remote_traceback
    with pytest.raises(PipelineError):  # never the end of a short result
        next(run)
    again = pickle.loads(pickle.dumps(error))
    assert (again.stage, again.index, str(again.cause)) == ("check", 3, "3 is bad")


def test_P17_a_stage_that_swallows_what_comes_down_the_stream_does_not_hide_it() -> None:
    def swallows(items: Iterator[int]) -> Iterator[int]:
        try:
            yield from items
        except PipelineError:
            yield -1

    made = []
    with pytest.raises(PipelineError, match="1 is bad"):
        for out in (Pipeline() | bad_at(1) | swallows).stream(range(3)):
            made.append(out)
    assert made == [0, -1]


def test_P17_an_error_of_the_items_themselves_is_raised_as_it_is() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise KeyError("no more")

    run = (Pipeline() | plus_one).stream(items())
    assert next(run) == 2
    with pytest.raises(KeyError, match="no more"):
        next(run)


class Flaky:
    def __init__(self, failures: int, kind: type[Exception] = ConnectionError) -> None:
        self.left = failures
        self.kind = kind
        self.calls = 0

    def process(self, x: int) -> int:
        self.calls += 1
        if self.left:
            self.left -= 1
            raise self.kind("not now")
        return x


class FlakySpread(Flaky):
    def process(self, x: int) -> Iterator[int]:  # type: ignore[override]
        yield super().process(x)


class FlakyAsync(Flaky):
    async def process(self, x: int) -> int:  # type: ignore[override]
        return super().process(x)


@pytest.mark.parametrize("kind", [Flaky, FlakySpread, FlakyAsync])
def test_P18_a_retry_gives_its_output_once(kind: type[Flaky]) -> None:
    flaky = kind(2)
    run = (Pipeline() | stage(flaky, retries=2, backoff=0.001, retry_on=ConnectionError)).run([7])
    assert (list(run.outputs.values()), flaky.calls) == ([[7]], 3)
    (metrics,) = run.metrics().stages
    assert (metrics.retries, metrics.errors, metrics.items_out) == (2, 2, 1)


def test_P18_without_retries_left_or_for_another_error_it_fails() -> None:
    for flaky in (Flaky(3), Flaky(1, OSError)):
        with pytest.raises(PipelineError, match="not now"):
            (Pipeline() | stage(flaky, retries=2, backoff=0.001, retry_on=(ConnectionError,))).collect([7])
    assert Flaky(1).calls == 0


def test_P18_a_generator_that_has_yielded_is_not_tried_again() -> None:
    calls = []

    def half(x: int) -> Iterator[int]:
        calls.append(x)
        yield x
        raise ConnectionError("broken")

    run = (Pipeline() | stage(half, retries=5, backoff=0.001)).stream([7])
    assert next(run) == 7
    with pytest.raises(PipelineError, match="broken"):
        next(run)
    assert calls == [7]


@pytest.mark.parametrize("failing", [bad_at(3), bad_three_async, bad_three_spread], ids=range(3))
def test_P19_bad_items_are_skipped_or_kept_as_dead_letters(failing: Any) -> None:
    items = [0, 3, 1, 3, *range(4, 10)]
    skipped = (Pipeline() | plus_one | (lambda x: x - 1) | stage(failing, name="s", on_error="skip")).run(items)
    assert skipped.outputs == {"s": [0, 1, *range(4, 10)]}
    assert skipped.metrics()["s"].skipped == 2
    kept = (Pipeline() | stage(failing, name="s", on_error="dead_letter") | plus_one).run(items)
    assert kept.outputs == {"plus_one": [1, 2, *range(5, 11)]}
    assert [(one.stage, one.index, one.item, str(one.error)) for one in kept.dead_letters] == [
        ("s", 1, 3, "3 is bad"), ("s", 3, 3, "3 is bad"),
    ]  # fmt: skip
    assert [kept.metrics()["s"].dead_letters, kept.metrics()["plus_one"].items_in] == [2, 8]


def test_P20_counts_are_exact_and_the_slow_stage_is_the_bottleneck() -> None:
    slow_until = time.perf_counter

    def slow(x: int) -> int:
        until = slow_until() + 0.002
        while slow_until() < until:
            pass
        return x

    run = (Pipeline() | plus_one | slow | (lambda x: x if x % 2 else None)).run(range(30))
    one, two, three = run.metrics().stages
    assert [(each.items_in, each.items_out, each.filtered) for each in (one, two, three)] == [
        (30, 30, 0), (30, 30, 0), (30, 15, 15),
    ]  # fmt: skip
    assert run.bottleneck == "slow"
    assert two.times.min_s >= 0.002
    assert two.times.min_s <= two.times.quantile(0.5) <= two.times.quantile(0.99) <= two.times.max_s
    assert two.peak_rss > 1 << 20


def test_P20_quick_items_are_measured_by_sample_and_counted_all() -> None:
    run = (Pipeline() | plus_one).run(range(20_000))
    (one,) = run.metrics().stages
    assert one.items_in == one.items_out == 20_000
    assert abs(one.times.count - 20_000) <= 64 + 16 or one.times.count <= 20_000 * 16


def test_P20_quantiles_are_those_of_the_times_within_a_step() -> None:
    times = Times()
    for number in range(1, 1001):
        times.took(number / 1000)
    seen = times.summary()
    assert (seen.count, seen.min_s, seen.max_s) == (1000, 0.001, 1.0)
    for part in (0.5, 0.95, 0.99):
        assert part <= seen.quantile(part) <= part * 2**0.25
    both = seen.merged(seen)
    assert (both.count, both.quantile(0.5), both.total_s) == (2000, seen.quantile(0.5), 2 * seen.total_s)


def test_P21_json_and_prometheus_say_the_same() -> None:
    run = (Pipeline() | stage(plus_one, name='a "quoted" one')).run(range(5))
    told = json.loads(run.metrics().to_json())
    assert told["stages"][0]["items_in"] == 5
    assert set(told["stages"][0]["ms"]) == {"avg", "min", "max", "p50", "p95", "p99"}
    text = run.metrics().to_prometheus()
    assert 'zmreg_pipeline_items_in_total{stage="a \\"quoted\\" one"} 5\n' in text
    for line in text.splitlines():
        if not line.startswith("#"):
            float(line.rpartition(" ")[2])
    typed = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")]
    assert len(typed) == len(set(typed))


def numbers(ended: threading.Event) -> Callable[[], Iterator[int]]:
    def endless() -> Iterator[int]:
        try:
            number = 0
            while True:
                yield number
                number += 1
        finally:
            ended.set()

    return endless


def test_P22_break_runs_the_sources_finally() -> None:
    ended = threading.Event()
    run = (Pipeline(numbers(ended)) | plus_one).stream()
    for out in run:
        if out == 3:
            break
    assert ended.wait(1.0)
    assert run.metrics()["plus_one"].items_in >= 3


def test_P22_break_cancels_what_an_async_source_waits_for() -> None:
    ended = threading.Event()

    async def endless() -> AsyncIterator[int]:
        try:
            for number in range(3):
                yield number
            await asyncio.Event().wait()
        finally:
            ended.set()

    run = iter((Pipeline(endless) | plus_one).stream())
    assert [next(run) for _ in range(3)] == [1, 2, 3]
    del run
    assert ended.wait(1.0)


def test_P22_a_run_that_nobody_looks_at_any_more_is_stopped() -> None:
    ended = threading.Event()
    run = (Pipeline(numbers(ended)) | plus_one).stream()
    assert next(run) == 1
    del run
    gc.collect()
    assert ended.wait(1.0)


def test_P22_closing_closes_the_given_generator_and_ends_pauses() -> None:
    ended = threading.Event()
    with (Pipeline() | stage(plus_one, rate=0.01)).stream(numbers(ended)()) as run:
        assert next(run) == 1
    assert ended.wait(1.0)
    assert list(run) == []


def test_P22_an_async_loop_that_breaks_ends_the_run() -> None:
    ended = threading.Event()

    async def main() -> None:
        async for out in (Pipeline(numbers(ended)) | plus_one).astream():
            if out == 3:
                break

    asyncio.run(main())
    assert ended.wait(1.0)


def test_P22_a_generator_that_objects_to_its_end_leaves_the_others_closed() -> None:
    ended = threading.Event()

    def objects(items: Iterator[int]) -> Iterator[int]:
        try:
            yield from items
        finally:
            raise OSError("not now")

    run = (Pipeline(numbers(ended)) | objects | plus_one).stream()
    assert next(run) == 1
    run.close()
    assert ended.wait(1.0)


def test_P22_a_stage_may_take_less_than_there_is() -> None:
    ended = threading.Event()

    def three(items: Iterator[int]) -> Iterator[int]:
        for _ in range(3):
            yield next(items)

    assert (Pipeline(numbers(ended)) | three).collect() == [0, 1, 2]
    assert ended.is_set()


def test_P25_a_session_echoes_what_is_sent() -> None:
    with (Pipeline() | plus_one | plus_one).open() as session:
        for number in range(5):
            session.send(number)
            assert session.recv() == number + 2
        session.send(10)
        assert session.finish() == [12]
        with pytest.raises(ValueError, match="after close"):
            session.send(1)
        with pytest.raises(EOFError):
            session.recv()


def test_P25_a_session_may_be_awaited() -> None:
    async def main() -> list[int]:
        session = (Pipeline() | plus_one).open()
        await session.send(1)
        first = await session.recv()
        await session.close()
        with pytest.raises(ValueError, match="after close"):
            await session.send(2)
        return [first]

    assert asyncio.run(main()) == [2]


def test_P25_a_wait_that_is_given_up_loses_nothing() -> None:
    async def main() -> list[int]:
        async with (Pipeline() | plus_one).open() as session:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(session.recv(), 0.01)
            await session.send(1)
            await session.send(2)
            return [await session.recv(), await session.recv()]

    assert asyncio.run(main()) == [2, 3]


def test_P25_sending_to_a_run_that_has_failed_raises_its_error() -> None:
    with (Pipeline() | bad_at(0)).open(buffer=1) as session, pytest.raises(PipelineError, match="0 is bad"):
        for _ in range(100):
            session.send(0)


def test_P25_asynchronous_items_go_through() -> None:
    async def items() -> AsyncIterator[int]:
        for number in range(100):
            yield number
            if number % 10 == 0:
                await asyncio.sleep(0)

    async def main() -> list[int]:
        return [out async for out in (Pipeline() | plus_one).astream(items(), buffer=3)]

    assert asyncio.run(main()) == list(range(1, 101))


def stuck(x: int) -> int:
    if x == 1:
        _let_go.wait(5.0)
    return x


async def stuck_async(x: int) -> int:
    if x == 1:
        await asyncio.Event().wait()
    return x


def stuck_spread(x: int) -> Iterator[int]:
    yield stuck(x)


_let_go = threading.Event()


@pytest.mark.parametrize("slow", [stuck, stuck_async, stuck_spread])
def test_P27_an_item_that_takes_too_long_fails(slow: Any) -> None:
    _let_go.clear()
    run = (Pipeline() | stage(slow, timeout=0.1)).stream([0, 1, 2])
    try:
        assert next(run) == 0
        began = time.monotonic()
        with pytest.raises(PipelineError) as caught:
            next(run)
        assert time.monotonic() - began < 3.0
        assert isinstance(caught.value.cause, TimeoutError)
        assert (caught.value.index, caught.value.preview) == (1, "1")
    finally:
        _let_go.set()


def test_P27_what_those_after_it_take_is_not_its_time() -> None:
    def two(x: int) -> Iterator[int]:
        yield x
        yield x + 1

    def slowly(x: int) -> int:
        time.sleep(0.1)
        return x

    assert (Pipeline() | stage(two, timeout=0.15) | slowly).collect([1]) == [1, 2]
