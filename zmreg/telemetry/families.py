"""Metrics as they are told from process to process: a family is a name, what it counts, and a series for each set of
label values. How several processes' are put together is said here; nobody here has a clock or a lock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from zmreg.model.record import Record

COUNTER: Final = "counter"
GAUGE: Final = "gauge"
HISTOGRAM: Final = "histogram"
KINDS: Final = frozenset({COUNTER, GAUGE, HISTOGRAM})
SUM: Final = "sum"
LAST: Final = "last"
ACROSS: Final = (SUM, "max", "min", LAST)
"""What a node makes of the gauges of its processes."""

# What belongs to zmreg itself.
OWN: Final = "zmreg_"
# A label's value in characters, a description, labels of a name, boundaries: each is said for every series, or stored
# for ever by whoever scrapes.
VALUE_LENGTH: Final = 200
TEXT_LENGTH: Final = 500
MOST_LABELS: Final = 10
MOST_BOUNDS: Final = 100
NAME_LENGTH: Final = 200

Labels = tuple[str, ...]
"""The values of a family's labels, in their order."""
Value = float | tuple[float, ...]
"""A histogram's: how many fell into each bucket, one more than there are boundaries, and the sum of what was seen."""


class Family(Record):
    """All series of one name. Values of counters and histograms are totals since their process began."""

    name: str
    kind: str
    text: str = ""
    labels: tuple[str, ...] = ()
    bounds: tuple[float, ...] = ()
    """Upper ends of a histogram's buckets, ascending; the last bucket has none."""
    across: str = SUM
    whole: bool = False
    """Of the cluster, and not of a node: the same whichever node tells it."""
    series: Mapping[Labels, Value] = {}

    def same_as(self, other: Family) -> bool:
        """Whether their series can stand side by side."""
        return (self.kind, self.labels, self.bounds) == (other.kind, other.labels, other.bounds)

    def as_row(self) -> list[Any]:
        """Plain containers, as they travel."""
        series = [[list(labels), value] for labels, value in self.series.items()]
        return [self.name, self.kind, self.text, self.labels, self.bounds, self.across, self.whole, series]


def check_name(name: object) -> str:
    """The name. Raises TypeError, ValueError."""
    if not isinstance(name, str):
        raise TypeError(f"the name of a metric is text, not {type(name).__name__}")
    if not _is_word(name.replace(":", "_")):
        raise ValueError(f"{name!r} is no name of a metric: letters, digits, _ and :, not beginning with a digit")
    return name


def _is_word(text: str) -> bool:
    return text.isascii() and text.isidentifier() and len(text) <= NAME_LENGTH


def check_labels(labels: Sequence[object]) -> tuple[str, ...]:
    """The names of labels. Raises TypeError, ValueError."""
    found = []
    for label in labels:
        if not isinstance(label, str):
            raise TypeError(f"the name of a tag is text, not {type(label).__name__}")
        if not _is_word(label) or label.startswith("__") or label == "le":
            raise ValueError(f"{label!r} is no name of a tag: letters, digits and _, not 'le', not beginning with __")
        found.append(label)
    if len(set(found)) < len(found) or len(found) > MOST_LABELS:
        raise ValueError(f"tags {', '.join(found)}: each once, and {MOST_LABELS} at most")
    return tuple(found)


def check_bounds(bounds: Sequence[float]) -> tuple[float, ...]:
    """Boundaries of buckets. Raises TypeError, ValueError."""
    found = tuple(float(bound) for bound in bounds)
    if not all(math.isfinite(bound) for bound in found) or any(a >= b for a, b in zip(found, found[1:], strict=False)):
        raise ValueError(f"boundaries {list(found)} have to be finite, and each above the one before")
    if not 0 < len(found) <= MOST_BOUNDS:
        raise ValueError(f"a histogram has from 1 to {MOST_BOUNDS} boundaries, not {len(found)}")
    return found


