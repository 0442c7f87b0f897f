"""Remote functions: decoration, signatures, options, returns, retries, shipping, nesting (core-api rows 1-6, 9-14)."""

from __future__ import annotations

import os
import time
import warnings
from pathlib import Path

import pytest

import zmreg
from zmreg import errors

pytestmark = pytest.mark.usefixtures("cluster")


@zmreg.remote
def add(a, b=10, *rest, scale=1):
    return (a + b + sum(rest)) * scale


@zmreg.remote
def getpid():
    return os.getpid()


# -- row 1: the decorator ---------------------------------------------------------------------------------------------


def test_row1_bare_and_with_options_and_as_a_function():
    @zmreg.remote
    def bare():
        return "bare"

    @zmreg.remote(num_cpus=0.5, max_retries=0)
    def dressed():
        return "dressed"

    made = zmreg.remote(lambda: "made")
    assert zmreg.get([bare.remote(), dressed.remote(), made.remote()], timeout=20) == ["bare", "dressed", "made"]


def test_row1_empty_parentheses_are_an_error():
    with pytest.raises(TypeError, match="empty parentheses"):
        zmreg.remote()
    with pytest.raises(TypeError, match="empty parentheses"):
        zmreg.method()


def test_row1_positional_options_are_an_error():
    with pytest.raises(TypeError, match="keyword options"):
        zmreg.remote(print, num_cpus=1)


def test_row1_an_unknown_option_lists_the_valid_ones_at_decoration():
    with pytest.raises(ValueError, match="num_cpu.*did you mean num_cpus.*max_retries.*num_returns"):
        zmreg.remote(num_cpu=1)
    with pytest.raises(ValueError, match="max_restarts"):
        zmreg.remote(max_restarts=1)(lambda: None)  # an actor's option on a function


@pytest.mark.parametrize("thing", [1, "text", None, [print]])
def test_row1_neither_function_nor_class_is_a_type_error(thing):
    with pytest.raises(TypeError, match=r"function or a class"):
        zmreg.remote(thing)


def test_row1_remote_twice_is_a_type_error():
    with pytest.raises(TypeError, match="already"):
        zmreg.remote(add)


def test_row1_calling_directly_is_a_type_error_that_names_remote():
    with pytest.raises(TypeError, match=r"\.remote\("):
        add(1, 2)
    assert add.__wrapped__(1, 2) == 3
    assert add.__name__ == "add"


def test_row1_builtins_and_callables_without_signature_work():
    assert zmreg.remote(max).remote([3, 9, 4]).get(timeout=20) == 9
    assert zmreg.remote(dict).remote is not None  # a class: an actor
    assert zmreg.remote("-".join).remote(["a", "b"]).get(timeout=20) == "a-b"


def test_row1_decoration_pickles_nothing_helpers_may_come_later():
    @zmreg.remote
    def early():
        return later() + 1

    def later():
        return 41

    assert early.remote().get(timeout=20) == 42


def test_row1_a_lambda_and_a_partial_and_a_callable_object():
    import functools

    class Adder:
        def __init__(self, n):
            self.n = n

        def __call__(self, x):
            return x + self.n

    assert zmreg.remote(functools.partial(pow, 2)).remote(5).get(timeout=20) == 32
    assert zmreg.remote(Adder(3)).remote(4).get(timeout=20) == 7


# -- row 2: signatures ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("args", "kwargs"),
    [((), {}), ((1,), {"c": 2}), ((1,), {"a": 2}), ((1, 2), {"b": 3})],
)
def test_row2_wrong_arity_raises_in_the_caller(args, kwargs):
    before = zmreg.stats()["tasks"]["pending"]
    with pytest.raises(TypeError, match=r"add\(\).*\(a, b=10, \*rest, scale=1\)"):
        add.remote(*args, **kwargs)
    assert zmreg.stats()["tasks"]["pending"] == before


def test_row2_defaults_varargs_and_keywords_arrive():
    calls = [add.remote(1), add.remote(1, 2), add.remote(1, 2, 3, 4), add.remote(1, scale=2), add.remote(b=1, a=2)]
    assert zmreg.get(calls, timeout=20) == [11, 3, 10, 22, 3]


