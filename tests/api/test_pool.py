"""multiprocessing.Pool's interface on the cluster (core-api row 52), and what an executor promises beside (row X3)."""

from __future__ import annotations

import asyncio
import concurrent.futures
import functools
import multiprocessing
import multiprocessing.managers
import os
import subprocess
import sys
import threading
import time
from concurrent.futures.process import BrokenProcessPool

import pytest

import zmreg

pytestmark = pytest.mark.usefixtures("cluster")

PREPARED = ""


def square(x):
    return x * x


def plus(x, y=0):
    return x + y


def reciprocal(x):
    return 1 / x


def sleepy(seconds):
    time.sleep(seconds)
    return seconds


def prepare(word):
    global PREPARED
    PREPARED = word


def prepared(_=None):
    return PREPARED


def fail_to_prepare():
    raise LookupError("nothing to prepare")


def die(_=None):
    os._exit(3)


def test_row52_every_way_to_call():
    with zmreg.Pool(2) as pool:
        assert pool.apply(plus, (1,), {"y": 2}) == 3
        assert pool.map(square, range(100)) == [n * n for n in range(100)]
        assert pool.map(square, iter([])) == []
        assert pool.starmap(plus, [(1, 2), (3, 4)], chunksize=1) == [3, 7]
        assert list(pool.imap(square, range(50))) == [n * n for n in range(50)]
        assert sorted(pool.imap_unordered(square, range(50), chunksize=7)) == [n * n for n in range(50)]
        assert pool.map_async(square, [3]).get(20) == [9]
        assert pool.starmap_async(plus, [(1, 1)]).get(20) == [2]


def test_row52_trap_map_makes_chunks_by_itself():
    with zmreg.Pool(2) as pool:
        before = zmreg.stats()["tasks"]["finished"]
        pool.map(square, range(10_000))
        assert zmreg.stats()["tasks"]["finished"] - before == 8  # four for each process, as multiprocessing makes them


def test_row52_results_in_time_or_a_timeout_of_multiprocessings_own():
    with zmreg.Pool(2) as pool:
        late = pool.apply_async(sleepy, (0.3,))
        with pytest.raises(multiprocessing.TimeoutError):
            late.get(0.01)
        with pytest.raises(ValueError, match="not ready"):
            late.successful()
        values = pool.imap(sleepy, [0.3])
        with pytest.raises(multiprocessing.TimeoutError):
            values.next(0.01)
        assert values.next(20) == 0.3
        with pytest.raises(StopIteration):
            values.next(20)
        late.wait(20)
        assert late.ready() and late.successful() and late.get() == 0.3


def test_row52_errors_are_the_very_exceptions_and_callbacks_have_run_before_get_returns():
    told = []
    with zmreg.Pool(2) as pool:
        bad = pool.map_async(reciprocal, [1, 0, 2], 1, callback=told.append, error_callback=told.append)
        with pytest.raises(ZeroDivisionError) as caught:
            bad.get(20)
        assert type(caught.value) is ZeroDivisionError and isinstance(caught.value.__cause__, zmreg.errors.TaskError)
        assert told == [caught.value] and not bad.successful()
        assert pool.apply_async(square, (3,), callback=told.append).get(20) == 9
        assert told[1:] == [9]
        values = pool.imap(reciprocal, [1, 0, 2])
        assert next(values) == 1
        with pytest.raises(ZeroDivisionError):
            next(values)
        assert next(values) == 0.5


def test_row52_imap_reads_no_further_than_its_processes_need():
    read = []

    def endless():
        while True:
            read.append(len(read))
            yield len(read)

    pool = zmreg.Pool(2)
    values = pool.imap(sleepy, (0.001 * n for n in endless()))
    assert next(values) == 0.001
    assert len(read) < 50
    pool.terminate()
    pool.join()


