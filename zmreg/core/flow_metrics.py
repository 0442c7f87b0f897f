"""What the stages of a pipeline have done, in numbers: counts that are exact, times in a histogram of fixed size."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

from zmreg.model.record import Record

# 1 us to 1,000 s in steps of 2 ** (1/4): 120 counters, and a quantile that is off by 9 % at most.
_STEPS: Final = 120
BOUNDS_S: Final = tuple(1e-6 * 2 ** (step / 4) for step in range(_STEPS))
QUANTILES: Final = (0.5, 0.95, 0.99)


class Times:
    """Durations in seconds. One that was measured may stand for `weight` others of its kind."""

    __slots__ = ("buckets", "count", "max_s", "min_s", "total_s")

    def __init__(self) -> None:
        self.buckets = [0] * (_STEPS + 1)
        self.count = 0
        self.total_s = self.max_s = 0.0
        self.min_s = float("inf")

    def took(self, seconds: float, weight: int = 1) -> None:
        self.buckets[bisect_left(BOUNDS_S, seconds)] += weight
        self.count += weight
        self.total_s += seconds * weight
        if seconds < self.min_s:
            self.min_s = seconds
        if seconds > self.max_s:
            self.max_s = seconds

    def summary(self) -> TimesSummary:
        """What was seen so far."""
        least = self.min_s if self.count else 0.0
        return TimesSummary(self.count, self.total_s, least, self.max_s, tuple(self.buckets))


class TimesSummary(Record):
    """Times, frozen. `count` may be above what was measured: quick items are measured by sample."""

    count: int = 0
    total_s: float = 0.0
    min_s: float = 0.0
    max_s: float = 0.0
    buckets: tuple[int, ...] = (0,) * (_STEPS + 1)

    @property
    def avg_s(self) -> float:
        """0 when there is none."""
        return self.total_s / self.count if self.count else 0.0

    def quantile(self, part: float) -> float:
        """Seconds under which `part` of them stayed, 9 % at most too much; never above the longest."""
        left = part * self.count
        for bound, many in zip((*BOUNDS_S, self.max_s), self.buckets, strict=True):
            left -= many
            if many and left <= 0:
                return max(self.min_s, min(bound, self.max_s))
        return self.max_s

    def merged(self, other: TimesSummary) -> TimesSummary:
        """Both together."""
        if not self.count or not other.count:
            return self if self.count else other
        buckets = tuple(map(sum, zip(self.buckets, other.buckets, strict=True)))
        return TimesSummary(
            self.count + other.count, self.total_s + other.total_s, min(self.min_s, other.min_s),
            max(self.max_s, other.max_s), buckets,
        )  # fmt: skip


class StageMetrics(Record):
    """One stage, all its lanes together. An item that came in is given out, filtered, skipped, a dead letter, or ended
    the run; a generator makes as many as it likes of each."""

    stage: str
    items_in: int = 0
    items_out: int = 0
    filtered: int = 0
    """None that was dropped, and items of which a generator made nothing."""
    skipped: int = 0
    dead_letters: int = 0
    errors: int = 0
    """What it raised, tries that were repeated among them."""
    retries: int = 0
    times: TimesSummary = TimesSummary()
    """Of the stage's own code, for each item; of a stage over the stream, for each of its outputs."""
    lanes: int = 1
    depth: int = 0
    """Items that wait before it, now; 0 within a process."""
    blocked_s: float = 0.0
    """How long it waited for those after it to take what it had made."""
    nbytes: int = 0
    """Sent to it from other processes."""
    peak_rss: int = 0
    """Bytes of the largest process that ran it, with all else in that."""

    def merged(self, other: StageMetrics) -> StageMetrics:
        """Two lanes of it as one stage."""
        added = {name: getattr(self, name) + getattr(other, name) for name in _ADDED}
        peak = max(self.peak_rss, other.peak_rss)
        return self.but(times=self.times.merged(other.times), peak_rss=peak, **added)

    def as_dict(self) -> dict[str, object]:
        """What goes into JSON; times in milliseconds."""
        names = ("stage", *_ADDED, "peak_rss")
        times = self.times
        ms = {"avg": times.avg_s, "min": times.min_s, "max": times.max_s}
        ms |= {f"p{round(part * 100)}": times.quantile(part) for part in QUANTILES}
        return {name: getattr(self, name) for name in names} | {"ms": {key: at * 1e3 for key, at in ms.items()}}


_ADDED: Final = ("items_in", "items_out", "filtered", "skipped", "dead_letters", "errors", "retries", "lanes", "depth",
                 "blocked_s", "nbytes")  # fmt: skip
_COUNTERS: Final = ("items_in", "items_out", "filtered", "skipped", "dead_letters", "errors", "retries")


class PipelineMetrics(Record):
    """All stages of a run, in the order in which items pass them."""

    stages: tuple[StageMetrics, ...]

    def __getitem__(self, stage: str) -> StageMetrics:
        """KeyError with the stages there are."""
        for one in self.stages:
            if one.stage == stage:
                return one
        raise KeyError(f"no stage {stage!r}; there are {', '.join(repr(one.stage) for one in self.stages)}")

    @property
    def bottleneck(self) -> str:
        """The stage that the others wait for: the one at work the longest, each lane counted. "" before the first."""
        busiest = max(self.stages, key=lambda one: one.times.total_s / max(1, one.lanes), default=None)
        return busiest.stage if busiest is not None and busiest.times.count else ""

    def to_json(self) -> str:
        """One object: {"bottleneck": name, "stages": [...]}, times in milliseconds."""
        import json  # late: few ask for it

        return json.dumps({"bottleneck": self.bottleneck, "stages": [one.as_dict() for one in self.stages]})

    def to_prometheus(self) -> str:
        """Text exposition format 0.0.4, each metric labelled with its stage."""
        lines: list[str] = []
        for name in _COUNTERS:
            lines += _metric(f"zmreg_pipeline_{name}_total", "counter", self.stages, name)
        for name in ("depth", "blocked_s", "nbytes", "peak_rss", "lanes"):
            lines += _metric(f"zmreg_pipeline_{name.replace('_s', '_seconds')}", "gauge", self.stages, name)
        lines.append("# TYPE zmreg_pipeline_item_seconds summary")
        for one in self.stages:
            label = _label(one.stage)
            for part in QUANTILES:
                at = one.times.quantile(part)
                lines.append(f'zmreg_pipeline_item_seconds{{stage="{label}",quantile="{part}"}} {at!r}')
            lines.append(f'zmreg_pipeline_item_seconds_sum{{stage="{label}"}} {one.times.total_s!r}')
            lines.append(f'zmreg_pipeline_item_seconds_count{{stage="{label}"}} {one.times.count}')
        return "\n".join([*lines, ""])


def _metric(name: str, kind: str, stages: Iterable[StageMetrics], field: str) -> list[str]:
    return [f"# TYPE {name} {kind}"] + [
        f'{name}{{stage="{_label(one.stage)}"}} {getattr(one, field)!r}' for one in stages
    ]


def _label(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