def test_row2_keyword_only_and_var_keywords():
    @zmreg.remote
    def named(*, key, **more):
        return key, more

    with pytest.raises(TypeError, match="key"):
        named.remote()
    with pytest.raises(TypeError):
        named.remote(1)
    assert named.remote(key=1, other=2).get(timeout=20) == (1, {"other": 2})


def test_row2_the_signature_is_read_once(monkeypatch):
    import inspect

    @zmreg.remote
    def plain(x):
        return x

    assert plain.remote(1).get(timeout=20) == 1

    def must_not(*_a, **_k):
        raise AssertionError("inspect.signature on the call path")

    monkeypatch.setattr(inspect, "signature", must_not)
    assert plain.remote(2).get(timeout=20) == 2
    assert plain.options(name="other").remote(3).get(timeout=20) == 3


# -- row 3: options ---------------------------------------------------------------------------------------------------


def test_row3_options_merge_over_the_decorators_and_leave_the_original_alone():
    @zmreg.remote(num_returns=2, name="first")
    def pair():
        return 1, 2

    changed = pair.options(num_returns=1)
    assert changed.remote().get(timeout=20) == (1, 2)
    assert changed.options(name="second").remote().get(timeout=20) == (1, 2)
    assert zmreg.get(pair.remote(), timeout=20) == [1, 2]
    assert "first" in repr(changed)


def test_row3_max_calls_is_refused_in_options():
    with pytest.raises(ValueError, match="max_calls"):
        add.options(max_calls=1)


def test_row3_unknown_option_in_options():
    with pytest.raises(ValueError, match="nmu_cpus"):
        add.options(nmu_cpus=1)


def test_row3_options_has_bind_like_the_original():
    assert callable(add.bind)
    assert callable(add.options(num_cpus=1).bind)


# -- row 4: num_returns -----------------------------------------------------------------------------------------------


def test_row4_one_many_and_none():
    @zmreg.remote
    def pair():
        return 1, 2

    assert pair.remote().get(timeout=20) == (1, 2)
    first, second = pair.options(num_returns=2).remote()
    assert (first.get(timeout=20), second.get(timeout=20)) == (1, 2)
    assert pair.options(num_returns=0).remote() is None


def test_row4_a_call_without_returns_runs(tmp_path):
    @zmreg.remote(num_returns=0)
    def touch(path):
        Path(path).touch()

    @zmreg.remote(num_cpus=0)
    def seen(path):
        while not Path(path).exists():
            time.sleep(0.005)
        return True

    assert touch.remote(str(tmp_path / "there")) is None
    assert seen.remote(str(tmp_path / "there")).get(timeout=20)


def test_row4_an_error_lands_in_every_ref():
    @zmreg.remote(num_returns=3)
    def broken():
        raise KeyError("lost")

    for ref in broken.remote():
        with pytest.raises(KeyError):
            ref.get(timeout=20)


@pytest.mark.parametrize("value", [(1,), (1, 2, 3), 7, None, ()])
def test_row4_a_wrong_number_of_values_is_a_value_error_in_every_ref(value):
    @zmreg.remote(num_returns=2)
    def wrong():
        return value

    for ref in wrong.remote():
        with pytest.raises(ValueError, match="num_returns=2"):
            ref.get(timeout=20)


def test_row4_a_generator_keeps_the_good_values_before_an_error():
    @zmreg.remote(num_returns=3)
    def breaks_after_two():
        yield "a"
        yield "b"
        raise RuntimeError("third")

    one, two, three = breaks_after_two.remote()
    assert (one.get(timeout=20), two.get(timeout=20)) == ("a", "b")
    with pytest.raises(RuntimeError, match="third"):
        three.get(timeout=20)


def test_row4_a_generator_that_yields_too_few():
    @zmreg.remote(num_returns=3)
    def short():
        yield 1

    one, two, three = short.remote()
    assert one.get(timeout=20) == 1
    for ref in (two, three):
        with pytest.raises(ValueError, match="yielded only 1"):
            ref.get(timeout=20)


def test_row4_extra_yields_are_no_error():
    @zmreg.remote(num_returns=2)
    def long():
        yield from range(5)

    assert zmreg.get(long.remote(), timeout=20) == [0, 1]


