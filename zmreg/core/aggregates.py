"""Running figures of results: count, mean, standard deviation, extremes; by phase, container and metric; the best rows.

Nothing here grows with the number of rows. What is no finite number is left out and counted, never taken for 0.
"""

from __future__ import annotations

import math
from bisect import insort
from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import isfinite
from numbers import Real
from operator import itemgetter, mul
from typing import Final, cast

from zmreg.core.columns import Columns

Measures = tuple[str, str, dict[str, float | None]]
"""(phase, container, metrics) of one row; None stands for what is there and is no number."""

# Rows that are kept for each metric at either end. Who wants the best 10 is well served.
MOST_RANKED: Final = 100
# Groups of their own; later containers of a phase are taken together, so that a sink of a million names stays small.
MOST_GROUPS: Final = 10_000
OTHERS: Final = "(others)"

_PHASES: Final = ("phase", "phase_name")
_CONTAINERS: Final = ("container_id", "container")
_NAMES: Final = frozenset((*_PHASES, *_CONTAINERS))
_NUMBERS: Final[frozenset[type]] = frozenset({int, float, type(None)})


class Moments:
    """Welford's running mean and variance, with extremes."""

    __slots__ = ("count", "greatest", "ignored", "least", "mean", "squares")

    def __init__(self) -> None:
        self.count = 0
        self.mean = 0.0
        self.squares = 0.0
        """Sum of the squared distances from the mean."""
        self.least = math.inf
        self.greatest = -math.inf
        self.ignored = 0

    def add(self, value: float) -> None:
        """One more; it is finite."""
        self.count += 1
        distance = value - self.mean
        self.mean += distance / self.count
        self.squares += distance * (value - self.mean)
        if value < self.least:
            self.least = value
        if value > self.greatest:
            self.greatest = value

    @classmethod
    def of(cls, values: Sequence[float]) -> Moments:
        """Of several that are finite, and whose sum is."""
        made = cls()
        made.count = len(values)
        made.mean = mean = sum(values) / len(values)
        distances = [value - mean for value in values]
        made.squares = sum(map(mul, distances, distances))
        made.least, made.greatest = min(values), max(values)
        return made

    def merge(self, other: Moments) -> None:
        """Take in what another one has seen (Chan's formula)."""
        self.ignored += other.ignored
        if not other.count:
            return
        count = self.count + other.count
        distance = other.mean - self.mean
        self.mean += distance * other.count / count
        self.squares += other.squares + distance * distance * self.count * other.count / count
        self.least, self.greatest = min(self.least, other.least), max(self.greatest, other.greatest)
        self.count = count

    def figures(self) -> dict[str, float | int | None]:
        """count, mean, std (of a sample; None below two), min, max, ignored."""
        seen = self.count > 0
        std = math.sqrt(self.squares / (self.count - 1)) if self.count > 1 else None
        return {
            "count": self.count, "mean": self.mean if seen else None, "std": std,
            "min": self.least if seen else None, "max": self.greatest if seen else None, "ignored": self.ignored,
        }  # fmt: skip


class Ranking:
    """The rows with the least and the greatest values of one metric, earlier ones first among equals."""

    __slots__ = ("_greatest", "_least", "above", "below")

    def __init__(self) -> None:
        # (key, number of the row, its measures), best first; the number decides before measures are ever compared.
        self._least: list[tuple[float, int, Measures]] = []
        self._greatest: list[tuple[float, int, Measures]] = []
        self.below = math.inf
        """What is less gets into the ranks, and what is more than `above`: most rows need not be added at all."""
        self.above = -math.inf

    def add(self, value: float, number: int, row: Measures) -> None:
        """One more; numbers grow."""
        if value < self.below:
            insort(self._least, (value, number, row))
            del self._least[MOST_RANKED:]
            if len(self._least) == MOST_RANKED:
                self.below = self._least[-1][0]
        if value > self.above:
            insort(self._greatest, (-value, number, row))
            del self._greatest[MOST_RANKED:]
            if len(self._greatest) == MOST_RANKED:
                self.above = -self._greatest[-1][0]

    def best(self, count: int, ascending: bool) -> Iterator[tuple[float, int, Measures]]:
        """(value, number, row) of the `count` greatest, or least; at most MOST_RANKED."""
        for key, number, row in (self._least if ascending else self._greatest)[:count]:
            yield (key if ascending else -key), number, row


