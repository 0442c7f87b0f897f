"""Phases of runs: order, skipping with reasons, distribution, iterations, bounds, digests (runs rows W16-W20, W24)."""

from __future__ import annotations

import functools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from zmreg.core.fingerprints import fingerprint
from zmreg.core.iterations import items_of
from zmreg.core.phases import (
    CANCELLED,
    COMPLETED,
    DONE,
    ENDED,
    FAILED,
    READY,
    RUNNING,
    SKIPPED,
    PhaseMachine,
    PhaseRow,
    Place,
    distribute,
    plan_phases,
)
from zmreg.core.thresholds import check_threshold, unmet
from zmreg.model.errors import FieldError, InternalError, PhaseError


def rows(**needs: str) -> list[PhaseRow]:
    return [PhaseRow(name, tuple(deps.split())) for name, deps in needs.items()]


def test_W16_phases_are_ordered_by_what_they_need_and_else_as_listed() -> None:
    assert plan_phases(rows(c="b", b="a", a="", z="")).order == ("a", "b", "c", "z")


@pytest.mark.parametrize(
    ("needs", "words"),
    [({"a": "b"}, "no such phase"), ({"a": "c", "b": "a", "c": "b"}, "a -> b -> c -> a|wait for each other"),
     ({"a": "a"}, "a -> a"), ({}, "without phases")],
)  # fmt: skip
def test_W16_what_makes_no_sense_is_told_before_the_start(needs: dict[str, str], words: str) -> None:
    with pytest.raises(PhaseError, match=words):
        plan_phases(rows(**needs))


def test_W16_a_name_twice_is_an_error() -> None:
    with pytest.raises(PhaseError, match="two phases are called 'a'"):
        plan_phases([PhaseRow("a"), PhaseRow("a")])


def machine(*given_rows: PhaseRow) -> PhaseMachine:
    made = PhaseMachine(plan_phases(given_rows))
    made.begin()
    return made


def test_W18_dependants_of_a_failure_are_skipped_with_the_reason_and_others_go_on() -> None:
    run = machine(*rows(a="", b="a", c="", d="b"))
    run.started("a")
    moved = run.failed("a", "ValueError: no")
    assert [(move.phase, move.state) for move in moved] == [("a", FAILED), ("b", SKIPPED), ("d", SKIPPED)]
    assert run.reasons["b"] == "a failed: ValueError: no"
    assert run.reasons["d"] == "b was skipped: a failed: ValueError: no"
    assert run.ready == ("c",) and run.status == FAILED
    run.started("c")
    run.done("c")
    assert run.is_over and run.status == FAILED


def test_W18_what_is_not_required_may_fail() -> None:
    run = machine(PhaseRow("a", required=False), PhaseRow("b", ("a",)))
    run.started("a")
    run.failed("a", "no")
    assert run.ready == ("b",)
    run.started("b")
    run.done("b")
    assert run.status == COMPLETED


def test_W19_a_phase_left_out_by_its_condition_takes_its_dependants_along_and_fails_nothing() -> None:
    run = machine(*rows(a="", b="a", c="a b"))
    run.declined("a", "its condition does not hold")
    assert run.is_over and run.status == COMPLETED
    assert run.reasons["c"].startswith(("a was skipped", "b was skipped"))


def test_what_is_cancelled_is_over_and_ended_phases_stay_as_they_are() -> None:
    run = machine(*rows(a="", b="a"))
    run.started("a")
    run.done("a")
    run.cancel("Ctrl-C")
    assert run.states == {"a": DONE, "b": CANCELLED} and run.status == CANCELLED and run.is_over


def test_a_move_that_is_none_is_a_bug_and_said_so() -> None:
    with pytest.raises(InternalError, match="'a' is ready, and cannot become done"):
        machine(*rows(a="")).done("a")


