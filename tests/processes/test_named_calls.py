"""Calls by name to a process that serves: on one node, and with caller and host on different ones of three.

Rows of requests.md: R1, R7, R9, R12, R19, R23, R24, R26, R27, R30, R31, R35, R36.
"""

from __future__ import annotations

import asyncio
import datetime
from collections import namedtuple
from collections.abc import Iterator

import pytest

import zmreg
from tests.processes.clusters import until
from tests.processes.named_hosts import hosts
from zmreg import errors
from zmreg.model.graphs import Lit, Ref
from zmreg.testing.cluster import LocalCluster

Point = namedtuple("Point", "x y")


@pytest.fixture(scope="module", params=[1, 3], ids=["one", "three"])
def cluster(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    """The caller is at the first node, a host at the last."""
    nodes = [{}, {"locs": {"m1"}}, {"locs": {"m2"}}][: request.param]
    with LocalCluster(nodes) as cluster, hosts((cluster.nodes[-1].address, ("here",))):
        cluster.attach()
        yield cluster


pytestmark = pytest.mark.usefixtures("cluster")


def test_R1_a_call_gives_the_bare_value() -> None:
    assert zmreg.call("echo", "hi there!") == "hi there!"
    assert zmreg.call("add", 1, b=2) == 3
    assert zmreg.call("add", zmreg.put(1), b=zmreg.put(2)) == 3
    assert zmreg.call("add", 1, locs={"here"}, timeout=30, version="") == 1
    assert asyncio.run(zmreg.acall("add", 1, b=2)) == 3


def test_R7_the_functions_own_name_is_not_a_reference() -> None:
    assert zmreg.call("echo", "echo") == "echo"
    assert zmreg.call("kind", ["kind", "kind.x"]) == ("list", ["kind", "kind.x"])
    with pytest.raises(errors.CycleError, match="echo -> echo"):
        zmreg.call("echo", Ref("echo"))


def test_R9_lit_passes_the_text_and_a_ref_has_nothing_to_lead_to() -> None:
    assert zmreg.call("echo", Lit("first")) == "first"
    assert zmreg.call("kind", {"k": [Lit("first")]}) == ("dict", {"k": ["first"]})
    assert zmreg.call("add", Lit(1), b=Lit(2)) == 3
    with pytest.raises(errors.GraphError, match="nope"):
        zmreg.call("echo", [Ref("nope")])


def test_R12_an_unknown_name_fails_soon_and_names_that_are_near_are_told() -> None:
    with pytest.raises(errors.FunctionNotFoundError, match="'echo'"):
        zmreg.call("ecoh")
    with pytest.raises(errors.FunctionNotFoundError, match="'open_gate'"):
        asyncio.run(zmreg.acall("open_gat", timeout=0.1))


def test_R19_echo_and_echos_need_nobody_who_serves_them() -> None:
    assert zmreg.call("echos", 1, 2) == [1, 2]
    assert zmreg.call("echos") == []
    assert asyncio.run(zmreg.acall("echo", b"x")) == b"x"
    with pytest.raises(TypeError):
        zmreg.call("echo")
    with pytest.raises(errors.NoRouteError, match="tpu"):
        zmreg.call("echo", 1, locs={"tpu"})
    with pytest.raises(errors.NoRouteError, match="without one"):
        zmreg.call("echo", 1, version=">=2")


def test_R23_R24_what_the_function_raises_is_raised_here() -> None:
    with pytest.raises(ValueError, match="by hand") as caught:
        zmreg.call("boom", "by hand")
    assert isinstance(caught.value, errors.TaskError)
    assert "in boom" in str(caught.value.__cause__ or "") + caught.value.remote_traceback
    with pytest.raises(ValueError, match="by hand"):
        asyncio.run(zmreg.acall("boom", "by hand"))


def test_R26_a_timeout_is_a_timeout_error_and_cancels_a_coroutine() -> None:
    began, cancelled = zmreg.call("count", "forever"), zmreg.call("count", "cancelled")
    with pytest.raises(TimeoutError, match="forever"):
        zmreg.call("forever", timeout=0.5)
    assert zmreg.call("count", "forever") == began + 1
    until(lambda: zmreg.call("count", "cancelled") == cancelled + 1, "it was not cancelled")
    with pytest.raises(TimeoutError):
        zmreg.call("echo", "x", timeout=0.0001)
    assert zmreg.call("add", 1) == 1


def test_R26_cancelling_who_awaits_cancels_the_call() -> None:
    cancelled = zmreg.call("count", "cancelled")

    async def main() -> None:
        began = await zmreg.acall("count", "forever")
        task = asyncio.create_task(zmreg.acall("forever"))
        while await zmreg.acall("count", "forever") == began:
            pass
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        with pytest.raises(TimeoutError):
            await zmreg.acall("forever", timeout=0.1)

    asyncio.run(main())
    until(lambda: zmreg.call("count", "cancelled") == cancelled + 2, "one of them was not cancelled")


def test_R27_two_hundred_at_once_are_matched_and_a_sleeper_delays_none() -> None:
    async def main() -> None:
        sleeper = asyncio.create_task(zmreg.acall("forever"))
        assert await asyncio.gather(*(zmreg.acall("add", i) for i in range(200))) == list(range(200))
        assert await asyncio.gather(*(zmreg.acall("kind", i) for i in range(50))) == [("int", i) for i in range(50)]
        assert not sleeper.done()
        sleeper.cancel()

    asyncio.run(main())


def test_R30_a_handler_that_spins_keeps_nobody_from_being_answered() -> None:
    spun = zmreg.call("count", "spin")

    async def main() -> None:
        spinning = asyncio.create_task(zmreg.acall("spin", 2.0))
        while await zmreg.acall("count", "spin") == spun:
            pass
        answered = [await zmreg.acall("clock") for _ in range(3)]
        assert await zmreg.acall("nap", 0.01) == 0.01  # the loop goes on, too
        assert not spinning.done()
        assert max(answered) < await spinning

    asyncio.run(main())
    assert all(row["State"] == "ALIVE" for row in zmreg.nodes() if row["Alive"])


@pytest.mark.parametrize(
    "value",
    [
        (1, (2,)), b"bytes", {1, 2}, frozenset({"a"}), datetime.datetime(2026, 1, 2, 3, 4), 1 + 2j, None, Point(1, [2]),
        {"k": ("t", [b""])}, bytes(3_000_000),
    ],
    ids=lambda value: type(value).__name__,
)  # fmt: skip
def test_R31_any_object_arrives_and_comes_back_as_what_it_is(value: object) -> None:
    name, back = zmreg.call("kind", value)
    assert name == type(value).__name__
    assert back == value and type(back) is type(value)
    assert zmreg.call("echo", value) == value


def test_R35_the_highest_version_that_is_allowed_is_called() -> None:
    for version in ("1.9", "2.1.0", "2.10"):
        zmreg.call("register_late", "versioned", version, version)
    assert zmreg.call("versioned", queue_until=5, version="==2.10") == "2.10"
    assert zmreg.call("versioned") == "2.10"
    assert zmreg.call("versioned", version="2.1.0") == "2.1.0"
    assert zmreg.call("versioned", version=">=1,<2") == "1.9"
    with pytest.raises(errors.NoRouteError, match=r"2\.10"):
        zmreg.call("versioned", version=">=3.0", queue_until=0)
    with pytest.raises(ValueError, match="constraint|version"):
        zmreg.call("versioned", version="newest")
    zmreg.call("withdraw_late", "versioned", "2.10")
    until(lambda: zmreg.call("versioned") == "2.1.0", "2.10 is still called")
    zmreg.call("withdraw_late", "versioned")


def test_R36_functions_and_describe_say_what_there_is(cluster: LocalCluster) -> None:
    names = [each.name for each in zmreg.functions()]
    assert {"echo", "echos", "add", "boom"} <= set(names) and names == sorted(names)
    add = zmreg.describe("add")
    assert (add.signature, add.doc, add.versions) == ("(a, b=0)", "The sum.", ("",))
    assert add.nodes == (cluster.nodes[-1].node_id,)
    assert "here" in add.locs and add.hosts[0].reachable and add.hosts[0].actor == ""
    assert set(zmreg.describe("echo").nodes) == {node.node_id for node in cluster.nodes}
    with pytest.raises(errors.FunctionNotFoundError, match="'add'"):
        zmreg.describe("ad")
