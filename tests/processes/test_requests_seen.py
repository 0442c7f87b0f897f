"""What a request lets people see: on one node, and with the hosts on different ones of three.

Rows of requests.md: I1, I2, I4 to I19. What is folded from events has its own tests in tests/flows/test_trace.py.
"""

from __future__ import annotations

import asyncio
import json
import logging
import pickle
import time
from collections.abc import Iterator
from typing import Any

import pytest

import zmreg
from tests.processes.named_hosts import Host
from zmreg import errors
from zmreg.flows.requests import telling
from zmreg.flows.requests.trace import NOTHING, Held
from zmreg.flows.requests.words import preview
from zmreg.model.graphs import StepLike
from zmreg.testing.cluster import LocalCluster

SEEN = """
class Odd(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")

def load(x):
    return [x]

def grow(items):
    items.append(2)
    return items

def analyze(items, least=0):
    if len(items) > least:
        raise ValueError(f"too many: {items}")
    return items

def odd():
    raise Odd(1, 2)

def large(nbytes):
    return bytes(nbytes)

def size(x):
    return len(x)

def slow_sibling(seconds):
    time.sleep(seconds)
    return "finished"

def after(seconds, value=None):
    time.sleep(seconds)
    return value

SERVED += [after, load, grow, analyze, odd, large, size, slow_sibling]
"""
CHAIN: list[StepLike] = [("step1", "load", (1,)), ("step2", "grow", ("step1",)), ("step3", "grow", ("step2",))]


@pytest.fixture(scope="module", params=[1, 3], ids=["one", "three"])
def cluster(request: pytest.FixtureRequest) -> Iterator[LocalCluster]:
    """The caller is at the first node, a host at the last, and with three another one at the second."""
    nodes = [{}, {"locs": {"m1"}}, {"locs": {"m2"}}][: request.param]
    with LocalCluster(nodes) as cluster, Host(cluster.nodes[-1].address, more=SEEN) as last:
        last.is_up()
        if request.param == 1:
            cluster.attach()
            yield cluster
            return
        with Host(cluster.nodes[1].address, more=SEEN) as other:
            other.is_up()
            cluster.attach()
            yield cluster


pytestmark = pytest.mark.usefixtures("cluster")


