"""Rows by columns: the same rows, and the same figures."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from zmreg.core.aggregates import Aggregates, measures_of
from zmreg.core.columns import Columns, columned, joined

NUMBERS = st.one_of(st.integers(-5, 5), st.floats(-1e6, 1e6), st.booleans(), st.none(), st.just(math.nan))
LEAVES = st.one_of(NUMBERS, st.sampled_from(["a", "b"]))
METRICS = st.fixed_dictionaries({"x": NUMBERS, "y": st.floats(-10, 10)})


@st.composite
def batches(draw: st.DrawFn) -> list[dict[str, Any]]:
    """Rows of one shape, of which some columns have one kind and some have several."""
    names = draw(st.permutations(["phase", "container", "metrics", "result", "z"]))
    kinds = {
        "phase": st.sampled_from(["p", "q"]) if draw(st.booleans()) else LEAVES,
        "container": st.sampled_from(["c", "d", "e"]) if draw(st.booleans()) else LEAVES,
        "metrics": METRICS if draw(st.booleans()) else st.one_of(METRICS, LEAVES),
        "result": st.fixed_dictionaries({"metrics": METRICS, "w": LEAVES}) if draw(st.booleans()) else LEAVES,
        "z": st.floats(-10, 10) if draw(st.booleans()) else NUMBERS,
    }
    used = names[: draw(st.integers(1, len(names)))]
    rows = draw(st.lists(st.fixed_dictionaries({name: kinds[name] for name in used}), min_size=1, max_size=12))
    return [{name: row[name] for name in used} for row in rows]


def same(left: object, right: object) -> bool:
    """Equal, floats but for their last digits."""
    if isinstance(left, dict) and isinstance(right, dict):
        return list(left) == list(right) and all(same(left[name], right[name]) for name in left)
    if isinstance(left, list) and isinstance(right, list):
        return len(left) == len(right) and all(map(same, left, right))
    if isinstance(left, float) and isinstance(right, float):
        return left == pytest.approx(right, rel=1e-9, abs=1e-6, nan_ok=True)
    return left == right and type(left) is type(right)


@given(st.lists(batches(), min_size=1, max_size=4))
@settings(max_examples=examples(300))
def test_W6_figures_of_columns_are_those_of_the_rows(given: list[list[dict[str, Any]]]) -> None:
    plain, columns = Aggregates(), Aggregates()
    for rows in given:
        for row in rows:
            plain.add(measures_of(row))
        batch = columned(rows)
        assert batch is not None
        columns.add_columns(batch)
    for metric in (None, "x", "y", "z"):
        assert same(columns.summary(metric), plain.summary(metric))
        assert same(columns.summary(metric, ascending=True), plain.summary(metric, ascending=True))


@given(st.lists(batches(), min_size=1, max_size=3), st.integers(0, 12), st.integers(0, 12))
@settings(max_examples=examples(100))
def test_columns_are_their_rows_whole_in_part_and_joined(
    given: list[list[dict[str, Any]]], first: int, more: int
) -> None:
    for rows in given:
        batch = columned(rows)
        assert batch is not None
        assert repr(pickle.loads(pickle.dumps(batch)).rows()) == repr(rows)
        assert repr(batch.part(first, first + more).rows()) == repr(rows[first : first + more])
        assert repr(joined([batch.part(0, first), batch.part(first, len(rows))]).rows()) == repr(rows)


def test_rows_of_several_shapes_have_no_columns() -> None:
    assert columned([]) is None
    assert columned([{}]) is None
    assert columned([{"a": 1}, {"b": 1}]) is None
    assert columned([{"a": 1, "b": 2}, {"b": 1, "a": 2}]) is None
    nested = columned([{"a": {"b": 1}}, {"a": {"c": 1}}])
    assert nested is not None
    assert not isinstance(nested.get("a"), Columns)


def test_W6_the_best_of_many_rows_are_found_among_columns() -> None:
    """More rows than are ranked, with equals among them: the earlier ones stand."""
    rows = [{"container": f"c{number % 7}", "x": float(number * 37 % 150)} for number in range(1000)]
    plain, columns = Aggregates(), Aggregates()
    for row in rows:
        plain.add(measures_of(row))
    for at in range(0, 1000, 300):
        batch = columned(rows[at : at + 300])
        assert batch is not None
        columns.add_columns(batch)
    for ascending in (False, True):
        assert columns.top("x", 100, ascending) == plain.top("x", 100, ascending)
