"""I9: who listens to which patterns, and what follows from it, against the plainest way to say it."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmreg.core import interests as module
from zmreg.core.interests import Interests
from zmreg.core.topics import Pattern

PATTERNS = ["a", "a.b", "a.*", "a.#", "*.b", "#", "b.#.c"]
TOPICS = ["a", "b", "a.b", "a.c", "b.c", "b.a.c", "c.b"]

steps = st.lists(
    st.tuples(st.sampled_from(["add", "remove", "forget", "look"]), st.integers(0, 2), st.sampled_from(PATTERNS)),
    max_size=40,
)


@given(steps)
def test_I9_listeners_are_those_of_whom_a_pattern_matches(steps: list[tuple[str, int, str]]) -> None:
    table: Interests[int] = Interests()
    plain: set[tuple[int, str]] = set()
    for what, who, pattern in steps:
        had = any(each == pattern for _, each in plain)
        match what:
            case "add":
                plain.add((who, pattern))
                assert table.add(who, pattern) is not had
            case "remove":
                was_there = (who, pattern) in plain
                plain.discard((who, pattern))
                left = any(each == pattern for _, each in plain)
                assert table.remove(who, pattern) is (was_there and not left)
            case "forget":
                gone = sorted(each for one, each in plain if one == who)
                plain -= {(who, each) for each in gone}
                assert table.forget(who) == gone
            case _:
                _compare(table, plain)
    _compare(table, plain)


def _compare(table: Interests[int], plain: set[tuple[int, str]]) -> None:
    assert set(table.patterns()) == {pattern for _, pattern in plain} and len(table) == len(table.patterns())
    for topic in TOPICS:
        matching = {(who, pattern) for who, pattern in plain if Pattern(pattern).matches(topic)}
        listeners = table.listeners(topic)
        assert len(set(listeners)) == len(listeners) and set(listeners) == {who for who, _ in matching}
        for who in range(3):
            assert set(table.matching(who, topic)) == {pattern for one, pattern in matching if one == who}
        assert table.under(topic) is any(Pattern(pattern).reaches(topic) for _, pattern in plain)
    for pattern in PATTERNS:
        assert set(table.who_has(pattern)) == {who for who, each in plain if each == pattern}
    for who in range(3):
        assert table.of(who) == {pattern for one, pattern in plain if one == who}


def test_I9_what_is_no_pattern_changes_nothing() -> None:
    table: Interests[int] = Interests()
    with pytest.raises(ValueError, match="is no topic"):
        table.add(1, "a..b")
    assert table.patterns() == [] and table.of(1) == frozenset() and table.listeners("a") == ()


def test_I9_topics_that_never_come_again_are_not_remembered_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_REMEMBERED", 10)
    table: Interests[int] = Interests()
    table.add(1, "run.#")
    for number in range(100):
        assert table.listeners(f"run.{number}") == (1,) and table.matching(1, f"run.{number}") == ("run.#",)
        assert table.under(f"run.{number}") and not table.under(f"walk.{number}")
    remembered = table._listeners, table._matching, table._under
    assert all(len(each) <= 10 for each in remembered)
