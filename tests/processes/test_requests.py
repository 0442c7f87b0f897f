"""Requests to a process that serves: on one node, and with the caller and the hosts on different ones of three.

Rows of requests.md: R2 to R13, R23, R24, R26, R29, R37. The rules of reference have their own tests, without processes,
in tests/core/test_graphs.py; here it is what arrives that counts.
"""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import zmreg
from tests.core.graph_worlds import World
from tests.effort import examples
from tests.processes.named_hosts import Host
from zmreg import errors
from zmreg.model.graphs import StepLike
from zmreg.testing.cluster import LocalCluster

REQUESTED = """
from tests.core.graph_worlds import value_of

def value(name, *args, **kwargs):
    calls["value"] += 1
    return value_of(name, args, kwargs)

def fail(text="bad"):
    calls["fail"] += 1
    raise ValueError(text)

def rows():
    return {"average": sum([20.1, 20.5, 21.0]) / 3, "rows": [1, 2, 3], "a b": 1}

def big(nbytes):
    return {"average": 7.5, "bytes": bytes(nbytes)}

def grow(items):
    items.append(2)
    return items

def sleepy(seconds, value=None):
    time.sleep(seconds)
    return value

def echo_here(x):
    return x

def size(x):
    return len(x)

SERVED += [echo_here, size, value, fail, rows, big, grow, sleepy]
"""


