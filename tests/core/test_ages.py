"""How old refs are, from looks at the next number (experience 1.2: reprs)."""

from __future__ import annotations

from bisect import bisect_right

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from zmreg.core.ages import EXACT_PART, EXACT_S, MOST_LOOKS, Ages, old


def test_a_number_is_as_old_as_the_looks_around_it_say():
    ages = Ages()
    assert ages.of(1, 5.0) is None, "nobody has looked"
    ages.look(1, 0.0)
    ages.look(1, 100.0)
    assert ages.of(1, 100.5) == 0.25, "after the last look: between it and now"
    assert ages.of(1, 105.0) is None, "it may be five seconds old, or none"
    ages.look(10, 100.5)
    assert ages.of(1, 110.5) == ages.of(9, 110.5) == 10.25
    assert ages.of(10, 101.0) == 0.25
    ages.look(11, 500.0)
    assert ages.of(10, 510.0) is None and ages.of(10, 5_000.0) == 4_699.75, "what is old need not be known exactly"


def test_looks_are_bounded_and_what_is_old_is_known_still():
    ages = Ages()
    for second in range(100_000):
        ages.look(second + 1, float(second))
    assert len(ages._looks) <= MOST_LOOKS
    now = 100_000.0
    for number in (1, 500, 40_000, 90_000, 99_000, 99_999):
        age = ages.of(number, now)
        assert age is not None and abs(age - (now - number)) <= max(EXACT_S, EXACT_PART * age), number


@given(
    st.lists(st.tuples(st.integers(0, 5), st.floats(0.0, 50.0, allow_subnormal=False)), min_size=1, max_size=40),
    st.integers(0, 60),
)
@settings(max_examples=examples(200))
def test_what_is_said_is_never_further_off_than_promised(steps, number):
    ages, following, now, given_at = Ages(), 1, 0.0, []
    ages.look(following, now)
    for count, pause in steps:  # some are given out, time goes by, somebody looks
        given_at += [now] * count
        following += count
        now += pause
        ages.look(following, now)
    age = ages.of(number, now)
    if age is not None and 1 <= number < following:
        assert abs(age - (now - given_at[number - 1])) <= max(EXACT_S, EXACT_PART * age) + 1e-9
    assert number or age is None
    assert [look[0] for look in ages._looks] == sorted({look[0] for look in ages._looks})
    assert bisect_right(ages._looks, following, key=lambda look: look[0]) == len(ages._looks)


def test_ages_are_for_people():
    seconds = (None, 0.2, 12.4, 119.0, 130.0, 7_000.0, 10_000.0, 500_000.0)
    assert list(map(old, seconds)) == ["", "0 s", "12 s", "119 s", "2 min", "117 min", "3 h", "6 d"]