@pytest.mark.parametrize(("bad", "kind"), [(-1, ValueError), (1.5, TypeError), (True, TypeError), ("two", TypeError)])
def test_row4_num_returns_out_of_range(bad, kind):
    with pytest.raises(kind, match="num_returns"):
        add.options(num_returns=bad)


# -- row 5: resources -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"num_cpus": -1}, ValueError),
        ({"num_gpus": -0.5}, ValueError),
        ({"resources": {"CPU": 1}}, ValueError),
        ({"resources": {"GPU": 1}}, ValueError),
        ({"resources": {"licence": -1}}, ValueError),
        ({"num_cpus": 0.00001}, ValueError),
        ({"num_cpus": "two"}, TypeError),
        ({"locs": "a-string"}, TypeError),
    ],
)
def test_row5_bad_amounts_at_decoration(options, kind):
    with pytest.raises(kind):
        zmreg.remote(**options)(lambda: None)


def running_at_once(options, count):
    """The largest number of `count` tasks with these options that ran at the same time."""

    @zmreg.remote(**options)
    def span():
        start = time.monotonic()
        time.sleep(0.1)
        return start, time.monotonic()

    spans = zmreg.get([span.remote() for _ in range(count)], timeout=40)
    return max(sum(start <= moment < end for start, end in spans) for moment, _ in spans)


@pytest.mark.parametrize(("options", "most"), [({"num_cpus": 1}, 2), ({"num_cpus": 2}, 1), ({"num_cpus": 0.5}, 4)])
def test_row5_never_more_at_once_than_the_cpus_allow(options, most):
    assert running_at_once(options, 6) <= most


def test_row5_fractions_add_up_exactly():
    # Ten tenths fill a CPU; with float drift the twentieth would not fit, or a twenty-first would.
    assert running_at_once({"num_cpus": 0.1}, 6) <= 20
    assert zmreg.cluster_resources()["CPU"] == 2.0


# -- row 6: retries ---------------------------------------------------------------------------------------------------


def count_up(path):
    """Number of calls so far, this one included; counted in a file, since attempts may run anywhere."""
    with open(path, "a") as file:
        file.write(".")
    return os.path.getsize(path)


def test_row6_a_dead_worker_is_retried_three_times_by_default(tmp_path):
    @zmreg.remote
    def dies_thrice(path):
        if count_up(path) <= 3:
            os._exit(7)
        return count_up(path)

    assert dies_thrice.remote(str(tmp_path / "n")).get(timeout=40) == 5


def test_row6_max_retries_zero_means_one_attempt(tmp_path):
    @zmreg.remote(max_retries=0)
    def dies(path):
        count_up(path)
        os._exit(7)

    with pytest.raises(errors.WorkerDiedError) as caught:
        dies.remote(str(tmp_path / "n")).get(timeout=40)
    assert caught.value.exit_code == 7
    assert (tmp_path / "n").stat().st_size == 1


def test_row6_user_exceptions_are_not_retried_by_default(tmp_path):
    @zmreg.remote(max_retries=5)
    def raises(path):
        count_up(path)
        raise ValueError("once")

    with pytest.raises(ValueError, match="once"):
        raises.remote(str(tmp_path / "n")).get(timeout=20)
    assert (tmp_path / "n").stat().st_size == 1


def test_row6_retry_exceptions_true_uses_the_same_budget(tmp_path):
    @zmreg.remote(max_retries=2, retry_exceptions=True)
    def raises(path):
        raise ValueError(f"attempt {count_up(path)}")

    with pytest.raises(ValueError, match="attempt 3"):
        raises.remote(str(tmp_path / "n")).get(timeout=20)


def test_row6_retry_exceptions_list_retries_only_those(tmp_path):
    @zmreg.remote(max_retries=5, retry_exceptions=[KeyError])
    def raises(path):
        if count_up(path) < 3:
            raise KeyError("again")
        raise ValueError("not this one")

    with pytest.raises(ValueError, match="not this one"):
        raises.remote(str(tmp_path / "n")).get(timeout=20)
    assert (tmp_path / "n").stat().st_size == 3


