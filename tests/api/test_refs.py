"""Refs: dereferencing, identity, await, the names a future has (core-api rows 15-19, X4, D10)."""

from __future__ import annotations

import asyncio
import concurrent.futures
import copy
import threading
import time
from pathlib import Path

import pytest

import zmreg
from zmreg import errors

pytestmark = pytest.mark.usefixtures("cluster")


@zmreg.remote
def echo(*args, **kwargs):
    return (args, kwargs) if kwargs else args


@zmreg.remote
def one(value):
    return value


@zmreg.remote
def later(seconds, value):
    time.sleep(seconds)
    return value


@zmreg.remote
def fails(text="failed"):
    raise ValueError(text)


# -- rows 15, 16, D10: dereferencing ----------------------------------------------------------------------------------


def test_row15_D10_top_level_refs_arrive_as_values():
    a, b = one.remote(1), zmreg.put(2)
    assert echo.remote(a, b, 3).get(timeout=20) == (1, 2, 3)
    assert echo.remote(a, x=b).get(timeout=20) == ((1,), {"x": 2})


def test_row15_each_element_of_star_args_does():
    refs = [one.remote(n) for n in range(20)]
    assert echo.remote(*refs).get(timeout=20) == tuple(range(20))


def test_row15_the_same_ref_twice_and_a_large_one():
    big = zmreg.put(bytes(1_000_000))

    @zmreg.remote
    def sizes(*parts, last):
        return [len(part) for part in parts] + [len(last)]

    assert sizes.remote(big, big, last=big).get(timeout=20) == [1_000_000] * 3


def test_row15_a_worker_is_not_occupied_while_inputs_are_made(tmp_path):
    """More waiting consumers than CPUs, queued before what they wait for: they must not take its place."""
    gate = tmp_path / "gate"

    @zmreg.remote
    def opens(path):
        while not Path(path).exists():
            time.sleep(0.002)
        return 1

    first = opens.remote(str(gate))
    consumers = [one.remote(first) for _ in range(8)]
    others = [one.remote(n) for n in range(8)]
    assert zmreg.get(others, timeout=20) == list(range(8))
    gate.touch()
    assert zmreg.get(consumers, timeout=20) == [1] * 8


def test_row16_D10_nested_refs_stay_refs():
    @zmreg.remote
    def kinds(box):
        inner = box["list"][0]
        return type(inner).__name__, inner.get(timeout=20)

    assert kinds.remote({"list": [one.remote(5)]}).get(timeout=20) == ("ObjectRef", 5)


def test_row16_refs_in_results_are_refs_and_stay_alive():
    @zmreg.remote
    def makes():
        return [zmreg.put("inner"), one.remote("task")]

    refs = makes.remote().get(timeout=20)
    assert [type(ref).__name__ for ref in refs] == ["ObjectRef"] * 2
    assert zmreg.get(refs, timeout=20) == ["inner", "task"]


def test_row16_a_nested_ref_keeps_its_object_alive_until_it_is_read():
    @zmreg.remote
    def reads(box):
        time.sleep(0.05)
        return len(box[0].get(timeout=20))

    box = [zmreg.put(bytes(500_000))]
    ref = reads.remote(box)
    box.clear()
    assert ref.get(timeout=20) == 500_000


# -- row 17: identity -------------------------------------------------------------------------------------------------


def test_row17_hash_equality_hex():
    a, b = zmreg.put(1), zmreg.put(1)
    assert a != b
    assert a == copy.copy(a) == copy.deepcopy(a)
    assert hash(a) == hash(copy.copy(a))
    assert len({a, copy.copy(a), b}) == 2
    assert {a: "x"}[copy.copy(a)] == "x"
    assert len(a.hex()) == 32
    assert a.hex() != b.hex()
    assert a != "something else"


def test_row17_a_ref_that_went_round_is_equal_to_the_original():
    ref = zmreg.put("value")
    back = one.remote([ref]).get(timeout=20)[0]
    assert back == ref
    assert back.hex() == ref.hex()


def test_row17_a_copy_counts_as_another_reference():
    for copier in (copy.copy, copy.deepcopy, lambda ref: [ref][0]):
        ref = zmreg.put(bytes(300_000))
        twin = copier(ref)
        del ref
        assert len(twin.get(timeout=20)) == 300_000


def test_row17_repr_shows_id_and_state():
    ref = zmreg.put("x")
    assert ref.hex()[-8:] in repr(ref)
    assert "inline" in repr(ref)
    bad = fails.remote()
    zmreg.wait([bad], timeout=20)
    assert "failed" in repr(bad)


# -- row 18: put ------------------------------------------------------------------------------------------------------


