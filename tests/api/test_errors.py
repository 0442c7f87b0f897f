"""What a caller gets when something fails, and what is told of errors nobody reads (core-api rows 20, 62-65)."""

from __future__ import annotations

import asyncio
import copy
import gc
import logging
import os
import pickle
import subprocess
import sys
import textwrap

import pytest

import zmreg
from zmreg import errors

pytestmark = pytest.mark.usefixtures("cluster")


class Plain(Exception):
    pass


class OddInit(Exception):
    """What it takes is not what it leaves in `args`."""

    def __init__(self, code, *, where):
        super().__init__(f"code {code} at {where}")
        self.code = code
        self.where = where


class Slotted(Exception):
    __slots__ = ("level",)

    def __init__(self, level):
        super().__init__("slotted")
        self.level = level


class ReadOnlyArgs(Exception):
    @property
    def args(self):
        return ("fixed",)


class Reduces(Exception):
    def __init__(self, a, b):
        super().__init__(a, b)
        self.pair = a + b

    def __reduce__(self):
        return Reduces, self.args


class Final(Exception):
    def __init_subclass__(cls, **_kwargs):
        raise TypeError("Final cannot be subclassed")


class HoldsLock(Exception):
    def __init__(self):
        import threading

        super().__init__("holds a lock")
        self.lock = threading.Lock()


class LoadsNot(Exception):
    def __reduce__(self):
        return _explode, ()


def _explode():
    raise RuntimeError("cannot be loaded")


class StrRaises(Exception):
    def __str__(self):
        raise RuntimeError("no text")


@zmreg.remote
def raises(make, *args, **kwargs):
    raise make(*args, **kwargs)


def caught(kind, ref):
    with pytest.raises(kind) as info:
        ref.get(timeout=20)
    return info.value


# -- row 62: the dual class -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [ValueError, KeyError, ZeroDivisionError, StopAsyncIteration, Plain, TimeoutError])
def test_row62_get_raises_the_users_class_and_a_task_error(kind):
    if kind is StopAsyncIteration:  # steers loops: stays reachable as the cause only
        error = caught(errors.TaskError, raises.remote(kind, "said"))
        assert isinstance(error.cause, kind)
        return
    error = caught(kind, raises.remote(kind, "said"))
    assert isinstance(error, errors.TaskError)
    assert isinstance(error, errors.ZmregError)
    assert type(error.cause) is kind
    assert error.args == ("said",)
    assert not isinstance(error, errors.GetTimeoutError)


def test_row62_attributes_of_an_odd_init_arrive():
    error = caught(OddInit, raises.remote(OddInit, 7, where="here"))
    assert (error.code, error.where) == (7, "here")
    assert (error.cause.code, error.cause.where) == (7, "here")


def test_row62_slots_arrive():
    assert caught(Slotted, raises.remote(Slotted, 3)).level == 3


def test_row62_slots_and_pickles_of_a_class_that_a_function_defines():
    class Local(Exception):
        __slots__ = ("level",)

    @zmreg.remote
    def fails():
        error = Local("here")
        error.level = 3
        raise error

    error = caught(Local, fails.remote())
    assert error.level == 3 and isinstance(copy.deepcopy(error), Local)
    twin = pickle.loads(pickle.dumps(error))  # by plain pickle, which finds no class within a function
    assert type(twin) is errors.TaskError and str(twin) == str(error) and twin.type_name.endswith("Local")


def test_row62_own_reduce():
    assert caught(Reduces, raises.remote(Reduces, "a", "b")).pair == "ab"


@pytest.mark.parametrize("kind", [ReadOnlyArgs, StrRaises])
def test_row62_odd_classes_keep_their_class(kind):
    error = caught(errors.TaskError, raises.remote(kind))
    assert isinstance(error, kind) or isinstance(error.cause, kind)
    assert str(error)


def test_row62_a_final_class_falls_back_to_the_cause():
    error = caught(errors.TaskError, raises.remote(Final, "end"))
    assert type(error) is errors.TaskError
    assert isinstance(error.cause, Final)


def test_row62_the_text_carries_traceback_function_and_pid():
    @zmreg.remote
    def outer():
        return inner_that_breaks()

    def inner_that_breaks():
        raise LookupError("deep down")

    error = caught(LookupError, outer.remote())
    text = str(error)
    assert "inner_that_breaks" in text
    assert "deep down" in text
    assert "outer" in text
    assert error.pid != os.getpid()
    assert str(error.pid) in text
    assert error.node_id in text


