"""What was printed waits at its node until it is known whose it is, and comes out once, whoever answers or is gone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from zmreg.core.hearsay import Hearsay
from zmreg.model.ids import new_driver_id, new_node_id, node_of, object_id, owner_of, worker_id

HERE, THERE = new_node_id(), new_node_id()
DRIVER = new_driver_id(HERE)
A, B, C = worker_id(HERE, 1), worker_id(THERE, 1), worker_id(THERE, 2)
ROOT = object_id(DRIVER, 7)


def call(owner: bytes, counter: int = 1) -> bytes:
    return object_id(owner, counter)


def test_row73_who_is_behind_a_call_is_asked_up_to_the_driver() -> None:
    said: Hearsay[str] = Hearsay(0.5)
    said.hold(call(A), "a", 0.0)
    said.hold(call(A), "b", 0.1)
    said.hold(call(A, 2), "c", 0.1)
    assert said.questions() == {A: (call(A), call(A, 2))} and said.questions() == {}
    assert said.answered(call(A), call(B)) == [], "a worker's as well"
    assert said.questions() == {B: (call(B),)}
    assert said.answered(call(A, 2), ROOT) == [(ROOT, "c")]
    assert said.answered(call(B), ROOT) == [(ROOT, "a"), (ROOT, "b")]
    assert said.answered(call(B), ROOT) == [], "said twice"
    assert repr(said) == "<Hearsay [0 of 0 tasks]>"


def test_row73_of_whoever_is_gone_or_silent_it_is_told_without_the_call() -> None:
    said: Hearsay[str] = Hearsay(0.5)
    for place, owner in enumerate((A, B, C)):
        said.hold(call(owner), "abc"[place], place / 10)
    assert said.gone(A) == [(b"", "a")]
    assert said.overdue(0.5) == [] and said.overdue(0.6) == [(b"", "b")]
    assert said.gone(node_of(C)[:4]) == [(b"", "c")], "its whole node"
    said.hold(call(A), "d", 1.0)
    assert said.answered(call(A), b"") == [(b"", "d")], "it does not know any more"


def test_row73_who_waits_for_what_was_held_waits_for_nothing_later() -> None:
    said: Hearsay[str] = Hearsay(0.5)
    assert said.settled(said.latest())
    said.hold(call(A), "a", 0.0)
    number = said.latest()
    said.hold(call(B), "b", 0.2)
    said.answered(call(A), call(B))
    assert not said.settled(number), "it waits under another task now, behind a later one"
    assert said.overdue(0.5) == [(b"", "b"), (b"", "a")], "and no longer than it may"
    said.hold(call(C), "c", 0.5)
    assert said.settled(number) and not said.settled(said.latest())


def test_row73_callers_in_a_circle_end() -> None:
    said: Hearsay[str] = Hearsay(0.5)
    said.hold(call(A), "a", 0.0)
    assert said.answered(call(A), call(A)) == [(b"", "a")]
    said.hold(call(A), "a", 0.0)
    said.answered(call(A), call(B))
    said.answered(call(B), call(A))
    assert said.overdue(0.5) == [(b"", "a")]


TASKS = st.builds(call, st.sampled_from((A, B, C)), st.integers(1, 3))
STEPS = st.one_of(
    st.tuples(st.just("hold"), TASKS),
    st.tuples(st.just("answer"), TASKS, st.one_of(TASKS, st.just(ROOT), st.just(b""))),
    st.tuples(st.just("gone"), st.sampled_from((A, B, C, HERE[:4], THERE[:4]))),
    st.tuples(st.just("later")),
)


@given(st.lists(STEPS, max_size=30))
def test_row73_everything_comes_out_once_in_any_order(steps: list[tuple[object, ...]]) -> None:
    said: Hearsay[int] = Hearsay(0.5)
    now, put, out = 0.0, 0, []
    for what, *arguments in steps:
        now += 0.1
        match what, *arguments:
            case "hold", bytes(task):
                said.hold(task, put, now)
                put += 1
            case "answer", bytes(task), bytes(caller):
                out += said.answered(task, caller)
            case "gone", bytes(prefix):
                out += said.gone(prefix)
            case _:
                now += 0.3
        out += said.overdue(now)
        assert all(owner_of(task) == process for process, tasks in said.questions().items() for task in tasks)
    mark = said.latest()
    out += said.overdue(now + 0.5)
    assert said.settled(mark) and sorted(number for _, number in out) == list(range(put))
    assert {task for task, _ in out} <= {ROOT, b""}
