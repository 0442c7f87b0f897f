"""What can be told of a request while it runs and afterwards, from its events alone."""

from __future__ import annotations

import json
import pickle
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.graph_worlds import World
from tests.effort import examples
from zmreg.core.graph_run import GraphRun
from zmreg.core.graphs import plan
from zmreg.flows.requests.drawing import COLOURS, to_dot, to_mermaid
from zmreg.flows.requests.trace import NOTHING, LevelRecord, Trace
from zmreg.model.graph_events import RunEvent, StepQueued
from zmreg.model.graphs import Step, StepLike

CHAIN = [Step("one", "f"), Step("two", "f", ("one",)), Step("three", "f", ("two",))]
DIAMOND = [Step("a", "f"), Step("b", "f", ("a",)), Step("c", "f", ("a",)), Step("d", "f", ("b", "c"))]


class Told:
    """A run and its trace. Each step says when it ended, how long it took and where."""

    def __init__(self, steps: list[StepLike], request_id: str = "r", **more: object) -> None:
        self.run = GraphRun(plan(steps), request_id, **more)
        self.trace = Trace(self.run.plan, request_id, unix_offset_s=1000.0)
        self.tell(self.run.begin(0.0))

    def tell(self, events: list[RunEvent]) -> list[LevelRecord]:
        return self.trace.hear_all(events)

    def done(
        self, step: str, at: float, took_s: float = 0.0, node: str = "n1", value: object = None
    ) -> list[LevelRecord]:
        return self.tell(self.run.finished(step, step if value is None else value, at, node, 8, took_s))


def test_I2_I3_one_record_for_each_level() -> None:
    told = Told(CHAIN)
    first, second, third = [told.done(name, at, 0.2)[0] for name, at in (("one", 0.2), ("two", 0.5), ("three", 0.7))]
    assert [each.level_index for each in (first, second, third)] == [0, 1, 2]
    assert [each.completed_levels for each in (first, second, third)] == [1, 2, 3]
    assert [len(each.accumulated_results) for each in (first, second, third)] == [1, 2, 3]
    assert {each.total_levels for each in (first, second, third)} == {3}
    assert [each.progress_percentage for each in (first, second, third)] == pytest.approx([33.33, 66.67, 100], abs=0.01)
    assert [each.is_final_level for each in (first, second, third)] == [False, False, True]
    assert second.level_results == {"two": "two"} and second.accumulated_results == {"one": "one", "two": "two"}
    assert (second.request_id, second.timestamp, second.execution_time_ms) == ("r", 1000.5, pytest.approx(200))
    assert repr(second) == "<LevelRecord r [level 1 of 3, 200.0 ms: two]>"
    assert pickle.loads(pickle.dumps(second)) == second and told.trace.records == [first, second, third]


def test_I3_nothing_to_do_is_all_of_it() -> None:
    assert LevelRecord("r", (), 0, 0.0, 0.0).progress_percentage == 100.0


def test_I4_the_time_of_a_level_is_from_its_first_start_to_its_last_end() -> None:
    told = Told(DIAMOND)
    told.done("a", 1.0, 1.0)
    told.done("b", 2.0, 0.9)
    (record,) = told.done("c", 5.0, 3.5)
    assert record.execution_time_ms == pytest.approx(1000 * (5.0 - 1.1)) and record.level_results == {
        "b": "b",
        "c": "c",
    }


def test_I4_a_deep_branch_does_not_leak_into_earlier_records() -> None:
    told = Told([Step("slow", "f"), *CHAIN])
    for name in ("one", "two", "three"):
        assert told.done(name, 1.0) == []
    records = told.done("slow", 9.0)
    assert [set(each.accumulated_results) for each in records] == [
        {"slow", "one"}, {"slow", "one", "two"}, {"slow", "one", "two", "three"},
    ]  # fmt: skip


def test_I5_records_are_snapshots() -> None:
    told = Told(CHAIN)
    (record,) = told.done("one", 1.0)
    changed = dict(record.level_results)
    changed["one"] = "changed"
    with pytest.raises(TypeError):
        record.level_results["one"] = "changed"  # type: ignore[index]
    told.done("two", 2.0)
    assert record.level_results == record.accumulated_results == {"one": "one"}


