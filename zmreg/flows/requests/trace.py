"""What can be told of a request: folds over its events. Nobody is asked, and nothing here can slow a run.

A `Trace` hears the events of one run (`model.graph_events`), in the order in which they were said, and can tell at any
moment. It keeps the handles to all values: who does not want intermediate results keeps no trace. Times in events are
seconds of the caller's clock; what comes out is in milliseconds, or in seconds since the run began, as the names say.
"""

from __future__ import annotations

import reprlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final, cast

from zmreg.core.graph_run import StepState
from zmreg.core.graphs import Plan
from zmreg.model.graph_events import (
    LevelDone,
    RunDone,
    RunEvent,
    StepCancelled,
    StepFailed,
    StepFinished,
    StepQueued,
    StepStarted,
)
from zmreg.model.record import Record

NOTHING: Final = "No intermediate results available."
# A level is slow that takes so much longer than the average one.
_SLOW: Final = 1.5
_SHOWN_STEPS: Final = 10

_short = reprlib.Repr()
_short.maxstring = _short.maxother = 50


class Held(Record):
    """A value that stays where it was made. `ref`: the handle to it."""

    ref: Any
    type_name: str
    nbytes: int

    def __repr__(self) -> str:
        return f"<{self.type_name or 'value'} of {self.nbytes} bytes, not fetched>"


class Results(Mapping[str, Any]):
    """{step: value}. A value that stayed where it was made is fetched when it is asked for, each time anew, and only
    then may it raise ObjectLostError."""

    __slots__ = ("_values",)

    def __init__(self, values: Mapping[str, object]) -> None:
        self._values = values

    def __getitem__(self, step: str) -> Any:
        value = self._values[step]
        return value.ref.get() if isinstance(value, Held) else value

    def ref(self, step: str) -> Any:
        """The handle to a value that stayed where it was made; None for one that is here."""
        value = self._values[step]
        return value.ref if isinstance(value, Held) else None

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __repr__(self) -> str:
        return repr(self._values)


class LevelRecord(Record):
    """A level is whole: a snapshot, which later steps do not change. `timestamp`: Unix seconds."""

    request_id: str
    levels: tuple[Mapping[str, object], ...]
    """{step: value} of this level and of all before it."""
    total_levels: int
    timestamp: float
    execution_time_ms: float
    """From the first start of a step of this level to the last end of one."""

    @property
    def level_index(self) -> int:
        return len(self.levels) - 1

    @property
    def completed_levels(self) -> int:
        return len(self.levels)

    @property
    def level_results(self) -> Results:
        """{step: value} of this level alone."""
        return Results(self.levels[-1])

    @property
    def accumulated_results(self) -> Results:
        """{step: value} of this level and of all before it."""
        return Results({step: value for level in self.levels for step, value in level.items()})

    @property
    def is_final_level(self) -> bool:
        return self.completed_levels == self.total_levels

    @property
    def progress_percentage(self) -> float:
        return 100.0 * self.completed_levels / self.total_levels if self.total_levels else 100.0

    def __repr__(self) -> str:
        place = f"level {self.level_index} of {self.total_levels}"
        return (
            f"<LevelRecord {self.request_id} [{place}, {self.execution_time_ms:.1f} ms: {', '.join(self.levels[-1])}]>"
        )


class ExecutionSummary(Record):
    """Where the time of a run went. Levels that are not whole do not count."""

    total_execution_time_ms: float
    total_levels: int
    level_execution_times: list[float]
    """ms, by level."""
    bottleneck_level_index: int | None
    """The slowest level, the first of equals; None when none is whole."""
    bottleneck_time_ms: float
    average_level_time_ms: float
    parallel_commands_executed: int
    """Steps that are done."""
    cross_node_hops: int
    """References between steps that ran on different nodes."""
    slow_levels: list[int]
    """Those that took over 1.5 times the average."""
    parallel_efficiency: float
    """Time of all steps over the time of the run: 1 is one after the other, n is n at a time."""


class Past(Record):
    """What there was when a request failed, for its error to carry."""

    intermediate_results: tuple[LevelRecord, ...]
    partial: Results
    """{step: value} of what is done beyond the levels that are whole."""
    step: str
    node: str
    level_index: int | None
    """The level of the step that failed; None when none did."""


class Span:
    """What one step did, and when. Times in seconds of the events' clock; None: it has not."""

    __slots__ = ("attempt", "ended", "error", "nbytes", "node", "queued", "started", "state", "value")

    def __init__(self) -> None:
        self.state = StepState.WAITING
        self.node = ""
        self.queued: float | None = None
        self.started: float | None = None
        self.ended: float | None = None
        self.value: object = None
        self.error: object = None
        self.nbytes = 0
        self.attempt = 0

    @property
    def began(self) -> float:
        """When it started, as far as that was said. Of a step that was queued."""
        at = self.started if self.started is not None else self.queued
        assert at is not None
        return at

    @property
    def seconds(self) -> float:
        """How long it ran; 0 until it has ended."""
        return self.ended - self.began if self.ended is not None and self.queued is not None else 0.0


