"""Generators whose items are taken while they run (core-api rows 26, 27, 28, 4, 22, 23; reliability row 64)."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import pickle
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zmreg
from zmreg import ObjectRefGenerator
from zmreg.model.errors import SerializationError, TaskCancelledError, TaskError

pytestmark = pytest.mark.usefixtures("cluster")
T = 30
LIMIT = "_generator_backpressure_num_objects"


def until(is_so: Callable[[], Any], what: str) -> None:
    """What other processes do takes a moment."""
    deadline = time.monotonic() + T
    while not is_so():
        assert time.monotonic() < deadline, f"not in time: {what}"
        threading.Event().wait(0.005)


def is_parked() -> None:
    """A parked generator has given its CPU back, and nothing else runs here."""
    until(lambda: zmreg.available_resources().get("CPU") == 2, "a generator that parks")


def steps(marks: Path, name: str) -> int:
    """How many items a `marking` generator has begun to make."""
    return len(list(marks.glob(f"{name}-item-*")))


def values(generator: Any) -> list[Any]:
    return [ref.get(timeout=T) for ref in generator]


@zmreg.remote
def count(n: int) -> Iterator[int]:
    yield from range(n)


@zmreg.remote
def marking(marks: str, name: str, n: int = 1_000) -> Iterator[int]:
    try:
        for i in range(n):
            Path(marks, f"{name}-item-{i}").touch()
            yield i
    finally:
        Path(marks, f"{name}-over").touch()


@zmreg.remote
def fails(n: int) -> Iterator[int]:
    yield from range(n)
    raise KeyError("mine")


# -- 26: what it is ---------------------------------------------------------------------------------------------------


def test_row26_a_generator_function_gives_a_generator_of_refs_by_default() -> None:
    generator = count.remote(3)
    assert isinstance(generator, ObjectRefGenerator)
    refs = list(generator)
    assert all(isinstance(ref, zmreg.ObjectRef) for ref in refs)
    assert zmreg.get(refs) == [0, 1, 2]
    assert "ended" in repr(generator)


def test_section4_yield_from_range_works() -> None:
    assert values(count.remote(1_000)) == list(range(1_000))
    assert values(count.remote(0)) == []


def test_row26_items_come_while_the_generator_runs(tmp_path: Path) -> None:
    @zmreg.remote
    def waits(path: str) -> Iterator[str]:
        yield "first"
        while not os.path.exists(path):
            threading.Event().wait(0.01)
        yield "second"

    generator = waits.remote(str(tmp_path / "go"))
    assert next(generator).get(timeout=T) == "first"
    assert not generator.is_finished()
    assert not generator.next_ready()
    (tmp_path / "go").touch()
    assert next(generator).get(timeout=T) == "second"
    with pytest.raises(StopIteration):
        next(generator)
    assert generator.is_finished()
    assert generator.next_ready()


def test_row26_an_item_that_collects_leaves_though_the_body_goes_on_with_something_else(tmp_path: Path) -> None:
    @zmreg.remote
    def fast_then_slow(path: str) -> Iterator[int]:
        yield from range(3)
        while not os.path.exists(path):
            threading.Event().wait(0.01)

    generator = fast_then_slow.remote(str(tmp_path / "go"))
    assert [next(generator).get(timeout=T) for _ in range(3)] == [0, 1, 2]
    (tmp_path / "go").touch()
    assert generator.completed().get(timeout=T) == 3


def test_row26_an_error_is_the_last_ref_and_then_it_is_over_for_good() -> None:
    generator = fails.remote(2)
    refs = list(generator)
    assert zmreg.get(refs[:2]) == [0, 1]
    assert len(refs) == 3
    with pytest.raises(KeyError, match="mine"):
        refs[2].get(timeout=T)
    for _ in range(3):
        with pytest.raises(StopIteration):
            next(generator)


def test_row26_completed_is_the_number_of_items_or_the_users_error() -> None:
    generator = count.remote(5)
    assert generator.completed().get(timeout=T) == 5
    assert values(generator) == [0, 1, 2, 3, 4]
    with pytest.raises(KeyError, match="mine"):
        fails.remote(2).completed().get(timeout=T)


def test_row26_completed_alone_lets_it_run_to_its_end(tmp_path: Path) -> None:
    done = marking.options(**{LIMIT: 2}).remote(str(tmp_path), "a", 50).completed()
    gc.collect()
    assert done.get(timeout=T) == 50
    assert steps(tmp_path, "a") == 50


def test_row26_async_iteration() -> None:
    async def take() -> list[int]:
        return [await ref async for ref in count.remote(100)]

    async def fail() -> list[int]:
        return [await ref async for ref in fails.remote(1)]

    assert asyncio.run(take()) == list(range(100))
    with pytest.raises(KeyError):
        asyncio.run(fail())


def test_row26_neither_pickled_nor_sent_into() -> None:
    generator = count.remote(1)
    with pytest.raises(TypeError, match="Send the refs that it gives"):
        pickle.dumps(generator)
    with pytest.raises((TypeError, SerializationError), match="ObjectRefGenerator"):
        count.remote(generator)
    with pytest.raises(TypeError, match="use an actor"):
        generator.send(1)
    with pytest.raises(TypeError, match=r"zmreg\.cancel"):
        generator.throw(ValueError)
    with pytest.raises(TypeError, match="drop the generator"):
        generator.close()
    assert values(generator) == [0]


def test_row26_a_peeked_item_is_the_tasks_real_error() -> None:
    generator = fails.remote(0)
    assert zmreg.wait([generator], timeout=T) == ([generator], [])
    with pytest.raises(KeyError):
        next(generator).get()


def test_row26_several_threads_take_each_item_once() -> None:
    generator, taken = count.options(**{LIMIT: 16}).remote(2_000), []

    def take() -> None:
        for ref in generator:
            taken.append(ref.get(timeout=T))

    threads = [threading.Thread(target=take) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(T)
    assert sorted(taken) == list(range(2_000))


def test_row22_get_returns_a_generator_unchanged() -> None:
    generator = count.remote(1)
    assert zmreg.get(generator) is generator
    with pytest.raises(TypeError, match="takes refs"):
        zmreg.get([generator])


def test_row23_wait_takes_generators_and_refs_together(tmp_path: Path) -> None:
    @zmreg.remote
    def waits(path: str) -> Iterator[int]:
        while not os.path.exists(path):
            threading.Event().wait(0.01)
        yield 1

    late, soon, ref = waits.remote(str(tmp_path / "go")), count.remote(1), zmreg.put(1)
    ready, pending = zmreg.wait([late, ref, soon], num_returns=2, timeout=T)
    assert ready == [ref, soon]
    assert pending == [late]
    (tmp_path / "go").touch()
    assert zmreg.wait([late], timeout=T)[0] == [late]
    assert values(late) == [1]
    assert zmreg.wait([late], timeout=0) == ([late], []), "the end is ready, too"
    with pytest.raises(ValueError, match="each ref once"):
        zmreg.wait([soon, soon])
    with pytest.raises(TypeError, match="list of refs"):
        zmreg.wait(soon)  # type: ignore[arg-type]


def test_row26_what_no_iterator_is_cannot_stream() -> None:
    @zmreg.remote(num_returns="streaming")
    def three() -> int:
        return 3

    @zmreg.remote(num_returns="streaming")
    def letters() -> Iterator[str]:
        return iter("ab")

    (only,) = three.remote()
    with pytest.raises(TypeError, match="write `yield` in it, or return an iterator"):
        only.get(timeout=T)
    assert values(letters.remote()) == ["a", "b"]
    with pytest.raises(TypeError, match="'streaming'"):
        count.options(num_returns="dynamic")


def test_row26_an_item_that_cannot_be_sent_ends_it(tmp_path: Path) -> None:
    @zmreg.remote
    def locks(path: str) -> Iterator[Any]:
        try:
            yield 1
            yield threading.Lock()
        finally:
            Path(path).touch()

    good, bad = locks.remote(str(tmp_path / "over"))
    assert good.get() == 1
    with pytest.raises(SerializationError, match="an item of .*locks"):
        bad.get()
    until((tmp_path / "over").exists, "its finally block")


def test_row26_items_with_refs_inside_and_items_as_arguments() -> None:
    @zmreg.remote
    def refs() -> Iterator[Any]:
        for i in range(3):
            yield [zmreg.put(i), zmreg.put(np.full(100_000, i))]

    @zmreg.remote
    def add(a: int, b: int) -> int:
        return a + b

    kept = [ref.get(timeout=T) for ref in refs.remote()]
    assert [(small.get(), int(large.get()[-1])) for small, large in kept] == [(0, 0), (1, 1), (2, 2)]
    one, two = count.remote(2)
    assert add.remote(one, two).get(timeout=T) == 1


def test_row26_a_task_takes_what_another_yields() -> None:
    @zmreg.remote
    def total(n: int) -> int:
        return sum(ref.get() for ref in count.options(**{LIMIT: 2}).remote(n))

    assert zmreg.get([total.remote(40), total.remote(50), total.remote(60)], timeout=T) == [780, 1225, 1770]


# -- objects ----------------------------------------------------------------------------------------------------------


def used_bytes() -> int:
    return int(zmreg.stats()["store"]["used_bytes"])


@pytest.mark.near
def test_row26_items_are_freed_one_by_one_and_all_when_it_is_dropped() -> None:
    @zmreg.remote
    def arrays(n: int) -> Iterator[Any]:
        for i in range(n):
            yield np.full(1 << 18, i)

    until(lambda: used_bytes() == 0, "what tests before have left")
    generator = arrays.options(**{LIMIT: 3}).remote(20)
    for i, ref in enumerate(generator):
        assert ref.get(timeout=T)[0] == i
        assert used_bytes() <= 6 << 21, "three untaken, one taken, one in the making; notes of two under way"
    del ref
    until(lambda: used_bytes() == 0, "all freed")
    generator = arrays.remote(10)
    assert generator.completed().get(timeout=T) == 10
    next(generator)
    until(lambda: used_bytes() < 10 << 21, "the one that was dropped")
    del generator
    until(lambda: used_bytes() == 0, "freed by the early drop")


def test_row28_memory_is_flat_however_many_there_are() -> None:
    generator, most = count.options(**{LIMIT: 8}).remote(3_000), 0
    for _ in generator:
        most = max(most, len(generator._stream.ready))
    assert most <= 8


# -- 27: replays ------------------------------------------------------------------------------------------------------


def test_row27_fault64_a_replay_goes_on_where_the_dead_worker_stopped(tmp_path: Path) -> None:
    @zmreg.remote(max_retries=1)
    def dies(path: str) -> Iterator[Any]:
        for i in range(6):
            if i == 4 and not os.path.exists(path):
                Path(path).touch()
                threading.Event().wait(0.1)  # what collects has left
                os._exit(1)
            yield i if i % 2 else np.full(100_000, i)

    refs = list(dies.remote(str(tmp_path / "died")))
    assert [int(np.max(ref.get(timeout=T))) for ref in refs] == [0, 1, 2, 3, 4, 5]


def test_row27_a_replay_under_back_pressure_is_not_parked_by_what_was_taken_before(tmp_path: Path) -> None:
    @zmreg.remote(max_retries=1)
    def dies(path: str) -> Iterator[int]:
        for i in range(9):
            if i == 5 and not os.path.exists(path):
                Path(path).touch()
                os._exit(1)
            yield i

    assert values(dies.options(**{LIMIT: 2}).remote(str(tmp_path / "died"))) == list(range(9))


def test_row27_a_shorter_replay_is_an_error_and_no_end(tmp_path: Path) -> None:
    @zmreg.remote(max_retries=1)
    def shrinks(path: str) -> Iterator[int]:
        died = os.path.exists(path)
        yield from range(2 if died else 4)
        if not died:
            Path(path).touch()
            threading.Event().wait(0.1)
            os._exit(1)

    *good, last = shrinks.remote(str(tmp_path / "died"))
    assert zmreg.get(good) == [0, 1, 2, 3]
    with pytest.raises(TaskError, match="yielded 2 items, but 4 the time before"):
        last.get()


def test_row27_an_error_that_may_be_retried_gives_no_item_twice(tmp_path: Path) -> None:
    @zmreg.remote(retry_exceptions=[OSError])
    def flaky(path: str) -> Iterator[int]:
        for i in range(4):
            if i == 2 and not os.path.exists(path):
                Path(path).touch()
                raise OSError("once")
            yield i

    assert values(flaky.remote(str(tmp_path / "failed"))) == [0, 1, 2, 3]


def test_fault64_a_producer_that_dies_for_good_leaves_its_items_and_a_typed_error() -> None:
    @zmreg.remote(max_retries=0)
    def dies() -> Iterator[int]:
        yield 1
        threading.Event().wait(0.1)
        os._exit(1)

    good, last = dies.remote()
    assert good.get() == 1
    with pytest.raises(zmreg.errors.WorkerDiedError):
        last.get()


# -- 28: back-pressure ------------------------------------------------------------------------------------------------


def test_row28_the_producer_parks_at_n_and_each_item_taken_lets_it_make_one(tmp_path: Path) -> None:
    generator = marking.options(**{LIMIT: 3}).remote(str(tmp_path), "a")
    until(lambda: steps(tmp_path, "a") == 3, "three items")
    is_parked()
    assert steps(tmp_path, "a") == 3
    for taken in range(1, 4):
        next(generator)
        until(lambda taken=taken: steps(tmp_path, "a") == 3 + taken, "one more")  # type: ignore[misc]
        is_parked()
        assert steps(tmp_path, "a") == 3 + taken


def is_parked_at(marks: Path, name: str, items: int) -> None:
    until(lambda: steps(marks, name) == items, f"{items} items")
    is_parked()


def test_row28_dropping_the_generator_ends_a_parked_producer(tmp_path: Path) -> None:
    generator = marking.options(**{LIMIT: 2}).remote(str(tmp_path), "a")
    is_parked_at(tmp_path, "a", 2)
    del generator
    until((tmp_path / "a-over").exists, "its finally block")
    assert steps(tmp_path, "a") == 2


def test_row28_dropping_the_generator_ends_a_running_producer_at_its_next_yield(tmp_path: Path) -> None:
    generator = marking.remote(str(tmp_path), "a", 1 << 40)
    next(generator)
    del generator
    until((tmp_path / "a-over").exists, "its finally block")


def test_row28_dropping_the_generator_of_a_call_that_has_not_begun(tmp_path: Path) -> None:
    generators = [marking.options(**{LIMIT: 1}).remote(str(tmp_path), f"g{n}") for n in range(6)]
    until(lambda: steps(tmp_path, "g0") == 1, "the first")
    del generators
    until(lambda: zmreg.stats()["tasks"]["pending"] == 0, "all over")
    assert count.remote(1).completed().get(timeout=T) == 1


def test_row28_cancel_ends_a_parked_producer(tmp_path: Path) -> None:
    generator = marking.options(**{LIMIT: 2}).remote(str(tmp_path), "a")
    is_parked_at(tmp_path, "a", 2)
    zmreg.cancel(generator)
    *good, last = generator
    assert zmreg.get(good) == [0, 1]
    with pytest.raises(TaskCancelledError):
        last.get(timeout=T)
    assert (tmp_path / "a-over").exists()


def test_row28_cancel_with_grace_ends_a_parked_producer_at_once(tmp_path: Path) -> None:
    generator = marking.options(**{LIMIT: 1}).remote(str(tmp_path), "a")
    is_parked_at(tmp_path, "a", 1)
    generator.cancel(grace=T)
    with pytest.raises(TaskCancelledError):
        list(generator)[-1].get(timeout=T / 3)


def test_row28_sigterm_ends_a_parked_producer_and_the_call_is_tried_again(tmp_path: Path) -> None:
    @zmreg.remote(max_retries=1)
    def pids(path: str) -> Iterator[int]:
        Path(path, str(os.getpid())).touch()
        while True:
            yield os.getpid()

    generator = pids.options(**{LIMIT: 1}).remote(str(tmp_path))
    first = next(generator).get(timeout=T)
    is_parked()
    os.kill(first, 15)
    until(lambda: len(list(tmp_path.iterdir())) == 2, "another worker")
    seen = {next(generator).get(timeout=T) for _ in range(3)}
    assert len(seen - {first}) == 1


@pytest.mark.parametrize("limit", [0, -2])
def test_row28_zero_is_a_value_error(limit: int) -> None:
    with pytest.raises(ValueError, match="from 1; -1 for any number"):
        count.options(**{LIMIT: limit})
    with pytest.raises(ValueError, match="from 1; -1 for any number"):
        zmreg.method(**{LIMIT: limit})
    with pytest.raises(TypeError, match="must be an int"):
        count.options(**{LIMIT: "2"})


def test_row28_minus_one_is_off() -> None:
    generator = count.options(**{LIMIT: -1}).remote(500)
    assert generator.completed().get(timeout=T) == 500
    assert values(generator) == list(range(500))


# -- errors nobody reads ----------------------------------------------------------------------------------------------


@contextlib.contextmanager
def told(caplog: pytest.LogCaptureFixture) -> Iterator[Callable[[], int]]:
    caplog.clear()
    yield lambda: sum("nobody read its error" in record.message for record in caplog.records)


def test_an_unread_error_is_told_once_and_one_that_was_read_or_dropped_never(caplog: pytest.LogCaptureFixture) -> None:
    with told(caplog) as times:
        with pytest.raises(KeyError):
            list(fails.remote(1))[-1].get(timeout=T)
        generator = fails.remote(1)
        with pytest.raises(KeyError):
            generator.completed().get(timeout=T)
        del generator
        unread = list(fails.remote(1))
        del unread
        until(times, "a line in the log")
        zmreg.get(zmreg.put(1))
        assert times() == 1


# -- 4: integer num_returns -------------------------------------------------------------------------------------------


def test_row4_extra_yields_are_logged_and_the_body_runs_to_its_end(tmp_path: Path) -> None:
    @zmreg.remote(num_returns=2)
    def three() -> Iterator[int]:
        yield from range(3)

    @zmreg.remote(num_returns=2)
    def two(path: str) -> Iterator[int]:
        yield 1
        yield 2
        Path(path).touch()

    assert zmreg.get(three.remote(), timeout=T) == [0, 1]
    assert zmreg.get(two.remote(str(tmp_path / "end")), timeout=T) == [1, 2]
    until((tmp_path / "end").exists, "what stands behind the last yield")


@zmreg.remote(num_returns=3)
def plain_three(gate: str, ends: str) -> Iterator[Any]:
    yield b"small"
    yield bytes(300_000)
    while not Path(gate).exists():
        threading.Event().wait(0.005)
    if ends == "raises":
        raise KeyError("mine")
    if ends == "early":
        return
    yield [zmreg.put("inner")]
    if ends == "late":
        yield "more"
    Path(gate + ".over").touch()
    if ends == "raises behind":
        raise KeyError("nobody's")


@zmreg.remote(num_returns=3)
async def async_three(gate: str, ends: str) -> AsyncIterator[Any]:
    try:
        yield b"small"
        yield bytes(300_000)
        while not Path(gate).exists():
            await asyncio.sleep(0.005)
        if ends == "raises":
            raise KeyError("mine")
        if ends == "early":
            return
        yield [zmreg.put("inner")]
        if ends == "late":
            yield "more"
        if ends == "raises behind":
            raise KeyError("nobody's")
    finally:
        await asyncio.sleep(0)
        Path(gate + ".over").touch()


@zmreg.remote
class Three:
    async def values(self, gate: str, ends: str) -> AsyncIterator[Any]:
        async for value in async_three.__wrapped__(gate, ends):
            yield value


@pytest.fixture(params=["plain", "async", "actor"])
def three(request: pytest.FixtureRequest) -> Iterator[Callable[[str, str], list[Any]]]:
    if request.param == "actor":
        actor = Three.remote()
        yield actor.values.options(num_returns=3).remote
        actor.close(T)
    else:
        yield {"plain": plain_three, "async": async_three}[request.param].remote


@pytest.mark.parametrize("ends", ["well", "late", "raises behind"])
def test_row4_row26_a_fixed_number_of_values_of_any_generator_come_one_by_one(
    three: Callable[[str, str], list[Any]], ends: str, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    small, large, last = three(str(gate), ends)
    assert small.get(timeout=T) == b"small" and len(large.get(timeout=T)) == 300_000
    assert not last.done()
    gate.touch()
    assert last.get(timeout=T)[0].get(timeout=T) == "inner"
    if ends == "well":
        until(Path(str(gate) + ".over").exists, "its end")


@pytest.mark.parametrize(("ends", "error"), [("raises", KeyError), ("early", ValueError)])
def test_row4_row26_what_any_generator_gave_before_an_error_is_good(
    three: Callable[[str, str], list[Any]], ends: str, error: type[Exception], tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    gate.touch()
    small, large, last = three(str(gate), ends)
    with pytest.raises(error, match="mine|has num_returns=3 but yielded only 2 values"):
        last.get(timeout=T)
    assert small.get(timeout=T) == b"small" and len(large.get(timeout=T)) == 300_000


def test_row4_an_async_generator_can_be_cancelled_between_its_values(tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    small, _, last = async_three.remote(str(gate), "well")
    assert small.get(timeout=T) == b"small"
    last.cancel()
    with pytest.raises(TaskCancelledError):
        last.get(timeout=T)
    until(Path(str(gate) + ".over").exists, "its finally block")
    assert async_three.options(num_returns=0).remote(str(gate), "well") is None