@settings(max_examples=examples(20), deadline=None)
@given(st.builds(World, st.integers(0, 2**32), st.integers(0, 60)), st.integers())
def test_I4_each_record_is_the_one_before_and_its_level(world: World, seed: int) -> None:
    chance = random.Random(seed)
    run = GraphRun(plan(world.steps), "r")
    trace, ready, clock = Trace(run.plan, "r"), list[str](), 0.0
    events = run.begin(0.0)
    while True:
        trace.hear_all(events)
        ready += [event.step for event in events if isinstance(event, StepQueued)]
        if not ready:
            break
        clock += chance.random()
        step = ready.pop(chance.randrange(len(ready)))
        events = run.finished(step, f"value of {step}", clock)
    before: dict[str, object] = {}
    for record in trace.records:
        assert not before.keys() & record.level_results.keys()
        before = {**before, **record.level_results}
        assert record.accumulated_results == before
    assert before == {name: f"value of {name}" for name in world.names}
    assert trace.past().partial == {} and trace.summary().parallel_commands_executed == len(world.names)


def test_I7_a_failure_keeps_the_levels_before_and_its_siblings() -> None:
    names = ["load", "clean", "features", "analyze", "rank", "report"]
    steps = [Step(name, "f", (before,)) for before, name in zip(["", *names], names, strict=False)]
    told = Told([*steps, Step("sibling", "f", ("features",))])
    for at, name in enumerate(names[:3], 1):
        told.done(name, at)
    told.tell(told.run.started("sibling", 3.1, "n1"))
    told.tell(told.run.failed("analyze", ValueError("no"), 4.0, "n2"))
    told.done("sibling", 5.0)
    past = told.trace.past()
    assert len(past.intermediate_results) == 3 and past.partial == {"sibling": "sibling"}
    assert (past.step, past.node, past.level_index) == ("analyze", "n2", 3)
    assert told.trace.states() == {
        **dict.fromkeys([*names[:3], "sibling"], "DONE"),
        "analyze": "FAILED",
        **dict.fromkeys(["rank", "report"], "CANCELLED"),
    }


def test_I8_a_timeout_keeps_the_levels_before() -> None:
    told = Told([*CHAIN, Step("four", "f", ("three",))], timeout=0.5)
    told.done("one", 0.2)
    told.done("two", 0.4)
    told.tell(told.run.expire(0.5))
    past = told.trace.past()
    assert len(past.intermediate_results) == 2 and past.level_index is None and past.step == ""
    assert told.trace.wall_s == 0.5


def test_I13_where_the_time_went() -> None:
    told = Told([*CHAIN, Step("four", "f", ("three",))])
    for name, at, ms, node in (("one", 0.05, 50, "n1"), ("two", 0.08, 25, "n2"), ("three", 0.3, 200, "n2"),
                               ("four", 0.34, 30, "n1")):  # fmt: skip
        told.done(name, at, ms / 1000, node)
    summary = told.trace.summary()
    assert summary.level_execution_times == pytest.approx([50, 25, 200, 30])
    assert (summary.bottleneck_level_index, summary.bottleneck_time_ms) == (2, pytest.approx(200))
    assert summary.slow_levels == [2] and summary.average_level_time_ms == pytest.approx(76.25)
    assert summary.total_execution_time_ms == pytest.approx(340) and summary.total_levels == 4
    assert summary.parallel_commands_executed == 4 and summary.cross_node_hops == 2
    assert summary.parallel_efficiency == pytest.approx(0.305 / 0.34)


def test_I13_the_first_of_equal_levels_and_n_at_a_time() -> None:
    told = Told([("a", "f"), ("b", "f"), ("c", "f", ("a", "b"))])
    for name, at in (("a", 1.0), ("b", 1.0), ("c", 2.0)):
        told.done(name, at, 1.0, "")
    summary = told.trace.summary()
    assert summary.bottleneck_level_index == 0 and summary.slow_levels == [] and summary.cross_node_hops == 0
    assert summary.parallel_efficiency == 1.5


