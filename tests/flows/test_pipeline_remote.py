"""Pipelines whose stages are actors: branches, merges, lanes, credits, errors, the end (spec/streams.md, P rows)."""

from __future__ import annotations

import itertools
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import zmreg
from zmreg.flows.pipelines.pipeline import Pipeline
from zmreg.flows.pipelines.remote_flow import RemoteFlow
from zmreg.flows.pipelines.stages import stage
from zmreg.model.errors import PipelineError, UnschedulableError

pytestmark = pytest.mark.usefixtures("cluster")


def times_two(x: int) -> int:
    return x * 2


def plus_ten(x: int) -> int:
    return x + 10


def same(x: Any) -> Any:
    return x


def away(target: Any, **options: Any) -> Any:
    """A stage that never runs in the driver."""
    return stage(target, num_cpus=0.01, **options)


def test_P3_each_branch_gets_every_item() -> None:
    run = (Pipeline() | same | [stage(times_two, name="a"), stage(lambda x: x + 100, name="b")]).run([10])
    assert run.outputs == {"a": [20], "b": [110]}


def test_P3_a_large_item_is_stored_once_for_all_branches() -> None:
    def where(x: bytes) -> tuple[int, int]:
        return os.getpid(), len(x)

    made = (Pipeline() | (lambda n: bytes(n)) | [stage(where, name="a"), stage(where, name="b")]).collect([1 << 20])
    assert [size for _, size in made] == [1 << 20] * 2
    assert len({pid for pid, _ in made} | {os.getpid()}) == 3


def test_P4_P5_a_diamond_of_several_levels_and_a_merge_in_arrival_order() -> None:
    pipe = Pipeline() | same | [times_two, plus_ten] | stage(same, name="join")
    assert sorted(pipe.collect([7])) == [14, 17]
    three = pipe | [stage(times_two, name="x"), stage(plus_ten, name="y")] | stage(same, name="end")
    assert sorted(three.collect([7])) == sorted([28, 34, 24, 27])


def test_P4_concat_and_zip_keep_their_promise_of_order() -> None:
    fork = Pipeline() | same | [times_two, plus_ten]
    made = (fork | [stage(same, merge="concat", name="c"), stage(same, merge="zip", name="z")]).run(range(50)).outputs
    assert made["c"] == [*(2 * x for x in range(50)), *(x + 10 for x in range(50))]
    assert made["z"] == [(2 * x, x + 10) for x in range(50)]


@pytest.mark.parametrize("merge", ["interleave", "concat", "zip"])
def test_P4_a_diamond_with_buffer_1_ends(merge: str) -> None:
    count = int(os.environ.get("ZMREG_TEST_DIAMOND", "60"))  # 10,000 by hand: 20 to 60 s each
    made = (Pipeline() | same | [times_two, plus_ten] | stage(same, merge=merge, name="m")).collect(
        range(count), buffer=1
    )
    assert len(made) == (count if merge == "zip" else 2 * count)
    flat = [x for pair in made for x in pair] if merge == "zip" else made
    assert sorted(flat) == sorted([2 * x for x in range(count)] + [x + 10 for x in range(count)])


def test_P6_sources_get_all_the_input_and_each_sink_has_outputs_of_its_own() -> None:
    shape = {"a": times_two, "b": plus_ten, "s": same, "t": same}
    run = Pipeline.graph(shape, [("a", "s"), ("a", "t"), ("b", "t")]).run([1, 2, 3])
    assert run.outputs["s"] == [2, 4, 6]
    assert sorted(run.outputs["t"]) == sorted([2, 4, 6, 11, 12, 13])


def test_P6_a_source_makes_its_items_itself() -> None:
    def numbers() -> Iterator[int]:
        yield from range(40)

    assert sorted((Pipeline(numbers) | [times_two, plus_ten]).collect()) == sorted(
        [2 * x for x in range(40)] + [x + 10 for x in range(40)]
    )


@pytest.mark.parametrize("ordered", [True, False])
def test_P11_lanes_give_items_on_in_order_unless_told_otherwise(ordered: bool) -> None:
    def uneven(x: int) -> tuple[int, int]:
        time.sleep(0.02 if x % 5 == 0 else 0.0)
        return x, os.getpid()

    made = (Pipeline() | stage(uneven, concurrency=2, ordered=ordered)).collect(range(60))
    assert len({pid for _, pid in made} - {os.getpid()}) == 2
    numbers = [x for x, _ in made]
    assert sorted(numbers) == list(range(60))
    assert (numbers == list(range(60))) is ordered