@pytest.fixture(scope="module", params=[1, 3], ids=["one", "three"])
def cluster(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    """The caller is at the first node, a host at the last, and with three another one at the second."""
    nodes = [{}, {"locs": {"m1"}}, {"locs": {"m2"}}][: request.param]
    with LocalCluster(nodes) as cluster, Host(cluster.nodes[-1].address, more=REQUESTED) as last:
        last.is_up()
        if request.param == 1:
            cluster.attach()
            yield cluster
            return
        with Host(cluster.nodes[1].address, more=REQUESTED) as other:
            other.is_up()
            cluster.attach()
            yield cluster


pytestmark = pytest.mark.usefixtures("cluster")


def counted(name: str) -> int:
    """How often it has begun, on all hosts."""
    hosts = next(each for each in zmreg.functions() if each.name == "count").hosts
    return sum(zmreg.call("count", name, locs=locs) for locs in {tuple(host.locs) for host in hosts})


WORKED: list[tuple[list[StepLike], dict[str, Any]]] = [
    (
        [("first", "echo", ("hi there!",)), ("second", "echo", ("first",))],
        {"second": "hi there!"},
    ),
    (
        [("|first", "echo", ("hi",)), ("|second", "echo", ("|first",)), ("|third", "echo", ("|first",))],
        {"|second": "hi", "|third": "hi"},
    ),
    (
        [("|first", "echo", ("hi",)), ("|second", "echo", ("|first",)), ("|third", "echo", ("|second",))],
        {"|third": "hi"},
    ),
    (
        [
            ("1st", "echo", ("first!",)), ("second", "echo", ("the first",)), ("3rd", "echos", ("1st", "second")),
            ("|4th", "echo", ({"k": ["3rd"]},)),
        ],
        {"|4th": {"k": [["first!", "the first"]]}},
    ),
]  # fmt: skip


@pytest.mark.parametrize(("steps", "expected"), WORKED)
def test_R3_the_worked_examples_in_any_order(steps: list[StepLike], expected: dict[str, Any]) -> None:
    for seed in range(4):
        shuffled = random.Random(seed).sample(steps, len(steps)) if seed else steps
        assert zmreg.request(shuffled) == expected


def test_R2_tuples_and_commands_are_steps_and_nothing_is_nothing() -> None:
    assert zmreg.request([]) == {}
    assert zmreg.request([zmreg.RPCCommand("first", "echo", ("hi there!",))]) == {"first": "hi there!"}
    assert zmreg.request([("first", "add", (1,), {"b": 2})]) == {"first": 3}


def test_R4_R5_R6_R8_R9_what_arrives_is_what_the_rules_say() -> None:
    steps: list[StepLike] = [
        ("a", "echo", ("A",)), ("d", "rows"), ("b.c", "echo", ("dotted",)), ("n", "echo", ("a",)),
        ("says", "echo", (zmreg.Lit("n"),)), zmreg.Step("never", "echo", ("says",)),
        ("nested", "kind", ({"v": ["a", ("b.c", {"a"})], "a": "a!"},)),
        zmreg.Step("kw", "echo", kwargs={"x": [zmreg.Ref("d")["rows"][1], "d.average", zmreg.Lit("a")]}),
        ("spaced", "echo", (zmreg.Ref("d")["a b"],)),
    ]  # fmt: skip
    found = zmreg.request(steps)
    assert found["nested"] == ("dict", {"v": ["A", ("dotted", {"A"})], "a": "a!"})
    assert found["kw"] == [2, pytest.approx(20.5333, abs=1e-4), "a"]
    assert found["spaced"] == 1
    assert found["never"] == "n"


def test_R6_a_field_that_is_not_there_is_an_error_and_no_text() -> None:
    for nbytes in (0, 300_000):  # a value that is here, and one that stays where it is
        with pytest.raises(errors.FieldError, match="'average', 'bytes'") as caught:
            zmreg.request([("d", "big", (nbytes,)), ("b", "value", ("d.nope",))])
        assert caught.value.step == "b"
    assert counted("value") == 0


def test_R6_only_the_field_travels(cluster: LocalCluster) -> None:
    where = {"locs": {"m2"}} if len(cluster.nodes) > 1 else {}
    steps = [zmreg.Step("d", "big", (30_000_000,), **where), zmreg.Step("b", "echo", ("d.average",))]
    before = received()
    assert zmreg.request(steps) == {"b": 7.5}
    assert received() - before < 100_000


def received() -> int:
    """Bytes that have come to our node from others."""
    links = zmreg.stats()["links"].values()
    return sum(link["bytes_received"] + link["letter_bytes_received"] for link in links)


def test_R32_values_go_from_who_made_them_to_who_takes_them(cluster: LocalCluster) -> None:
    places = [{"locs": {"m1"}}, {"locs": {"m2"}}] if len(cluster.nodes) > 1 else [{}, {}]
    before = received()
    steps = [zmreg.Step("a", "big", (20_000_000,), **places[0])]
    for number in range(4):
        taken = "a.bytes" if not number else f"b{number - 1}"
        steps.append(zmreg.Step(f"b{number}", "echo_here", (taken,), **places[(number + 1) % 2]))
    assert zmreg.request([*steps, ("z", "size", ("b3",))]) == {"z": 20_000_000}
    assert received() - before < 1_000_000


def test_R10_R11_what_makes_no_sense_runs_nothing() -> None:
    before = counted("value")
    bad: list[tuple[type[Exception], list[StepLike]]] = [
        (errors.DuplicateStepError, [("a", "value", (1,)), ("a", "value", (1,))]),
        (errors.GraphError, [("a", "value", (1,)), ("", "value", (1,))]),
        (errors.CycleError, [("z", "value", (1,)), ("a", "value", ("b",)), ("b", "value", ("a",))]),
        (errors.GraphError, [("z", "value", (1,)), ("a", "value", (zmreg.Ref("nope"),))]),
    ]
    for kind, steps in bad:
        with pytest.raises(kind):
            zmreg.request(steps)
    assert counted("value") == before


def test_R12_a_function_that_nobody_has_fails_before_the_first_step() -> None:
    before, began = counted("value"), time.monotonic()
    with pytest.raises(errors.FunctionNotFoundError, match="'value'") as caught:
        zmreg.request([("a", "value", (1,)), ("b", "valeu", ("a",))], bind_timeout=0.2)
    assert caught.value.step == "b" and time.monotonic() - began < 2
    assert counted("value") == before
    late = threading.Timer(0.1, zmreg.call, ("register_late", "late", 5))
    late.start()
    assert zmreg.request([("a", "late")], bind_timeout=20) == {"a": 5}
    late.join()
    zmreg.call("withdraw_late", "late")


def test_R13_what_no_other_step_takes_comes_back() -> None:
    steps: list[StepLike] = [("a", "echo", (1,)), ("b", "echo", ("a",)), ("c", "echo", (3,))]
    assert list(zmreg.request(steps)) == ["b", "c"]
    assert list(zmreg.request(steps, keep=["a"])) == list(zmreg.request(steps, keep="all")) == ["a", "b", "c"]
    diamond: list[StepLike] = [("d", "echos", ("b", "c")), ("b", "echo", ("a",)), ("c", "echo", ("a",)), steps[0]]
    assert zmreg.request(diamond) == {"d": [1, 1]}


def test_R23_R24_a_step_that_raises_ends_it_and_is_no_value() -> None:
    before = counted("value")
    with pytest.raises(ValueError, match="bad luck") as caught:
        zmreg.request([("a", "fail", ("bad luck",)), ("b", "value", ("a",))])
    error: Any = caught.value
    assert isinstance(error, errors.TaskError) and isinstance(error.__cause__, ValueError)
    assert (error.step, error.level_index, error.intermediate_results) == ("a", 0, ())
    assert error.node and "fail" in error.remote_traceback and error.arg_previews == {"args[0]": "'bad luck'"}
    assert counted("value") == before


def test_R23_without_records_nobody_is_waited_for() -> None:
    began = time.monotonic()
    with pytest.raises(ValueError, match="bad"):
        zmreg.request([("slow", "sleepy", (5.0,)), ("a", "fail")])
    assert time.monotonic() - began < 4


def test_R23_a_step_that_cannot_be_sent_keeps_those_behind_it_from_being_sent() -> None:
    before = counted("value")
    with pytest.raises(errors.SerializationError, match="lock") as caught:
        zmreg.request([("a", "echo", (threading.Lock(),)), ("b", "value", (1,))])
    assert caught.value.step == "a"  # type: ignore[attr-defined]
    assert counted("value") == before


def test_R26_time_runs_out_for_a_request_and_for_a_step() -> None:
    with pytest.raises(TimeoutError) as caught:
        zmreg.request([("a", "forever")], timeout=0.3)
    assert isinstance(caught.value, errors.RequestTimeoutError)
    began = time.monotonic()
    with pytest.raises(TimeoutError, match="'b'") as caught:
        zmreg.request([("a", "nap", (0.01,)), zmreg.Step("b", "forever", timeout=0.3)], timeout=60)
    assert caught.value.step == "b" and time.monotonic() - began < 5
    assert zmreg.request([("a", "echo", (1,))], timeout=30) == {"a": 1}
    hosts = {host.process for each in zmreg.functions() if each.name == "forever" for host in each.hosts}
    deadline = time.monotonic() + 10
    while counted("cancelled") < 2:  # both bodies, wherever they were
        assert time.monotonic() < deadline, hosts


def test_R29_R37_steps_run_when_their_inputs_are_there_and_wait_for_nothing_else() -> None:
    run = zmreg.start_request(
        [("c", "nap", (1.0,)), ("a", "nap", (0.01,)), ("b", "nap", (0.02,)), ("d", "echos", ("a", "b"))]
    )
    assert run.result(30) == {"c": 1.0, "d": [0.01, 0.02]}
    ended = {row["step"]: row["ended_s"] for row in run.timeline()}
    assert ended["d"] < 0.8 < ended["c"]
    four: list[StepLike] = [(f"s{n}", "sleepy", (0.5, n)) for n in range(4)]
    run = zmreg.start_request([*four, ("join", "echos", tuple(f"s{n}" for n in range(4)))])
    assert run.result(30) == {"join": [0, 1, 2, 3]}
    summary = run.summary()
    assert summary is not None and summary.parallel_efficiency > 1.8


def test_R27_many_at_once_do_not_mix() -> None:
    async def one(number: int) -> Any:
        steps: list[StepLike] = [("a", "add", (number,), {"b": 1}), ("b", "echo", ({"v": ["a", number]},))]
        return await zmreg.arequest(steps)

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(*(one(number) for number in range(60)))

    assert asyncio.run(all_of_them()) == [{"b": {"v": [number + 1, number]}} for number in range(60)]


def test_a_request_that_is_cancelled_ends_and_cancels_its_calls() -> None:
    before = counted("cancelled")
    run = zmreg.start_request([("a", "forever"), ("b", "echo", ("a",))])
    assert not run.done()
    with pytest.raises(errors.GetTimeoutError):
        run.result(0.05)
    run.cancel()
    with pytest.raises(errors.TaskCancelledError):
        run.result(30)
    assert run.done() and run.states() == {"a": "CANCELLED", "b": "CANCELLED"}

    async def awaited() -> None:
        task = asyncio.ensure_future(zmreg.arequest([("a", "forever")]))
        await asyncio.sleep(0.1)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(awaited())
    deadline = time.monotonic() + 10
    while counted("cancelled") < before + 2:
        assert time.monotonic() < deadline


def test_options_that_are_none_are_told() -> None:
    with pytest.raises(TypeError, match="did you mean 'timeout'"):
        zmreg.request([], timeuot=3)  # type: ignore[call-arg]
    with pytest.raises(ValueError, match="detail='all'"):
        zmreg.request([], detail="all")


@settings(max_examples=examples(2), deadline=None)
@given(st.integers(0, 2**32), st.integers(100, 200), st.booleans())
def test_large_random_graphs_give_what_a_plain_evaluation_gives(seed: int, size: int, traced: bool) -> None:
    world = World(seed, size)
    steps = [step.but(fun="value", args=(zmreg.Lit(step.name), *step.args)) for step in world.steps]
    assert zmreg.request(steps, keep="all", return_intermediate_results=traced) == world.expected()