def test_I13_I14_of_nothing() -> None:
    trace = Trace(plan([]))
    summary = trace.summary()
    assert (summary.bottleneck_level_index, summary.average_level_time_ms, summary.parallel_efficiency) == (None, 0, 0)
    assert trace.report() == NOTHING == "No intermediate results available."
    assert trace.dependency_trace() == trace.timeline() == trace.chrome_trace() == []
    assert trace.bottlenecks()["critical_path"] == [] and Told(CHAIN).trace.report() == NOTHING


def test_I14_the_report_names_each_step_once_in_its_level() -> None:
    told = Told(DIAMOND)
    told.done("a", 0.1, 0.1, value="x" * 1000)
    told.done("b", 0.2, 0.1, value=list(range(10**6)))
    told.done("c", 0.2, 0.1)
    assert told.trace.report().splitlines() == [
        "Request r: 2 of 3 levels in 200.0 ms",
        "Level 0 (100.0 ms, 33 %)",
        "  a = 'xxxxxxxxxxxxxxxxxxxxxx...xxxxxxxxxxxxxxxxxxxxxxx'",
        "Level 1 (100.0 ms, 67 %)",
        "  b = [0, 1, 2, 3, 4, 5, ...]",
        "  c = 'c'",
    ]


def test_I14_a_value_that_cannot_be_shown_does_no_harm() -> None:
    class Shy:
        def __repr__(self) -> str:
            raise RuntimeError("no")

    told = Told([("a", "f")])
    told.done("a", 0.1, value=Shy())
    assert "  a = <Shy instance at" in told.trace.report()
    assert max(map(len, told.trace.report().splitlines())) <= 60


def test_I14_what_each_level_made_possible() -> None:
    told = Told(DIAMOND)
    told.done("a", 1.0)
    told.done("c", 2.0)
    told.done("b", 3.0)
    assert told.trace.dependency_trace() == [
        {"level_index": 0, "new_results": ["a"], "inputs": {"a": {}}, "available": ["a"], "count": 1,
         "newly_resolved": ["b", "c"]},
        {"level_index": 1, "new_results": ["b", "c"], "inputs": {"b": {"args[0]": "a"}, "c": {"args[0]": "a"}},
         "available": ["a", "b", "c"], "count": 3, "newly_resolved": ["d"]},
    ]  # fmt: skip


def test_I14_the_steps_that_decided_the_end() -> None:
    told = Told(DIAMOND)
    for name, at, took in (("a", 1.0, 1.0), ("b", 2.0, 0.5), ("c", 4.0, 3.0), ("d", 5.0, 1.0)):
        told.done(name, at, took)
    found = told.trace.bottlenecks()
    assert found["critical_path"] == ["a", "c", "d"]
    assert [row["step"] for row in found["slowest_steps"]] == ["c", "a", "d", "b"]
    assert found["bottleneck_level_index"] == 1 and found["slowest_steps"][0]["ms"] == pytest.approx(3000)


def test_I17_the_timeline_has_each_step_with_its_times_and_node() -> None:
    told = Told(CHAIN)
    told.done("one", 1.0, 0.4, "n1")
    told.tell(told.run.started("two", 1.5, "n2"))
    assert told.trace.timeline() == [
        {"step": "one", "fun": "f", "queued_s": 0.0, "started_s": 0.6, "ended_s": 1.0, "node": "n1", "state": "DONE",
         "nbytes": 8, "attempt": 0},
        {"step": "two", "fun": "f", "queued_s": 1.0, "started_s": 1.5, "ended_s": None, "node": "n2",
         "state": "RUNNING", "nbytes": 0, "attempt": 0},
    ]  # fmt: skip


def test_I17_chrome_gets_one_complete_event_for_each_step() -> None:
    told = Told([("a", "f"), ("b", "f"), ("c", "f"), ("d", "f", ("a", "b", "c"))])
    for name, at, took, node in (("a", 1.0, 1.0, "n1"), ("b", 1.5, 1.2, "n1"), ("c", 1.2, 0.5, "n2"),
                                 ("d", 2.5, 1.0, "n1")):  # fmt: skip
        told.done(name, at, took, node)
    events = json.loads(json.dumps(told.trace.chrome_trace()))
    steps = {event["name"]: event for event in events if event["ph"] == "X"}
    assert {event["args"]["name"]: event["pid"] for event in events if event["ph"] == "M"} == {"n1": 1, "n2": 2}
    assert set(steps) == set("abcd") and steps["b"]["dur"] == pytest.approx(1.2e6)
    assert steps["b"]["ts"] == pytest.approx(1000.3e6) and steps["c"]["pid"] == 2
    assert steps["a"]["tid"] != steps["b"]["tid"], "at the same time, so in rows of their own"
    assert steps["d"]["tid"] == 0 and steps["d"]["args"]["inputs"] == {"args[0]": "a", "args[1]": "b", "args[2]": "c"}