@settings(max_examples=examples(150), deadline=None)
@given(data=st.data(), size=st.integers(1, 12), seed=st.integers(0, 1 << 32))
def test_W16_W18_any_run_ends_and_every_phase_has_what_it_needs_or_a_reason(
    data: st.DataObject, size: int, seed: int
) -> None:
    dice = random.Random(seed)
    names = [f"p{number}" for number in range(size)]
    given_rows = [
        PhaseRow(name, tuple(data.draw(st.lists(st.sampled_from(names[:place]), unique=True))) if place else (),
                 dice.random() < 0.7)
        for place, name in enumerate(names)
    ]  # fmt: skip
    dice.shuffle(given_rows)
    run = machine(*given_rows)
    fates = {name: dice.choice(["done", "done", "failed", "declined", "reused"]) for name in names}
    running: list[str] = []
    while not run.is_over:
        choices = [*run.ready, *running]
        assert choices, f"nothing can go on: {run.states}"
        name = dice.choice(choices)
        needs = run.plan.needs[name]
        assert all(run.states[dep] in ENDED for dep in needs), "it runs before what it needs"
        assert all(run.states[dep] not in (FAILED, SKIPPED) or not run.plan.required[dep] for dep in needs)
        if run.states[name] == READY and fates[name] == "declined":
            run.declined(name, "no")
        elif run.states[name] == READY and fates[name] == "reused":
            run.reused(name)
        elif run.states[name] == READY:
            run.started(name)
            running.append(name)
        else:
            assert run.states[name] == RUNNING
            running.remove(name)
            run.done(name) if fates[name] == "done" else run.failed(name, "it failed")
    for name, state in run.states.items():
        assert state in ENDED
        assert (name in run.reasons) == (state in (FAILED, SKIPPED))
    assert run.status == (
        FAILED if any(state == FAILED and run.plan.required[name] for name, state in run.states.items()) else COMPLETED
    )


def test_W16_a_chain_longer_than_the_stack_is_skipped_whole() -> None:
    run = machine(PhaseRow("p0"), *(PhaseRow(f"p{n}", (f"p{n - 1}",)) for n in range(1, 3000)))
    run.started("p0")
    run.failed("p0", "no")
    assert run.is_over


# -- distribution ------------------------------------------------------------------------------------------------------


def test_W24_sixteen_phases_on_eight_workers_are_two_each() -> None:
    given_to = distribute([(f"p{n}", frozenset()) for n in range(16)], [Place(f"w{n}") for n in range(8)])
    assert {len(phases) for phases in given_to.values()} == {2}


def test_W24_locs_bind_load_counts_and_few_phases_are_fine() -> None:
    places = [Place("a", frozenset({"gpu"}), load=5), Place("b", frozenset())]
    assert distribute([("x", frozenset({"gpu"})), ("y", frozenset())], places) == {"a": ["x"], "b": ["y"]}
    with pytest.raises(PhaseError, match="'x' has nowhere to run: nobody has all of moon"):
        distribute([("x", frozenset({"moon"}))], places)
    with pytest.raises(PhaseError, match="nowhere"):
        distribute([("x", frozenset())], [])


# -- iterations --------------------------------------------------------------------------------------------------------


def test_W20_a_grid_of_5_4_3_is_sixty_items() -> None:
    found = items_of({"grid": {"a": range(5), "b": ["wxyz"] * 4, "c": [1, 2, 3]}}, "p")
    assert len(found) == 60 and found[:2] == [{"a": 0, "b": "wxyz", "c": 1}, {"a": 0, "b": "wxyz", "c": 2}]


def test_W20_windows_and_folds() -> None:
    assert items_of({"windows": {"over": 7, "size": 3, "step": 2}}, "p") == [
        {"start": 0, "stop": 3}, {"start": 2, "stop": 5}, {"start": 4, "stop": 7},
    ]  # fmt: skip
    assert items_of({"windows": {"over": [1, 2, 3], "size": 2, "partial": True}}, "p") == [[1, 2], [3]]
    folds = items_of({"k_fold": {"over": 7, "k": 3}}, "p")
    assert [fold["test"] for fold in folds] == [[0, 1, 2], [3, 4], [5, 6]]  # type: ignore[index]
    assert all(sorted(fold["train"] + fold["test"]) == list(range(7)) for fold in folds)  # type: ignore[index]