def test_row62_cause_and_context_of_the_users_error_arrive():
    @zmreg.remote
    def chained():
        try:
            {}["missing"]
        except KeyError as reason:
            raise ValueError("because") from reason

    error = caught(ValueError, chained.remote())
    assert isinstance(error.cause.__cause__, KeyError)
    assert "missing" in str(error)


def test_row62_exception_groups():
    @zmreg.remote
    def several():
        raise ExceptionGroup("two things", [ValueError("one"), KeyError("two")])

    error = caught(ExceptionGroup, several.remote())
    assert [type(each) for each in error.exceptions] == [ValueError, KeyError]
    try:
        several.remote().get(timeout=20)
    except* ValueError as group:
        assert str(group.exceptions[0]) == "one"
    except* KeyError:
        pass


@pytest.mark.parametrize(
    "ref_of",
    [
        lambda: raises.remote(OddInit, 7, where="here"),
        lambda: raises.remote(ValueError, "plain"),
        lambda: raises.remote(HoldsLock),
        lambda: raises.remote(Slotted, 1),
        lambda: raises.remote(Reduces, "a", "b"),
    ],
)
def test_row62_errors_raised_by_get_pickle_and_copy(ref_of):
    """Section 4: in Ray they cannot always be pickled."""
    error = caught(errors.TaskError, ref_of())
    for twin in (pickle.loads(pickle.dumps(error)), copy.copy(error)):
        assert type(twin).__name__ == type(error).__name__
        assert str(twin) == str(error)
    raised_here = error.__cause__
    assert raised_here is None or isinstance(raised_here, BaseException)


def test_row62_an_error_passes_through_nested_tasks_with_its_class():
    @zmreg.remote
    def middle():
        return raises.remote(OddInit, 1, where="leaf").get()

    error = caught(OddInit, middle.remote())
    assert error.code == 1
    assert "raises" in str(error)


def test_row62_each_get_raises_an_error_of_its_own():
    ref = raises.remote(ValueError, "again")
    first, second = caught(ValueError, ref), caught(ValueError, ref)
    assert first is not second  # a traceback grows on the one that was raised


def test_row62_a_read_only_array_hint_is_a_note_not_another_class():
    assert not getattr(caught(ValueError, raises.remote(ValueError, "x")), "__notes__", [])


# -- row 63: what cannot be pickled -----------------------------------------------------------------------------------


def test_row63_an_unpicklable_exception_keeps_class_and_text():
    error = caught(errors.TaskError, raises.remote(HoldsLock))
    assert "holds a lock" in str(error)
    assert "HoldsLock" in error.type_name


def test_row63_an_exception_that_cannot_be_loaded_becomes_text():
    error = caught(errors.TaskError, raises.remote(LoadsNot, "gone wrong"))
    assert "gone wrong" in str(error)
    assert "LoadsNot" in error.type_name


def test_row63_a_module_that_the_driver_lacks():
    @zmreg.remote
    def far():
        import types

        module = types.ModuleType("only_over_there")
        exec("class Strange(Exception): pass", module.__dict__)
        sys.modules["only_over_there"] = module
        raise module.Strange("from afar")

    error = caught(errors.TaskError, far.remote())
    assert "from afar" in str(error)
    assert "Strange" in error.type_name


def test_row63_a_result_that_cannot_be_pickled_is_an_error_not_a_lost_reply():
    @zmreg.remote
    def returns_a_lock():
        import threading

        return {"deep": [threading.Lock()]}

    error = caught(errors.SerializationError, returns_a_lock.remote())
    assert "returns_a_lock" in str(error)
    assert "deep" in str(error)


def test_row63_a_result_that_cannot_be_loaded_names_process_and_host():
    class Unloadable:
        def __reduce__(self):
            return _explode, ()

    @zmreg.remote
    def makes():
        return Unloadable()

    error = caught(errors.SerializationError, makes.remote())
    assert str(os.getpid()) in str(error)
    assert os.uname().nodename in str(error)


def test_row63_an_argument_that_cannot_be_loaded_fails_the_call_and_not_the_worker():
    class Unloadable:
        def __reduce__(self):
            return _explode, ()

    @zmreg.remote
    def takes(_x):
        return os.getpid()

    error = caught(errors.SerializationError, takes.remote(Unloadable()))
    assert "cannot be loaded" in str(error)
    assert takes.remote(1).get(timeout=20)


def test_row63_a_huge_exception_is_sent_as_text():
    @zmreg.remote
    def drags_data_along():
        error = ValueError("big")
        error.data = bytes(5_000_000)
        raise error

    error = caught(errors.TaskError, drags_data_along.remote())
    assert "big" in str(error)


# -- row 64: one tree -------------------------------------------------------------------------------------------------


