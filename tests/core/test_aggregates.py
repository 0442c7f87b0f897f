"""Running figures of results (runs W6, W7)."""

from __future__ import annotations

import math
import statistics
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from zmreg.core.aggregates import MOST_GROUPS, MOST_RANKED, OTHERS, Aggregates, Moments, measures_of

FLOATS = st.floats(-1e6, 1e6)


def of(*rows: dict[str, object]) -> Aggregates:
    made = Aggregates()
    for row in rows:
        made.add(measures_of(row))
    return made


def test_W6_one_to_a_hundred() -> None:
    figures = of(*({"sharpe": value} for value in range(1, 101))).metrics()["sharpe"]
    assert figures == {"count": 100, "mean": 50.5, "std": pytest.approx(29.0115), "min": 1, "max": 100, "ignored": 0}


def test_W6_by_phase_and_by_container() -> None:
    made = of(
        {"phase": "fit", "container_id": "a", "metrics": {"loss": 1}},
        {"phase": "fit", "container_id": "b", "metrics": {"loss": 3}},
        {"phase": "test", "container_id": "a", "result": {"metrics": {"loss": 8.0}}},
    )
    phases = made.phases()
    assert {name: phase["count"] for name, phase in phases.items()} == {"fit": 2, "test": 1}
    assert phases["fit"]["metrics"]["loss"]["mean"] == 2  # type: ignore[index]
    assert phases["fit"]["containers"]["b"]["metrics"]["loss"]["mean"] == 3  # type: ignore[index]
    assert made.averages() == {"loss": 4}
    assert made.best_containers("loss", 5, ascending=True) == [
        {"container": "b", "mean": 3, "count": 1},
        {"container": "a", "mean": 4.5, "count": 2},
    ]


def test_W6_what_is_no_number_is_counted_and_left_out() -> None:
    rows = [{"metrics": {"x": value}} for value in (1, None, math.nan, math.inf, 3, "word", True, [1], 10**400)]
    assert of(*rows).metrics()["x"] == {
        "count": 2, "mean": 2, "std": pytest.approx(math.sqrt(2)), "min": 1, "max": 3, "ignored": 4,
    }  # fmt: skip


def test_W6_numbers_of_other_kinds_count() -> None:
    assert of({"x": Fraction(1, 2)}).averages() == {"x": 0.5}
    assert of({"x": Decimal(1)}).averages() == {}  # is no Real
    assert of({"x": None}).averages() == {}
    assert of({"phase": 3, "container": 4, "x": 1.0}).phases()["3"]["containers"].keys() == {"4"}  # type: ignore[attr-defined]


def test_W7_top_by_any_metric_both_ways_and_ties_in_the_order_of_writing() -> None:
    values = [1.0, 5.0, 5.0, 2.0, None, 9.0]
    made = of(*({"container": str(number), "metrics": {"s": value}} for number, value in enumerate(values)))
    assert [row["index"] for row in made.top("s", 4)] == [5, 1, 2, 3]
    assert [row["index"] for row in made.top("s", 3, ascending=True)] == [0, 3, 1]
    assert made.top("absent", 3) == []
    summary = made.summary(count=2)
    assert summary["ranked_by"] == "s" and summary["count"] == 6
    assert [row["container"] for row in summary["top_performers"]] == ["5", "1"]  # type: ignore[attr-defined]
    assert Aggregates().summary()["top_performers"] == []


def test_W6_memory_does_not_grow_with_rows_or_names() -> None:
    made = Aggregates()
    for number in range(MOST_GROUPS + 50):
        made.add(("p", str(number), {"x": float(number)}))
    containers = made.phases()["p"]["containers"]
    assert len(containers) == MOST_GROUPS + 1  # type: ignore[arg-type]
    assert containers[OTHERS]["count"] == 50  # type: ignore[index]
    assert len(made.top("x", 10_000)) == MOST_RANKED


@settings(max_examples=examples(60), deadline=None)
@given(st.lists(st.tuples(st.sampled_from("ab"), st.sampled_from("xyz"), FLOATS), max_size=40))
def test_W6_any_order_equals_the_textbook(rows: list[tuple[str, str, float]]) -> None:
    made = of(*({"phase": phase, "container": name, "metrics": {"m": value}} for phase, name, value in rows))
    for phase in {row[0] for row in rows}:
        figures = made.phases()[phase]["metrics"]["m"]  # type: ignore[index]
        values = [value for other, _, value in rows if other == phase]
        assert figures["mean"] == pytest.approx(statistics.fmean(values), abs=1e-6)
        assert (figures["min"], figures["max"]) == (min(values), max(values))
        if len(values) > 1:
            assert figures["std"] == pytest.approx(statistics.stdev(values), rel=1e-6, abs=1e-5)
    ranked = sorted(enumerate(rows), key=lambda each: -each[1][2])
    assert [row["index"] for row in made.top("m", 5)] == [number for number, _ in ranked[:5]]


@settings(max_examples=examples(40), deadline=None)
@given(st.lists(FLOATS), st.lists(FLOATS))
def test_W6_merged_in_any_order_is_the_same(first: list[float], second: list[float]) -> None:
    halves, whole = (Moments(), Moments()), Moments()
    for half, values in zip(halves, (first, second), strict=True):
        for value in values:
            half.add(value)
            whole.add(value)
    halves[0].merge(halves[1])
    assert halves[0].figures() == {
        name: value if value is None else pytest.approx(value, rel=1e-6, abs=1e-4)
        for name, value in whole.figures().items()
    }
