"""What this process remembers of a call it has made: read out of the ring of past ones, or off the task that lives."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Final

from zmreg.model.ids import node_of, object_id
from zmreg.services.calling.calls import Task
from zmreg.services.calling.obituary import headline
from zmreg.telemetry.facts import Answer, Fact, Facts, latest_of, sent_at, submitted_at
from zmreg.telemetry.past import CANCELLED, DONE, FAILED, Past, Row
from zmreg.wire import batches

if TYPE_CHECKING:
    from zmreg.services.seat.station import Station

# So many numbers are looked at one by one before all living calls are.
_NEAR: Final = 1_000
_FAILURES = (batches.FAILED, batches.REFUSED)


def read(rows: bytes | list[Row]) -> Iterator[Answer]:
    """The answers of a batch that is remembered."""
    if isinstance(rows, bytes):
        rows = batches.decode_rows(rows) if rows else []
    for row in rows:
        yield Answer(row[0], row[1]) if len(row) == batches.SHORT_ROW else _long(row)


def _long(row: Row) -> Answer:
    counter, us, returns, _ = row
    statuses = [each[0] for each in returns]
    if batches.INPUT_LOST in statuses:
        return Answer(counter, us, "")
    if batches.CANCELLED in statuses:
        return Answer(counter, us, CANCELLED, len(returns))
    for status, data, *_ in returns:
        if status in _FAILURES:
            return Answer(counter, us, FAILED, len(returns), headline(data))
    return Answer(counter, us, DONE, len(returns))


def facts_of(past: Past) -> Facts:
    """All that is remembered, expanded once as long as nothing new comes. Of a copy, not under the lock: it is slow."""
    found: Facts | None = past.folds.get(past.noted)
    if found is None:
        found = Facts(past, read)
        past.folds.clear()
        past.folds[past.noted] = found
    return found


def latest_facts(past: Past, most: int) -> Facts:
    """Of a copy, too: the latest that are remembered, `most` of them or somewhat more. Nothing before them is expanded,
    so that who looks on every two seconds is no load on a process that is busy."""
    return facts_of(past) if most >= past.count or past.noted in past.folds else Facts(past.tail(most), read)


def task_of(seat: Station, counter: int) -> Task | None:
    """The living call that makes the value with this number. Takes the client's lock for what is short."""
    with seat.lock:
        live = seat.tasks.live
        for number in range(counter, counter - _NEAR, -1):  # one of several values has a number behind its call's
            task = live.get(number)
            if task is not None:
                return task if counter < max(number + 1, number + len(task.entries)) else None
        tasks = list(live.values()) if counter >= _NEAR else []
    far = (each for each in tasks if each.counter <= counter < each.counter + len(each.entries))
    return next(far, None)


def fact_of(past: Past, counter: int) -> Fact | None:
    """How the call ended that has made the value with this number; None when that is forgotten, or it lives. Of a copy,
    as `facts_of`."""
    if past.noted not in past.folds:
        packed = batches.pack_plain(counter)

        def wanted(rows: bytes | list[Row]) -> bool:
            return packed in rows if isinstance(rows, bytes) else any(row[0] == counter for row in rows)

        found = latest_of(past, counter, read, wanted)
        if found is not None:
            return found
    return facts_of(past).latest.get(counter)


def info(seat: Station, counter: int) -> dict[str, Any] | None:
    """What is known of the call behind one of our values, plain: times are ages in seconds (None: not known, or not
    yet). None when there is no such call, or it is forgotten. Holds the client's lock only for what is short."""
    now = time.monotonic()
    task = task_of(seat, counter)
    with seat.lock:
        if task is not None and seat.tasks.live.get(task.counter) is task:
            return living(seat, task, now)
        past = seat.past.copy()
    fact = fact_of(past, counter)
    if fact is None:
        return None
    run_s = fact.run_us * 1e-6
    return {
        "TaskID": object_id(seat.me, fact.counter).hex(), "Name": fact.name, "State": fact.state,
        "OwnerID": seat.me.hex(), **_place(fact.worker), "Attempts": fact.attempt + 1,
        "Submitted": _age(fact.submitted, now), "Sent": _age(fact.sent, now),
        "Started": now - fact.answered + run_s if fact.worker else None, "Completed": now - fact.answered,
        "RunSeconds": run_s if fact.worker else None, "WaitSeconds": fact.waited_s, "Error": fact.error,
    }  # fmt: skip


def living(seat: Station, task: Task, now: float) -> dict[str, Any]:
    """As `info`, of a call that is not over. Under the client's lock."""
    lane = task.lane
    sent = lane is not None and task.counter in lane.outstanding
    worker = lane.worker if lane is not None and sent else b""
    state = "sent" if sent else "waiting" if task.waiting else "queued"
    return {
        "TaskID": object_id(seat.me, task.counter).hex(), "Name": task.template.name, "State": state,
        "OwnerID": seat.me.hex(), **_place(worker), "Attempts": task.attempt + sent,
        "Submitted": _age(submitted_at(seat.past, task.counter), now),
        "Sent": _age(sent_at(seat.past, task.counter, worker), now) if sent else None,
        "Started": None, "Completed": None, "RunSeconds": None, "WaitSeconds": None, "Error": "",
    }  # fmt: skip


def _place(worker: bytes) -> dict[str, str]:
    return {"WorkerID": worker.hex(), "NodeID": node_of(worker).hex() if worker else ""}


def _age(at: float | None, now: float) -> float | None:
    return None if at is None else now - at


def story(seat: Station, found: dict[str, Any]) -> list[list[Any]]:
    """[age in seconds, text] of all that is remembered of one of our calls, in order. `found`: its `info`."""
    now = time.monotonic()
    with seat.lock:
        words = list(seat.past.words)
    number = int(found["TaskID"][16:], 16)
    lines: list[list[Any]] = []
    if found["Submitted"] is not None:
        lines.append([found["Submitted"], f"{found['Name']} submitted by {seat.me.hex()}"])
    lines += [[now - each.at, f"attempt {each.attempt + 1}: {each.text}"] for each in words
              if each.counter == number]  # fmt: skip
    where = f"worker {found['WorkerID']} of node {found['NodeID']}"
    if found["Sent"] is not None:
        lines.append([found["Sent"], f"attempt {max(1, found['Attempts'])}: sent to {where}"])
    if found["Started"] is not None:
        ran = f"it ran {found['RunSeconds']:.6f} s"
        lines.append([found["Started"], f"begun there (reckoned back from the answer: {ran})"])
    if found["Completed"] is not None:
        lines.append([found["Completed"], found["State"] + (f": {found['Error']}" if found["Error"] else "")])
    return sorted(lines, key=lambda line: -line[0])


def under_way(seat: Station) -> dict[str, list[str]]:
    """{worker id: ids of our calls that are with it and not answered}. Under the client's lock."""
    lanes = [lane for lane in seat.tasks.lanes.values() if lane.outstanding]
    return {lane.worker.hex(): [object_id(seat.me, counter).hex() for counter in lane.outstanding] for lane in lanes}
