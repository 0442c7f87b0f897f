"""Row 75: histograms of calls by function, made of what is remembered, whenever somebody asks. Pure."""

from __future__ import annotations

from zmreg.services.calling.history import read
from zmreg.telemetry.durations import BOUNDS, MOST_NAMES, OTHERS, Durations
from zmreg.telemetry.families import Family
from zmreg.telemetry.families import read as read_families
from zmreg.telemetry.past import Past
from zmreg.wire import batches

W1 = b"node0001"


def answer(past: Past, now: float, *rows: tuple[int, float], name: str = "f") -> None:
    """A batch of answers: (number, seconds it ran)."""
    listed: list[list[object]] = [[number, int(ran * 1e6), b""] for number, ran in rows]
    past.answered(W1, batches.encode_results(listed), [(rows[0][0], name)], listed, now)


def asked(durations: Durations, past: Past) -> dict[str, Family]:
    fresh = durations.fresh(past)
    if fresh is not None:
        durations.count(fresh, read)
    return {family.name: family for family in durations.families()}


def seen(family: Family, function: str = "f") -> tuple[int, float]:
    """(how many, sum)."""
    counts = family.series[(function,)]
    assert isinstance(counts, tuple) and len(counts) == len(BOUNDS) + 2
    return int(sum(counts[:-1])), round(counts[-1], 6)


def test_row_75_each_answer_is_counted_once_whenever_somebody_asks():
    past, durations = Past(), Durations()
    assert asked(durations, past) == {}
    past.mark(3, 10.0)
    answer(past, 11.0, (1, 0.5), (2, 0.25))
    found = asked(durations, past)
    assert seen(found["zmreg_call_run_seconds"]) == (2, 0.75)
    assert seen(found["zmreg_call_wait_seconds"]) == (2, 1.25)
    assert asked(durations, past) == found, "nothing has come since"
    past.mark(5, 12.0)
    answer(past, 12.5, (3, 0.5))
    answer(past, 12.5, (4, 0.5))
    found = asked(durations, past)
    assert seen(found["zmreg_call_run_seconds"]) == (4, 1.75)
    families = read_families([family.as_row() for family in found.values()])
    assert [family.name for family in families] == ["zmreg_call_run_seconds", "zmreg_call_wait_seconds"]


def test_row_75_what_was_forgotten_before_anybody_asked_is_missing_and_the_rest_is_counted_once():
    past, durations = Past(most=10), Durations()
    answer(past, 1.0, (1, 0.1))
    asked(durations, past)
    for number in range(2, 30):
        answer(past, float(number), (number, 0.1))
    assert seen(asked(durations, past)["zmreg_call_run_seconds"])[0] == 1 + 10
    answer(past, 31.0, (31, 0.1))
    found = asked(durations, past)
    assert seen(found["zmreg_call_run_seconds"])[0] == 1 + 10 + 1
    assert "zmreg_call_wait_seconds" not in found, "when they were submitted nobody knows"


def test_row_75_names_are_bounded_and_items_of_generators_are_no_calls():
    past, durations = Past(), Durations()
    for number in range(MOST_NAMES + 5):
        answer(past, 1.0, (number, 0.1), name=f"f{number}")
    rows: list[list[object]] = [[900, 5, b""], [901, 0, b"item"]]
    past.answered(W1, batches.encode_results(rows), [(900, "f0"), (901, "")], rows, 1.0)
    ran = asked(durations, past)["zmreg_call_run_seconds"]
    assert len(ran.series) == MOST_NAMES + 1 and seen(ran, OTHERS)[0] == 5 and seen(ran, "f0")[0] == 2


def test_row_75_a_long_name_is_cut_and_those_that_are_alike_then_are_one():
    past, durations = Past(), Durations()
    answer(past, 1.0, (1, 0.1), name="f" * 300 + "1")
    answer(past, 1.0, (2, 0.1), name="f" * 300 + "2")
    (counts,) = asked(durations, past)["zmreg_call_run_seconds"].series.values()
    assert isinstance(counts, tuple) and sum(counts[:-1]) == 2
