"""A run of a graph, fact by fact: what is begun, what a failure, a loss or a timeout means for the others."""

from __future__ import annotations

import pytest

from zmreg.core.graph_run import GraphRun, StepState
from zmreg.core.graphs import plan
from zmreg.core.lifecycle import IllegalMove
from zmreg.model.errors import RequestTimeoutError, TaskCancelledError
from zmreg.model.graph_events import (
    LevelDone,
    RunDone,
    RunEvent,
    StepCancelled,
    StepFailed,
    StepFinished,
    StepQueued,
    StepStarted,
)
from zmreg.model.graphs import Step, StepLike

CHAIN = [Step("load", "f"), Step("clean", "f", ("load",)), Step("analyze", "f", ("clean.rows",))]
DIAMOND = [Step("a", "f"), Step("b", "f", ("a",)), Step("c", "f", ("a",)), Step("d", "f", ("b", "c"))]
BROKEN = ValueError("broken")


def begun(steps: list[StepLike], **more: object) -> GraphRun:
    run = GraphRun(plan(steps), "r", **more)
    run.begin(0.0)
    return run


def queued(events: list[RunEvent]) -> list[str]:
    return [event.step for event in events if isinstance(event, StepQueued)]


def cancelled(events: list[RunEvent]) -> dict[str, str]:
    return {event.step: event.cause for event in events if isinstance(event, StepCancelled)}


def test_each_change_is_one_event() -> None:
    run = GraphRun(plan(CHAIN[:2]), "r")
    assert run.begin(1.0) == [StepQueued("r", "load", 1.0)]
    assert run.started("load", 2.0, "n1") == [StepStarted("r", "load", 2.0, "n1")]
    assert run.finished("load", "handle", 3.0, "n1", 80) == [
        StepFinished("r", "load", 3.0, "n1", "handle", 80), LevelDone("r", 0, 3.0), StepQueued("r", "clean", 3.0),
    ]  # fmt: skip
    assert run.values == {"load": "handle"} and repr(run) == "<GraphRun r [1 queued, 1 done | under way]>"
    assert run.finished("clean", "other", 5.0, "n2", took_s=0.5) == [
        StepStarted("r", "clean", 4.5, "n2"), StepFinished("r", "clean", 5.0, "n2", "other"), LevelDone("r", 1, 5.0),
        RunDone("r", 5.0, "done"),
    ]  # fmt: skip
    assert run.results() == {"clean": "other"} and run.done


def test_no_steps_are_done_at_once() -> None:
    assert GraphRun(plan([]), "r").begin(1.0) == [RunDone("r", 1.0, "done")]


def test_R37_a_step_starts_when_its_own_inputs_exist() -> None:
    run = begun([Step("c", "slow"), Step("a", "f"), Step("b", "f", ("a",)), Step("d", "f", ("b", "c"))])
    assert queued(run.finished("a", 0, 1.0)) == ["b"], "c runs still"
    assert queued(run.finished("b", 0, 2.0)) == []
    assert queued(run.finished("c", 0, 3.0)) == ["d"]


def test_I4_a_deep_fast_branch_completes_no_level() -> None:
    run = begun([Step("slow", "f"), *DIAMOND])
    for step in "abcd":
        assert not [event for event in run.finished(step, 0, 1.0) if isinstance(event, LevelDone)]
    levels = [event.level for event in run.finished("slow", 0, 9.0) if isinstance(event, LevelDone)]
    assert levels == [0, 1, 2] and run.levels_done == 3


def test_values_are_dropped_when_nobody_needs_them_any_more() -> None:
    run = GraphRun(plan(DIAMOND, keep=["b"]), "r")
    run.begin(0.0)
    for step, left in (("a", "a"), ("b", "ab"), ("c", "bc"), ("d", "bd")):
        run.finished(step, step.upper(), 1.0)
        assert set(run.values) == set(left)
    assert list(run.results().items()) == [("b", "B"), ("d", "D")]


def test_I16_a_traced_start_says_which_value_went_where() -> None:
    run = begun(CHAIN, traced=True)
    run.finished("load", 0, 1.0)
    run.finished("clean", 0, 2.0)
    assert run.started("analyze", 3.0, "n") == [StepStarted("r", "analyze", 3.0, "n", (("args[0]", "clean.rows"),))]


def test_R23_a_failure_cancels_what_has_not_started_and_lets_what_runs_finish() -> None:
    run = begun([Step("a", "f"), Step("runs", "f"), Step("waits", "f"), Step("b", "f", ("a",)), Step("c", "f", ("b",)),
                 Step("after", "f", ("runs",))])  # fmt: skip
    run.started("a", 0.1)
    run.started("runs", 0.1)
    events = run.failed("a", BROKEN, 1.0, "n1")
    assert events[0] == StepFailed("r", "a", 1.0, "n1", BROKEN)
    assert cancelled(events) == dict.fromkeys(["waits", "b", "c", "after"], "a")
    assert not run.done and run.error is BROKEN and run.failed_step == "a"
    assert run.finished("waits", 0, 1.5) == [], "its answer was under way"
    events = run.finished("runs", "kept", 2.0)
    assert queued(events) == [] and events[-1] == RunDone("r", 2.0, "failed", "a", BROKEN)
    assert run.values["runs"] == "kept"


def test_R23_the_first_failure_is_the_requests() -> None:
    run = begun([Step("a", "f"), Step("b", "f")])
    run.started("a", 0.1)
    run.started("b", 0.1)
    run.failed("a", BROKEN, 1.0)
    other = KeyError("later")
    assert run.failed("b", other, 2.0) == [
        StepFailed("r", "b", 2.0, "", other),
        RunDone("r", 2.0, "failed", "a", BROKEN),
    ]


