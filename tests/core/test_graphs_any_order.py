"""Requests of any shape, in any order: planned and run as a plain evaluation one after the other has it."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.core.graph_worlds import World, canonical, value_of
from tests.effort import examples
from zmreg.core.fields import follow
from zmreg.core.graph_run import GraphRun, StepState
from zmreg.core.graphs import Plan, plan
from zmreg.model.errors import CycleError
from zmreg.model.graph_events import LevelDone, RunDone, RunEvent, StepQueued
from zmreg.model.graphs import Path, Ref, Step

worlds = st.builds(World, st.integers(0, 2**32), st.one_of(st.integers(0, 12), st.integers(12, 200)))


def run(planned: Plan, seed: int) -> tuple[GraphRun, list[RunEvent], dict[str, object]]:
    """Steps that are ready finish in any order. (the run, what it said, what each step made)"""
    chance, made, said = random.Random(seed), dict[str, object](), list[RunEvent]()
    engine = GraphRun(planned, "r")
    ready: list[str] = []

    def hear(events: Iterable[RunEvent]) -> None:
        said.extend(events)
        ready.extend(event.step for event in events if isinstance(event, StepQueued))

    def value(step: str, path: Path) -> object:
        return follow(engine.values[step], path, step)

    hear(engine.begin(0.0))
    while ready:
        step = ready.pop(chance.randrange(len(ready)))
        args, kwargs = planned.bind(step, value)
        made[step] = value_of(step, args, kwargs)
        hear(engine.finished(step, made[step], float(len(made))))
    return engine, said, made


@settings(max_examples=examples(30), deadline=None)
@given(worlds, st.integers())
def test_R3_R4_R5_R6_R9_any_graph_equals_a_plain_evaluation(world: World, seed: int) -> None:
    planned = plan(world.steps)
    engine, said, made = run(planned, seed)
    assert canonical({name: made[name] for name in world.names}) == canonical(world.expected())
    assert {name: set(deps) for name, deps in planned.deps.items()} == world.edges
    assert engine.outcome == "done" and isinstance(said[-1], RunDone)
    assert list(engine.results()) == [step.name for step in world.steps if planned.depth[step.name] is not None
                                      and not any(step.name in deps for deps in world.edges.values())]  # fmt: skip
    assert set(engine.values) == set(planned.outputs), "what nobody needs any more is dropped"


@settings(max_examples=examples(20), deadline=None)
@given(worlds, st.integers())
def test_I4_levels_are_depths_and_come_in_order_when_all_of_them_is_done(world: World, seed: int) -> None:
    planned = plan(world.steps)
    engine, said, made = run(planned, seed)
    for name, depth in planned.depth.items():
        assert depth == max((planned.depth[dep] + 1 for dep in world.edges[name]), default=0)
    assert [event.level for event in said if isinstance(event, LevelDone)] == list(range(len(planned.levels)))
    done_at = {name: number for number, name in enumerate(made, 1)}
    for event in said:
        if isinstance(event, LevelDone):
            reached = [name for name, depth in planned.depth.items() if depth <= event.level]
            assert event.time == max(done_at[name] for name in reached), "neither before nor after"
    assert all(engine.state(name) is StepState.DONE for name in world.names)


@settings(max_examples=examples(20), deadline=None)
@given(worlds, st.integers())
def test_R3_the_order_of_steps_changes_nothing_but_the_order_of_what_comes_back(world: World, seed: int) -> None:
    shuffled = list(world.steps)
    random.Random(seed).shuffle(shuffled)
    one, other = plan(world.steps), plan(shuffled)
    assert one.steps == other.steps and one.deps == other.deps and one.depth == other.depth
    assert one.templates == other.templates
    assert {name: set(each) for name, each in one.dependants.items()} == {
        name: set(each) for name, each in other.dependants.items()
    }
    assert [set(level) for level in one.levels] == [set(level) for level in other.levels]
    assert set(one.sinks) == set(other.sinks)
    assert list(other.sinks) == [step.name for step in shuffled if step.name in other.sinks]


@settings(max_examples=examples(30), deadline=None)
@given(worlds.filter(lambda world: len(world.names) > 1), st.data())
def test_R11_a_circle_is_always_found_and_its_path_is_true(world: World, data: st.DataObject) -> None:
    """One more reference, from a step to one that depends on it, however far away."""
    last = data.draw(st.sampled_from(world.names))
    above = {last}
    for name in reversed(world.names):
        if name in above:
            above |= world.edges[name]
    first = data.draw(st.sampled_from(sorted(above)))
    steps = [
        step.but(args=(*step.args, Ref(last))) if step.name == first else step for step in world.steps
    ]  # fmt: skip
    edges = {**world.edges, first: world.edges[first] | {last}}
    with pytest.raises(CycleError) as caught:
        plan(steps)
    path = caught.value.path
    assert path[0] == path[-1] and len(set(path)) == len(path) - 1
    assert all(after in edges[before] for before, after in zip(path, path[1:], strict=False))
    assert " -> ".join(path) in str(caught.value)


@settings(max_examples=examples(20), deadline=None)
@given(worlds.filter(lambda world: len(world.names) > 1), st.integers(), st.data())
def test_I7_a_failure_anywhere_keeps_what_was_done_and_begins_nothing(
    world: World, seed: int, data: st.DataObject
) -> None:
    planned = plan(world.steps)
    chance = random.Random(seed)
    engine = GraphRun(planned, "r")
    fails_after = data.draw(st.integers(0, len(world.names) - 1))
    ready = [event.step for event in engine.begin(0.0) if isinstance(event, StepQueued)]
    for _ in range(fails_after):
        step = ready.pop(chance.randrange(len(ready)))
        events = engine.finished(step, 0, 1.0)
        ready += [event.step for event in events if isinstance(event, StepQueued)]
    running = [step for step in ready if chance.random() < 0.3]
    for step in running:
        engine.started(step, 1.0)
    failing = chance.choice(ready)
    before = {name: engine.state(name) for name in world.names}
    events = engine.failed(failing, ValueError(), 2.0)
    siblings = [step for step in running if step != failing]
    for name, state in before.items():
        expected = StepState.FAILED if name == failing else state
        if name != failing and state in (StepState.WAITING, StepState.QUEUED):
            expected = StepState.CANCELLED
        assert engine.state(name) is expected
    for sibling in siblings:
        assert not engine.done
        events += engine.finished(sibling, 0, 3.0)
    assert not [event for event in events if isinstance(event, StepQueued)]
    assert engine.outcome == "failed" and engine.failed_step == failing
    assert isinstance(events[-1], RunDone) and sum(isinstance(event, RunDone) for event in events) == 1


def test_R11_a_circle_that_is_not_reached_from_the_first_step_is_found() -> None:
    with pytest.raises(CycleError, match=r"b -> d -> c -> b \("):
        plan([("a", "f"), ("b", "f", ("d", "a")), ("c", "f", ("b",)), ("d", "f", ("c",)), Step("e", "f", ("b",))])
