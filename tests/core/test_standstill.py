"""When a worker stands still: design.md section 4, rule 3 (one long task among short ones delays none of them)."""

from __future__ import annotations

from zmreg.core.standstill import FACTOR, STILL_S, Standstill


def test_a_call_is_slow_only_from_the_second_look_at_it_on():
    seen = Standstill()
    assert not seen.lasts(1, 5.0, 100.0)
    assert not seen.lasts(1, 5.0, 100.0 + STILL_S / 2)
    assert seen.lasts(1, 5.0, 100.0 + 1.01 * STILL_S)


def test_a_worker_that_goes_on_never_stands_still():
    seen = Standstill()
    assert not any(seen.lasts(call, 5.0, call * 1.0) for call in range(100))


def test_a_call_that_was_expected_to_take_longer_has_longer():
    seen = Standstill()
    expected_us = 1_900.0
    assert not seen.lasts(1, expected_us, 0.0)
    assert not seen.lasts(1, expected_us, 0.99 * FACTOR * expected_us * 1e-6)
    assert seen.lasts(1, expected_us, 1.01 * FACTOR * expected_us * 1e-6)


def test_the_next_call_begins_its_time_anew():
    seen = Standstill()
    seen.lasts(1, 5.0, 0.0)
    assert not seen.lasts(2, 5.0, 9.0)
    assert not seen.lasts(1, 5.0, 9.1), "sent again under its number"
