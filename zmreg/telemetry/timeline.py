"""Folds over the calls of many processes: a timeline for trace viewers, and counts by function.

When a call began is not known: its worker has another clock. It is reckoned back from the answer, on the owner's clock.
Answers that came together were made one after the other, as far as there was time for that since the ones before.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Final

from zmreg.model.ids import NODE_BYTES, object_id
from zmreg.model.record import Record
from zmreg.telemetry.facts import Fact
from zmreg.telemetry.past import DONE

_US: Final = 1e-6
_NODE_HEX: Final = 2 * NODE_BYTES


class Owned(Record):
    """The calls of one process that are over. Times are seconds of whatever clock the reader has."""

    owner: bytes
    facts: list[Fact]


class Span(Record):
    """When and where one attempt ran. `start` and `end` in seconds."""

    owner: bytes
    fact: Fact
    start: float
    end: float


def spans(owned: Iterable[Owned]) -> list[Span]:
    """What has run, by the time of its begin."""
    found: list[Span] = []
    for each in owned:
        by_worker: dict[bytes, list[Fact]] = {}
        for fact in each.facts:
            if fact.worker and fact.sent is not None or fact.run_us:
                by_worker.setdefault(fact.worker, []).append(fact)
        for facts in by_worker.values():
            found += _laid(each.owner, facts)
    return sorted(found, key=lambda span: span.start)


def _laid(owner: bytes, facts: list[Fact]) -> Iterator[Span]:
    """One owner's calls at one worker, in the order of the answers."""
    before = float("-inf")
    for batch in _together(facts):
        at = batch[0].answered
        in_turn = sum(fact.run_us for fact in batch) * _US <= at - before
        end = at
        for fact in reversed(batch):
            start = end - fact.run_us * _US
            yield Span(owner, fact, start, end)
            end = start if in_turn else at
        before = at


def _together(facts: list[Fact]) -> Iterator[list[Fact]]:
    batch: list[Fact] = []
    for fact in facts:
        if batch and fact.answered != batch[0].answered:
            yield batch
            batch = []
        batch.append(fact)
    if batch:
        yield batch


def chrome_trace(owned: Iterable[Owned], names: Mapping[str, str]) -> dict[str, Any]:
    """The Trace Event Format that chrome://tracing and Perfetto read: a process a node, a thread a worker, microseconds
    since the first event. What runs side by side in one worker is shown in several rows.

    `names`: of processes by their ids in hex, as far as they are known.
    """
    all_spans = spans(owned)
    origin = min((span.start for span in all_spans), default=0.0)
    nodes: dict[str, int] = {}
    rows: dict[str, list[tuple[int, float]]] = {}
    events: list[dict[str, Any]] = []
    threads = 0
    for span in all_spans:
        worker = span.fact.worker.hex()
        node = nodes.setdefault(worker[:_NODE_HEX], len(nodes) + 1)
        lanes = rows.setdefault(worker, [])
        # Half a microsecond: times are sums of whole ones.
        place = next((index for index, (_, end) in enumerate(lanes) if end <= span.start + 0.5 * _US), len(lanes))
        if place == len(lanes):
            threads += 1
            lanes.append((threads, span.end))
            label = names.get(worker) or f"worker {worker[_NODE_HEX:]}"
            events.append(_meta("thread_name", node, threads, label if not place else f"{label} ({place + 1})"))
        thread = lanes[place][0]
        lanes[place] = thread, span.end
        events.append(_event(span, origin, node, thread))
    heads = [_meta("process_name", number, 0, f"node {prefix}") for prefix, number in nodes.items()]
    return {"traceEvents": heads + events, "displayTimeUnit": "ms"}


def _meta(what: str, process: int, thread: int, name: str) -> dict[str, Any]:
    return {"ph": "M", "name": what, "pid": process, "tid": thread, "args": {"name": name}}


def _event(span: Span, origin: float, process: int, thread: int) -> dict[str, Any]:
    fact = span.fact
    details: dict[str, Any] = {
        "task": object_id(span.owner, fact.counter).hex(), "state": fact.state, "attempt": fact.attempt,
        "owner": span.owner.hex(),
    }  # fmt: skip
    if fact.waited_s is not None:
        details["waited_ms"] = round(fact.waited_s * 1e3, 3)
    if fact.error:
        details["error"] = fact.error
    event = {
        "ph": "X", "name": fact.name, "cat": fact.state, "pid": process, "tid": thread,
        "ts": round((span.start - origin) / _US, 3), "dur": max(1, fact.run_us), "args": details,
    }  # fmt: skip
    if fact.state != DONE:
        event["cname"] = "terrible"
    return event


def counts(owned: Iterable[Owned]) -> list[dict[str, Any]]:
    """A row for each function, the one that ran longest in sum first. Times in seconds. Of a call that was tried again,
    the last attempt counts, and the others are `Retries`."""
    rows: dict[str, dict[str, Any]] = {}
    for each in owned:
        last = {fact.counter: fact for fact in each.facts}
        for fact in each.facts:
            row = rows.get(fact.name)
            if row is None:
                row = rows[fact.name] = {
                    "Name": fact.name, "Calls": 0, "Failed": 0, "Cancelled": 0, "Retries": 0, "TotalSeconds": 0.0,
                    "MeanSeconds": 0.0, "MaxSeconds": 0.0, "Waited": [0, 0.0],
                }  # fmt: skip
            if last[fact.counter] is not fact:
                row["Retries"] += 1
                continue
            row["Calls"] += 1
            row["Failed"] += fact.state == "failed"
            row["Cancelled"] += fact.state == "cancelled"
            row["TotalSeconds"] += fact.run_us * _US
            row["MaxSeconds"] = max(row["MaxSeconds"], fact.run_us * _US)
            if fact.waited_s is not None:
                row["Waited"] = [row["Waited"][0] + 1, row["Waited"][1] + fact.waited_s]
    for row in rows.values():
        row["MeanSeconds"] = row["TotalSeconds"] / max(1, row["Calls"])
        known, waited = row.pop("Waited")
        row["MeanWaitSeconds"] = waited / known if known else None
    return sorted(rows.values(), key=lambda row: -row["TotalSeconds"])
