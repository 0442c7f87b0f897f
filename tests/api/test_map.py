"""Many calls at once: map, as_completed, gather, Executor (core-api rows X1-X3, X7, X8, C2)."""

from __future__ import annotations

import asyncio
import collections
import concurrent.futures
import gc
import itertools
import logging
import os
import re
import sys
import threading
import time
from pathlib import Path

import pytest

import zmreg
from zmreg import errors

pytestmark = pytest.mark.usefixtures("cluster")


def square(x):
    return x * x


def plus(x, y=0, scale=1):
    return (x + y) * scale


@zmreg.remote
def after(seconds, value):
    time.sleep(seconds)
    return value


@zmreg.remote
def when(path, value):
    while not os.path.exists(path):
        time.sleep(0.002)
    return value


@zmreg.remote
def fails(text):
    raise ValueError(text)


# -- map: X2, C2 ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", ["auto", 1, 7, 1000])
def test_X2_map_keeps_the_order(chunk):
    assert list(zmreg.map(square, range(100), chunk=chunk)) == [n * n for n in range(100)]


def test_X2_map_takes_lambdas_and_remote_functions_and_options():
    assert list(zmreg.map(lambda x: -x, range(5))) == [0, -1, -2, -3, -4]
    remote = zmreg.remote(num_cpus=2)(square)
    assert list(zmreg.map(remote, range(5))) == [0, 1, 4, 9, 16]


def test_X2_several_iterables_stop_at_the_shortest_and_keywords_go_to_every_call():
    assert list(zmreg.map(plus, [1, 2, 3], itertools.count(10), scale=2)) == [22, 26, 30]
    assert list(zmreg.map(plus, [])) == []


def test_X2_a_large_keyword_is_sent_once():
    big = b"x" * 3_000_000
    before = zmreg.stats()["store"]["used_bytes"]
    peak = []

    def probe(n, data):
        return len(data)

    for size in zmreg.map(probe, range(30), chunk=1, data=big):
        assert size == len(big)
        peak.append(zmreg.stats()["store"]["used_bytes"] - before)
    assert max(peak) < 3 * len(big)


def test_X2_refs_among_the_arguments_arrive_as_values():
    refs = [zmreg.put(n) for n in range(5)]
    scale = zmreg.put(10)
    assert list(zmreg.map(plus, refs, [1, 2, 3, 4, 5], scale=scale)) == [10, 30, 50, 70, 90]
    assert list(zmreg.map(plus, [after.remote(0.01, n) for n in range(4)], chunk=2)) == [0, 1, 2, 3]


def test_X2_an_infinite_iterable_is_read_only_as_far_as_needed():
    read = []

    def numbers():
        for n in itertools.count():
            read.append(n)
            yield n

    values = zmreg.map(square, numbers())
    assert [next(values) for _ in range(20)] == [n * n for n in range(20)]
    values.close()
    assert len(read) < 100_000


@pytest.mark.parametrize("chunk", ["auto", 10])
def test_X2_an_error_stands_where_its_value_would(chunk):
    def picky(x):
        if x == 55:
            raise KeyError(x)
        return x

    seen = []
    with pytest.raises(KeyError) as caught:
        for value in zmreg.map(picky, range(100), chunk=chunk):
            seen.append(value)
    assert seen == list(range(55))
    assert isinstance(caught.value, errors.TaskError)
    assert "picky" in str(caught.value)


def test_X2_with_retry_exceptions_a_chunk_is_tried_again(tmp_path):
    @zmreg.remote(max_retries=3, retry_exceptions=True)
    def flaky(n):
        with open(tmp_path / str(n), "a") as file:
            file.write(".")
        if n == 3 and os.path.getsize(tmp_path / "3") < 3:
            raise OSError("again")
        return n

    assert list(zmreg.map(flaky, range(6), chunk=6)) == list(range(6))