def test_row6_minus_one_retries_without_end(tmp_path):
    @zmreg.remote(max_retries=-1, retry_exceptions=True)
    def stubborn(path):
        if count_up(path) < 20:
            raise OSError("again")
        return "there"

    assert stubborn.remote(str(tmp_path / "n")).get(timeout=20) == "there"


def test_row6_the_attempt_number_is_published(tmp_path):
    @zmreg.remote(max_retries=3, retry_exceptions=True)
    def tells():
        attempt = zmreg.get_runtime_context().get_attempt_number()
        if attempt < 2:
            raise ValueError(str(attempt))
        return attempt

    assert tells.remote().get(timeout=20) == 2


def test_row6_inputs_stay_pinned_until_the_last_attempt(tmp_path):
    @zmreg.remote(max_retries=3)
    def needs(data, nested, path):
        if count_up(path) <= 2:
            os._exit(1)
        return sum(data[:3]) + len(nested[0].get())

    data = zmreg.put(bytes([1, 2, 3]) * 100_000)  # in the store
    nested = zmreg.put(b"x" * 200_000)
    ref = needs.remote(data, [nested], str(tmp_path / "n"))
    del data, nested
    assert ref.get(timeout=40) == 200_006


@pytest.mark.parametrize(
    ("options", "kind"),
    [
        ({"max_retries": -2}, ValueError),
        ({"max_retries": 1.0}, TypeError),
        ({"retry_exceptions": "all"}, TypeError),
        ({"retry_exceptions": [int]}, TypeError),
        ({"retry_exceptions": [KeyboardInterrupt]}, TypeError),
    ],
)
def test_row6_bad_retry_options(options, kind):
    with pytest.raises(kind):
        zmreg.remote(**options)(lambda: None)


# -- 8: names --------------------------------------------------------------------------------------------------------


def test_row8_names_are_shown_and_mean_nothing_else():
    @zmreg.remote(name="alike", enable_task_events=False)
    def one():
        return 1

    @zmreg.remote(name="alike")
    class Two:
        def two(self):
            return 2

    @zmreg.remote(num_cpus=0.1)
    def endless():
        time.sleep(60)

    two, ended = Two.remote(), endless.options(name="shown").remote()
    assert zmreg.get([one.remote(), one.options(name="alike").remote()], timeout=30) == [1, 1]
    assert zmreg.get(two.two.options(name="alike", enable_task_events=False).remote(), timeout=30) == 2
    ended.cancel()
    with pytest.raises(errors.TaskCancelledError, match="shown"):
        ended.get(timeout=30)


# -- row 9: strategies ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", [None, "DEFAULT", "SPREAD"])
def test_row9_strategies_of_one_node(strategy):
    assert add.options(scheduling_strategy=strategy).remote(1).get(timeout=20) == 11


def test_row9_a_node_that_is_none_of_a_private_cluster_is_told_at_once():
    @zmreg.remote
    class Somewhere:
        def node(self) -> str:
            return zmreg.get_runtime_context().get_node_id()

    here = zmreg.get_runtime_context().get_node_id()
    soft, hard = (zmreg.NodeAffinitySchedulingStrategy("ab12cd3400000000", soft=soft) for soft in (True, False))
    assert add.options(scheduling_strategy=soft).remote(1).get(timeout=20) == 11
    assert Somewhere.options(scheduling_strategy=soft).remote().node.remote().get(timeout=20) == here
    with pytest.raises(zmreg.errors.UnschedulableError, match="node ab12cd3400000000, where it has to, is not in"):
        add.options(scheduling_strategy=hard).remote(1).get(timeout=20)
    with pytest.raises(zmreg.errors.ActorDiedError, match="ON:ab12cd3400000000"):
        Somewhere.options(scheduling_strategy=hard).remote().node.remote().get(timeout=20)
    with pytest.raises(ValueError, match="is no id of a node"):
        zmreg.NodeAffinitySchedulingStrategy("ab12cd34ffffffff")


def test_row9_an_unknown_strategy_is_a_value_error():
    with pytest.raises(ValueError, match="NEAREST"):
        add.options(scheduling_strategy="NEAREST")


# -- row 11: shipping -------------------------------------------------------------------------------------------------


