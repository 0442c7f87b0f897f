"""What is known of calls, while they are under way and afterwards: call_info, story, why, timeline, summary."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any, Final

from zmreg.api.refs import ObjectRef
from zmreg.model.record import Record
from zmreg.services.calling import history
from zmreg.services.seat.asking import asker, chain, made_by, place_of
from zmreg.services.seat.client import Client
from zmreg.services.seat.seats import client
from zmreg.services.seat.timelines import Gathered, gather
from zmreg.services.seat.timelines import summary as summary_of
from zmreg.services.seat.timelines import trace as trace_of

# Longer than a node gives its processes to answer (services/node/looks.py).
_ANSWER_S: Final = 5.0


class CallInfo(Record):
    """What is known of a call. Times are Unix seconds by its owner's clock, None where not known (yet)."""

    task_id: str
    name: str
    """The function, or CLASS.METHOD."""
    state: str
    """waiting (for inputs), queued, sent (to a worker), done, failed or cancelled."""
    owner_id: str
    """The process that has made the call."""
    worker_id: str
    """Where it ran, or is: `zmreg logs` shows what was printed there. Empty when it was not sent."""
    node_id: str
    attempts: int
    submitted: float | None
    """At the latest: calls that leave together have one time."""
    started: float | None
    """Reckoned back from `completed`: a worker's clock may be another."""
    completed: float | None
    run_s: float | None
    """How long it ran; measured by its worker."""
    wait_s: float | None
    """From `submitted` to `completed`, measured by its owner, less `run_s`: for inputs, for a worker, behind other
    calls, and on the way."""
    error: str
    """In one line."""


def call_info(ref: ObjectRef[Any]) -> CallInfo | None:
    """What is known of the call that makes, or has made, this value. Never waits for it; fetches nothing.

    None for a value that was put, and for a call that is forgotten: each process remembers its latest 10,000 calls. Of
    another process's call that one is asked, for some seconds at most.
    """
    seat = client()
    found = _told(seat, ref)
    return None if found is None else _info(found["Info"])


def story(ref: ObjectRef[Any]) -> list[tuple[float, str]]:
    """What has happened to the call behind a value so far: (Unix time by its owner's clock, text), in order."""
    found = _told(client(), ref)
    now = time.time()
    return [] if found is None else [(now - age, text) for age, text in found["Story"]]


def _ref(ref: ObjectRef[Any]) -> ObjectRef[Any]:
    if not isinstance(ref, ObjectRef):
        raise TypeError(f"this is about a ref, and not about {type(ref).__name__}: {ref!r:.80}")
    return ref


def _told(seat: Client, ref: ObjectRef[Any]) -> dict[str, Any] | None:
    entry = _ref(ref)._entry
    if entry.owner != seat.me:
        return made_by(asker(seat, _ANSWER_S), ref.hex())
    seat.is_done(entry)
    info = history.info(seat, entry.counter)
    return None if info is None else {"Info": info, "Story": history.story(seat, info)}


def _info(row: dict[str, Any]) -> CallInfo:
    now = time.time()
    submitted, started, completed = (
        None if row[name] is None else now - row[name] for name in ("Submitted", "Started", "Completed")
    )
    return CallInfo(
        row["TaskID"], row["Name"], row["State"], row["OwnerID"], row["WorkerID"], row["NodeID"], row["Attempts"],
        submitted, started, completed, row["RunSeconds"], row["WaitSeconds"], row["Error"],
    )  # fmt: skip


def why(ref: ObjectRef[Any]) -> str:
    """Why a value is not there: what its call waits for, what that waits for, and so on, a line for each; then what has
    happened to the call so far. The processes in question are asked, for some seconds each at most."""
    seat = client()
    seat.look_at(_ref(ref)._entry)
    ask = asker(seat, _ANSWER_S)
    lines = chain(ask, seat.ask("nodes"), ref.hex())
    told = [f"  {time.strftime('%H:%M:%S', time.localtime(at))} {text}" for at, text in story(ref)]
    return "\n".join([*lines, *(["so far:", *told] if told else [])])


def call_stack(ref: ObjectRef[Any]) -> list[tuple[str, int, str]]:
    """Where the call behind a value is at this moment: (file, line, function), innermost first. Empty when it does not
    run, or its worker does not answer. Of an actor with several calls at a time it is the main thread's."""
    seat = client()
    info = call_info(ref)
    if info is None or info.state != "sent":
        return []
    return [
        (file, line, function)
        for file, line, function in place_of(asker(seat, _ANSWER_S), info.task_id, info.worker_id)
    ]


def processing() -> dict[str, list[str]]:
    """{worker id: ids of this process's calls that are with it and not answered}, in the order they were sent."""
    seat = client()
    with seat.shield(), seat.lock:
        seat.flush()
        return history.under_way(seat)


def timeline(filename: str | Path | None = None) -> list[dict[str, Any]] | None:
    """The calls of the whole cluster that are over, the latest 10,000 of each process, as Chrome trace events.

    With `filename` they are written there, for chrome://tracing or ui.perfetto.dev, and nothing is returned. When a
    call began is reckoned back from its answer.
    """
    document = trace_of(_gathered())
    if filename is None:
        events: list[dict[str, Any]] = document["traceEvents"]
        return events
    Path(filename).write_text(json.dumps(document))
    return None


def summary() -> list[dict[str, Any]]:
    """Of the same calls a row for each function: how many, how many failed, how long they ran and waited."""
    return summary_of(_gathered())


def _gathered() -> Gathered:
    seat = client()
    nodes = [row["NodeID"] for row in seat.ask("nodes") if row["Alive"]]
    return gather(asker(seat, _ANSWER_S), nodes)