def test_X2_closing_the_iterator_cancels_what_was_sent_ahead(tmp_path):
    def slow(n):
        if n:
            Path(tmp_path, f"started{n}").touch()
            time.sleep(20)
        return n

    values = zmreg.map(slow, range(50), chunk=1)
    assert next(values) == 0
    values.close()

    @zmreg.remote(num_cpus=2)
    def all_free():
        return True

    assert all_free.remote().get(timeout=15)


def test_X2_a_timeout_is_for_all_values_together():
    with pytest.raises(errors.GetTimeoutError, match="0.3"):
        list(zmreg.map(time.sleep, [0.1] * 50, chunk=1, timeout=0.3))


@pytest.mark.parametrize("bad", [0, -1, 1.5, "many"])
def test_X2_a_bad_chunk_is_an_error_at_once(bad):
    with pytest.raises((TypeError, ValueError), match="chunk"):
        zmreg.map(square, [1], chunk=bad)


def test_X2_no_iterable_is_a_type_error():
    with pytest.raises(TypeError):
        zmreg.map(square)


def test_C2_small_items_travel_in_chunks():
    calls = zmreg.stats()["tasks"]["finished"]
    assert sum(zmreg.map(square, range(20_000))) == sum(n * n for n in range(20_000))
    assert zmreg.stats()["tasks"]["finished"] - calls < 1_000


def test_C2_slow_items_are_not_lumped_together():
    calls = zmreg.stats()["tasks"]["finished"]
    assert len(list(zmreg.map(time.sleep, [0.03] * 20))) == 20
    assert zmreg.stats()["tasks"]["finished"] - calls >= 15


def test_X2_a_map_that_has_failed_is_told_of_once(caplog):
    def fail(number: int) -> int:
        raise LookupError(number)

    with caplog.at_level(logging.ERROR, "zmreg"):
        with pytest.raises(LookupError):
            list(zmreg.map(fail, range(20), chunk=1))
        gc.collect()
        assert len(list(zmreg.map(abs, range(20), chunk=1))) == 20  # some turns of the pump
    assert "nobody read" not in caplog.text


# -- as_completed: X1 -------------------------------------------------------------------------------------------------


def test_X1_in_the_order_of_finishing(tmp_path):
    gates = [str(tmp_path / name) for name in "abc"]
    refs = [when.options(num_cpus=0).remote(gate, gate[-1]) for gate in gates]
    done = zmreg.as_completed(refs, timeout=20)
    order = []
    for letter in "bca":
        (tmp_path / letter).touch()
        order.append(next(done).get(timeout=20))
    assert order == ["b", "c", "a"]
    with pytest.raises(StopIteration):
        next(done)


def test_X1_takes_more_while_iterating():
    done = zmreg.as_completed([after.remote(0, 3)])
    seen = []
    for ref in done:
        value = ref.get(timeout=20)
        seen.append(value)
        if value:
            done.add(after.remote(0, value - 1))
            if value == 3:
                done.update([after.remote(0, 0), after.remote(0, 0)])
    assert sorted(seen) == [0, 0, 0, 1, 2, 3]


def test_X1_with_results_gives_pairs_and_goes_on_behind_an_error():
    good, bad = after.remote(0, 1), fails.remote("no")
    good.get(timeout=20)
    bad.exception(timeout=20)
    done = zmreg.as_completed([good], 20, with_results=True)
    assert next(done) == (good, 1)
    done.update([bad, good])
    with pytest.raises(ValueError, match="no"):
        next(done)
    assert list(done) == [(good, 1)]

    async def pairs() -> list[object]:
        return [value async for _, value in zmreg.as_completed([good, good], 20, with_results=True)]

    assert asyncio.run(pairs()) == [1, 1]


def test_X1_failed_refs_come_too():
    good, bad = after.remote(0, 1), fails.remote("no")
    assert set(zmreg.as_completed([good, bad], timeout=20)) == {good, bad}
    assert bad.exception(timeout=0) is not None


