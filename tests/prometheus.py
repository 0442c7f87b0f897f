"""A strict reader of Prometheus' text format 0.0.4, and prometheus-client's own beside it where that is installed."""

from __future__ import annotations

import re
from typing import NamedTuple

NAME = re.compile(r"[a-zA-Z_:][a-zA-Z0-9_:]*")
LABEL = re.compile(r'([a-zA-Z_][a-zA-Z0-9_]*)="((?:[^"\\\n]|\\\\|\\"|\\n)*)"(?:,|$)')
LINE = re.compile(r"([a-zA-Z_:][a-zA-Z0-9_:]*)(?:\{(.*)\})? (NaN|[+-]Inf|[+-]?[0-9.eE+-]+)$")
PARTS = ("_bucket", "_sum", "_count")
Key = tuple[str, frozenset[tuple[str, str]]]


class Metric(NamedTuple):
    kind: str
    text: str
    samples: dict[Key, float]


def unescaped(text: str) -> str:
    return re.sub(r"\\(.)", lambda found: {"n": "\n"}.get(found[1], found[1]), text)


def read(text: str) -> dict[str, Metric]:
    """{name: metric}. AssertionError for whatever a scraper or promtool would complain of."""
    assert text.endswith("\n") and not text.startswith("\n") and "\n\n" not in text
    found: dict[str, Metric] = {}
    helps: dict[str, str] = {}
    current = ""
    for line in text[:-1].split("\n"):  # and at nothing else that Python takes for the end of a line
        if line.startswith("# HELP "):
            name, _, told = line[7:].partition(" ")
            assert name not in helps and name not in found, line
            helps[name] = unescaped(told)
        elif line.startswith("# TYPE "):
            name, kind = line[7:].split(" ")
            assert NAME.fullmatch(name) and name not in found and kind in ("counter", "gauge", "histogram"), line
            assert name.endswith("_total") == (kind == "counter"), line
            found[name], current = Metric(kind, helps.get(name, ""), {}), name
        else:
            add(found[current], current, line)
    for name, metric in found.items():
        assert metric.samples, f"{name} has no samples"
        if metric.kind == "histogram":
            check_histogram(name, metric)
    same_by_prometheus(text, found)
    return found


def add(metric: Metric, name: str, line: str) -> None:
    parts = LINE.match(line)
    assert parts, line
    assert parts[1] in ([name + part for part in PARTS] if metric.kind == "histogram" else [name]), line
    inside = parts[2] or ""
    pairs = LABEL.findall(inside)
    assert "".join(f'{label}="{value}",' for label, value in pairs).rstrip(",") == inside.rstrip(","), line
    assert len({label for label, _ in pairs}) == len(pairs), line
    key = parts[1], frozenset((label, unescaped(value)) for label, value in pairs)
    assert key not in metric.samples, f"twice: {line}"
    metric.samples[key] = float(parts[3].replace("Inf", "inf"))


def check_histogram(name: str, metric: Metric) -> None:
    buckets: dict[frozenset[tuple[str, str]], list[tuple[float, float]]] = {}
    for (sample, labels), value in metric.samples.items():
        if sample == f"{name}_bucket":
            end = dict(labels)["le"]
            rest = frozenset(pair for pair in labels if pair[0] != "le")
            buckets.setdefault(rest, []).append((float(end.replace("Inf", "inf")), value))
    for labels, found in buckets.items():
        found.sort()
        assert [count for _, count in found] == sorted(count for _, count in found), name
        assert found[-1] == (float("inf"), metric.samples[f"{name}_count", labels]), name
        assert (f"{name}_sum", labels) in metric.samples, name


def same_by_prometheus(text: str, found: dict[str, Metric]) -> None:
    try:
        from prometheus_client.parser import text_string_to_metric_families
    except ImportError:
        return
    theirs = {
        (sample.name, frozenset(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    ours = {key: value for metric in found.values() for key, value in metric.samples.items()}
    # As text, since nothing equals what is not a number.
    assert {key: str(float(value)) for key, value in theirs.items()} == {key: str(value) for key, value in ours.items()}


def total(found: dict[str, Metric], name: str, **labels: str) -> float:
    """The sum of all samples of a name that have these labels; 0 when there is none."""
    family = found.get(name) or found.get(re.sub(r"_(bucket|sum|count)$", "", name))
    wanted = set(labels.items())
    samples = family.samples.items() if family is not None else ()
    return sum(value for (sample, pairs), value in samples if sample == name and wanted <= pairs)