def test_I17_a_step_that_never_ran_is_in_no_timeline() -> None:
    told = Told(CHAIN)
    told.tell(told.run.failed("one", ValueError(), 1.0))
    assert [row["step"] for row in told.trace.timeline()] == ["one"]
    assert [event["name"] for event in told.trace.chrome_trace() if event["ph"] == "X"] == ["one"]


def test_I17_a_step_that_was_lost_begins_anew() -> None:
    told = Told([Step("a", "f", retries=1)])
    told.tell(told.run.started("a", 1.0, "n1"))
    told.tell(told.run.lost("a", True, None, 2.0, "n1"))
    told.done("a", 5.0, 1.0, "n2")
    (row,) = told.trace.timeline()
    assert (row["queued_s"], row["started_s"], row["node"], row["attempt"]) == (2.0 - 0.0, 4.0, "n2", 1)


def test_I18_traces_of_requests_at_the_same_time_are_their_own() -> None:
    told = [Told(CHAIN, f"r{number}") for number in range(20)]
    chance = random.Random(1)
    for name in ("one", "two", "three"):
        for each in chance.sample(told, len(told)):
            each.done(name, 1.0, value=(each.run.request_id, name))
    for each in told:
        assert [record.request_id for record in each.trace.records] == [each.run.request_id] * 3
        assert each.trace.records[-1].accumulated_results["two"] == (each.run.request_id, "two")


# -- pictures ---------------------------------------------------------------------------------------------------------


def test_I17_arrows_are_the_dependencies() -> None:
    planned = plan(DIAMOND)
    names = dict(zip(planned.steps, ["s0", "s1", "s2", "s3"], strict=True))
    arrows = {tuple(line.split(" --> ")) for line in to_mermaid(planned).split("\n    ") if " --> " in line}
    edges = {(dep, step) for step, deps in planned.deps.items() for dep in deps}
    assert {tuple(end.strip() for end in arrow) for arrow in arrows} == {(names[one], names[two]) for one, two in edges}
    dots = [line.strip(" ;").split(" -> ") for line in to_dot(planned).splitlines() if " -> " in line]
    assert {tuple(end.strip('"') for end in dot) for dot in dots} == edges


def test_I17_the_colour_is_the_state() -> None:
    told = Told(DIAMOND)
    told.done("a", 1.0)
    told.tell(told.run.started("b", 2.0))
    assert to_mermaid(told.run.plan, told.trace.states()) == (
        "flowchart TD\n"
        '    s0["a: f"]\n    s1["b: f"]\n    s2["c: f"]\n    s3["d: f"]\n'
        "    s0 --> s1\n    s0 --> s2\n    s1 --> s3\n    s2 --> s3\n"
        "    classDef DONE fill:#b6e6b6\n    class s0 DONE\n"
        "    classDef RUNNING fill:#a8d4ff\n    class s1 RUNNING\n"
        "    classDef QUEUED fill:#ffe9a8\n    class s2 QUEUED\n"
        "    classDef WAITING fill:#eeeeee\n    class s3 WAITING\n"
    )
    assert f'"b" [label="b: f", fillcolor="{COLOURS["RUNNING"]}"];' in to_dot(told.run.plan, told.trace.states())


def test_I17_names_may_be_any_text() -> None:
    planned = plan([('|"first"\\', "f"), ("4th <b>#x", "f", ('|"first"\\',)), ("two\nlines", "two\nlines")])
    drawn = to_mermaid(planned)
    assert '    s0["|#34;first#34;#92;: f"]' in drawn and '    s1["4th #60;b#62;#35;x: f"]' in drawn
    assert '    s2["two#10;lines"]' in drawn and "s0 --> s1" in drawn
    assert '    "|\\"first\\"\\\\" -> "4th <b>#x";' in to_dot(planned)