def test_X1_a_timeout_is_a_typed_error(tmp_path):
    slow = after.remote(20, 1)
    with pytest.raises(errors.GetTimeoutError, match="1 refs"):
        list(zmreg.as_completed([slow, after.remote(0, 1)], timeout=0.5))
    slow.cancel()


def test_X1_ten_thousand_refs_in_linear_time():
    refs = [after.remote(0, n) for n in range(10_000)]
    assert sum(ref.get(timeout=20) for ref in zmreg.as_completed(refs, timeout=40)) == sum(range(10_000))


def test_X1_async():
    async def collect():
        done = zmreg.as_completed([after.remote(0.01 * n, n) for n in range(5)], timeout=20)
        return [await ref async for ref in done]

    assert sorted(asyncio.run(collect())) == [0, 1, 2, 3, 4]


def test_X1_async_leaves_the_loop_free_and_times_out(tmp_path):
    async def collect():
        beats = 0

        async def beat():
            nonlocal beats
            while True:
                beats += 1
                await asyncio.sleep(0.01)

        beating = asyncio.create_task(beat())
        slow = after.remote(20, 1)
        with pytest.raises(errors.GetTimeoutError):
            async for _ in zmreg.as_completed([slow], timeout=0.3):
                pass
        slow.cancel()
        beating.cancel()
        return beats

    assert asyncio.run(collect()) > 3


# -- gather: X7, X8 ---------------------------------------------------------------------------------------------------


def test_X7_gather_resolves_nested_structures():
    Pair = collections.namedtuple("Pair", "left right")
    a, b = after.remote(0, 1), zmreg.put([2])
    structure = {"a": a, "l": [b, (a, {"deep": b})], "s": {a}, "p": Pair(a, 0), "plain": "text", 5: None}
    assert zmreg.gather(structure, timeout=20) == {
        "a": 1,
        "l": [[2], (1, {"deep": [2]})],
        "s": {1},
        "p": Pair(1, 0),
        "plain": "text",
        5: None,
    }
    assert zmreg.gather(a) == 1
    assert zmreg.gather([]) == []


def test_X7_arguments_of_tasks_are_not_deep():
    @zmreg.remote
    def kind(box):
        return type(box[0]).__name__

    assert kind.remote([after.remote(0, 1)]).get(timeout=20) == "ObjectRef"


def test_X8_return_exceptions_in_get():
    values = zmreg.get([after.remote(0, 1), fails.remote("x"), after.remote(0, 3)], timeout=20, return_exceptions=True)
    assert values[::2] == [1, 3]
    assert isinstance(values[1], ValueError)
    assert isinstance(zmreg.get(fails.remote("y"), timeout=20, return_exceptions=True), ValueError)


def test_X8_none_at_all_are_there_at_once_with_and_without_their_errors():
    assert zmreg.get([], timeout=20, return_exceptions=True) == zmreg.get([], timeout=20) == []


def test_X8_return_exceptions_waits_for_all_and_still_times_out():
    refs = [fails.remote("at once"), after.remote(20, 1)]
    with pytest.raises(errors.GetTimeoutError):
        zmreg.get(refs, timeout=0.3, return_exceptions=True)
    refs[1].cancel()


def test_X8_gather_skip_and_return():
    good, bad = after.remote(0, 1), fails.remote("x")
    returned = zmreg.put(KeyError("a value that is an exception"))
    assert zmreg.gather({"g": good, "b": bad, "l": [bad, good]}, timeout=20, errors="skip") == {"g": 1, "l": [1]}
    assert isinstance(zmreg.gather([returned, bad], errors="skip")[0], KeyError)
    assert zmreg.gather(bad, errors="skip") is None
    assert isinstance(zmreg.gather([good, bad], errors="return")[1], ValueError)
    with pytest.raises(ValueError, match="x"):
        zmreg.gather([good, bad], timeout=20)
    with pytest.raises(ValueError, match="errors="):
        zmreg.gather([good], errors="ignore")


# -- Executor: X3 -----------------------------------------------------------------------------------------------------