def test_row11_redefining_in_a_loop_uses_the_new_closure():
    refs = []
    for number in range(20):

        @zmreg.remote
        def f():
            return number  # noqa: B023  the closure is the point; it is pickled at the first call below

        refs.append(f.remote())
    assert zmreg.get(refs, timeout=20) == list(range(20))


def test_row11_the_same_name_and_text_with_another_global(monkeypatch):
    source = "def f():\n    return BASE\n"
    values = []
    for base in (1, 2):
        scope = {"BASE": base, "__name__": "__main__"}
        exec(source, scope)
        values.append(zmreg.remote(scope["f"]).remote().get(timeout=20))
    assert values == [1, 2]


def test_row11_redefinition_inside_a_task():
    @zmreg.remote
    def outer(n):
        @zmreg.remote
        def inner():
            return n * 10

        return inner.remote().get()

    assert zmreg.get([outer.remote(1), outer.remote(2)], timeout=20) == [10, 20]


def test_row11_a_large_capture_warns_and_a_huge_one_is_refused():
    large = b"x" * 11_000_000

    @zmreg.remote
    def captures():
        return len(large)

    with pytest.warns(UserWarning, match=r"captures.*MB"):
        ref = captures.remote()
    assert ref.get(timeout=20) == 11_000_000

    huge = bytearray(101_000_000)
    captures_more = zmreg.remote(lambda: len(huge))
    with pytest.raises(errors.SerializationError, match="101 MB"):
        captures_more.remote()


def test_row11_a_definition_dropped_by_its_worker_is_asked_for_again():
    """More definitions than a worker keeps: the first one is sent again, also after an options() twin of it died."""

    @zmreg.remote
    def first():
        return "first"

    assert first.remote().get(timeout=20) == "first"
    assert first.options(num_cpus=1).remote().get(timeout=20) == "first"
    made = []
    for number in range(1_100):

        def one(number=number):
            return number

        made.append(zmreg.remote(one).remote())
    both = [first.remote() for _ in range(4)]
    assert zmreg.get(made, timeout=40) == list(range(1_100))
    made.clear()
    assert zmreg.get(both + [first.remote() for _ in range(4)], timeout=20) == ["first"] * 8


# -- row 12: a failed input -------------------------------------------------------------------------------------------


@zmreg.remote
def fails(kind=ValueError):
    raise kind("upstream")


def test_row12_D20_a_task_with_a_failed_input_never_runs(tmp_path):
    marker = tmp_path / "ran"

    @zmreg.remote
    def consumer(value, path):
        Path(path).touch()
        return value

    with pytest.raises(ValueError, match="upstream") as caught:
        consumer.remote(fails.remote(), str(marker)).get(timeout=20)
    assert isinstance(caught.value, errors.TaskError)
    assert any("input" in note and "consumer" in note for note in caught.value.__notes__)
    assert not marker.exists()


def test_row12_the_input_failed_before_it_was_passed():
    bad = fails.remote(KeyError)
    assert isinstance(bad.exception(timeout=20), KeyError)
    with pytest.raises(KeyError) as caught:
        add.remote(1, bad).get(timeout=20)
    assert any("add" in note and "was not run" in note for note in caught.value.__notes__)


def test_row12_through_a_long_chain_the_class_stays_and_the_notes_stay_few():
    ref = fails.remote(ZeroDivisionError)
    for _ in range(200):
        ref = add.remote(ref)
    with pytest.raises(ZeroDivisionError) as caught:
        ref.get(timeout=40)
    assert len(caught.value.__notes__) <= 5


def test_row12_one_of_several_inputs_and_a_keyword():
    slow = slow_value.remote(0.3)
    with pytest.raises(ValueError, match="upstream"):
        add.remote(slow, b=fails.remote()).get(timeout=20)
    assert slow.get(timeout=20) == 0.3


@zmreg.remote
def slow_value(seconds):
    time.sleep(seconds)
    return seconds


def test_row12_a_worker_death_upstream_reaches_the_consumer():
    @zmreg.remote(max_retries=0)
    def dies():
        os._exit(3)

    with pytest.raises(errors.WorkerDiedError) as caught:
        add.remote(dies.remote()).get(timeout=40)
    assert caught.value.exit_code == 3


