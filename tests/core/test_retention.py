"""Which kept results go: row X27 of the specs, with C40."""

from __future__ import annotations

from zmreg.core.retention import Kept, overdue


def row(name: str, nbytes: int, settled: float | None, ttl_s: float = 100.0) -> Kept:
    return Kept(name, nbytes, settled, ttl_s)


def test_X27_C40_a_result_goes_when_its_time_is_over_and_a_running_call_never() -> None:
    rows = [row("old", 1, 0.0, 10.0), row("young", 1, 5.0, 10.0), row("runs", 0, None, 1.0)]
    assert overdue(rows, 100, 9.9) == {}
    assert list(overdue(rows, 100, 10.0)) == ["old"]
    assert list(overdue(rows, 0, 10.0)) == ["old"], "the youngest stays"


def test_X27_C40_the_oldest_go_until_the_rest_is_small_enough() -> None:
    rows = [row("c", 40, 3.0), row("a", 40, 1.0), row("empty", 0, 0.5), row("b", 40, 2.0)]
    assert list(overdue(rows, 120, 4.0)) == []
    assert list(overdue(rows, 100, 4.0)) == ["a"]
    assert "40 bytes: 100 are the most" in overdue(rows, 100, 4.0)["a"]
    assert list(overdue(rows, 40, 4.0)) == ["a", "b"]
    assert list(overdue(rows, 1, 4.0)) == ["a", "b"], "it alone is larger, and the only one left"
    assert overdue([], 0, 1.0) == {}