class Board:
    """Takes what is published in place of the cluster."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, wanted: bool = False, broken: bool = False) -> None:
        self.said: list[tuple[str, object, float]] = []
        self._broken = broken
        monkeypatch.setattr(telling.events, "publish", self.publish)
        monkeypatch.setattr(telling.events, "wanted", lambda _: wanted)

    def publish(self, topic: str, value: object) -> None:
        self.said.append((topic, value, time.monotonic()))
        if self._broken:
            raise ConnectionError("nobody there")


def test_I1_I6_I10_the_flag_changes_no_result_and_without_it_nothing_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(monkeypatch)
    off, on = zmreg.request(CHAIN), zmreg.request(CHAIN, return_intermediate_results=True)
    assert off == on == {"step3": [1, 2, 2]} and off.r["step3"] == on.r["step3"]
    assert type(off) is type(on) is zmreg.GraphResult and isinstance(off, dict)
    assert off.intermediate_results == () and off.trace is None and off.execution_summary is None
    assert off.report() == NOTHING and off.timeline() == [] and off.arg_previews == {}
    assert len(on.intermediate_results) == 3 and on.execution_summary is None
    assert board.said == []
    streamed = zmreg.request(CHAIN, intermediate_result_callback_topic="debug.{request_id}", request_id="mine")
    assert streamed.intermediate_results == () and [topic for topic, _, _ in board.said] == ["debug.mine"] * 3


def test_I2_I4_I5_records_are_snapshots_of_levels() -> None:
    records = zmreg.request(CHAIN, return_intermediate_results=True, request_id="r").intermediate_results
    assert [each.level_results for each in records] == [{"step1": [1]}, {"step2": [1, 2]}, {"step3": [1, 2, 2]}]
    assert [len(each.accumulated_results) for each in records] == [1, 2, 3]
    assert {(each.request_id, each.total_levels) for each in records} == {("r", 3)}
    assert abs(records[-1].timestamp - time.time()) < 60 and records[0].timestamp <= records[-1].timestamp
    diamond: list[StepLike] = [
        ("d", "echos", ("b", "c")), ("b", "echo", ("a",)), ("c", "echo", ("a",)), ("a", "echo", (1,)),
    ]  # fmt: skip
    records = zmreg.request(diamond, return_intermediate_results=True).intermediate_results
    assert [set(each.level_results) for each in records] == [{"a"}, {"b", "c"}, {"d"}]


SIX: list[StepLike] = [
    ("load", "load", (1,)), ("clean", "grow", ("load",)), ("transform", "grow", ("clean",)),
    ("analyze", "analyze", ("transform",), {"least": 2}), ("validate", "echo", ("analyze",)),
    ("store", "echo", ("validate",)),
]  # fmt: skip


def test_I7_a_failure_keeps_the_past() -> None:
    with pytest.raises(ValueError, match="too many") as caught:
        zmreg.request(SIX, return_intermediate_results=True)
    error: Any = caught.value
    assert len(error.intermediate_results) == 3 and error.step == "analyze" and error.level_index == 3
    assert isinstance(error.__cause__, ValueError) and "too many" in error.remote_traceback
    assert error.intermediate_results[-1].accumulated_results["transform"] == [1, 2, 2]
    assert error.arg_previews == {"args[0]": "[1, 2, 2]", "kwargs.least": "2"} and error.node.startswith("n")
    assert error.__notes__[-1].startswith("(step 'analyze' of request")


def test_I7_R23_siblings_that_run_are_finished_and_kept() -> None:
    steps: list[StepLike] = [
        ("a", "echo", (1,)), ("bad", "analyze", ([1],)), ("sibling", "slow_sibling", (0.4,)),
        ("never", "echo", ("sibling",)),
    ]  # fmt: skip
    with pytest.raises(ValueError) as caught:
        zmreg.request(steps, return_intermediate_results=True)
    error: Any = caught.value
    assert error.partial == {"a": 1, "sibling": "finished"} and error.intermediate_results == ()


def test_I8_a_timeout_keeps_the_past() -> None:
    steps = [zmreg.Step(f"s{n}", "after", (0.2, f"s{n - 1}" if n else None)) for n in range(4)]
    began = time.monotonic()
    with pytest.raises(TimeoutError) as caught:
        zmreg.request(steps, return_intermediate_results=True, timeout=0.5)
    error: Any = caught.value
    assert isinstance(error, errors.RequestTimeoutError) and error.timeout_s == 0.5
    assert len(error.intermediate_results) == 2 and time.monotonic() - began < 2


def test_I9_levels_are_published_as_they_are_done() -> None:
    steps: list[StepLike] = [
        ("a", "after", (0.2, "x")), ("b", "size", ("a",)), ("c", "after", (0.4, 1)), ("d", "echos", ("b", "c")),
    ]  # fmt: skip
    topic = "debug.rpc.{request_id}.intermediate"
    with zmreg.subscribe("debug.rpc.mine.#") as heard:
        run = zmreg.start_request(steps, intermediate_result_callback_topic=topic, request_id="mine")
        told = [heard.get(30)]
        assert run.result(30) == {"d": [1, 1]} and run.result().intermediate_results == ()
        told += [heard.get(30) for _ in range(2)]
    assert {event.topic for event in told} == {"debug.rpc.mine.intermediate"}
    assert [event.value.level_index for event in told] == [0, 1, 2]
    assert told[2].value.level_results == {"d": [1, 1]}


def test_I9_a_topic_that_fails_harms_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    Board(monkeypatch, wanted=True, broken=True)
    assert zmreg.request(CHAIN, intermediate_result_callback_topic="a.b") == {"step3": [1, 2, 2]}
    with pytest.raises(ValueError, match=r"a\.\.b"):
        zmreg.request(CHAIN, intermediate_result_callback_topic="a..b")


def test_run_events_are_published_when_somebody_wants_them() -> None:
    with zmreg.subscribe("run.r.#") as heard:
        assert zmreg.request([*CHAIN[:2], (".*.", "echo", ("step1",))], request_id="r")["step2"] == [1, 2]
        topics = []
        while not topics or topics[-1] != "run.r.done":
            topics.append(heard.get(30).topic)
    assert topics.count("run.r.step.step1.finished") == 1 and "run.r.step._._._.finished" in topics
    assert [topic for topic in topics if ".level." in topic] == ["run.r.level.0", "run.r.level.1"]


def test_I11_levels_are_streamed_to_whoever_waits() -> None:
    seen: list[bool] = []
    steps: list[StepLike] = [("a", "echo", (1,)), ("b", "after", (0.3, "a")), ("c", "echo", ("b",))]
    run = zmreg.start_request(steps, on_level=lambda record: 1 / 0 if record.level_index else None)
    for record in run.levels():
        seen.append(run.done())
        assert record.level_index == len(seen) - 1
    assert len(seen) == 3 and not seen[0]
    assert run.result(30) == {"c": 1}
    assert [record.level_index for record in run.levels()] == [0, 1, 2]

    async def streamed() -> list[int]:
        run = zmreg.start_request(steps)
        indices = [record.level_index async for record in run.levels()]
        assert await run == {"c": 1}
        return indices

    assert asyncio.run(streamed()) == [0, 1, 2]
    failing = zmreg.start_request([("a", "echo", (1,)), ("b", "fail_at", ("a",))], bind_timeout=0.0)
    assert list(failing.levels()) == []
    with pytest.raises(errors.FunctionNotFoundError):
        failing.result(30)


def test_I13_I14_I17_I19_one_flag_shows_everything(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG, logger="zmreg.requests"):
        found = zmreg.request(SIX[:3], debug_mode=True)
    assert found == {"transform": [1, 2, 2]}
    summary = found.execution_summary
    assert summary is not None and summary.total_levels == 3 and summary.parallel_commands_executed == 3
    assert len(found.intermediate_results) == 3 and len(found.timeline()) == 3
    assert found.arg_previews == {
        "load": {"args[0]": "1"}, "clean": {"args[0]": "[1]"}, "transform": {"args[0]": "[1, 2]"},
    }  # fmt: skip
    assert any("StepFinished" in line for line in caplog.messages)
    assert "Level 0 (" in found.report() and found.report().count("clean") == 1
    assert found.bottlenecks()["critical_path"] == ["load", "clean", "transform"]
    assert found.dependency_trace()[1]["inputs"] == {"clean": {"args[0]": "load"}}
    full = [event for event in found.chrome_trace() if event["ph"] == "X"]
    assert {event["name"] for event in full} == {"load", "clean", "transform"} and json.dumps(full)
    assert "s0 --> s1" in found.to_mermaid() and '"clean" -> "transform"' in found.to_dot()
    assert "<svg" in found._repr_html_() and found._repr_mimebundle_()["text/vnd.mermaid"] == found.to_mermaid()
    assert pickle.loads(pickle.dumps(found)) == found


def test_I15_details() -> None:
    steps: list[StepLike] = [("x", "large", (20_000_000,)), ("small", "echo", ("text",)), ("y", "size", ("x",))]
    before = received()
    values, refs, words = (
        zmreg.request(steps, return_intermediate_results=True, detail=detail).intermediate_results[0].level_results
        for detail in ("values", "refs", "summary")
    )
    assert received() - before < 100_000
    assert values.ref("small") is None and refs.ref("small") is not None and refs["small"] == "text"
    assert isinstance(values._values["x"], Held) and "20000" in repr(values)
    assert words["small"] == {"type": "str", "nbytes": words["small"]["nbytes"], "repr": "'text'"}
    assert words["x"]["type"] == "bytes" and words["x"]["nbytes"] >= 20_000_000
    assert words["x"]["repr"] == preview(bytes(200)) and type(words._values["x"]) is dict, "said by its holder"
    assert len(refs["x"]) == len(values["x"]) == 20_000_000


def received() -> int:
    """Bytes that have come to our node from others."""
    links = zmreg.stats()["links"].values()
    return sum(link["bytes_received"] + link["letter_bytes_received"] for link in links)


def test_I16_the_start_of_a_step_says_what_went_where(monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board(monkeypatch, wanted=True)
    zmreg.request(SIX[:3], return_intermediate_results=True, request_id="r")
    started = {topic.split(".")[3]: event for topic, event, _ in board.said if topic.endswith(".started")}
    assert {step: dict(event.inputs) for step, event in started.items()} == {  # type: ignore[attr-defined]
        "load": {}, "clean": {"args[0]": "load"}, "transform": {"args[0]": "clean"},
    }  # fmt: skip


def test_I18_requests_at_once_do_not_mix(cluster: LocalCluster) -> None:
    places: list[set[str]] = [{"m1"}, {"m2"}] if len(cluster.nodes) > 1 else [set()]

    def one(number: int) -> zmreg.Run:
        locs = places[number % len(places)]
        steps = [zmreg.Step("a", "load", (number,), locs=locs)]
        steps += [zmreg.Step("b", "grow", ("a",), locs=locs), zmreg.Step("c", "grow", ("b",))]
        return zmreg.start_request(steps, return_intermediate_results=True, request_id=f"r{number}")

    runs = [one(number) for number in range(20)]
    for number, run in enumerate(runs):
        found = run.result(60)
        assert found == {"c": [number, 2, 2]} and len(found.intermediate_results) == 3
        assert {record.request_id for record in found.intermediate_results} == {f"r{number}"}
        nodes = {row["node"] for row in run.timeline() if row["step"] != "c"}
        assert len(nodes) == 1 and (len(places) == 1 or nodes == {f"n{2 + number % 2}"})


def test_reproduce_calls_what_failed_here_with_its_real_inputs(monkeypatch: pytest.MonkeyPatch) -> None:
    steps: list[StepLike] = [*SIX[:3], ("analyze", "analyze", ("transform",), {"least": 2})]
    with pytest.raises(ValueError) as caught:
        zmreg.request(steps)
    error: Any = caught.value
    assert error.reproduce.arguments() == (([1, 2, 2],), {"least": 2})
    with pytest.raises(ValueError, match="too many") as again:
        error.reproduce()
    assert not isinstance(again.value, errors.TaskError) and again.traceback[-1].name == "analyze"
    looked: list[object] = []
    monkeypatch.setattr("pdb.post_mortem", looked.append)
    with pytest.raises(ValueError):
        error.reproduce(debug=True)
    assert len(looked) == 1
    with pytest.raises(errors.ZmregError) as odd:
        zmreg.request([("o", "odd")])
    with pytest.raises(Exception, match="1 and 2"):
        odd.value.reproduce()  # type: ignore[attr-defined]


def test_an_observer_that_is_slow_holds_up_the_request_only_by_its_own_callback() -> None:
    run = zmreg.start_request(CHAIN)
    levels = iter(run.levels())
    assert next(levels).level_index == 0
    assert run.result(30) == {"step3": [1, 2, 2]}  # nobody reads its levels meanwhile
    assert [record.level_index for record in levels] == [1, 2]