# -- rows 13, D24: nesting --------------------------------------------------------------------------------------------


@zmreg.remote
def fib(n):
    return n if n < 2 else sum(zmreg.get([fib.remote(n - 1), fib.remote(n - 2)]))


def test_row13_nested_tasks_release_their_cpu():
    assert fib.remote(7).get(timeout=50) == 13


def test_row13_parents_more_than_cpus():
    @zmreg.remote
    def parent(n):
        return zmreg.get([add.remote(n, i) for i in range(3)])

    refs = [parent.remote(n) for n in range(12)]
    assert zmreg.get(refs, timeout=40) == [[n, n + 1, n + 2] for n in range(12)]


def test_row13_wait_in_a_task_releases_too():
    @zmreg.remote
    def waits():
        refs = [slow_value.remote(0.01) for _ in range(4)]
        ready, rest = zmreg.wait(refs, num_returns=4, timeout=20)
        return len(ready), len(rest)

    assert zmreg.get([waits.remote() for _ in range(4)], timeout=40) == [(4, 0)] * 4


def test_row13_oversubscription_after_blocked_tasks_is_brief():
    """Tasks that resume may share a CPU for a moment; the leases that were lent meanwhile go back."""

    @zmreg.remote
    def parent():
        return zmreg.get(slow_value.remote(0.05))

    refs = [parent.remote() for _ in range(12)]
    assert zmreg.get(refs, timeout=40) == [0.05] * 12
    running_at_once({"num_cpus": 1}, 12)  # the moment
    assert running_at_once({"num_cpus": 1}, 12) <= 2


# -- row 14: worker reuse ---------------------------------------------------------------------------------------------


def test_row14_workers_are_reused():
    assert len(set(zmreg.get([getpid.remote() for _ in range(50)], timeout=20))) <= 4


# -- async def tasks --------------------------------------------------------------------------------------------------


def test_async_def_tasks_run_on_a_loop():
    import asyncio

    @zmreg.remote
    async def sleeper(n):
        await asyncio.sleep(0.01)
        return n, asyncio.get_running_loop() is not None

    assert zmreg.get([sleeper.remote(n) for n in range(5)], timeout=20) == [(n, True) for n in range(5)]


def test_async_def_tasks_may_await_refs_without_a_free_cpu():
    import asyncio

    @zmreg.remote(num_cpus=2)
    async def parent():
        return await add.options(num_cpus=2).remote(1, 1), await asyncio.gather(*[add.remote(n, n) for n in range(3)])

    assert parent.remote().get(timeout=20) == (2, [0, 2, 4])


def test_async_def_task_errors_arrive():
    @zmreg.remote
    async def breaks():
        raise LookupError("async")

    with pytest.raises(LookupError, match="async"):
        breaks.remote().get(timeout=20)


# -- C37, C41, C42 ----------------------------------------------------------------------------------------------------


def test_C37_the_same_call_twice_runs_twice(tmp_path):
    @zmreg.remote
    def counted(path):
        return count_up(path)

    refs = [counted.remote(str(tmp_path / "n")) for _ in range(3)]
    assert sorted(zmreg.get(refs, timeout=20)) == [1, 2, 3]
    assert len(set(refs)) == 3


def test_C41_a_reply_never_overtakes_the_record_of_its_call():
    for n in range(300):
        assert add.remote(n, 1).get(timeout=20) == n + 1
    refs = [add.remote(n, 1) for n in range(3_000)]
    assert zmreg.get(refs, timeout=40) == [n + 1 for n in range(3_000)]
    assert zmreg.stats()["tasks"]["pending"] == 0


def test_row26_a_culprit_is_named_at_remote_in_the_caller():
    """C26: what cannot be sent is told at once, with its path."""
    import threading

    held = {"outer": [1, threading.Lock()]}
    with pytest.raises(errors.SerializationError, match=r"outer.*lock"):
        add.remote(held)

    lock = threading.Lock()
    with pytest.raises(errors.SerializationError, match="lock"):
        zmreg.remote(lambda: lock).remote()


