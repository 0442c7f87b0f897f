"""get and wait: order, deadlines, first failure, counts, threads, Ctrl-C (core-api rows 22, 23, D23)."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

import zmreg
from zmreg import errors

pytestmark = pytest.mark.usefixtures("cluster")


@zmreg.remote(num_cpus=0)
def when(path, value=None):
    """The value, once the file is there: tests open gates in the order they want."""
    while not os.path.exists(path):
        time.sleep(0.002)
    return value


@zmreg.remote
def fails(text="failed"):
    raise ValueError(text)


@zmreg.remote
def echo(value):
    return value


@pytest.fixture
def gates(tmp_path):
    """gates(name) = path; all are opened at the end, so that no task stays behind."""
    paths = []

    def gate(name):
        paths.append(tmp_path / name)
        return str(paths[-1])

    yield gate
    for path in paths:
        path.touch()


def open_gate(path):
    with open(path, "w"):
        pass


# -- row 22: get ------------------------------------------------------------------------------------------------------


def test_row22_order_is_kept_and_duplicates_are_allowed():
    a, b = echo.remote("a"), echo.remote("b")
    assert zmreg.get([b, a, b, a, a], timeout=20) == ["b", "a", "b", "a", "a"]


def test_row22_one_ref_an_empty_list_and_a_tuple():
    assert zmreg.get(echo.remote(1), timeout=20) == 1
    assert zmreg.get([]) == []
    assert zmreg.get((echo.remote(1), echo.remote(2)), timeout=20) == [1, 2]


@pytest.mark.parametrize("bad", [1, "abc", b"abc", None, {"a": 1}, [1], [None], ["x"], iter([])])
def test_row22_anything_but_refs_is_a_type_error(bad):
    with pytest.raises(TypeError, match="ref"):
        zmreg.get(bad)


def test_row22_a_timeout_is_a_timeout_error_and_the_work_goes_on(gates):
    gate = gates("g")
    ref = when.remote(gate, 5)
    with pytest.raises(TimeoutError) as caught:
        ref.get(timeout=0.05)
    assert isinstance(caught.value, errors.GetTimeoutError)
    assert caught.value.timeout_s == 0.05
    open_gate(gate)
    assert ref.get(timeout=20) == 5


def test_row22_zero_polls(gates):
    gate = gates("g")
    ref = when.remote(gate, 5)
    with pytest.raises(errors.GetTimeoutError):
        ref.get(timeout=0)
    with pytest.raises(errors.GetTimeoutError):
        zmreg.get([ref, ref], timeout=0)
    open_gate(gate)
    zmreg.wait([ref], timeout=20)
    assert ref.get(timeout=0) == 5


def test_row22_one_deadline_for_all(gates):
    refs = [when.remote(gates(f"g{n}"), n) for n in range(10)]
    start = time.monotonic()
    with pytest.raises(errors.GetTimeoutError, match="10 of 10"):
        zmreg.get(refs, timeout=0.2)
    assert time.monotonic() - start < 1.5  # ten deadlines in a row would be 2 s


def test_row22_the_first_failure_does_not_wait_for_slow_siblings(gates):
    """Section 4: Ray sometimes waits for the slow one."""
    for place in (0, 1):
        slow = when.remote(gates(f"g{place}"))
        refs = [slow, fails.remote()] if place else [fails.remote(), slow]
        with pytest.raises(ValueError, match="failed"):
            zmreg.get(refs, timeout=20)
        assert not slow.done()


def test_row22_a_failure_that_is_there_already_is_raised_at_once(gates):
    bad = fails.remote()
    zmreg.wait([bad], timeout=20)
    slow = when.remote(gates("g"))
    with pytest.raises(ValueError, match="failed"):
        zmreg.get([slow, bad], timeout=20)
    with pytest.raises(ValueError, match="failed"):
        zmreg.get([slow, bad], timeout=0)


def test_row22_values_are_read_anew_each_time():
    ref = echo.remote([1])
    first = ref.get(timeout=20)
    first.append(2)
    assert ref.get(timeout=20) == [1]


def test_row22_many_threads_get_the_same_and_different_refs(gates):
    gate = gates("g")
    shared = when.remote(gate, "shared")
    outcome = []

    def run(n):
        own = echo.remote(n)
        outcome.append((own.get(timeout=30) == n, shared.get(timeout=30)))

    threads = [threading.Thread(target=run, args=(n,)) for n in range(16)]
    for thread in threads:
        thread.start()
    open_gate(gate)
    for thread in threads:
        thread.join(40)
    assert outcome == [(True, "shared")] * 16


def test_row22_timeouts_of_one_thread_do_not_disturb_another(gates):
    """C3, in small: whoever leaves the wait early takes nothing away from those who stay."""
    gate = gates("g")
    refs = [when.remote(gate, n) for n in range(4)]
    outcome = []
    patient = threading.Thread(target=lambda: outcome.append(zmreg.get(refs, timeout=30)))
    patient.start()
    for _ in range(20):
        with pytest.raises(errors.GetTimeoutError):
            zmreg.get(refs, timeout=0.005)
    open_gate(gate)
    patient.join(40)
    assert outcome == [[0, 1, 2, 3]]


# -- row 23: wait -----------------------------------------------------------------------------------------------------


def test_row23_wait_returns_exactly_num_returns():
    refs = [echo.remote(n) for n in range(6)]
    zmreg.get(refs, timeout=20)
    for count in (1, 3, 6):
        ready, rest = zmreg.wait(refs, num_returns=count)
        assert (ready, rest) == (refs[:count], refs[count:])


def test_row23_both_lists_keep_input_order(gates):
    opened = [gates(name) for name in "abcd"]
    refs = [when.remote(path) for path in opened]
    for place in (2, 0):
        open_gate(opened[place])
        zmreg.get(refs[place], timeout=20)
    ready, rest = zmreg.wait(refs, num_returns=2, timeout=20)
    assert (ready, rest) == ([refs[0], refs[2]], [refs[1], refs[3]])


def test_row23_the_earliest_ready_is_the_one_returned(gates):
    """Section 4."""
    for place in range(4):
        opened = [gates(f"{place}{name}") for name in "abcd"]
        refs = [when.remote(path) for path in opened]
        open_gate(opened[place])
        ready, rest = zmreg.wait(refs, timeout=20)
        assert ready == [refs[place]]
        assert len(rest) == 3
        for path in opened:
            open_gate(path)
        zmreg.get(refs, timeout=20)


def test_row23_failed_counts_as_ready_and_never_raises(gates):
    bad, slow = fails.remote(), when.remote(gates("g"))
    assert zmreg.wait([slow, bad], timeout=20) == ([bad], [slow])


def test_row23_a_timeout_returns_what_there_is(gates):
    done, slow = echo.remote(1), when.remote(gates("g"))
    done.get(timeout=20)
    assert zmreg.wait([slow, done], num_returns=2, timeout=0.05) == ([done], [slow])
    assert zmreg.wait([slow], timeout=0) == ([], [slow])
    assert zmreg.wait([slow, done], num_returns=2, timeout=0) == ([done], [slow])


def test_row23_empty_gives_two_empty_lists():
    assert zmreg.wait([]) == ([], [])


def test_row23_wrong_arguments():
    a, b = zmreg.put(1), zmreg.put(2)
    with pytest.raises(TypeError, match="list of refs"):
        zmreg.wait(a)
    for bad in ({a, b}, {a: 1}, "ab", 5, [1]):
        with pytest.raises(TypeError, match="ref"):
            zmreg.wait(bad)
    with pytest.raises(ValueError, match="once"):
        zmreg.wait([a, b, a])
    for count in (0, -1, 3):
        with pytest.raises(ValueError, match="num_returns"):
            zmreg.wait([a, b], num_returns=count)
    with pytest.raises(ValueError, match="negative"):
        zmreg.wait([a], timeout=-0.1)


def test_row23_fetch_local_false_waits_just_the_same():
    big = zmreg.put(bytes(2_000_000))
    assert zmreg.wait([big], fetch_local=False, timeout=20) == ([big], [])


def test_row23_a_drain_loop_sees_every_ref_once():
    pending = [echo.remote(n) for n in range(200)]
    seen = []
    while pending:
        ready, pending = zmreg.wait(pending, timeout=20)
        assert len(ready) == 1
        seen.append(ready[0].get(timeout=20))
    assert sorted(seen) == list(range(200))


def test_row23_many_threads_wait_while_results_stream_in():
    """Entries settle on the pumping thread while others sort them: none may fall between the two lists."""
    wrong = []

    def run():
        for _ in range(30):
            refs = [echo.remote(n) for n in range(20)]
            ready, rest = zmreg.wait(refs, num_returns=15, timeout=30)
            if len(ready) != 15 or len(rest) != 5:
                wrong.append((len(ready), len(rest)))

    threads = [threading.Thread(target=run) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(50)
    assert wrong == []


def test_row23_wait_inside_a_task_on_refs_it_was_given():
    @zmreg.remote
    def first_of(refs):
        ready, rest = zmreg.wait(refs, num_returns=2, timeout=20)
        return len(ready), len(rest), all(ref.get(timeout=20) for ref in ready)

    assert first_of.remote([echo.remote(n + 1) for n in range(3)]).get(timeout=30) == (2, 1, True)


# -- D23: looks synchronous, and stays interruptible ------------------------------------------------------------------


def test_D23_ctrl_c_ends_a_get_at_once_and_the_cluster_stays_usable(gates):
    ref = when.remote(gates("g"))
    timer = threading.Timer(0.2, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    start = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        ref.get(timeout=30)
    assert time.monotonic() - start < 0.7  # 0.2 s until the signal, then at most 0.5 s
    timer.join()
    assert echo.remote(1).get(timeout=20) == 1


def test_D23_ctrl_c_ends_a_wait_too(gates):
    refs = [when.remote(gates(name)) for name in "ab"]
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    timer.start()
    with pytest.raises(KeyboardInterrupt):
        zmreg.wait(refs, num_returns=2, timeout=30)
    timer.join()
    assert zmreg.wait([echo.remote(1)], timeout=20)[1] == []


def test_D23_the_users_sigint_handler_is_the_one_that_runs(gates):
    class Stop(Exception):
        pass

    def theirs(_number, _frame):
        raise Stop

    before = signal.signal(signal.SIGINT, theirs)
    timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        with pytest.raises(Stop):
            when.remote(gates("g")).get(timeout=30)
        assert signal.getsignal(signal.SIGINT) is theirs
    finally:
        timer.join()
        signal.signal(signal.SIGINT, before)


def test_D23_get_works_where_a_loop_is_running():
    """As in a notebook cell."""
    import asyncio

    async def cell():
        return echo.remote(1).get(timeout=20), await echo.remote(2)

    assert asyncio.run(cell()) == (1, 2)


def test_a_time_to_wait_that_is_no_number_is_answered_with_seconds(gates):
    ref = when.remote(gates("never"))
    for wait in (
        lambda: ref.get(timeout="1"), lambda: ref.exception("1"), lambda: zmreg.get([ref], timeout="1"),
        lambda: zmreg.wait([ref], timeout="1"),
    ):  # fmt: skip
        with pytest.raises(TypeError, match="timeout='1': a number of seconds is needed"):
            wait()
    with pytest.raises(errors.TaskError, match="failed"):
        fails.remote().get(timeout=20)


def test_pytest_shows_the_line_that_asked(gates):
    """And not what of ours is behind it; of an error of our own making, all."""
    waits = [
        lambda: fails.remote().get(), lambda: zmreg.get([fails.remote()]), lambda: fails.remote().result(20),
        lambda: list(zmreg.map(fails, ["no"])), lambda: zmreg.gather([fails.remote()]),
        lambda: when.remote(gates("closed")).get(timeout=0),
    ]  # fmt: skip
    for wait in waits:
        with pytest.raises(errors.ZmregError) as told:
            wait()
        assert {str(entry.path) for entry in told.traceback.filter(told)} == {__file__}
        assert str(told.traceback.filter(told)[-1].path) == __file__ != str(told.traceback[-1].path)
    with pytest.raises(TypeError) as told:
        zmreg.get(3)
    assert len(told.traceback.filter(told)) == len(told.traceback)
