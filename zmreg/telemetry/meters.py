"""What one process has counted: each metric's series, and which have changed since they were told last.

Totals are told, not what was added: a telling that is repeated or lost does no harm. Whoever uses this has a lock.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator
from typing import Final

from zmreg.telemetry.families import HISTOGRAM, Family, Labels, Value, plus

# Series of one name in one process. A tag that has a value for each user or each item would fill every memory that it
# comes to; 1,000 are more than anybody looks at.
MOST_SERIES: Final = 1_000


class Meter:
    """One metric. A series beyond the limit is not begun, and `refused` says how often one was to be."""

    __slots__ = ("_series", "changed", "family", "refused")

    def __init__(self, family: Family) -> None:
        self.family = family
        self.refused = 0
        self._series: dict[Labels, Value] = {}
        self.changed: set[Labels] = set()
        """Series that were not told since."""

    def add(self, labels: Labels, amount: float) -> bool:
        """A counter's. False when there are too many series."""
        was = self._series.get(labels)
        if was is None:
            if not self._room():
                return False
            was = 0.0
        self._series[labels] = plus(was, amount)
        self.changed.add(labels)
        return True

    def set(self, labels: Labels, value: float) -> bool:
        """A gauge's. False when there are too many series."""
        if labels not in self._series and not self._room():
            return False
        self._series[labels] = value
        self.changed.add(labels)
        return True

    def observe(self, labels: Labels, value: float) -> bool:
        """A histogram's. False when there are too many series."""
        bounds = self.family.bounds
        was = self._series.get(labels)
        if was is None:
            if not self._room():
                return False
            was = (0.0,) * (len(bounds) + 2)
        assert isinstance(was, tuple)
        counts = list(was)
        counts[bisect_left(bounds, value)] += 1.0
        counts[-1] += value
        self._series[labels] = tuple(counts)
        self.changed.add(labels)
        return True

    def _room(self) -> bool:
        if len(self._series) < MOST_SERIES:
            return True
        self.refused += 1
        return False

    def changes(self) -> Family | None:
        """The series that have changed since the last call; None if none has."""
        if not self.changed:
            return None
        changed, self.changed = self.changed, set()
        return self.family.but(series={labels: self._series[labels] for labels in changed})


class Meters:
    """All metrics of one process."""

    def __init__(self) -> None:
        self.by_name: dict[str, Meter] = {}

    def meter(self, family: Family) -> Meter:
        """The metric of that name. ValueError when it is there as something else, or another one shows its name."""
        known = self.by_name.get(family.name)
        if known is not None:
            if not known.family.same_as(family):
                raise ValueError(
                    f"metric {_words(family)} is here already as {_words(known.family)}: take another name"
                )
            return known
        shown = set(_shown(family))
        for other in self.by_name.values():
            if shown.intersection(_shown(other.family)):
                raise ValueError(f"metric {_words(family)} would be shown under names of {_words(other.family)}")
        meter = self.by_name[family.name] = Meter(family)
        return meter

    def has_changes(self) -> bool:
        """Whether there is anything to tell that was not told."""
        return any(meter.changed for meter in self.by_name.values())

    def clear(self) -> None:
        """Forget all of it: nothing was ever counted here."""
        self.by_name.clear()

    def changes(self) -> Iterator[Family]:
        """What has changed since it was told last."""
        for meter in self.by_name.values():
            if (family := meter.changes()) is not None:
                yield family

    def refused(self) -> dict[str, int]:
        """{name: how often a series was not begun}."""
        return {name: meter.refused for name, meter in self.by_name.items() if meter.refused}


def _shown(family: Family) -> tuple[str, ...]:
    """The names in the text."""
    if family.kind == HISTOGRAM:
        return (family.name, *(f"{family.name}_{part}" for part in ("bucket", "sum", "count")))
    return (family.name,)


def _words(family: Family) -> str:
    tags = f" with tags {', '.join(family.labels)}" if family.labels else ""
    return f"{family.name!r}, a {family.kind}{tags}"


def total_name(name: str) -> str:
    """As a counter's name ends in Prometheus."""
    return name if name.endswith("_total") else f"{name}_total"