class Trace:
    """See the module. `unix_offset_s`: what makes Unix seconds of the events' time."""

    def __init__(self, plan: Plan, request_id: str = "", unix_offset_s: float = 0.0) -> None:
        self.plan = plan
        self.request_id = request_id
        self.unix_offset_s = unix_offset_s
        self.records: list[LevelRecord] = []
        self.spans = {name: Span() for name in plan.steps}
        self.began: float | None = None
        self.ended: float | None = None
        self._failed = ""

    def __repr__(self) -> str:
        return f"<Trace {self.request_id} [{len(self.records)} of {len(self.plan.levels)} levels]>"

    def hear(self, event: RunEvent) -> LevelRecord | None:
        """The next event; the record of a level when it makes one whole."""
        if self.began is None:
            self.began = event.time
        if isinstance(event, LevelDone):
            return self._level(event)
        if isinstance(event, RunDone):
            self.ended = event.time
            return None
        span = self.spans[event.step]
        match event:
            case StepQueued():
                span.state, span.queued, span.attempt = StepState.QUEUED, event.time, event.attempt
                span.started, span.node = None, ""  # it may have been lost with its node
            case StepStarted():
                span.state, span.started, span.node = StepState.RUNNING, event.time, event.node
            case StepFinished():
                span.state, span.ended, span.node = StepState.DONE, event.time, event.node or span.node
                span.value, span.nbytes = event.value, event.nbytes
            case StepFailed():
                span.state, span.ended, span.node = StepState.FAILED, event.time, event.node or span.node
                span.error = event.error
                self._failed = self._failed or event.step
            case StepCancelled():
                span.state, span.ended = StepState.CANCELLED, event.time
        return None

    def hear_all(self, events: Iterable[RunEvent]) -> list[LevelRecord]:
        """All of them, in order; the records of the levels that became whole."""
        heard = map(self.hear, events)
        return [record for record in heard if record is not None]

    def amend(self, step: str, value: object) -> None:
        """What records have of a step led to this, and is this from now on."""
        self.spans[step].value = value
        level = self.plan.depth[step]
        if level < len(self.records):  # all later records have the same dict
            cast("dict[str, object]", self.records[level].levels[level])[step] = value

    def _level(self, event: LevelDone) -> LevelRecord:
        names = self.plan.levels[event.level]
        before = self.records[-1].levels if self.records else ()
        record = LevelRecord(
            self.request_id,
            (*before, {name: self.spans[name].value for name in names}),
            len(self.plan.levels),
            event.time + self.unix_offset_s,
            self._level_ms(names),
        )
        self.records.append(record)
        return record

    def _level_ms(self, names: Sequence[str]) -> float:
        spans = [self.spans[name] for name in names]
        return 1000 * (max(span.ended or 0.0 for span in spans) - min(span.began for span in spans))

    # -- in numbers ---------------------------------------------------------------------------------------------------

    @property
    def wall_s(self) -> float:
        """From the first event to the end; to the last thing that ended while there is no end."""
        if self.began is None:
            return 0.0
        ends = [span.ended for span in self.spans.values() if span.ended is not None]
        end = self.ended if self.ended is not None else max(ends, default=self.began)
        return end - self.began

    def summary(self) -> ExecutionSummary:
        """Where the time went."""
        times = [record.execution_time_ms for record in self.records]
        average = sum(times) / len(times) if times else 0.0
        slowest = max(times, default=0.0)
        done = [span for span in self.spans.values() if span.state is StepState.DONE]
        return ExecutionSummary(
            total_execution_time_ms=1000 * self.wall_s,
            total_levels=len(self.plan.levels),
            level_execution_times=times,
            bottleneck_level_index=times.index(slowest) if times else None,
            bottleneck_time_ms=slowest,
            average_level_time_ms=average,
            parallel_commands_executed=len(done),
            cross_node_hops=sum(self._hops(name) for name in self.plan.steps),
            slow_levels=[index for index, ms in enumerate(times) if ms > _SLOW * average],
            parallel_efficiency=sum(span.seconds for span in done) / self.wall_s if self.wall_s else 0.0,
        )

    def _hops(self, step: str) -> int:
        here = self.spans[step].node
        nodes = (self.spans[name].node for name in self.plan.deps[step])
        return sum(bool(here and node and node != here) for node in nodes)

    def bottlenecks(self) -> dict[str, Any]:
        """The slowest level and steps, and `critical_path`: the chain of steps that decided when the run ended."""
        summary = self.summary()
        ended = [name for name, span in self.spans.items() if span.ended is not None and span.queued is not None]
        slowest = sorted(ended, key=lambda name: -self.spans[name].seconds)[:_SHOWN_STEPS]
        return {
            "bottleneck_level_index": summary.bottleneck_level_index,
            "bottleneck_time_ms": summary.bottleneck_time_ms,
            "average_level_time_ms": summary.average_level_time_ms,
            "slow_levels": summary.slow_levels,
            "slowest_steps": [
                {"step": name, "ms": 1000 * self.spans[name].seconds, "node": self.spans[name].node} for name in slowest
            ],
            "critical_path": self._critical_path(ended),
        }

    def _critical_path(self, ended: Sequence[str]) -> list[str]:
        path: list[str] = []
        among = ended
        while among:
            path.append(max(among, key=lambda name: self.spans[name].ended or 0.0))
            among = self.plan.deps[path[-1]]
        return path[::-1]

    # -- in words -----------------------------------------------------------------------------------------------------

    def report(self) -> str:
        """Each level that is whole, with its time and its values, cut at 50 characters."""
        if not self.records:
            return NOTHING
        total = len(self.plan.levels)
        lines = [f"Request {self.request_id}: {len(self.records)} of {total} levels in {1000 * self.wall_s:.1f} ms"]
        for record in self.records:
            ms, percent = record.execution_time_ms, record.progress_percentage
            lines.append(f"Level {record.level_index} ({ms:.1f} ms, {percent:.0f} %)")
            lines += [f"  {step} = {_cut(value)}" for step, value in record.levels[-1].items()]
        return "\n".join(lines)

    def dependency_trace(self) -> list[dict[str, Any]]:
        """Of each level that is whole: which steps it added and from what, how many there are, who could go on."""
        return [
            {
                "level_index": record.level_index,
                "new_results": list(record.levels[-1]),
                "inputs": {step: self.plan.places(step) for step in record.levels[-1]},
                "available": list(record.accumulated_results),
                "count": len(record.accumulated_results),
                "newly_resolved": list(next(iter(self.plan.levels[record.completed_levels :]), ())),
            }
            for record in self.records
        ]

    def past(self) -> Past:
        """What there is now, for the error of a request that failed."""
        whole = len(self.records)
        done = {
            name: span.value
            for name, span in self.spans.items()
            if span.state is StepState.DONE and self.plan.depth[name] >= whole
        }
        failed = self._failed
        return Past(
            tuple(self.records),
            Results(done),
            failed,
            self.spans[failed].node if failed else "",
            self.plan.depth.get(failed),
        )

    # -- as pictures --------------------------------------------------------------------------------------------------

    def states(self) -> dict[str, str]:
        """{step: its state}, for a drawing of the graph."""
        return {name: span.state.value for name, span in self.spans.items()}

    def timeline(self) -> list[dict[str, Any]]:
        """One row for each step that was queued, by that time. Seconds since the run began; None: it has not."""
        zero = self.began or 0.0
        rows: list[dict[str, Any]] = []
        for name, span in self.spans.items():
            if span.queued is not None:
                times = {"queued_s": span.queued, "started_s": span.started, "ended_s": span.ended}
                since = {key: None if at is None else at - zero for key, at in times.items()}
                facts = {"node": span.node, "state": span.state.value, "nbytes": span.nbytes, "attempt": span.attempt}
                rows.append({"step": name, "fun": self.plan.steps[name].fun, **since, **facts})
        return sorted(rows, key=lambda row: row["queued_s"])

    def chrome_trace(self) -> list[dict[str, Any]]:
        """Events for chrome://tracing and Perfetto: a process for each node, in it a row for each step at a time."""
        ended = [name for name, span in self.spans.items() if span.ended is not None and span.queued is not None]
        ended.sort(key=lambda name: self.spans[name].began)
        pids = {node: number for number, node in enumerate(sorted({self.spans[name].node for name in ended}), 1)}
        events: list[dict[str, Any]] = [
            {"name": "process_name", "ph": "M", "pid": pid, "tid": 0, "args": {"name": node or "unknown node"}}
            for node, pid in pids.items()
        ]
        free_at: dict[str, list[float]] = {node: [] for node in pids}  # by row: when its last step ended
        for name in ended:
            span = self.spans[name]
            rows = free_at[span.node]
            row = next((row for row, at in enumerate(rows) if at <= span.began), len(rows))
            rows[row : row + 1] = [span.ended or 0.0]
            args = {
                "fun": self.plan.steps[name].fun, "state": span.state.value, "nbytes": span.nbytes,
                "waited_ms": 1000 * (span.began - (span.queued or 0.0)), "inputs": self.plan.places(name),
            }  # fmt: skip
            events.append({
                "name": name, "cat": "step", "ph": "X", "pid": pids[span.node], "tid": row,
                "ts": 1e6 * (span.began + self.unix_offset_s), "dur": 1e6 * span.seconds, "args": args,
            })  # fmt: skip
        return events


def _cut(value: object) -> str:
    text = _short.repr(value)
    return text if len(text) <= 50 else f"{text[:47]}..."
