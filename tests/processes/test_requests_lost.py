"""Requests whose hosts are killed: R25 of requests.md, and random graphs while hosts die and others come."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import zmreg
from tests.core.graph_worlds import World
from tests.processes.clusters import until
from tests.processes.named_hosts import Host, known
from zmreg import errors
from zmreg.model.graphs import StepLike
from zmreg.testing.cluster import LocalCluster

LOST = """
from tests.core.graph_worlds import value_of

def value(name, *args, **kwargs):
    time.sleep(0.003)
    return value_of(name, args, kwargs)

def only_me():
    calls["only_me"] += 1
    say("begun")
    gate.wait(60)
    return os.getpid()

def large(nbytes):
    return bytes(nbytes)

def size(x):
    return len(x)

def same(x):
    return x

SERVED += [same, value, only_me, large, size]
"""


@pytest.fixture
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster([{}, {"locs": {"m1"}}, {"locs": {"m2"}}]) as cluster:
        cluster.attach()
        yield cluster


@pytest.fixture
def two(cluster: LocalCluster) -> Iterator[tuple[Host, Host]]:
    first, second = (Host(node.address, more=LOST) for node in cluster.nodes[1:])
    with first, second:
        first.is_up()
        second.is_up()
        until(lambda: len(known("only_me")) == 2, "it is not known")
        yield first, second


@pytest.mark.parametrize("retries", [0, 1])
def test_R25_a_step_that_may_have_run_goes_elsewhere_only_if_it_may(two: tuple[Host, Host], retries: int) -> None:
    first, second = two
    steps: list[StepLike] = [
        ("a", "echo", (1,)), zmreg.Step("b", "only_me", locs={"m1"} if not retries else (), retries=retries),
    ]  # fmt: skip
    run = zmreg.start_request(steps, return_intermediate_results=True)
    host = until(lambda: next((each for each in two if each.process.poll() is None and begun(each)), None), "not begun")
    other = second if host is first else first
    began = time.monotonic()
    host.kill()
    if retries:
        zmreg.call("open_gate", locs={"m2"} if other is second else {"m1"})
        assert run.result(30)["b"] == other.process.pid
        rows = {row["step"]: row for row in run.timeline()}
        assert rows["b"]["attempt"] == 1
        return
    with pytest.raises(errors.WorkerDiedError, match="may have run") as caught:
        run.result(30)
    error: Any = caught.value
    assert time.monotonic() - began < 5
    assert (error.step, error.node, error.level_index) == ("b", "n2", 0)
    assert error.__notes__[-1].startswith("(step 'b' of request") and "on node n2" in error.__notes__[-1]


def begun(host: Host) -> bool:
    where = {"m1"} if host.process.pid in set(pids("m1")) else {"m2"}
    return bool(zmreg.call("count", "only_me", locs=where))


def pids(loc: str) -> list[int]:
    return [zmreg.call("pid", locs={loc})]


def test_R25_what_was_not_begun_goes_elsewhere_by_itself(two: tuple[Host, Host]) -> None:
    """The host is gone, and neither its node nor we have heard of it when the steps are sent."""
    first, second = two
    assert zmreg.request([("a", "pid", (), {}, {"m1"})]) == {"a": first.process.pid}
    first.kill()
    found = zmreg.request([zmreg.Step(f"s{n}", "pid", retries=1) for n in range(20)])
    assert set(found.values()) == {second.process.pid}


def test_R25_values_outlive_the_host_that_made_them(two: tuple[Host, Host]) -> None:
    """They are in its node's store."""
    first, _ = two
    steps: list[StepLike] = [
        zmreg.Step("x", "large", (1_000_000,), locs={"m1"}), ("y", "size", ("x",), {}, {"m2"}),
        zmreg.Step("z", "size", ("x",), locs={"m2"}),
    ]  # fmt: skip
    killed = threading.Event()

    def kill(record: Any) -> None:
        if record.level_index == 0:
            first.kill()
            killed.set()

    assert zmreg.request(steps, on_level=kill) == {"y": 1_000_000, "z": 1_000_000}
    assert killed.is_set()