def test_row18_put_is_a_snapshot():
    value = {"a": [1]}
    ref = zmreg.put(value)
    value["a"].append(2)
    assert ref.get() == {"a": [1]}
    large = bytearray(300_000)
    ref = zmreg.put(large)
    large[0] = 7
    assert ref.get()[0] == 0


def test_row18_put_of_a_ref_is_a_type_error():
    with pytest.raises(TypeError, match="ref"):
        zmreg.put(zmreg.put(1))
    assert zmreg.get(zmreg.get(zmreg.put([zmreg.put(1)]))[0]) == 1


def test_row18_arguments_are_snapshots_too():
    value = [1]
    ref = later.remote(0.02, value)
    value.append(2)
    assert ref.get(timeout=20) == [1]


# -- row 19: other worlds ---------------------------------------------------------------------------------------------


def test_row19_await_from_any_loop():
    ref = later.remote(0.02, "there")

    async def read():
        return await ref

    assert asyncio.run(read()) == "there"
    assert asyncio.run(read()) == "there"
    outcome = []
    thread = threading.Thread(target=lambda: outcome.append(asyncio.run(read())))
    thread.start()
    thread.join(20)
    assert outcome == ["there"]


def test_row19_gather_and_wait_and_errors():
    async def main():
        values = await asyncio.gather(*(one.remote(n) for n in range(20)))
        tasks = {asyncio.ensure_future(later.remote(0.01 * n, n)) for n in range(3)}
        done, pending = await asyncio.wait(tasks)
        with pytest.raises(ValueError, match="failed"):
            await fails.remote()
        return values, {task.result() for task in done}, pending

    assert asyncio.run(main()) == (list(range(20)), {0, 1, 2}, set())


def test_row19_cancelling_the_wrapper_neither_cancels_the_task_nor_poisons_the_ref():
    ref = later.remote(0.2, "value")

    async def main():
        waiting = asyncio.ensure_future(ref)
        await asyncio.sleep(0.01)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.ensure_future(ref), 0.01)
        return await ref

    assert asyncio.run(main()) == "value"
    assert ref.get(timeout=20) == "value"


def test_row19_the_loop_may_close_before_the_value_is_there():
    ref = later.remote(0.1, "value")

    async def gives_up():
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(asyncio.ensure_future(ref), 0.01)

    asyncio.run(gives_up())
    assert ref.get(timeout=20) == "value"


def test_row19_large_values_and_a_free_loop():
    ref = zmreg.put(bytes(2_000_000))

    async def main():
        return len(await ref)

    assert asyncio.run(main()) == 2_000_000


def test_row19_future():
    good, bad = later.remote(0.02, 1).future(), fails.remote().future()
    assert isinstance(good, concurrent.futures.Future)
    assert good.result(timeout=20) == 1
    assert isinstance(bad.exception(timeout=20), ValueError)
    done, _ = concurrent.futures.wait([good, bad], timeout=20)
    assert done == {good, bad}


def test_row19_cancelling_a_future_leaves_the_task_alone():
    ref = later.remote(0.05, 1)
    future = ref.future()
    future.cancel()
    assert ref.get(timeout=20) == 1
    assert ref.future().result(timeout=20) == 1


# -- X4: the names of a future ----------------------------------------------------------------------------------------


def test_X4_result_exception_done_cancelled():
    ref, bad = later.remote(0.05, "v"), fails.remote("why")
    assert not ref.done()
    assert ref.result(timeout=20) == "v"
    assert ref.done()
    assert ref.exception(timeout=20) is None
    assert not ref.cancelled()
    assert not ref.failed()
    with pytest.raises(ValueError, match="why"):
        bad.result(timeout=20)
    assert isinstance(bad.exception(), ValueError)
    assert bad.failed()
    slow = later.remote(20, 1)
    for wait in (slow.result, slow.exception):
        with pytest.raises(errors.GetTimeoutError):
            wait(timeout=0.01)
    slow.cancel()
    assert isinstance(slow.exception(timeout=20), errors.TaskCancelledError)
    assert slow.cancelled()


def test_X4_done_becomes_true_without_a_get():
    ref = later.remote(0.02, 1)
    deadline = time.monotonic() + 20
    while not ref.done():
        assert time.monotonic() < deadline
        threading.Event().wait(0.002)
    assert ref.get(timeout=0) == 1


def test_X4_callbacks_run_on_a_thread_of_their_own():
    calls, over = [], threading.Event()

    def note(done):
        calls.append((done, threading.current_thread().name))
        over.set()

    ref = later.remote(0.02, 1)
    ref.add_done_callback(note)
    assert over.wait(20)
    assert calls == [(ref, "zmreg-callbacks")]
    over.clear()
    ref.add_done_callback(note)  # done already
    assert over.wait(20)
    assert len(calls) == 2