class Aggregates:
    """All figures of one sink. Rows are added in the order in which they are written."""

    def __init__(self) -> None:
        self.rows = 0
        self._counts: dict[str, dict[str, int]] = {}
        self._moments: dict[tuple[str, str], dict[str, Moments]] = {}
        self._rankings: dict[str, Ranking] = {}

    def add(self, measures: Measures) -> None:
        """The next row."""
        phase, container, metrics = measures
        key = phase, container
        groups = self._moments.get(key)
        if groups is None:
            if len(self._moments) >= MOST_GROUPS:
                key = phase, OTHERS
            groups = self._moments.setdefault(key, {})
        counts = self._counts.setdefault(phase, {})
        counts[key[1]] = counts.get(key[1], 0) + 1
        rankings = self._rankings
        for name, value in metrics.items():
            moments = groups.get(name)
            if moments is None:
                moments = groups[name] = Moments()
            if value is None or not isfinite(value):
                moments.ignored += 1
                continue
            moments.add(value)
            ranking = rankings.get(name)
            if ranking is None:
                ranking = rankings[name] = Ranking()
            if value < ranking.below or value > ranking.above:
                ranking.add(value, self.rows, measures)
        self.rows += 1

    def add_columns(self, batch: Columns) -> None:
        """The next rows. The figures are what `add` makes of each, but for the last digits."""
        measured = _measured(batch)
        if measured is None:
            for row in batch.rows():
                self.add(measures_of(row))
            return
        phases, containers, metrics = measured
        keys = list(zip(phases, containers, strict=True))
        groups: dict[tuple[str, str], list[int]] = {}
        if keys.count(keys[0]) == len(keys):
            groups[keys[0]] = list(range(len(keys)))
        else:
            for number, key in enumerate(keys):
                groups.setdefault(key, []).append(number)
        for key, numbers in groups.items():
            self._add_group(key, numbers, metrics)
        names = tuple(metrics)
        for name, values in metrics.items():
            for number in _best(self._rankings.setdefault(name, Ranking()), values):
                row = {each: metrics[each][number] for each in names}
                self._rankings[name].add(values[number], self.rows + number, (*keys[number], row))
        self.rows += len(keys)

    def _add_group(self, key: tuple[str, str], numbers: list[int], metrics: Mapping[str, Sequence[float]]) -> None:
        if key not in self._moments and len(self._moments) >= MOST_GROUPS:
            key = key[0], OTHERS
        groups = self._moments.setdefault(key, {})
        counts = self._counts.setdefault(key[0], {})
        counts[key[1]] = counts.get(key[1], 0) + len(numbers)
        pick = itemgetter(*numbers, numbers[0])  # two at least, or it would give no tuple
        for name, values in metrics.items():
            mine = values if len(numbers) == len(values) else pick(values)[:-1]
            groups.setdefault(name, Moments()).merge(Moments.of(mine))

    def phases(self) -> dict[str, dict[str, object]]:
        """{phase: {"count", "metrics": {metric: figures}, "containers": {name: {"count", "metrics"}}}}."""
        return {
            phase: {
                "count": sum(counts.values()),
                "metrics": _figures(self._merged(phase)),
                "containers": {
                    name: {"count": count, "metrics": _figures(self._moments[phase, name])}
                    for name, count in counts.items()
                },
            }
            for phase, counts in self._counts.items()
        }

    def metrics(self) -> dict[str, dict[str, float | int | None]]:
        """{metric: figures} over everything."""
        return _figures(self._merged())

    def averages(self) -> dict[str, float]:
        """{metric: mean}; a metric without a number is left out."""
        return {name: moments.mean for name, moments in self._merged().items() if moments.count}

    def top(self, metric: str, count: int, ascending: bool = False) -> list[dict[str, object]]:
        """The best rows by one metric; rows without it are not there. `index`: which row it was, from 0."""
        ranking = self._rankings.get(metric)
        if ranking is None:
            return []
        return [
            {"phase": row[0], "container": row[1], "metric": metric, "value": value, "index": number, "metrics": row[2]}
            for value, number, row in ranking.best(count, ascending)
        ]

    def best_containers(self, metric: str, count: int, ascending: bool = False) -> list[dict[str, object]]:
        """Containers by their mean of one metric over all phases; earlier ones first among equals."""
        merged: dict[str, Moments] = {}
        for (_, container), groups in self._moments.items():
            if metric in groups and groups[metric].count:
                merged.setdefault(container, Moments()).merge(groups[metric])
        ranked = sorted(merged.items(), key=lambda each: each[1].mean if ascending else -each[1].mean)
        return [{"container": name, "mean": each.mean, "count": each.count} for name, each in ranked[:count]]

    def summary(self, metric: str | None = None, count: int = 10, ascending: bool = False) -> dict[str, object]:
        """Everything at the end of a run. `metric`: what is ranked by; None: the first that a row had."""
        by = metric if metric is not None else next(iter(self._rankings), None)
        return {
            "count": self.rows,
            "phases": self.phases(),
            "ranked_by": by,
            "top_performers": [] if by is None else self.top(by, count, ascending),
            "average_metrics": self.averages(),
            "best_containers": [] if by is None else self.best_containers(by, count, ascending),
        }

    def _merged(self, phase: str | None = None) -> dict[str, Moments]:
        found: dict[str, Moments] = {}
        for key, groups in self._moments.items():
            if phase is None or key[0] == phase:
                for name, moments in groups.items():
                    found.setdefault(name, Moments()).merge(moments)
        return found