def test_row52_closing_lets_finish_and_terminating_does_not():
    pool = zmreg.Pool(2)
    with pytest.raises(ValueError, match="still running"):
        pool.join()
    done = pool.imap_unordered(square, range(50))
    pool.close()
    with pytest.raises(ValueError, match="not running"):
        pool.map(square, [1])
    pool.join()
    assert len(list(done)) == 50

    pool = zmreg.Pool(2)
    long = pool.map_async(sleepy, [60] * 6, 1)
    pool.terminate()
    pool.join()
    with pytest.raises((concurrent.futures.CancelledError, zmreg.errors.TaskCancelledError)):
        long.get(20)


def test_row52_initializer_and_maxtasksperchild():
    with zmreg.Pool(2, prepare, ("well",), maxtasksperchild=2) as pool:
        assert set(pool.map(prepared, range(8), chunksize=1)) == {"well"}
        assert len(set(pool.map(_pid, range(8), chunksize=1))) >= 3
    assert zmreg.get(zmreg.remote(_pid).remote(0)) != os.getpid()
    with pytest.raises(ValueError, match="maxtasksperchild"):
        zmreg.Pool(maxtasksperchild=0)
    with pytest.raises(ValueError, match="at least 1"):
        zmreg.Pool(0)


def test_row52_X3_globals_that_an_initializer_sets_are_there_for_functions_that_travel_by_value():
    def fill(word):  # as functions of a program's main module: each travels with globals of its own
        global PREPARED
        PREPARED = [word]

    def read(_=None):
        return PREPARED[0]

    class Reader:
        def __call__(self, _=None):
            return PREPARED[0]

    with zmreg.Pool(1, fill, ("well",)) as pool:
        assert pool.map(read, range(3)) == ["well"] * 3
        assert pool.apply(lambda: PREPARED[0]) == "well"
        assert list(pool.imap(Reader(), range(2))) == ["well"] * 2
    with zmreg.Executor(1, initializer=fill, initargs=("good",)) as executor:
        assert executor.submit(read).result(20) == "good"
        assert executor.submit(lambda: PREPARED[0]).result(20) == "good"
        assert executor.submit(functools.partial(read, 1)).result(20) == "good"
        assert list(executor.map(read, range(4), chunksize=2)) == ["good"] * 4


def test_X3_what_process_pools_are_given_is_taken():
    with zmreg.Executor(1, mp_context=multiprocessing.get_context("spawn"), max_tasks_per_child=1) as executor:
        assert executor.submit(_pid, 0).result(20) != executor.submit(_pid, 0).result(20)
    with pytest.raises(ValueError, match="max_tasks_per_child"):
        zmreg.Executor(1, max_tasks_per_child=0)


def _pid(_):
    return os.getpid()


def test_row52_a_managers_queue_can_be_given_to_workers():
    with multiprocessing.Manager() as manager, zmreg.Pool(2) as pool:
        queue = manager.Queue()
        pool.starmap(_put, [(queue, n) for n in range(4)])
        assert sorted(queue.get(timeout=20) for _ in range(4)) == [0, 1, 2, 3]


def _put(queue, number):
    queue.put(number)


def test_row13_pools_and_executors_in_tasks_give_their_cpu_back():
    @zmreg.remote
    def nested(which):
        with zmreg.Pool() if which % 2 else zmreg.Executor() as pool:
            return sum(pool.map(square, range(10)))

    assert zmreg.get([nested.remote(n) for n in range(6)], timeout=50) == [285] * 6


def _one():
    return 1


def _in_a_thread_pool():
    with concurrent.futures.ThreadPoolExecutor(2) as threads:
        return sum(threads.map(lambda _: zmreg.remote(_one).remote().get(), range(2)))


def _in_a_thread_that_is_joined():
    found = []
    thread = threading.Thread(target=lambda: found.append(zmreg.remote(_one).remote().get()))
    thread.start()
    thread.join()
    return sum(found)


def _by_a_future():
    return zmreg.remote(_one).remote().future().result()


