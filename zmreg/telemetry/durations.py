"""How long an owner's calls ran and waited, as histograms by function: made of what it remembers, when somebody asks.

Nothing is noted for this. So what was forgotten before anybody asked is missing, which is the case where more calls end
between two questions than are remembered (telemetry/past.py).
"""

from __future__ import annotations

from bisect import bisect_left
from typing import Final

from zmreg.telemetry.facts import Read, named
from zmreg.telemetry.families import HISTOGRAM, Family, Value, clean
from zmreg.telemetry.past import Past

# From what a call costs to what nobody waits for; three steps a power of ten tell twice as long apart well enough.
BOUNDS: Final = (0.0001, 0.0003, 0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1_000.0)
# Of one process, since each name is two series of 17 numbers for whoever stores them. Programs have some ten.
MOST_NAMES: Final = 100
OTHERS: Final = "(others)"
"""Stands for functions beyond these."""


class Durations:
    """Of one owner. Whoever uses this has a lock."""

    __slots__ = ("_last", "_ran", "_waited")

    def __init__(self) -> None:
        self._last: object = None
        """The frame of the batch up to which all is counted."""
        self._ran: dict[str, list[float]] = {}
        self._waited: dict[str, list[float]] = {}

    def fresh(self, past: Past) -> Past | None:
        """A copy of the answers that are not counted, for `count`; None when there are none. Under the owner's lock."""
        calls, last = past.behind(self._last)
        self._last = last
        return past.tail(calls) if calls else None

    def count(self, past: Past, read: Read) -> None:
        """Take these as well."""
        submissions = past.submissions()
        for batch in past.batches():
            for answer, name in named(batch, read):
                run_s, submitted = answer.run_us * 1e-6, submissions.when(answer.counter)
                _observe(self._ran, name, run_s)
                if submitted is not None:
                    _observe(self._waited, name, max(0.0, batch.at - submitted - run_s))

    def families(self) -> list[Family]:
        """All that was counted; nothing without any."""
        found = [
            _family("zmreg_call_run_seconds", "How long calls ran, each attempt, by their workers' clocks.", self._ran),
            _family("zmreg_call_wait_seconds", "From a call's submission to its answer, less the time it ran.",
                    self._waited),
        ]  # fmt: skip
        return [family for family in found if family.series]


def _observe(by_name: dict[str, list[float]], name: str, value: float) -> None:
    counts = by_name.get(name)
    if counts is None:
        name = name if len(by_name) < MOST_NAMES else OTHERS
        counts = by_name.setdefault(name, [0.0] * (len(BOUNDS) + 2))
    counts[bisect_left(BOUNDS, value)] += 1.0
    counts[-1] += value


def _family(name: str, text: str, by_name: dict[str, list[float]]) -> Family:
    series: dict[tuple[str, ...], Value] = {}
    for function, counts in by_name.items():
        label, was = (clean(function),), series.get((clean(function),))
        assert not isinstance(was, float)
        series[label] = tuple(counts) if was is None else tuple(map(sum, zip(was, counts, strict=True)))
    return Family(name, HISTOGRAM, text, ("function",), BOUNDS, series=series)