def test_P11_lanes_of_a_generator_are_flattened_and_empty_ones_leave_no_gap() -> None:
    def some(x: int) -> Iterator[int]:
        yield from [x] * (x % 3)

    assert (Pipeline() | stage(some, concurrency=2) | times_two).collect(range(30)) == [
        2 * x for x in range(30) for _ in range(x % 3)
    ]


def test_P12_a_fast_source_is_never_further_ahead_than_the_buffers(tmp_path: Path) -> None:
    made, used = tmp_path / "made", tmp_path / "used"

    def note(path: Path) -> None:
        with path.open("ab") as file:
            file.write(b".")

    def source() -> Iterator[int]:
        for x in range(60):
            note(made)
            yield x

    def sink(x: int) -> int:
        note(used)
        time.sleep(0.005)
        ahead = made.stat().st_size - used.stat().st_size
        return ahead

    pipe = Pipeline(source) | away(same) | stage(sink, num_cpus=0.02)
    assert len(pipe.plan().segments) == 3
    ahead = pipe.collect(buffer=4)
    assert len(ahead) == 60
    assert max(ahead) <= 3 * 4 + 3
    assert max(ahead) > 4  # and it does run ahead


def test_P12_items_of_many_bytes_wait_before_items_do() -> None:
    """64 items of 1 MiB would be 64 MiB; an edge has 16."""
    made: list[int] = []

    def items() -> Iterator[bytes]:
        for x in range(60):
            made.append(x)
            yield bytes(1 << 20)

    gate: zmreg.Queue[None] = zmreg.Queue(0)
    run = (Pipeline() | away(lambda x: (gate.get(), len(x))[1])).stream(items(), buffer=64)
    seen = -1
    while seen != len(made):  # until it stands still
        seen = len(made)
        threading.Event().wait(0.3)
    assert 10 <= len(made) <= 20
    gate.put_nowait_batch([None] * 60)
    assert list(run) == [1 << 20] * 60
    gate.shutdown()


def test_P12_less_comes_in_when_memory_is_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(RemoteFlow, "rss_limit", 1)
    made: list[int] = []

    def items() -> Iterator[int]:
        for x in range(200):
            made.append(x)
            yield x

    gate: zmreg.Queue[None] = zmreg.Queue(0)
    run = (Pipeline() | away(lambda x: (gate.get(), x)[1])).stream(items(), buffer=100)
    seen = -1
    while seen != len(made) or not made:
        seen = len(made)
        threading.Event().wait(0.3)
    assert len(made) <= 6
    gate.put_nowait_batch([None] * 200)
    assert list(run) == list(range(200))
    gate.shutdown()