def test_row64_one_base_class():
    kinds = [each for each in vars(errors).values() if isinstance(each, type) and issubclass(each, BaseException)]
    assert all(issubclass(kind, errors.ZmregError) for kind in kinds)


def test_row64_a_dead_worker_tells_exit_code_signal_and_last_lines():
    @zmreg.remote(max_retries=0)
    def dies(how):
        print("the last words", flush=True)
        if how == "exit":
            os._exit(42)
        os.kill(os.getpid(), 9)

    error = caught(errors.WorkerDiedError, dies.remote("exit"))
    assert (error.exit_code, error.signal) == (42, None)
    assert "the last words" in str(error)
    error = caught(errors.WorkerDiedError, dies.remote("kill"))
    assert error.signal == 9
    assert "SIGKILL" in str(error) or "9" in str(error)


def test_row64_impossible_requests_end_in_a_typed_error():
    @zmreg.remote(num_cpus=1000)
    def never():
        return None

    error = caught(errors.UnschedulableError, never.remote())
    assert "1000" in str(error)
    assert "2 CPU" in str(error)


# -- row 65: SystemExit -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [0, 3, "a message"])
def test_row65_sys_exit_counts_as_worker_death(code):
    @zmreg.remote(max_retries=0)
    def leaves():
        sys.exit(code)

    error = caught(errors.WorkerDiedError, leaves.remote())
    assert error.exit_code == (1 if isinstance(code, str) else code)


def test_row65_base_exceptions_other_than_exits_are_errors():
    class Strange(BaseException):
        pass

    @zmreg.remote
    def odd(kind):
        raise kind("odd")

    for kind in (KeyboardInterrupt, GeneratorExit, asyncio.CancelledError, Strange):
        error = caught(errors.TaskError, odd.remote(kind))
        assert type(error) is errors.TaskError  # a KeyboardInterrupt over there must not end the program here
        assert isinstance(error.cause, kind)


def test_row65_a_worker_death_does_not_hurt_its_neighbours():
    @zmreg.remote(max_retries=0)
    def leaves():
        sys.exit(1)

    @zmreg.remote
    def stays(n):
        return n

    refs = [leaves.remote() if n % 10 == 5 else stays.remote(n) for n in range(30)]
    for n, ref in enumerate(refs):
        if n % 10 == 5:
            assert isinstance(ref.exception(timeout=30), errors.WorkerDiedError)
        else:
            assert ref.get(timeout=30) == n


# -- row 20: errors that nobody reads ---------------------------------------------------------------------------------


class Reports(logging.Handler):
    """Collects what is logged; `wait` is by event: the report comes from another thread."""

    def __init__(self):
        super().__init__()
        import queue

        self.texts = queue.SimpleQueue()

    def emit(self, record):
        self.texts.put(record.getMessage())

    def next(self):
        return self.texts.get(timeout=20)

    def empty(self):
        """Whether nothing was reported up to now: another, known, report is provoked and must be the next one."""
        marker = raises.options(name="marker").remote(RuntimeError, "marker")
        settle(marker)
        del marker
        return "marker" in self.next()


@pytest.fixture
def reports():
    handler = Reports()
    log = logging.getLogger("zmreg")
    log.addHandler(handler)
    log.propagate = False
    yield handler
    log.removeHandler(handler)
    log.propagate = True


def settle(*refs):
    zmreg.wait(list(refs), num_returns=len(refs), timeout=20)


def test_row20_a_failed_ref_dropped_unread_is_reported_once(reports):
    ref = raises.remote(ValueError, "nobody looks")
    settle(ref)
    del ref
    text = reports.next()
    assert "raises" in text
    assert "ValueError: nobody looks" in text
    assert "Traceback" in text
    assert reports.empty()


def test_row20_dropped_before_it_failed(reports):
    raises.remote(ValueError, "fire and forget")
    assert "fire and forget" in reports.next()


@pytest.mark.parametrize(
    "read",
    [
        lambda ref: ref.exception(timeout=20),
        lambda ref: pytest.raises(ValueError, ref.get, 20),
        lambda ref: pytest.raises(ValueError, zmreg.get, [ref], 20),
        lambda ref: zmreg.get([ref], timeout=20, return_exceptions=True),
        lambda ref: ref.future().exception(timeout=20),
        lambda ref: pytest.raises(ValueError, asyncio.run, awaited(ref)),
    ],
)
def test_row20_a_read_error_is_not_reported(reports, read):
    ref = raises.remote(ValueError, "handled")
    read(ref)
    del ref
    gc.collect()
    assert reports.empty()


async def awaited(ref):
    return await ref