@pytest.mark.parametrize(
    ("spec", "words"),
    [({"gird": {}}, "write one of grid"), ({"grid": {"a": 3}}, "axis 'a'"), ({"grid": {}}, "no axis"),
     ({"k_fold": {"over": 3, "k": 9}}, "from 2 to 3"), ({"windows": {"over": 3}}, "size"),
     ({"windows": {"over": 3, "width": 1}}, "takes no 'width'"), (7, "iterate"), ({"grid": [1]}, "mapping")],
)  # fmt: skip
def test_W20_what_is_not_known_is_an_error_and_never_one_run(spec: object, words: str) -> None:
    with pytest.raises(PhaseError, match=words):
        items_of(spec, "p")


# -- bounds ------------------------------------------------------------------------------------------------------------


def test_W19_bounds_hold_or_say_what_does_not() -> None:
    value = {"m": {"sharpe": 1.5}}
    assert unmet({"s.m.sharpe": {">": 1, "<=": 1.5}}, lambda _: value) is None
    assert unmet({"s.m.sharpe": {">": 2}}, lambda _: value) == "s.m.sharpe is 1.5, and not > 2"
    with pytest.raises(FieldError, match="sharp"):
        unmet({"s.m.sharp": {">": 2}}, lambda _: value)


@pytest.mark.parametrize("spec", [{"other": {">": 1}}, {"s": {"=>": 1}}, {"s": 1}, {"s": {}}])
def test_W19_bounds_that_make_no_sense_are_told_before_the_start(spec: dict[str, object]) -> None:
    with pytest.raises(PhaseError, match="when"):
        check_threshold(spec, "p", ("s",))


# -- digests -----------------------------------------------------------------------------------------------------------


def compiled(text: str, name: str = "f") -> object:
    scope: dict[str, object] = {"__name__": "somewhere"}
    exec(compile(text, "<test>", "exec"), scope)
    return scope[name]


def digest(value: object) -> bytes:
    return fingerprint(value, lambda unknown: repr(unknown).encode())


def test_W25_the_digest_of_a_function_is_that_of_what_it_does() -> None:
    base = compiled("def f(x):\n    return x + 1")
    assert digest(base) == digest(compiled("\n\n# a comment\ndef f( x ):\n\n    return (x + 1)"))
    assert digest(base) != digest(compiled("def f(x):\n    return x + 2"))
    assert digest(base) != digest(compiled("def f(x, y=1):\n    return x + 1"))


def test_W25_functions_and_constants_that_it_names_count() -> None:
    text = "K = {k}\ndef g(x):\n    return x * {g}\ndef f(x):\n    return g(x) + K"
    base = digest(compiled(text.format(k=1, g=2)))
    assert base == digest(compiled(text.format(k=1, g=2)))
    assert base != digest(compiled(text.format(k=2, g=2)))
    assert base != digest(compiled(text.format(k=1, g=3)))


def test_W25_closures_partials_and_circles_have_digests() -> None:
    def outer(n: int) -> object:
        def inner(x: int) -> int:
            return x + n + (inner(x) if x < 0 else 0)

        return inner

    assert digest(outer(1)) == digest(outer(1)) != digest(outer(2))
    assert digest(functools.partial(int, base=2)) != digest(functools.partial(int, base=3))


def test_W25_an_object_is_its_class_and_its_attributes() -> None:
    text = (
        "class f:\n    def __init__(self, k):\n        self.k = k\n"
        "    def __call__(self, x):\n        return x {sign} 1"
    )
    plus, again, minus = (compiled(text.format(sign=sign)) for sign in "++-")
    assert digest(plus(1)) == digest(again(1)) != digest(minus(1))  # type: ignore[operator]
    assert digest(plus(1)) != digest(plus(2))  # type: ignore[operator]
    circle = plus(1)  # type: ignore[operator]
    circle.k = circle
    assert digest(circle) == digest(circle)
    assert digest(plus(1).__call__) != digest(minus(1).__call__)  # type: ignore[operator]


def test_W25_values_are_told_apart_and_orders_that_mean_nothing_are_not() -> None:
    values: list[object] = [None, 0, False, 0.0, "0", b"0", (), [], {}, set(), frozenset(), (0,), [0], ("0",)]
    assert len({digest(value) for value in values}) == len(values)
    assert digest({"a": 1, "b": 2}) == digest({"b": 2, "a": 1}) and digest({1, "x"}) == digest({"x", 1})
    circle: list[object] = []
    circle.append(circle)
    assert digest(circle) == digest(circle)