def test_P12_memory_stays_flat_over_many_items() -> None:
    count = int(os.environ.get("ZMREG_TEST_FLAT", "2000"))

    def rss(x: bytes) -> int:
        with open("/proc/self/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * 4096

    seen = (Pipeline() | away(lambda x: x + b"!") | stage(rss, num_cpus=0.02)).collect(
        bytes(10_000) for _ in range(count)
    )
    assert len(seen) == count
    assert max(seen) - seen[count // 10] < 8 << 20


def test_P13_branches_work_at_the_same_time() -> None:
    def met(key: str) -> Any:
        def meet(x: int) -> int:
            zmreg.sync.Barrier(f"P13-{os.getppid()}", 2).wait(10)
            return x

        return stage(meet, name=key)

    assert (Pipeline() | same | [met("a"), met("b")]).collect([1]) == [1, 1]


@zmreg.remote
def remote_double(x: int) -> int:
    return x * 2


class Doubler:
    def double(self, x: int) -> int:
        return x * 2


class Object:
    def process(self, x: int) -> int:
        return x * 2


async def coroutine(x: int) -> int:
    return x * 2


def generator(x: int) -> Iterator[int]:
    yield x * 2


async def over_stream(items: Any) -> Any:
    async for x in items:
        yield x * 2


def test_P16_every_kind_of_stage_gives_the_same_elsewhere() -> None:
    actor: Any = zmreg.remote(Doubler).remote()
    kinds = [times_two, coroutine, generator, over_stream, Object(), Object, remote_double, actor.double]
    fork = Pipeline() | same | [stage(kind, name=f"k{n}", num_cpus=0.01) for n, kind in enumerate(kinds)]
    run = fork.run([1, 2, 3])
    assert run.outputs == {f"k{n}": [2, 4, 6] for n in range(len(kinds))}
    zmreg.kill(actor)


@pytest.mark.parametrize("options", [{"num_cpus": 0.01}, {"concurrency": 2}])
def test_P17_an_error_comes_in_its_place_behind_all_that_was_before_it(options: dict[str, Any]) -> None:
    def fails(x: int) -> int:
        if x == 3:
            raise KeyError("three")
        return x

    got = []
    with pytest.raises(PipelineError) as caught:
        for y in (Pipeline() | stage(fails, **options) | away(same)).stream(range(5)):
            got.append(y)
    assert got == [0, 1, 2]
    error = caught.value
    assert (error.stage, error.index, error.preview) == ("fails", 3, "3")
    assert isinstance(error.cause, KeyError)
    assert error.__cause__ is error.cause
    assert error.node == zmreg.get_runtime_context().get_node_id() or os.environ.get("ZMREG_TEST_FAR")


def test_P17_an_error_that_cannot_be_sent_is_told_without_its_cause() -> None:
    def fails(x: int) -> int:
        error = ValueError("odd")
        error.lock = threading.Lock()  # type: ignore[attr-defined]
        raise error

    with pytest.raises(PipelineError, match="ValueError: odd") as caught:
        (Pipeline() | away(fails)).collect([1])
    assert caught.value.cause is None


def test_P17_what_the_items_raise_is_raised_behind_what_they_made() -> None:
    def items() -> Iterator[int]:
        yield 1
        raise LookupError("no more")

    got = []
    with pytest.raises(LookupError, match="no more"):
        for y in (Pipeline() | away(same)).stream(items()):
            got.append(y)
    assert got == [1]


def test_P17_what_cannot_be_sent_names_its_stage() -> None:
    with pytest.raises(PipelineError, match="make"):
        (Pipeline() | away(lambda x: threading.Lock(), name="make") | stage(same, num_cpus=0.02)).collect([1])


def test_P20_metrics_are_gathered_from_all_stages_and_lanes() -> None:
    def slow(x: int) -> int:
        time.sleep(0.004)
        return x

    def odd(x: int) -> int | None:
        return x if x % 2 else None

    run = (Pipeline() | same | [stage(odd), stage(slow, concurrency=2)]).run(range(40))
    metrics = run.metrics()
    assert [(one.items_in, one.items_out, one.filtered) for one in metrics.stages] == [
        (40, 40, 0), (40, 20, 20), (40, 40, 0),
    ]  # fmt: skip
    assert metrics["slow"].lanes == 2
    assert run.bottleneck == "slow"


def test_P19_dead_letters_come_from_where_they_happened() -> None:
    def picky(x: int) -> int:
        if x % 5 == 0:
            raise ValueError(x)
        return x

    run = (Pipeline() | away(picky, on_error="dead_letter")).run(range(10))
    assert run.outputs["picky"] == [1, 2, 3, 4, 6, 7, 8, 9]
    assert [(letter.item, letter.index) for letter in run.dead_letters] == [(0, 0), (5, 5)]


def test_P22_a_break_closes_the_source_and_nobody_is_left(tmp_path: Path) -> None:
    def endless() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            (tmp_path / "closed").write_text(str(time.time()))

    got = []
    run = (Pipeline(endless) | away(same)).stream()
    for y in run:
        got.append(y)
        if len(got) == 3:
            break
    began = time.time()
    run.close()
    assert got == [0, 1, 2]
    assert float((tmp_path / "closed").read_text()) - began < 1.0


def test_P22_a_break_closes_the_items_of_the_driver() -> None:
    closed = threading.Event()

    def endless() -> Iterator[int]:
        try:
            yield from itertools.count()
        finally:
            closed.set()

    for _ in (Pipeline() | away(same)).stream(endless()):
        break
    assert closed.wait(1.0)


def test_P25_a_session_echoes_through_two_stages() -> None:
    with (Pipeline() | away(same) | stage(plus_ten, num_cpus=0.02)).open() as session:
        for x in range(5):
            session.send(x)
            assert session.recv() == x + 10
        session.send(7)
        assert session.finish() == [17]


def test_P24_stages_that_want_more_than_there_is_are_refused_at_once() -> None:
    with pytest.raises(UnschedulableError, match="99 CPU together"):
        (Pipeline() | stage(same, num_cpus=99)).collect([1])