def test_C22_arguments_are_read_only_and_the_error_says_what_to_do():
    import numpy as np

    @zmreg.remote
    def writes(array):
        array[0] = 1

    with pytest.raises(ValueError, match="read-only") as caught:
        writes.remote(zmreg.put(np.zeros(100_000))).get(timeout=20)
    assert any("copy" in note for note in caught.value.__notes__)


def test_D14_each_task_gets_its_own_copy_of_mutable_arguments():
    @zmreg.remote
    def grows(items, box):
        items.append("mine")
        box[0]["x"] = 1
        return len(items)

    items = zmreg.put(["a"])
    boxed = [{"x": 0}]
    assert zmreg.get([grows.remote(items, boxed) for _ in range(4)], timeout=20) == [2] * 4
    assert items.get(timeout=20) == ["a"]
    assert boxed == [{"x": 0}]


def test_no_warnings_from_ordinary_use():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert add.remote(1).get(timeout=20) == 11


# -- section 4: several refs of one generator -------------------------------------------------------------------------


def test_row4_values_of_a_generator_are_readable_as_they_come(tmp_path):
    """Section 4: in Ray early refs are not readable early."""

    @zmreg.remote(num_returns=3)
    def gated(path):
        yield b"small"
        yield bytes(300_000)
        while not os.path.exists(path):
            time.sleep(0.002)
        yield [zmreg.put("inner")]

    small, large, last = gated.remote(str(tmp_path / "gate"))
    assert small.get(timeout=20) == b"small"
    assert len(large.get(timeout=20)) == 300_000
    assert not last.done()
    (tmp_path / "gate").touch()
    assert last.get(timeout=20)[0].get(timeout=20) == "inner"


def test_row4_low_memory_each_yield_is_dropped_before_the_next(tmp_path):
    @zmreg.remote(num_returns=3)
    def watched():
        import weakref

        class Big:
            pass

        seen = None
        for _ in range(3):
            assert seen is None or seen() is None
            value = Big()
            seen = weakref.ref(value)
            yield value
            del value

    assert len(zmreg.get(watched.remote(), timeout=20)) == 3


def test_row4_a_generator_that_dies_is_replayed_without_harm(tmp_path):
    @zmreg.remote(num_returns=3)
    def dies_once(path):
        yield bytes(300_000)
        yield [zmreg.put("inner")]
        if count_up(path) == 1:
            os._exit(1)
        yield "end"

    large, box, end = dies_once.remote(str(tmp_path / "n"))
    assert end.get(timeout=40) == "end"
    assert len(large.get(timeout=20)) == 300_000
    assert isinstance(box, zmreg.ObjectRef)


def test_row4_a_generator_that_dies_for_good_keeps_its_good_values(tmp_path):
    @zmreg.remote(num_returns=2, max_retries=0)
    def dies(path):
        yield "good"
        while not os.path.exists(path):
            time.sleep(0.002)
        os._exit(1)

    good, bad = dies.remote(str(tmp_path / "gate"))
    assert good.get(timeout=20) == "good"
    (tmp_path / "gate").touch()
    with pytest.raises(errors.WorkerDiedError):
        bad.get(timeout=40)
    assert good.get(timeout=20) == "good"


def test_row4_retry_exceptions_replays_a_generator(tmp_path):
    @zmreg.remote(num_returns=2, max_retries=3, retry_exceptions=True)
    def flaky(path):
        yield "first"
        if count_up(path) < 3:
            raise OSError("again")
        yield "second"

    assert zmreg.get(flaky.remote(str(tmp_path / "n")), timeout=20) == ["first", "second"]


def test_row24_a_generator_can_be_cancelled_between_its_values():
    @zmreg.remote(num_returns=2)
    def slow():
        yield "first"
        time.sleep(30)
        yield "second"

    first, second = slow.remote()
    assert first.get(timeout=20) == "first"
    second.cancel()
    with pytest.raises(errors.TaskCancelledError):
        second.get(timeout=20)
    assert first.get(timeout=20) == "first"


def test_D24_recursion_on_one_slot():
    @zmreg.remote(num_cpus=2)  # all there is: one such task at a time
    def fib_alone(n):
        return n if n < 2 else sum(zmreg.get([fib_alone.remote(n - 1), fib_alone.remote(n - 2)]))

    assert fib_alone.remote(8).get(timeout=55) == 21
