"""Fault 47: who is ended when memory runs short, and what is said of it."""

from __future__ import annotations

import pytest

from zmreg.core.memory import GIB, MIB, Occupant, Reading, Use, is_short, reason, victim

SHORT = Reading(int(15.5 * GIB), 16 * GIB, "the machine's memory")
THRESHOLD = 0.95


def one(name: str, use: Use = "task", again: bool | None = True, gib: float = 2.0, since: float = 0.0) -> Occupant:
    return Occupant(name.encode(), int(gib * GIB), use, again, since, name)


def chosen(*occupants: Occupant, reading: Reading = SHORT) -> str:
    found = victim(occupants, reading, THRESHOLD)
    return found.label if found is not None else ""


def test_fault47_nobody_is_ended_below_the_threshold():
    below = SHORT.but(used=int(0.949 * 16 * GIB))
    assert not is_short(below, THRESHOLD) and is_short(SHORT, THRESHOLD)
    assert chosen(one("a"), reading=below) == ""
    assert chosen() == ""


def test_fault47_what_is_tried_again_goes_before_what_is_not():
    order = [
        one("idle", "idle", None), one("retried"), one("unknown", again=None), one("restarted", "actor"),
        one("task", again=False), one("actor", "actor", False),
    ]  # fmt: skip
    left = list(reversed(order))
    said = []
    while left:
        said.append(chosen(*left))
        left = [each for each in left if each.label != said[-1]]
    assert said == [each.label for each in order]


def test_fault47_the_newest_goes_first_and_the_largest_of_the_new():
    assert chosen(one("old", since=1.0, gib=4.0), one("new", since=9.0), one("middle", since=5.0)) == "new"
    assert chosen(one("small", since=9.0), one("large", since=9.0, gib=3.0)) == "large"


def test_fault47_who_has_little_is_spared():
    """A newest task of 5 MiB is no help when an old one has it all."""
    assert chosen(one("tiny", since=9.0, gib=0.005), one("hog", again=False, gib=14.0)) == "hog"
    assert chosen(one("tiny", gib=0.02), one("little", gib=0.01)) == "", "the memory is somebody else's"


def test_fault47_one_end_that_is_enough_is_enough():
    """0.36 GiB have to go: a task that has 1 GiB goes rather than an actor with ten."""
    assert chosen(one("model", "actor", False, gib=10.0), one("task", gib=1.0)) == "task"
    assert chosen(one("model", "actor", False, gib=10.0), one("task", gib=0.1)) == "model"


def test_fault47_the_reason_has_the_figures():
    largest = [(f"worker pid={pid}", (9 - pid) * GIB) for pid in range(7)]
    text = reason(one("a", gib=7.1), SHORT, THRESHOLD, largest)
    for part in ("15.50 GiB of 16.00 GiB", "96.9%", "the machine's memory", "memory_threshold=0.95", "7.10 GiB"):
        assert part in text
    assert "worker pid=0 9.00 GiB" in text and "pid=4" in text and "pid=5" not in text, "five are named"
    assert f"{300 * MIB} " not in text


@pytest.mark.parametrize("threshold", [0.5, 1.0])
def test_fault47_a_threshold_is_a_share_of_the_limit(threshold: float):
    assert is_short(Reading(int(threshold * 1000), 1000, "x"), threshold)
    assert not is_short(Reading(int(threshold * 1000) - 1, 1000, "x"), threshold)