def test_X4_a_callback_may_use_the_api_and_may_fail(caplog):
    values, over = [], threading.Event()

    def broken(_done):
        raise RuntimeError("in the callback")

    def reads(done):
        values.append(one.remote(done.get() + 1).get(timeout=20))
        over.set()

    ref = one.remote(1)
    ref.add_done_callback(broken)
    ref.add_done_callback(reads)
    assert over.wait(20)
    assert values == [2]
    assert "in the callback" in caplog.text


def test_X4_callbacks_of_failed_refs():
    over = threading.Event()
    seen = []
    bad = fails.remote()
    bad.add_done_callback(lambda done: (seen.append(done.exception()), over.set()))
    assert over.wait(20)
    assert isinstance(seen[0], ValueError)


def test_X4_retry_makes_a_new_ref(tmp_path):
    @zmreg.remote
    def flaky(path, value):
        if not Path(path).exists():
            raise ValueError("not yet")
        return value

    bad = flaky.remote(str(tmp_path / "f"), zmreg.put(7))
    with pytest.raises(ValueError, match="not yet"):
        bad.get(timeout=20)
    with pytest.raises(ValueError, match="not yet"):
        bad.retry().get(timeout=20)
    (tmp_path / "f").touch()
    again = bad.retry()
    assert again != bad
    assert again.get(timeout=20) == 7
    with pytest.raises(ValueError, match="not yet"):
        bad.get(timeout=20)  # what a ref says never changes


def test_X4_retry_of_a_dependant_retries_what_failed_before_it(tmp_path):
    @zmreg.remote
    def flaky(path):
        if not Path(path).exists():
            raise ValueError("not yet")
        return [1]

    chain = [flaky.remote(str(tmp_path / "f"))]
    for _ in range(2_000):
        chain.append(one.remote(chain[-1]))
    with pytest.raises(ValueError, match="not yet"):
        chain[-1].get(timeout=40)
    (tmp_path / "f").touch()
    assert chain[-1].retry().get(timeout=40) == [1]


def test_X4_retry_one_of_several_returns_and_a_cancelled_one(tmp_path):
    @zmreg.remote(num_returns=2)
    def pair(path):
        if not Path(path).exists():
            raise ValueError("not yet")
        return "left", "right"

    _, right = pair.remote(str(tmp_path / "f"))
    assert isinstance(right.exception(timeout=20), ValueError)
    (tmp_path / "f").touch()
    assert right.retry().get(timeout=20) == "right"
    slow = later.remote(20, 1)
    slow.cancel()
    assert isinstance(slow.exception(timeout=20), errors.TaskCancelledError)
    again = slow.retry()
    assert not again.done()
    again.cancel()
    assert isinstance(again.exception(timeout=20), errors.TaskCancelledError)


def test_X4_retry_where_there_is_nothing_to_retry():
    for ref in (one.remote(1), zmreg.put(1)):
        ref.get(timeout=20)
        with pytest.raises(ValueError, match="cannot be retried"):
            ref.retry()


# -- bind -------------------------------------------------------------------------------------------------------------


def test_bind_makes_nothing_until_it_is_told_to_and_each_call_once(tmp_path):
    @zmreg.remote
    def counts(path):
        with open(path, "a") as file:
            file.write(".")
        return 2

    @zmreg.remote
    def product(a, b=1):
        return a * b

    root = counts.bind(str(tmp_path / "n"))
    graph = product.bind(product.bind(root, 3), b=product.bind(root, b=5))
    assert not (tmp_path / "n").exists()
    assert graph.remote().get(timeout=20) == 60
    assert (tmp_path / "n").stat().st_size == 1
    assert graph.execute().get(timeout=20) == 60
    with pytest.raises(TypeError, match="parameters are"):
        product.bind()
    with pytest.raises(TypeError, match="cannot be sent"):
        one.remote([graph])


def test_bind_a_long_chain():
    call = one.bind(0)
    for _ in range(3_000):
        call = one.bind(call)
    assert call.remote().get(timeout=40) == 0


# -- what looks like a sequence ----------------------------------------------------------------------------------------


def test_a_ref_is_no_endless_sequence_of_refs_to_its_items():
    ref = one.remote([1, 2])
    for walks in (iter, list, lambda ref: [*ref]):
        with pytest.raises(TypeError, match=r"iterate over ref\.get\(\); num_returns=N gives N refs"):
            walks(ref)
    with pytest.raises(TypeError, match="num_returns=N"):
        _first, _second = ref
    with pytest.raises(TypeError, match="not iterable"):
        assert 3 in ref
    assert ref[1].get(timeout=20) == 2
