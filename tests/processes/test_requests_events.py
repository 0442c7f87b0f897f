"""What requests publish (I9, I10, I12), heard by real subscribers on other nodes of three."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

import pytest

import zmreg
from tests.processes.event_peers import PATIENCE_S, peer_on, until_known
from zmreg.flows.requests.trace import LevelRecord
from zmreg.testing.cluster import LocalCluster

TOPIC = "debug.rpc.{request_id}.intermediate"
STEP_S = 0.2
CHAIN: list[Any] = [("a", "after", (STEP_S, 1)), ("b", "after", (STEP_S, "a")), ("c", "after", (STEP_S, "b"))]


def after(seconds: float, value: Any = None) -> Any:
    time.sleep(seconds)
    return value


def text(size: int) -> str:
    return "x" * size


@pytest.fixture(scope="module")
def three() -> Iterator[LocalCluster]:
    with LocalCluster([{}, {"locs": {"m1"}}, {"locs": {"m2"}}]) as cluster:
        cluster.attach()
        zmreg.register("after", after)
        zmreg.register("text", text)
        yield cluster


def records(subscription: zmreg.Subscription, count: int) -> list[LevelRecord]:
    found = [subscription.get(timeout=PATIENCE_S).value for _ in range(count)]
    assert all(isinstance(each, LevelRecord) for each in found)
    return found


def test_I9_I10_a_subscriber_elsewhere_has_each_level_before_the_request_is_done(three: LocalCluster) -> None:
    far = peer_on("m2")
    far.subscribe.remote("debug.rpc.mine.intermediate").get()
    with zmreg.subscribe("debug.rpc.mine.intermediate") as near:
        until_known(three, "debug.rpc.mine.intermediate")
        run = zmreg.start_request(CHAIN, request_id="mine", intermediate_result_callback_topic=TOPIC)
        (first,) = records(near, 1)
        left = time.monotonic()
        result = run.result(PATIENCE_S)
        assert time.monotonic() - left > STEP_S, "two levels of 200 ms were to come"
        levels = [first, *records(near, 2)]
        assert [each.level_index for each in levels] == [0, 1, 2] and {each.request_id for each in levels} == {"mine"}
        assert [dict(each.level_results) for each in levels] == [{"a": 1}, {"b": 1}, {"c": 1}]
        assert result == {"c": 1} and result.intermediate_results == ()
        assert [event.value for event in far.read.remote(3).get()] == levels
        with pytest.raises(TimeoutError):
            near.get(timeout=0.01)


def test_I9_all_that_happens_to_a_request_is_told_under_its_id(three: LocalCluster) -> None:
    with zmreg.subscribe("run.told.#") as subscription:
        zmreg.request([("a", "after", (0.0, 1)), ("b", "after", (0.0, "a"))], request_id="told")
        topics = []
        while not topics or topics[-1] != "run.told.done":
            topics.append(subscription.get(timeout=PATIENCE_S).topic)
    expected = ["step.a.finished", "level.0", "step.b.finished", "level.1", "done"]
    assert [each for each in topics if each.removeprefix("run.told.") in expected] == [
        f"run.told.{each}" for each in expected
    ]


def test_I9_levels_with_more_than_an_event_may_have_come_in_words(three: LocalCluster) -> None:
    """Each value is small enough to be here, all of them are not small enough for an event."""
    steps = [(f"s{number}", "text", (40_000,)) for number in range(3)]
    with zmreg.subscribe("debug.rpc.wide.intermediate") as subscription:
        zmreg.request(steps, request_id="wide", intermediate_result_callback_topic=TOPIC)
        (level,) = records(subscription, 1)
    assert level.level_results["s1"]["type"] == "str" and level.level_results["s1"]["repr"].startswith("'xxx")


@pytest.mark.alone
def test_I12_a_subscriber_that_never_reads_costs_a_request_less_than_a_tenth(three: LocalCluster) -> None:
    def seconds() -> float:
        """The least of three: the machine does other things beside."""
        took = []
        for _ in range(3):
            began = time.monotonic()
            zmreg.request(CHAIN, intermediate_result_callback_topic=TOPIC)
            took.append(time.monotonic() - began)
        return min(took)

    seconds()
    alone = seconds()
    asleep = peer_on("m1")
    asleep.subscribe.remote("debug.rpc.#", 1).get()
    with zmreg.subscribe("run.#", backlog=1) as near:
        until_known(three, "debug.rpc.#", "run.#")
        assert seconds() < 1.1 * alone
        assert near.dropped > 20, "and it was told all of it"
    event = asleep.read.remote(1).get()[0]
    assert isinstance(event.value, LevelRecord) and event.value.is_final_level