@pytest.mark.parametrize("retries", [0, 1])
def test_R25_values_that_are_lost_with_their_node_are_made_again_if_they_may(
    cluster: LocalCluster, two: tuple[Host, Host], retries: int
) -> None:
    """Two levels of them: the first was let go of when the second was done."""
    with Host(cluster.nodes[0].address, locs=("here",), more=LOST) as third:
        third.is_up()
        until(lambda: len(known("size")) == 3, "it is not known")
        steps = [zmreg.Step("seed", "echo", (300_000,)), zmreg.Step("x", "large", ("seed",), locs={"m1"})]
        steps = [step.but(retries=retries) for step in steps]
        steps.append(zmreg.Step("w", "same", ("x",), locs={"m1"}, retries=retries))
        steps.append(zmreg.Step("y", "size", ("w",), locs={"here"}))
        stack = ExitStack()

        def kill(record: Any) -> None:
            if record.level_index == 2:
                cluster.kill_node(cluster.nodes[1].node_id)
                stack.enter_context(Host(cluster.nodes[-1].address, locs=("m1",), more=LOST)).is_up()

        with stack:
            if retries:
                assert zmreg.request(steps, on_level=kill, queue_until=30) == {"y": 300_000}
                return
            with pytest.raises(errors.ObjectLostError) as caught:
                zmreg.request(steps, on_level=kill, queue_until=30)
            assert caught.value.step == "y"  # type: ignore[attr-defined]


@pytest.mark.parametrize("retries", [0, 1])
def test_R25_what_a_request_returns_is_made_again_if_it_was_lost_after_all_was_done_and_may_be(
    cluster: LocalCluster, two: tuple[Host, Host], retries: int
) -> None:
    """With what it takes, which nobody needed any more."""
    steps = [zmreg.Step("seed", "echo", (300_000,)), zmreg.Step("x", "large", ("seed",), locs={"m1"})]
    steps = [step.but(retries=retries) for step in steps]
    stack = ExitStack()

    def kill(record: Any) -> None:
        if record.is_final_level:
            cluster.kill_node(cluster.nodes[1].node_id)
            stack.enter_context(Host(cluster.nodes[-1].address, locs=("m1",), more=LOST)).is_up()

    with stack:
        if retries:
            assert zmreg.request(steps, on_level=kill, queue_until=30) == {"x": bytes(300_000)}
            return
        with pytest.raises(errors.ObjectLostError, match="'x', made on node n2, is lost, and 'x', 's") as caught:
            zmreg.request(steps, on_level=kill, queue_until=30)
        error: Any = caught.value
        assert (error.step, error.node) == ("x", "n2") and isinstance(error.__cause__, errors.ObjectLostError)


def test_random_graphs_while_hosts_are_killed(cluster: LocalCluster) -> None:
    """Somebody always starts another, and steps may be repeated."""
    chance = random.Random(7)
    world = World(chance.randrange(2**32), 200)
    steps = [step.but(fun="value", args=(zmreg.Lit(step.name), *step.args), retries=20) for step in world.steps]
    places = [node.address for node in cluster.nodes]
    with ExitStack() as stack:
        hosts = [stack.enter_context(Host(address, more=LOST)) for address in places]
        for host in hosts:
            host.is_up()
        done = threading.Event()
        kills = 0
        run = zmreg.start_request(steps, keep="all", queue_until=30.0)
        while not run.done() and kills < 4:
            done.wait(0.05)
            number = chance.randrange(len(hosts))
            hosts[number].kill()
            kills += 1
            hosts[number] = stack.enter_context(Host(places[number], more=LOST))
            hosts[number].is_up()
        assert run.result(100) == world.expected()
        assert kills >= 1
        rows = run.timeline()
        assert len(rows) == len(steps) and {row["state"] for row in rows} == {"DONE"}