def test_X3_is_an_executor_with_submit_map_and_context():
    with zmreg.Executor() as executor:
        assert isinstance(executor, concurrent.futures.Executor)
        future = executor.submit(plus, 1, y=2)
        assert isinstance(future, concurrent.futures.Future)
        assert future.result(timeout=20) == 3
        assert list(executor.map(square, range(50))) == [n * n for n in range(50)]
        assert list(executor.map(plus, range(50), range(3), chunksize=2)) == [0, 2, 4]


def test_X3_map_is_in_order_whatever_finishes_first():
    with zmreg.Executor() as executor:
        assert list(executor.map(_sleepy, [0.1, 0.0, 0.05])) == [0.1, 0.0, 0.05]


def _sleepy(seconds):
    time.sleep(seconds)
    return seconds


def test_X3_map_raises_in_place_and_times_out():
    with zmreg.Executor() as executor:
        values = executor.map(_reciprocal, [1, 2, 0, 4])
        assert [next(values), next(values)] == [1.0, 0.5]
        with pytest.raises(ZeroDivisionError):
            next(values)
        with pytest.raises(TimeoutError):
            list(executor.map(_sleepy, [0.0, 1.0], timeout=0.1))


def _reciprocal(x):
    return 1 / x


def test_X3_errors_are_the_futures_exception():
    with zmreg.Executor() as executor:
        assert isinstance(executor.submit(_reciprocal, 0).exception(timeout=20), ZeroDivisionError)
        assert isinstance(executor.submit(square).exception(timeout=20), TypeError)
        assert isinstance(executor.submit(square, threading.Lock()).exception(timeout=20), TypeError)


def test_X3_cancel_is_truthful(tmp_path):
    def mark(name):
        Path(tmp_path, name).touch()
        while not Path(tmp_path, "go").exists():
            time.sleep(0.002)

    with zmreg.Executor() as executor:
        futures = [executor.submit(mark, str(n)) for n in range(40)]
        while not Path(tmp_path, "0").exists():
            threading.Event().wait(0.005)
        cancelled = [n for n, future in enumerate(futures) if future.cancel()]
        assert 0 not in cancelled
        assert not futures[0].cancelled()
        assert futures[0].running()
        assert 20 < len(cancelled) < 40
        Path(tmp_path, "go").touch()
    assert not any(Path(tmp_path, str(n)).exists() for n in cancelled)
    assert all(futures[n].cancelled() for n in cancelled)
    assert all(Path(tmp_path, str(n)).exists() for n in range(40) if n not in cancelled)
    assert not futures[0].cancel()  # it has finished


def test_X3_a_cancelled_future_ends_every_wait():
    with zmreg.Executor(max_workers=1) as executor:
        first = executor.submit(_sleepy, 0.2)
        second = executor.submit(_sleepy, 0)
        told = threading.Event()
        second.add_done_callback(lambda _: told.set())
        assert second.cancel()
        assert told.wait(20)
        done, _ = concurrent.futures.wait([first, second], timeout=20)
        assert done == {first, second}
        with pytest.raises(concurrent.futures.CancelledError):
            second.result(timeout=20)


def test_X3_max_workers_bounds_what_is_under_way(tmp_path):
    def span():
        start = time.monotonic()
        time.sleep(0.03)
        return start, time.monotonic()

    with zmreg.Executor(max_workers=1) as executor:
        spans = [future.result(timeout=20) for future in [executor.submit(span) for _ in range(6)]]
    assert all(before[1] <= later[0] for before, later in itertools.pairwise(spans))
    with pytest.raises(ValueError, match="max_workers"):
        zmreg.Executor(max_workers=0)


def test_X3_shutdown_waits_and_refuses_more():
    executor = zmreg.Executor()
    futures = [executor.submit(_sleepy, 0.05) for _ in range(6)]
    executor.shutdown()
    assert all(future.done() for future in futures)
    with pytest.raises(RuntimeError, match="shutdown"):
        executor.submit(square, 1)
    executor.shutdown()


