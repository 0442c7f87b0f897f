"""What stages and phases in this process do, for whoever asks for its metrics: told where they run, when asked for.

While nobody asks, one that begins costs a row in a table, and one that ends an addition.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Sequence
from typing import Final

from zmreg.api.metering import Family, is_kept, keep_telling

# Names of stages and phases are written by people; past so many distinct ones the rest are counted together.
MOST_NAMES: Final = 500
OTHERS: Final = "(others)"

Facts = Iterable[tuple[str, Sequence[float], Sequence[float]]]
"""(name, its totals, its levels) of each, in the order of the sheet's columns. Each name once."""


class Sheet:
    """All that is told by one kind of thing: totals become counters, and stay; levels gauges, and end with it."""

    def __init__(self, label: str, totals: Sequence[tuple[str, str]], levels: Sequence[tuple[str, str]]) -> None:
        """`totals` and `levels`: (name, text) of each column."""
        self._label = label
        self._totals = tuple(totals)
        self._levels = tuple(levels)
        self._lock = threading.RLock()
        self._going: dict[int, Callable[[], Facts]] = {}
        self._told: dict[int, dict[str, Sequence[float]]] = {}
        self._ended: dict[str, list[float]] = {}
        self._seen: list[str] = []
        self._next = 0

    def begin(self, facts: Callable[[], Facts]) -> int:
        """Something begins. `facts` may be called by any thread, and never waits. The number is for `end`."""
        if not is_kept(self.families):  # the first in this process, in this cluster or after a fork
            self._forget()
            keep_telling(self.families, self._forget)
        with self._lock:
            self._next += 1
            self._going[self._next] = facts
            return self._next

    def end(self, number: int) -> None:
        """It is over. Nothing for a number that is not there any more."""
        with self._lock:
            facts = self._going.pop(number, None)
            if facts is not None:
                for name, totals, _ in facts():
                    self._add(self._ended, name, self._no_less(number, name, totals))
                self._told.pop(number, None)

    def families(self) -> list[Family]:
        """As metrics."""
        with self._lock:
            totals = {name: list(found) for name, found in list(self._ended.items())}
            # Once told, a level goes on to be told when it is 0: its node keeps what it heard last.
            levels = {name: [0.0] * len(self._levels) for name in self._seen}
            for number, facts in list(self._going.items()):
                for name, some, now in facts():
                    some = self._told.setdefault(number, {})[name] = self._no_less(number, name, some)
                    self._add(totals, name, some)
                    self._add(levels, name, now)
            self._seen = list(levels)
        return [
            *self._columns(self._totals, totals, "counter"),
            *self._columns(self._levels, levels, "gauge"),
        ]

    def _columns(self, columns: Sequence[tuple[str, str]], rows: dict[str, list[float]], kind: str) -> list[Family]:
        return [
            Family(name, kind, text, (self._label,), series={(row,): float(each[at]) for row, each in rows.items()})
            for at, (name, text) in enumerate(columns)
            if rows
        ]

    def _no_less(self, number: int, name: str, totals: Sequence[float]) -> Sequence[float]:
        """A count that is read while an item is in work may be one too high; it waits there until it is right, since a
        counter that goes back counts as one that began anew."""
        told = self._told.get(number, {}).get(name)
        return totals if told is None else [max(one, other) for one, other in zip(told, totals, strict=True)]

    @staticmethod
    def _add(into: dict[str, list[float]], name: str, some: Sequence[float]) -> None:
        name = name if name in into or len(into) < MOST_NAMES else OTHERS
        was = into.get(name)
        into[name] = list(some) if was is None else [one + other for one, other in zip(was, some, strict=True)]

    def _forget(self) -> None:
        self._lock = threading.RLock()
        self._ended.clear()
        self._going.clear()
        self._told.clear()
        self._seen = []


STAGES: Final = Sheet(
    "stage",
    [
        ("zmreg_pipeline_items_in_total", "Items that came into a stage."),
        ("zmreg_pipeline_items_out_total", "Items that a stage has made."),
        ("zmreg_pipeline_filtered_total", "Items that a stage has dropped, or made nothing of."),
        ("zmreg_pipeline_skipped_total", "Items that were left out because a stage could not do them."),
        ("zmreg_pipeline_dead_letters_total", "Items that a stage could not do, kept as dead letters."),
        ("zmreg_pipeline_errors_total", "What a stage has raised, tries that were repeated among them."),
        ("zmreg_pipeline_retries_total", "Tries of a stage that were repeated."),
        ("zmreg_pipeline_busy_seconds_total", "Time in a stage's own code."),
    ],
    [("zmreg_pipeline_lanes", "Places where a stage runs now.")],
)
STREAMS: Final = Sheet(
    "stage",
    [("zmreg_pipeline_blocked_seconds_total", "Time for which a stage waited for those after it.")],
    [("zmreg_pipeline_depth", "Items that wait before a stage, from other processes.")],
)
PHASES: Final = Sheet(
    "phase",
    [
        ("zmreg_run_items_in_total", "Items of a phase's `foreach` that have ended, steps of its request."),
        ("zmreg_run_items_out_total", "Those of them that gave a value."),
    ],
    [("zmreg_run_under_way", "Calls or steps of a phase that are under way.")],
)
STATES: Final = Sheet("state", [], [("zmreg_run_phases", "Phases of the runs that go on, by state.")])
ENDS: Final = Sheet("state", [("zmreg_run_phases_ended_total", "Phases of runs by how they ended.")], [])
