"""Metrics as text, in Prometheus' exposition format 0.0.4, and as plain containers for JSON."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from itertools import accumulate
from typing import Any, Final

from zmreg.telemetry.families import Family, Value

CONTENT_TYPE: Final = "text/plain; version=0.0.4; charset=utf-8"


def text(families: Iterable[Family]) -> str:
    """All of them, each under its HELP and TYPE. Ends with a line feed."""
    lines: list[str] = []
    for family in families:
        if family.text:
            lines.append(f"# HELP {family.name} {_escaped(family.text)}")
        lines.append(f"# TYPE {family.name} {family.kind}")
        for labels in sorted(family.series):
            pairs = [f'{name}="{_quoted(value)}"' for name, value in zip(family.labels, labels, strict=True)]
            for suffix, extra, value in _samples(family, family.series[labels]):
                inside = ",".join([*pairs, *extra])
                lines.append(
                    f"{family.name}{suffix}{{{inside}}} {value}" if inside else f"{family.name}{suffix} {value}"
                )
    return "\n".join([*lines, ""])


def _samples(family: Family, value: Value) -> Iterator[tuple[str, list[str], str]]:
    """(what follows the name, labels beside the series' own, value) of each line."""
    if not isinstance(value, tuple):
        yield "", [], number(value)
        return
    *counts, total = value
    for bound, count in zip([*map(number, family.bounds), "+Inf"], accumulate(counts), strict=True):
        yield "_bucket", [f'le="{bound}"'], number(count)
    yield "_sum", [], number(total)
    yield "_count", [], number(sum(counts))


def number(value: float) -> str:
    """As Go reads it, whole ones without a point."""
    if math.isfinite(value):
        return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
    return "NaN" if math.isnan(value) else "+Inf" if value > 0 else "-Inf"


def _escaped(line: str) -> str:
    return line.replace("\\", "\\\\").replace("\n", "\\n")


def _quoted(label: str) -> str:
    return _escaped(label).replace('"', '\\"')


def plain(families: Iterable[Family]) -> list[dict[str, Any]]:
    """One dict a family: name, type, help, samples; a histogram's sample has `buckets` (upper end to how many are below
    it), `sum` and `count`. What is no number in JSON is text: "NaN", "+Inf"."""
    found = []
    for family in families:
        samples: list[dict[str, Any]] = []
        for labels in sorted(family.series):
            value = family.series[labels]
            sample: dict[str, Any] = {"labels": dict(zip(family.labels, labels, strict=True))}
            if isinstance(value, tuple):
                *counts, total = value
                ends = [*map(number, family.bounds), "+Inf"]
                sample["buckets"] = dict(zip(ends, map(int, accumulate(counts)), strict=True))
                sample |= {"sum": _jsonable(total), "count": int(sum(counts))}
            else:
                sample["value"] = _jsonable(value)
            samples.append(sample)
        found.append({"name": family.name, "type": family.kind, "help": family.text, "samples": samples})
    return found


def _jsonable(value: float) -> float | str:
    return value if math.isfinite(value) else number(value)