def clean(value: str) -> str:
    """A label's value as it can be told: no longer than 200 characters, and of such as have a code."""
    short = value if len(value) <= VALUE_LENGTH else value[: VALUE_LENGTH - 1] + "…"
    return short if short.isascii() else short.encode("utf-8", "replace").decode("utf-8")


# -- read --------------------------------------------------------------------------------------------------------------


def read(rows: object) -> list[Family]:
    """Families from plain containers that somebody sent. ValueError when they are none."""
    if not isinstance(rows, list | tuple):
        raise ValueError("families come in a list")
    return [_family(row) for row in rows]


def _family(row: object) -> Family:
    if not isinstance(row, list | tuple) or len(row) != 8:
        raise ValueError("a family has eight fields")
    name, kind, text, labels, bounds, across, whole, series = row
    try:
        names = check_labels(labels)
        ends = check_bounds(bounds) if kind == HISTOGRAM else ()
        found = {_labels(values, len(names)): _value(value, kind, len(ends)) for values, value in series}
        check_name(name)
    except TypeError as error:
        raise ValueError(f"no family: {error}") from None
    if kind not in KINDS or across not in ACROSS or not isinstance(text, str):
        raise ValueError(f"family {name!r} is of no kind that is known")
    return Family(name, kind, text[:TEXT_LENGTH], names, ends, across, whole is True, found)


def _labels(values: Any, count: int) -> Labels:
    found = tuple(values)
    if len(found) != count or not all(isinstance(value, str) and len(value) <= VALUE_LENGTH for value in found):
        raise ValueError("a series has a short text for each of its labels")
    return found


def _value(value: Any, kind: str, bounds: int) -> Value:
    if kind != HISTOGRAM:
        return float(value)
    found = tuple(float(each) for each in value)
    if len(found) != bounds + 2:
        raise ValueError("a histogram has a count for each bucket, and a sum")
    return found


# -- put together ------------------------------------------------------------------------------------------------------


def dropped_values(series: Mapping[Labels, Value]) -> Family:
    """The family that says what was not taken, {(metric,): how many values}."""
    text = "Values of metrics that were not taken: too many series, or of another kind than before."
    return Family(f"{OWN}metrics_dropped_total", COUNTER, text, ("metric",), series=series)


def plus(one: Value, other: Value) -> Value:
    """Two values of one kind, added."""
    if isinstance(one, tuple) and isinstance(other, tuple):
        return tuple(map(sum, zip(one, other, strict=True)))
    assert isinstance(one, float) and isinstance(other, float)
    return one + other


def added(families: Iterable[Family]) -> dict[str, Family]:
    """Those of one name as one, each series the sum of theirs. One that is unlike the first of its name is left out."""
    found: dict[str, Family] = {}
    series: dict[str, dict[Labels, Value]] = {}
    for family in families:
        first = found.setdefault(family.name, family)
        if first.same_as(family):
            into = series.setdefault(family.name, {})
            for labels, value in family.series.items():
                into[labels] = plus(into[labels], value) if labels in into else value
    return {name: family.but(series=series[name]) for name, family in found.items()}


def told_by_nodes(told: Mapping[str, Iterable[Family]]) -> list[Family]:
    """{node: its families} as those of a cluster, by name: series have the label `node`, but for what is the cluster's.

    A label of a user's with that name becomes `exported_node`, as Prometheus has it. What one node calls a counter and
    another a gauge is told as by the first.
    """
    found: dict[str, Family] = {}
    series: dict[str, dict[Labels, Value]] = {}
    for node, families in told.items():
        for family in families:
            head: Labels = () if family.whole else (node,)
            labels = family.labels if family.whole else ("node", *_beside_node(family.labels))
            shown = family.but(labels=labels, series={})
            if found.setdefault(family.name, shown).same_as(shown):
                into = series.setdefault(family.name, {})
                into.update({(*head, *values): value for values, value in family.series.items()})
    return [found[name].but(series=series[name]) for name in sorted(found)]


def _beside_node(labels: tuple[str, ...]) -> tuple[str, ...]:
    return tuple("exported_node" if label == "node" else label for label in labels)