def test_row20_an_error_consumed_downstream_is_not_reported_twice(reports):
    upstream = raises.remote(ValueError, "went on")
    downstream = raises.remote(upstream)
    assert isinstance(downstream.exception(timeout=20), ValueError)
    del upstream, downstream
    assert reports.empty()


def test_row20_an_unread_chain_is_reported_once(reports):
    @zmreg.remote
    def passes_on(x):
        return x

    ref = raises.remote(ValueError, "at the root")
    for _ in range(10):
        ref = passes_on.remote(ref)
    settle(ref)
    del ref
    assert "at the root" in reports.next()
    assert reports.empty()


def test_row20_several_returns_are_one_failure(reports):
    refs = raises.options(num_returns=3).remote(ValueError, "threefold")
    settle(*refs)
    del refs
    assert "threefold" in reports.next()
    refs = raises.options(num_returns=3).remote(ValueError, "threefold")
    assert isinstance(refs[1].exception(timeout=20), ValueError)
    del refs
    assert reports.empty()


def test_row20_siblings_of_a_raised_failure_are_not_reported(reports):
    refs = [raises.remote(ValueError, str(n)) for n in range(4)]
    with pytest.raises(ValueError, match="[0-3]"):
        zmreg.get(refs, timeout=20)
    settle(*refs)
    del refs
    assert reports.empty()


def test_row20_a_call_without_returns_is_reported(reports):
    raises.options(num_returns=0).remote(ValueError, "no ref at all")
    assert "no ref at all" in reports.next()


@pytest.mark.parametrize("how", ["at once", "while it runs", "by force"])
def test_row20_a_cancelled_call_is_not_reported(reports, how, tmp_path):
    import time

    @zmreg.remote(num_cpus=2)
    def sleeps():
        (tmp_path / "runs").touch()
        time.sleep(30)

    ref = sleeps.remote()
    while how != "at once" and not (tmp_path / "runs").exists():
        time.sleep(0.01)
    zmreg.cancel(ref, force=how == "by force")
    settle(ref)
    del ref
    assert reports.empty()


def test_row20_a_thousand_unread_failures_do_not_flood(reports):
    refs = [raises.remote(ValueError, "many") for _ in range(300)]
    settle(*refs)
    zmreg.get([refs[0]], timeout=20, return_exceptions=True)
    told = []
    del refs
    while len(told) < 50:
        told.append(reports.next())
        if "more calls failed" in told[-1]:
            break
    assert "more calls failed" in told[-1]


@pytest.mark.near
def test_row20_nothing_is_reported_at_interpreter_exit():
    program = textwrap.dedent("""
        import zmreg

        @zmreg.remote
        def fails():
            raise ValueError("kept in a global")

        zmreg.init(num_cpus=1)
        ref = fails.remote()
        zmreg.wait([ref], timeout=20)
        class Holder: pass
        holder = Holder(); holder.ref = fails.remote(); holder.me = holder   # a cycle, for the collector at exit
        zmreg.wait([holder.ref], timeout=20)
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True)
    assert done.stderr == ""


@pytest.mark.near
def test_row20_without_a_log_handler_it_goes_to_stderr():
    program = textwrap.dedent("""
        import threading, zmreg

        @zmreg.remote
        def fails():
            raise ValueError("seen on stderr")

        zmreg.init(num_cpus=1)
        ref = fails.remote()
        zmreg.wait([ref], timeout=20)
        del ref
        zmreg.put(1)
        zmreg.shutdown()
    """)
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=50, check=True)
    assert done.stderr.count("ValueError: seen on stderr") >= 1
    assert "fails" in done.stderr


# -- C42: names that a worker lacks -----------------------------------------------------------------------------------


@pytest.mark.near
def test_C42_functions_of_a_script_bring_their_imports(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import json as j
        import zmreg
        LIMIT = 7

        def helper(x):
            return j.dumps({"x": x, "limit": LIMIT})

        @zmreg.remote
        def f(x):
            return helper(x)

        if __name__ == "__main__":
            zmreg.init(num_cpus=1)
            print(f.remote(1).get(timeout=20))
    """)
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=50, check=True)
    assert done.stdout.strip() == '{"x": 1, "limit": 7}'


def test_C42_a_missing_module_names_host_and_interpreter():
    import types

    module = types.ModuleType("not_installed_there")
    exec("def f():\n    return 1\n", module.__dict__)
    module.f.__module__ = "not_installed_there"
    sys.modules["not_installed_there"] = module
    try:
        error = caught(errors.SerializationError, zmreg.remote(module.f).remote())
    finally:
        del sys.modules["not_installed_there"]
    assert "not_installed_there" in str(error)
    assert os.uname().nodename in str(error)
    assert "Python 3" in str(error)
