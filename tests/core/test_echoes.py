"""Lines of several workers that are alike: shown once, counted, and nothing lost."""

from __future__ import annotations

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from zmreg.core.echoes import MOST, Echoes


def test_C19_the_same_line_of_others_is_counted_and_told_when_its_time_is_over() -> None:
    echoes = Echoes(5.0)
    assert echoes.hear("cell", "f pid=1", "warning", 0.0)
    assert not echoes.hear("cell", "f pid=2", "warning", 1.0)
    assert not echoes.hear("cell", "f pid=3", "warning", 4.0)
    assert echoes.due() == 5.0
    assert echoes.over(4.9) == []
    assert echoes.over(5.0) == [("cell", "f pid=1", "warning [repeated 2x by others]")]
    assert echoes.due() is None
    assert echoes.hear("cell", "f pid=3", "warning", 5.0), "and then it is new"


def test_C19_lines_that_differ_in_a_digit_are_all_shown() -> None:
    echoes = Echoes(5.0)
    assert all(echoes.hear(0, f"f pid={number}", str(number), 0.0) for number in range(100))
    assert echoes.hear(0, "f pid=200", "1 ", 0.0)


def test_C19_one_source_may_repeat_itself_and_another_place_is_another_line() -> None:
    echoes = Echoes(5.0)
    assert [echoes.hear(0, "f pid=1", "step", 0.0) for _ in range(3)] == [True] * 3
    assert echoes.hear(1, "f pid=2", "step", 0.0)
    assert echoes.hear(0, "f pid=2", "", 0.0) and echoes.hear(0, "f pid=1", "", 0.0), "an empty line says nothing twice"


def test_C19_it_can_be_switched_off() -> None:
    echoes = Echoes(0.0)
    assert echoes.hear(0, "a", "x", 0.0) and echoes.hear(0, "b", "x", 0.0) and echoes.due() is None


def test_C19_what_is_remembered_is_bounded_and_what_goes_is_told() -> None:
    echoes = Echoes(1e9)
    echoes.hear(0, "a", "first", 0.0)
    echoes.hear(0, "b", "first", 0.0)
    told = []
    for number in range(3 * MOST):
        told += echoes.over(0.0)
        echoes.hear(0, "a", str(number), 0.0)
    assert told == [(0, "a", "first [repeated 1x by others]")]
    assert repr(echoes) == f"<Echoes [{MOST + 1} lines | 0 counted]>"


@settings(max_examples=examples(100))
@given(
    st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from("abc"), st.sampled_from(["x", "y", "12", ""]), st.floats(0.0, 3.0))
    )
)
def test_C19_every_line_is_shown_or_counted_any_order(heard: list[tuple[int, str, str, float]]) -> None:
    echoes, now = Echoes(5.0), 0.0
    said: Counter[tuple[int, str]] = Counter()
    for place, source, line, pause in heard:
        now += pause
        shown = echoes.over(now)
        if echoes.hear(place, source, line, now):
            said[place, line] += 1
        for where, _, text in shown:
            line_again, _, count = text.partition(" [repeated ")
            said[int(str(where)), line_again] += int(count.partition("x")[0])
    for where, _, text in echoes.over(float("inf")):
        line_again, _, count = text.partition(" [repeated ")
        said[int(str(where)), line_again] += int(count.partition("x")[0])
    assert said == Counter((place, line) for place, _, line, _ in heard)
