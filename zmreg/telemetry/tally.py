"""What a node keeps of its processes' metrics: their totals, and the sums of those that have ended.

Bounded whatever they send: in series of one name, and in what all series together take.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final

from zmreg.telemetry.families import GAUGE, LAST, Family, Labels, Value, added, dropped_values, plus
from zmreg.telemetry.meters import MOST_SERIES

# Bytes of all series of a node as an answer has them, uncompressed; one answer has 4 MiB at most (wire/codec.py).
MOST_BYTES: Final = 3 << 20
# A name has its text and its place beside its series. Whatever is beyond these is counted under one name.
MOST_NAMES: Final = 2_000
OTHERS: Final = "(others)"
_NAME_BYTES: Final = 200


class _Name:
    """All there is under one name: {series: {process: (when, value)}}, the "when" only counting up."""

    __slots__ = ("ended", "family", "living", "refused")

    def __init__(self, family: Family) -> None:
        self.family = family.but(series={})
        self.living: dict[Labels, dict[bytes, tuple[int, Value]]] = {}
        self.ended: dict[Labels, Value] = {}
        self.refused = 0

    def count(self) -> int:
        """Series."""
        return len(self.living) + sum(labels not in self.living for labels in self.ended)

    def knows(self, labels: Labels) -> bool:
        """Whether there is such a series."""
        return labels in self.living or labels in self.ended

    def value(self, labels: Labels) -> Value:
        """Of a series that is known, all processes together."""
        told = self.living.get(labels, {})
        if self.family.kind == GAUGE:
            return _ACROSS[self.family.across](told.values())
        values = [value for _, value in told.values()]
        if labels in self.ended:
            values.append(self.ended[labels])
        whole = values[0]
        for value in values[1:]:
            whole = plus(whole, value)
        return whole


def _last(told: Iterable[tuple[int, Value]]) -> Value:
    return max(told)[1]


def _over(fold: Callable[[Iterable[float]], float]) -> Callable[[Iterable[tuple[int, Value]]], Value]:
    return lambda told: fold(value for _, value in told if isinstance(value, float))


_ACROSS: Final[dict[str, Callable[[Iterable[tuple[int, Value]]], Value]]] = {
    "sum": _over(lambda values: float(sum(values))), "max": _over(max), "min": _over(min), LAST: _last,
}  # fmt: skip


class Tally:
    """Of one node."""

    def __init__(self, most_series: int = MOST_SERIES, most_bytes: int = MOST_BYTES) -> None:
        self._most_series = most_series
        self._most_bytes = most_bytes
        self._names: dict[str, _Name] = {}
        self._nbytes = self._heard = self._unnamed = 0

    def hear(self, process: bytes, families: Iterable[Family]) -> list[str]:
        """What a process of ours has told; the names of which something was refused for the first time."""
        complaints = []
        for family in families:
            name = self._names.get(family.name)
            if name is None:
                cost = _NAME_BYTES + 4 * len(family.text) + 9 * len(family.bounds)
                if len(self._names) >= MOST_NAMES or self._nbytes + cost > self._most_bytes:
                    if not self._unnamed:
                        complaints.append(family.name)
                    self._unnamed += len(family.series)
                    continue
                name = self._names[family.name] = _Name(family)
                self._nbytes += cost
            refused = len(family.series) if not name.family.same_as(family) else self._take(name, process, family)
            if refused:
                if not name.refused:
                    complaints.append(family.name)
                name.refused += refused
        return complaints

    def _take(self, name: _Name, process: bytes, family: Family) -> int:
        refused = 0
        for labels, value in family.series.items():
            self._heard += 1
            if not name.knows(labels):
                cost = _cost(labels, value)
                if name.count() >= self._most_series or self._nbytes + cost > self._most_bytes:
                    refused += 1
                    continue
                self._nbytes += cost
            name.living.setdefault(labels, {})[process] = self._heard, value
        return refused

    def gone(self, process: bytes) -> None:
        """It has ended: what it counted stays, what it measured goes."""
        for name in self._names.values():
            keeps = name.family.kind != GAUGE
            for labels, told in list(name.living.items()):
                last = told.pop(process, None)
                if last is not None and keeps:
                    value = last[1]
                    name.ended[labels] = plus(name.ended[labels], value) if labels in name.ended else value
                if not told:
                    del name.living[labels]
                    if not keeps and last is not None:
                        self._nbytes -= _cost(labels, last[1])

    def families(self) -> list[Family]:
        """All of them, and what was refused. Of names without a series, none."""
        found = []
        dropped: dict[Labels, Value] = {}
        for name, known in self._names.items():
            series = {labels: known.value(labels) for labels in {**known.living, **known.ended}}
            if series:
                found.append(known.family.but(series=series))
            if known.refused:
                dropped[(name,)] = float(known.refused)
        if self._unnamed:
            dropped[(OTHERS,)] = float(self._unnamed)
        if dropped:
            found.append(dropped_values(dropped))
        return list(added(found).values())


def _cost(labels: Labels, value: Value) -> int:
    """Bytes in an answer, at most."""
    return 20 + sum(5 + 4 * len(label) for label in labels) + 9 * (len(value) if isinstance(value, tuple) else 1)
