"""How far ahead an owner sends, and whom an idle worker takes from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmreg.core.depth import AIM_S, MAX_DEPTH, DurationEstimate, choose_victim, depth_for


@pytest.mark.parametrize(
    ("estimate_s", "depth"),
    [(None, 1), (0.0, MAX_DEPTH), (1e-6, MAX_DEPTH), (20e-6, 100), (0.001, 2), (0.002, 1), (1.0, 1)],
)
def test_depth_keeps_about_two_milliseconds_of_work_ahead(estimate_s: float | None, depth: int) -> None:
    assert depth_for(estimate_s) == depth


@given(st.floats(0, 1e6))
def test_depth_stays_in_bounds_and_never_plans_more_than_the_aim(estimate_s: float) -> None:
    depth = depth_for(estimate_s)
    assert 1 <= depth <= MAX_DEPTH
    assert depth == 1 or depth * estimate_s <= AIM_S * (1 + 1e-9)


def test_one_slow_outlier_is_believed_at_once_and_forgotten_slowly() -> None:
    estimate = DurationEstimate()
    assert estimate.seconds is None
    for _ in range(1000):
        estimate.observe(10e-6)
    assert depth_for(estimate.seconds) == 200
    estimate.observe(1.0)
    assert depth_for(estimate.seconds) == 1
    for _ in range(40):
        estimate.observe(10e-6)
    assert depth_for(estimate.seconds) == 1
    for _ in range(200):
        estimate.observe(10e-6)
    assert depth_for(estimate.seconds) >= 150


@given(st.lists(st.floats(0, 100), min_size=1))
def test_an_estimate_stays_within_what_was_seen(seen: list[float]) -> None:
    estimate = DurationEstimate()
    for seconds in seen:
        estimate.observe(seconds)
    assert estimate.seconds is not None
    assert min(seen) - 1e-9 <= estimate.seconds <= max(seen) + 1e-9


def test_a_clock_that_goes_backwards_counts_as_zero() -> None:
    estimate = DurationEstimate()
    estimate.observe(-1.0)
    assert estimate.seconds == 0.0
    assert repr(estimate) == "<DurationEstimate 0.000000 s>"


def test_a_thief_takes_half_of_what_the_busiest_has_not_started() -> None:
    assert choose_victim({"a": 9, "b": 3, "c": 0}, {"c"}) == ("a", 4)


def test_the_one_task_behind_a_long_one_is_taken() -> None:
    assert choose_victim({"a": 2, "b": 0}, {"b"}) == ("a", 1)


def test_nothing_is_stolen_without_a_thief_or_without_loot() -> None:
    assert choose_victim({"a": 9}, set()) is None
    assert choose_victim({"a": 1, "b": 1}, {"c"}) is None
    assert choose_victim({"a": 0}, {"a"}) is None
    assert choose_victim({}, {"a"}) is None


@given(st.dictionaries(st.integers(0, 9), st.integers(0, 300)), st.sets(st.integers(0, 9)))
def test_a_steal_never_touches_the_running_task(outstanding: dict[int, int], idle: set[int]) -> None:
    choice = choose_victim(outstanding, idle)
    if choice is not None:
        victim, count = choice
        assert victim not in idle
        assert 1 <= count <= outstanding[victim] - 1