def _best(ranking: Ranking, values: Sequence[float]) -> list[int]:
    """Which of the values get into the ranks, earlier ones first among equals, in their order."""
    found: set[int] = set()
    if min(values) < ranking.below:
        found.update(sorted(range(len(values)), key=values.__getitem__)[:MOST_RANKED])
    if max(values) > ranking.above:
        found.update(sorted(range(len(values)), key=values.__getitem__, reverse=True)[:MOST_RANKED])
    return sorted(found)


def _measured(batch: Columns) -> tuple[Sequence[str], Sequence[str], dict[str, Sequence[float]]] | None:
    """(phases, containers, {metric: values}) of the rows; None: they are to be looked at one by one."""
    found = batch
    for name in ("metrics", "result"):
        column = batch.get(name)
        if isinstance(column, Columns):
            inner = column.get("metrics") if name == "result" else None
            if isinstance(inner, tuple) and any(_mapping(each) is not None for each in inner):
                return None
            found = inner if isinstance(inner, Columns) else column
            break
        if column is not None and any(_mapping(each) is not None for each in column):
            return None
    metrics: dict[str, Sequence[float]] = {}
    for name, values in zip(found.names, found.columns, strict=True):
        if isinstance(values, Columns):
            continue
        kinds = frozenset(map(type, values))
        if kinds.isdisjoint(_NUMBERS):
            continue
        if not kinds <= _NUMBERS or type(None) in kinds:
            return None
        if name in _NAMES:
            continue
        floats = _floats(values) if int in kinds else values
        if not floats or not isfinite(sum(floats)) or not isfinite(max(floats) - min(floats)):
            return None
        metrics[name] = floats
    phases, containers = _words(batch, _PHASES), _words(batch, _CONTAINERS)
    return None if phases is None or containers is None or not metrics else (phases, containers, metrics)


def _floats(values: Sequence[float]) -> Sequence[float]:
    """[] where one is too large for it."""
    try:
        return [*map(float, values)]
    except OverflowError:
        return []


def _words(batch: Columns, names: tuple[str, str]) -> Sequence[str] | None:
    """As `_text` of each row; None: they are to be looked at one by one."""
    for name in names:
        values = batch.get(name)
        if isinstance(values, Columns):
            return None
        if values is not None:
            kinds = frozenset(map(type, values))
            return values if kinds == {str} else None if type(None) in kinds else [str(value) for value in values]
    return [""] * batch.count


def measures_of(row: Mapping[str, object]) -> Measures:
    """What a row is counted by.

    Phase and container stand under `phase` or `phase_name`, `container_id` or `container`, else they are "". Metrics
    are the numbers of `row["metrics"]`, else of `row["result"]["metrics"]`, else of `row["result"]`, else of the row
    itself. Words and whole structures are none; None is one that is missing.
    """
    found = _mapping(row.get("metrics"))
    if found is None and (result := _mapping(row.get("result"))) is not None:
        nested = _mapping(result.get("metrics"))
        found = result if nested is None else nested
    return _text(row, _PHASES), _text(row, _CONTAINERS), _numbers((row if found is None else found).items())


def _mapping(value: object) -> Mapping[str, object] | None:
    """The type first: asking an abstract class takes half a microsecond, and this is asked of every row."""
    kind = type(value)
    if kind is dict or (kind is not str and value is not None and isinstance(value, Mapping)):
        return cast("Mapping[str, object]", value)
    return None


def _numbers(items: Iterable[tuple[object, object]]) -> dict[str, float | None]:
    found: dict[str, float | None] = {}
    for name, value in items:
        kind = type(value)
        if kind is float:
            if name not in _NAMES:
                found[str(name)] = value  # type: ignore[assignment]
        elif kind is int:
            if name not in _NAMES:
                found[str(name)] = _float(value)
        elif value is None:
            found[str(name)] = None
        elif kind is not str and kind is not bool and kind is not dict and isinstance(value, Real):
            found[str(name)] = _float(value)
    return found


def _float(value: object) -> float | None:
    try:
        return float(value)  # type: ignore[arg-type]
    except (OverflowError, ValueError, TypeError):
        return None


def _text(row: Mapping[str, object], names: tuple[str, str]) -> str:
    for name in names:
        if (found := row.get(name)) is not None:
            return str(found)
    return ""


def _figures(groups: Mapping[str, Moments]) -> dict[str, dict[str, float | int | None]]:
    return {name: moments.figures() for name, moments in groups.items()}
