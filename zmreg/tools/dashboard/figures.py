"""Figures of the last minutes: a few of the metrics, as points over time. Pure; times are seconds since 1970."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any, Final

from zmreg.model.record import Record

# Ten minutes at one point in two seconds.
MOST_POINTS: Final = 300
KEEP_S: Final = 600.0
# One point in ten seconds while nobody looks; past so many seconds without one, a line has a gap.
GAP_S: Final = 35.0
LEVEL: Final = "level"
RATE: Final = "rate"
WORST: Final = "worst"


class Figure(Record):
    """What is drawn: of the series of `metric` that have these labels the sum over all nodes, how fast it grows, or the
    worst node's."""

    name: str
    unit: str
    metric: str
    labels: tuple[tuple[str, str], ...] = ()
    kind: str = LEVEL


FIGURES: Final = (
    Figure("calls done", "/s", "zmreg_tasks_finished_total", (("outcome", "ok"),), RATE),
    Figure("calls failed", "/s", "zmreg_tasks_finished_total", (("outcome", "failed"),), RATE),
    Figure("tasks running", "", "zmreg_tasks", (("state", "running"),)),
    Figure("calls queued", "", "zmreg_tasks", (("state", "queued"),)),
    Figure("CPUs lent", "", "zmreg_resources", (("resource", "CPU"), ("state", "used"))),
    Figure("leases waiting", "", "zmreg_leases_waiting"),
    Figure("actors alive", "", "zmreg_actors", (("state", "alive"),)),
    Figure("workers' CPU", "CPUs", "zmreg_process_cpu_seconds_total", (("role", "worker"),), RATE),
    Figure("workers' memory", "bytes", "zmreg_process_resident_bytes", (("role", "worker"),)),
    Figure("in the stores", "bytes", "zmreg_object_store_bytes", (("location", "primary"),)),
    Figure("spilled", "bytes/s", "zmreg_spill_bytes_total", (), RATE),
    Figure("values between nodes", "bytes/s", "zmreg_fetch_bytes_total", (("dir", "in"),), RATE),
    Figure("messages between nodes", "bytes/s", "zmreg_letter_bytes_total", (("dir", "in"),), RATE),
    Figure("nodes' CPU", "CPUs", "zmreg_process_cpu_seconds_total", (("role", "node"),), RATE),
    Figure("loop lag, worst node", "s", "zmreg_loop_lag_seconds", (), WORST),
)


def amount_of(families: Iterable[Mapping[str, Any]], figure: Figure) -> float | None:
    """Of metrics as `zmreg metrics --json` prints them; None when there is no such series."""
    values = [
        float(sample["value"])
        for family in families
        if family["name"] == figure.metric
        for sample in family["samples"]
        if "value" in sample and all(sample["labels"].get(name) == value for name, value in figure.labels)
    ]
    if not values:
        return None
    return max(values) if figure.kind == WORST else sum(values)


class Figures:
    """The points of each figure that there were, oldest first."""

    def __init__(self, figures: Iterable[Figure] = FIGURES) -> None:
        self._points: dict[Figure, deque[tuple[float, float]]] = {
            figure: deque(maxlen=MOST_POINTS) for figure in figures
        }

    def take(self, families: Iterable[Mapping[str, Any]], now: float) -> None:
        """What the metrics are at this moment."""
        told = list(families)
        for figure, points in self._points.items():
            if (amount := amount_of(told, figure)) is not None:
                points.append((now, amount))
            while points and points[0][0] < now - KEEP_S:
                points.popleft()

    def lines(self) -> list[dict[str, Any]]:
        """For a page: of each figure that has points its name, unit, latest value and `points`, [seconds since 1970,
        value or None]. None is a gap: nobody could be asked, or a counter began anew."""
        found = []
        for figure, points in self._points.items():
            if points:
                drawn = _rates(points) if figure.kind == RATE else _with_gaps(points)
                last = drawn[-1][1] if drawn else None
                found.append({"Name": figure.name, "Unit": figure.unit, "Metric": figure.metric, "Last": last,
                              "Points": drawn})  # fmt: skip
        return found


Drawn = list[list[float | None]]


def _with_gaps(points: Iterable[tuple[float, float]]) -> Drawn:
    found: Drawn = []
    before = float("inf")
    for at, value in points:
        if at - before > GAP_S:
            found.append([before, None])
        found.append([at, value])
        before = at
    return found


def _rates(points: Iterable[tuple[float, float]]) -> Drawn:
    found: Drawn = []
    before: tuple[float, float] | None = None
    for at, total in points:
        if before is not None:
            passed = at - before[0]
            if 0 < passed <= GAP_S and total >= before[1]:
                found.append([at, (total - before[1]) / passed])
            else:
                found.append([at, None])
        before = at, total
    return found