def test_X3_shutdown_without_waiting_lets_calls_finish():
    executor = zmreg.Executor()
    future = executor.submit(_sleepy, 0.2)
    executor.shutdown(wait=False)
    assert not future.done()
    assert future.result(timeout=20) == 0.2


def test_X3_shutdown_cancel_futures():
    executor = zmreg.Executor(max_workers=1)
    first = executor.submit(_sleepy, 0.2)
    rest = [executor.submit(_sleepy, 5) for _ in range(5)]
    executor.shutdown(wait=True, cancel_futures=True)
    assert first.result(timeout=0) == 0.2
    assert all(future.cancelled() for future in rest)


def test_X3_can_be_subclassed():
    class Counting(zmreg.Executor):
        def __init__(self):
            super().__init__()
            self.count = 0

        def submit(self, fn, /, *args, **kwargs):
            self.count += 1
            return super().submit(fn, *args, **kwargs)

    with Counting() as executor:
        assert list(executor.map(square, range(4))) == [0, 1, 4, 9]
        assert executor.count == 4


def test_X3_state_of_a_bound_method_is_sent_anew():
    class Counter:
        n = 0

        def read(self):
            return self.n

    counter = Counter()
    with zmreg.Executor() as executor:
        assert executor.submit(counter.read).result(timeout=20) == 0
        counter.n = 5
        assert executor.submit(counter.read).result(timeout=20) == 5


def test_X3_as_asyncio_executor():
    async def main():
        loop = asyncio.get_running_loop()
        with zmreg.Executor() as executor:
            return await asyncio.gather(*(loop.run_in_executor(executor, square, n) for n in range(10)))

    assert asyncio.run(main()) == [n * n for n in range(10)]


def test_X3_concurrent_futures_as_completed_and_a_callback_that_submits():
    with zmreg.Executor() as executor:
        futures = [executor.submit(_sleepy, 0.01 * n) for n in range(4)]
        assert {each.result() for each in concurrent.futures.as_completed(futures, timeout=20)} == {0, 0.01, 0.02, 0.03}
        chained = concurrent.futures.Future()
        first = executor.submit(square, 3)
        first.add_done_callback(
            lambda done: executor.submit(square, done.result()).add_done_callback(
                lambda last: chained.set_result(last.result())
            )
        )
        assert chained.result(timeout=20) == 81


# -- progress ---------------------------------------------------------------------------------------------------------


def test_X9_progress_is_a_plain_line_without_tqdm_and_gives_the_values(capfd, monkeypatch):
    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    assert zmreg.progress([after.remote(0, n) for n in range(5)]) == [0, 1, 2, 3, 4]
    assert "5/5 done" in capfd.readouterr().err


def test_X9_progress_says_at_its_end_what_working_side_by_side_has_saved(capfd, monkeypatch):
    from zmreg.api.coordination import speed_up

    monkeypatch.setitem(sys.modules, "tqdm.auto", None)
    refs = [after.remote(0.3, n) for n in range(4)]
    zmreg.progress(refs)
    told = re.search(r"they ran (\S+) s, (\S+) times as fast as one after the other\n", capfd.readouterr().err)
    assert told and 1.2 <= float(told[1]) < 30 and 0 < float(told[2]) <= 2.5
    assert speed_up(refs) == speed_up([*refs, *refs]) != "", "each call once"
    assert speed_up([*refs, zmreg.put(1)]) == "" == speed_up([]), "what nobody has called tells nothing"


def test_X9_progress_is_a_bar_where_tqdm_is_installed_and_raises_what_get_raises(capfd):
    assert zmreg.progress([after.remote(0, n) for n in range(5)]) == [0, 1, 2, 3, 4]
    assert "5/5" in (told := capfd.readouterr().err) and "100%" in told
    failing = zmreg.remote(lambda: 1 / 0).remote()
    with pytest.raises(ZeroDivisionError):
        zmreg.progress([after.remote(0, 1), failing])
    assert "2/2" in capfd.readouterr().err
