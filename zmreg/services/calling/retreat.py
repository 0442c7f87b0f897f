"""Ctrl-C in the midst of a submission: what was sent is whole, what was not is as if it had never been.

Submitting a call takes 2.3 us, and a shield around it would take another 1.3. So an interrupt may land there, after any
function that is called on the way, and what it leaves is found out here (docs/decisions/0006). Two things make that
possible: sending is shielded, and a row is collected before its task is outstanding.
"""

from __future__ import annotations

from itertools import takewhile

from zmreg.services.calling.calls import Lane, Task
from zmreg.services.seat.client import Client


def interrupted(client: Client, first: int) -> None:
    """Take back what was not sent of the calls numbered from `first` on, which the submission has made. Under the lock.

    `first` is the next number at its beginning; nobody else takes one meanwhile.
    """
    with client.shield():
        tasks = client.tasks
        for counter in list(takewhile(lambda each: each >= first, reversed(tasks.live))):
            task = tasks.live[counter]
            if task.lane is not None and not _off_lane(task.lane, task):
                continue
            if task.peer is not None:
                task.peer.withdraw(task)
            tasks.end(task)
        client.request_turn()
        client.pump.wake()  # the wish for a turn may have been noted before, and the wake-up missed


def _off_lane(lane: Lane, task: Task) -> bool:
    """Take a task off its lane, which it may have reached by half; False if it was sent."""
    counter = task.counter
    collected = [row for row in lane.buffer if row[0] != counter]
    if len(collected) == len(lane.buffer) and counter in lane.outstanding:
        return False
    lane.outstanding.pop(counter, None)
    if task in lane.parked:
        lane.parked.remove(task)
    lane.buffer = collected
    lane.buffered_bytes = sum(len(row[2]) for row in collected)
    lane.load = sum((each.est for each in lane.outstanding.values()), 0.0)
    if collected:
        lane.wires.dirty.add(lane)
    task.lane = None
    return True