def test_R24_a_failed_step_has_no_value_for_anybody() -> None:
    run = begun(CHAIN)
    events = run.failed("load", BROKEN, 1.0)
    assert queued(events) == [] and run.values == {} and run.done
    assert run.state("clean") is StepState.CANCELLED


@pytest.mark.parametrize(("may_have_run", "retries", "again"), [(False, 0, 0), (True, 1, 1), (True, 0, None)])
def test_R25_a_lost_step_runs_again_only_if_it_may(may_have_run: bool, retries: int, again: int | None) -> None:
    run = begun([Step("a", "f", retries=retries), Step("b", "f", ("a",))])
    run.started("a", 0.5, "n1")
    events = run.lost("a", may_have_run, BROKEN, 1.0, "n1")
    if again is None:
        assert events[0] == StepFailed("r", "a", 1.0, "n1", BROKEN) and run.outcome == "failed"
    else:
        assert events == [StepQueued("r", "a", 1.0, again)]
        assert queued(run.finished("a", 0, 2.0)) == ["b"]


def test_R25_retries_are_used_up_by_calls_that_may_have_run() -> None:
    run = begun([Step("a", "f", retries=2)])
    attempts = [run.lost("a", may, BROKEN, 1.0)[0].attempt for may in (True, False, True, False)]
    assert attempts == [1, 1, 2, 2]
    assert isinstance(run.lost("a", True, BROKEN, 1.0)[0], StepFailed)


def test_R25_after_a_failure_nothing_is_tried_again() -> None:
    run = begun([Step("a", "f"), Step("b", "f", retries=9)])
    run.started("b", 0.5)
    run.failed("a", BROKEN, 1.0)
    assert run.lost("b", True, KeyError(), 2.0)[-1] == RunDone("r", 2.0, "failed", "a", BROKEN)


def test_R26_a_steps_time_counts_from_when_its_inputs_are_there() -> None:
    run = begun([Step("a", "f"), Step("b", "f", ("a",), timeout=0.5), Step("c", "f"), Step("d", "f", ("b",))])
    assert run.next_deadline() is None and run.expire(100.0) == []
    run.finished("a", 0, 10.0)
    assert run.next_deadline() == 10.5 and run.expire(10.49) == []
    events = run.expire(10.5)
    assert isinstance(events[0], StepFailed) and events[0].step == "b"
    assert cancelled(events) == {"c": "b", "d": "b"}, "nobody is waited for"
    assert events[-1] == RunDone("r", 10.5, "timeout", "b", run.error)
    assert isinstance(run.error, RequestTimeoutError) and isinstance(run.error, TimeoutError)
    assert (run.error.step, run.error.timeout_s) == ("b", 0.5)
    assert str(run.error) == "step 'b' of request r was not done within 0.5 s"
    assert run.finished("c", 0, 11.0) == run.finished("b", 0, 11.0) == [] and run.next_deadline() is None
    assert run.lost("b", True, BROKEN, 12.0) == [] and run.error.step == "b"


def test_R26_what_is_done_in_time_has_no_deadline_any_more() -> None:
    run = begun([Step("a", "f", timeout=1), Step("b", "f", ("a",), timeout=1)])
    run.finished("a", 0, 0.9)
    assert run.next_deadline() == 1.9
    run.finished("b", 0, 1.8)
    assert run.next_deadline() is None and run.expire(99.0) == [] and run.outcome == "done"


def test_I8_the_requests_time_ends_all_of_it_and_keeps_what_is_done() -> None:
    run = begun(
        [Step(name, "f", (before,)) for name, before in zip("abcd", ["", "a", "b", "c"], strict=True)], timeout=0.5
    )
    run.finished("a", 0, 0.2)
    run.finished("b", 0, 0.4)
    assert run.next_deadline() == 0.5
    events = run.expire(0.5)
    assert cancelled(events) == {"c": "", "d": ""} and run.outcome == "timeout" and run.levels_done == 2
    assert str(run.error) == "request r was not done within 0.5 s; under way: c"
    assert run.error.step == "" and run.error.timeout_s == 0.5


def test_a_cancelled_request_waits_for_nobody() -> None:
    run = begun(DIAMOND)
    run.started("a", 0.5)
    events = run.cancel(1.0)
    assert list(cancelled(events)) == list("abcd")
    assert events[-1] == RunDone("r", 1.0, "cancelled", "", run.error) and isinstance(run.error, TaskCancelledError)
    assert run.cancel(2.0) == [] and run.started("a", 2.0) == run.failed("a", BROKEN, 2.0) == []
    assert run.lost("a", True, BROKEN, 2.0) == run.lost("a", False, BROKEN, 2.0) == []


@pytest.mark.parametrize("news", ["started", "finished", "failed", "again"])
def test_what_cannot_be_is_refused_with_its_story(news: str) -> None:
    run = begun(CHAIN)
    with pytest.raises(IllegalMove, match="is WAITING, cannot take|is QUEUED, cannot take 'inputs exist'"):
        if news == "started":
            run.started("clean", 1.0)
        elif news == "finished":
            run.finished("clean", 0, 1.0)
        elif news == "failed":
            run.failed("clean", BROKEN, 1.0)
        else:
            run.begin(1.0)
    run.finished("load", 0, 1.0)
    with pytest.raises(IllegalMove) as caught:
        run.finished("load", 0, 2.0)
    assert str(caught.value) == (
        "step 'load' of request r is DONE, cannot take 'finished'\n  WAITING -> inputs exist\n  QUEUED -> finished"
    )