def _by_many_futures():
    with zmreg.Executor() as executor:
        done, _ = concurrent.futures.wait([executor.submit(_one) for _ in range(2)])
        return sum(future.result() for future in done)


def _in_an_event_loop():
    async def both():
        return await asyncio.gather(
            asyncio.to_thread(zmreg.remote(_one).remote().get),
            asyncio.wrap_future(zmreg.remote(_one).remote().future()),
        )

    return sum(asyncio.run(both()))


def _in_depth(levels):
    if not levels:
        return 0
    with concurrent.futures.ThreadPoolExecutor(1) as threads:
        return 1 + threads.submit(lambda: zmreg.remote(_in_depth).remote(levels - 1).get()).result()


@pytest.mark.parametrize(
    "waits", [_in_a_thread_pool, _in_a_thread_that_is_joined, _by_a_future, _by_many_futures, _in_an_event_loop]
)
def test_row13_a_task_whose_threads_or_futures_wait_gives_its_cpu_back(waits):
    task = zmreg.remote(waits)
    values = zmreg.get([task.remote() for _ in range(6)], timeout=50)  # more than there are CPUs
    assert len(set(values)) == 1 and values[0] > 0


def test_row13_tasks_that_wait_on_threads_in_depth_come_to_their_end():
    assert zmreg.remote(_in_depth).remote(5).get(timeout=50) == 5


def test_X3_an_initializer_runs_first_and_breaks_the_executor_when_it_fails():
    with zmreg.Executor(2, initializer=prepare, initargs=("set",)) as executor:
        assert set(executor.map(prepared, range(6))) == {"set"}
    with zmreg.executor(2, initializer=fail_to_prepare) as executor:
        with pytest.raises(BrokenProcessPool, match="nothing to prepare"):
            executor.submit(prepared).result(20)
        with pytest.raises(BrokenProcessPool):
            executor.submit(prepared)


def test_X3_a_lost_worker_is_a_broken_pool_to_whoever_waits_and_the_executor_goes_on():
    with zmreg.Executor(max_retries=0) as executor:
        lost = executor.submit(die)
        assert isinstance(lost.exception(50), BrokenProcessPool)
        assert isinstance(lost.exception().__cause__, zmreg.errors.WorkerDiedError)
        assert executor.submit(square, 3).result(20) == 9


def test_X3_buffersize_bounds_what_is_read_ahead():
    read = []
    with zmreg.Executor() as executor:
        values = executor.map(square, (read.append(n) or n for n in range(100)), buffersize=5)
        assert next(values) == 0
        assert len(read) == 6
        values.close()
        with pytest.raises(ValueError, match="buffersize"):
            executor.map(square, [1], buffersize=0)


def test_X3_libraries_are_told_how_many_workers_there_are():
    assert zmreg.Executor()._max_workers == 2
    assert zmreg.Executor(7)._max_workers == 7


def test_X3_no_argument_is_called_self():
    with zmreg.Executor() as executor:
        assert executor.submit(dict, self=1, fn=2).result(20) == {"self": 1, "fn": 2}


def test_X3_a_future_keeps_neither_arguments_nor_executor():
    done = threading.Event()
    with zmreg.Executor() as executor:
        future = executor.submit(square, 3)
        future.add_done_callback(lambda _: done.set())
        assert future.result(20) == 9 and done.wait(20)
    assert not {type(value) for value in vars(future).values()} & {zmreg.Executor, zmreg.ObjectRef}


@pytest.mark.near
def test_X3_a_program_does_not_end_before_its_futures(tmp_path):
    mark = tmp_path / "ran"
    program = (
        "import time, zmreg\n"
        f"def work():\n    time.sleep(0.3)\n    open({str(mark)!r}, 'w').close()\n"
        "zmreg.init(address='local', num_cpus=1)\n"
        "zmreg.Executor().submit(work)\n"
    )
    subprocess.run([sys.executable, "-c", program], timeout=50, check=True)
    assert mark.exists()
