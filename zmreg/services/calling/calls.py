"""The owner's side of the hot path: submit, batch, send, take results. No machine is asked on the happy path.

Straight code, measured (design.md section 4): per task one Task, one Entry, one row; the node hears nothing as long as
a lease is at hand. The rules it follows, and their bounds:
- a call leaves at once when its lane is silent; otherwise calls collect and leave together at `BATCH_ROWS` rows,
  `BATCH_BYTES` bytes, when a waiter arrives, or at the next turn of whoever pumps;
- work sent ahead to one worker is about `AHEAD_US` of its measured time, at most `MAX_AHEAD` calls, at least one;
- a task whose unfinished inputs are all queued on one worker rides there behind them (CHAINED).
All methods run under the client's lock. An interrupt may land on the way of a call, and is repaired in retreat.py;
sending is shielded (docs/decisions/0006).
"""

from __future__ import annotations

import threading
from collections import deque
from time import monotonic
from typing import Protocol

from zmreg.core.standstill import Standstill
from zmreg.core.tasks import Death
from zmreg.model.ids import object_id, short
from zmreg.model.messages import Definition, Message, UseDevices
from zmreg.model.specs import Shape
from zmreg.net.waiting import Shield
from zmreg.services.calling.kinds import lets_go
from zmreg.services.calling.manners import DIGEST_BYTES
from zmreg.services.seat.callbacks import Callbacks
from zmreg.services.seat.entries import FAILED, FREED, INLINE, PENDING, STORED, Borrowed, Entry, Stored
from zmreg.telemetry.past import Past
from zmreg.wire import batches

BATCH_ROWS = 64
BATCH_BYTES = 1 << 20
AHEAD_US = 2_000.0
MAX_AHEAD = 256
# Receiving, unpickling and answering: what a call costs its worker beside the function itself.
CALL_COST_US = 5.0
UNKNOWN_US = AHEAD_US + 1

Dep = tuple[int | str, Entry]


class Template:
    """A remote function or method as its owner sends it: computed once, then shared by every call.

    `target` is the definition's digest, with a manner behind it where it has one (manners.py), or a method's name.
    `est_us` is the measured duration (None until known).
    """

    __slots__ = (
        "__weakref__", "blob", "cap", "contained", "est_us", "limit", "max_retries", "name", "nreturns", "pool",
        "retry_exceptions", "shape", "target", "tiny_calls",
    )  # fmt: skip

    def __init__(self, name: str, target: bytes | str, shape: Shape) -> None:
        self.name = name
        self.target = target
        self.blob = b""
        self.shape = shape
        self.contained: tuple[Entry, ...] = ()
        self.nreturns = 1
        """core.streams.STREAMING: as many as come."""
        self.limit = 0
        """Of a generator: items that may lie there untaken; 0 = any number."""
        self.cap = 0
        """The same of all generators of the actor together."""
        self.max_retries = 3
        self.retry_exceptions: bool | tuple[type[BaseException], ...] = False
        self.est_us: float | None = None
        self.tiny_calls = 0
        self.pool: TaskHome | None = None


class Task:
    """One call under way, from submission until its last attempt is decided."""

    __slots__ = (
        "attempt", "cancelled", "counter", "deaths", "deps", "depth", "entries", "est", "grace_s", "lane", "parent",
        "payload", "peer", "pins", "template", "waiting",
    )  # fmt: skip

    def __init__(self, counter: int, template: Template, payload: bytes, depth: int) -> None:
        self.counter = counter
        self.template = template
        self.payload = payload
        self.depth = depth
        self.entries: tuple[Entry, ...] = ()
        self.deps: list[Dep] | None = None
        self.pins: list[Entry] | None = None
        self.attempt = 0
        self.lane: Lane | None = None
        self.peer: TaskHome | None = None
        self.est = UNKNOWN_US
        self.waiting = 0
        self.cancelled = False
        self.grace_s: float | None = None
        self.parent: bytes | None = None
        self.deaths: tuple[Death, ...] = ()

    def row(self) -> batches.Row:
        """The call as it travels. Inputs that are still pending must ride on the same lane."""
        template, deps = self.template, self.deps
        if deps is None and template.nreturns == 1 and not self.attempt and not self.depth:
            return [self.counter, template.target, self.payload]
        rows: list[batches.Row] = []
        for where, entry in deps or ():
            value = entry.value
            if entry.state == INLINE:
                rows.append([where, batches.INLINE, value, 0])
            elif isinstance(value, Stored):
                rows.append([where, batches.STORED, value.object_id, value.nbytes, value.holder])
            elif isinstance(entry, Borrowed):  # lost since the task was placed: the worker says so, and we wait then
                rows.append([where, batches.STORED, entry.object_id, 0, b""])
            else:
                rows.append([where, batches.CHAINED, entry.counter, 0])
        return [self.counter, template.target, self.payload, template.nreturns, self.attempt, self.depth, rows]

    def description(self) -> Task | None:
        """What `ref.retry()` submits again; None for an actor's call. Without the entries: they hold it, and a cycle
        would outlive them."""
        if self.peer is None or not self.peer.is_pool:
            return None
        copy = Task(self.counter, self.template, self.payload, self.depth)
        copy.peer, copy.deps, copy.pins = self.peer, self.deps, self.pins
        return copy

    def inputs(self) -> list[Entry]:
        """The entries it takes values from."""
        return [entry for _, entry in self.deps] if self.deps else []


class TaskHome(Protocol):
    """Where a task waits to be sent, and where it goes back to: a pool, or an actor's peer."""

    is_pool: bool

    def place(self, task: Task) -> None:
        """Inputs are ready: send or queue."""

    def withdraw(self, task: Task) -> bool:
        """Take a queued task out; False if it is not queued here."""

    def refill(self, lane: Lane) -> None:
        """A lane has answered: send it more."""


class Collecting(Protocol):
    """Something is to be said, soon."""

    def flush(self) -> None:
        """Say it."""


class Wires(Protocol):
    """What calls need from their client."""

    me: bytes
    node: bytes
    dirty: set[Collecting]
    callbacks: Callbacks
    lock: threading.RLock
    past: Past

    def post(self, peer: bytes, message: Message) -> bool:
        """Send a message."""

    def send(self, peer: bytes, frame: bytes) -> bool:
        """Send an encoded batch."""

    def shield(self) -> Shield:
        """`with` it: no interrupt lands inside."""

    def request_turn(self) -> None:
        """Have `turn()` run soon."""

    def look_soon(self) -> None:
        """Have the tasks' tick come within milliseconds, once: some calls may stand behind one that is slow."""

    def now(self) -> float:
        """Monotonic seconds."""


class Lane:
    """The way to one worker: what was sent and not answered, and what collects to be sent."""

    __slots__ = (
        "buffer", "buffered_bytes", "closed", "devices", "home", "idle_since", "known", "load", "outstanding", "parked",
        "progress", "recalled", "stealing", "still", "wires", "worker",
    )  # fmt: skip

    def __init__(self, wires: Wires, worker: bytes, home: TaskHome, known: set[bytes]) -> None:
        self.wires = wires
        self.worker = worker
        self.home = home
        self.known = known
        self.outstanding: dict[int, Task] = {}
        self.buffer: list[batches.Row] = []
        self.buffered_bytes = 0
        self.parked: deque[Task] = deque()
        self.load = 0.0
        self.closed = False
        self.devices: tuple[str, ...] | None = None
        """GPUs that the worker has to hear of first. Not said before there is a call: only its answer, or its return,
        shows that this was heard, and whoever has the worker next may say something else by another way."""
        self.recalled = False
        self.stealing = False
        self.progress = Standstill()
        self.still = False
        """Everything unstarted is asked back from it: the call that it is in takes much longer than was expected."""
        self.idle_since = 0.0

    @property
    def roomy(self) -> bool:
        """One more task may be sent ahead."""
        ahead = len(self.outstanding)
        return not ahead or (self.load <= AHEAD_US and ahead < MAX_AHEAD)

    def push(self, task: Task) -> None:
        """Send a task, or let it collect with others while the worker is busy anyway."""
        template = task.template
        target = template.target
        if type(target) is bytes and target not in self.known and (digest := target[:DIGEST_BYTES]) not in self.known:
            with self.wires.shield():
                self.known.add(digest)
                self.wires.post(self.worker, Definition(digest, template.blob))
        silent = len(self.outstanding) == len(self.buffer)
        est = template.est_us
        task.est = UNKNOWN_US if est is None else est
        task.lane = self
        self.buffer.append(task.row())  # first: what is outstanding and not collected has been sent (retreat.py)
        self.outstanding[task.counter] = task
        self.load += task.est
        self.buffered_bytes += len(task.payload)
        if silent or len(self.buffer) >= BATCH_ROWS or self.buffered_bytes >= BATCH_BYTES:
            self.flush()
        else:
            self.wires.dirty.add(self)
            self.wires.request_turn()

    def flush(self) -> None:
        """Send what has collected."""
        if self.buffer:
            with self.wires.shield():
                rows, self.buffer = self.buffer, []
                self.buffered_bytes = 0
                if self.devices is not None:
                    self.wires.post(self.worker, UseDevices(self.devices))
                    self.devices = None
                self.wires.send(self.worker, batches.encode_calls(rows))
                self.wires.past.sent(self.worker, rows, monotonic())

    def abandon(self) -> None:
        """Forget what was sent and what was to be sent."""
        self.outstanding.clear()
        self.parked.clear()
        self.buffer, self.buffered_bytes, self.load = [], 0, 0.0

    def answered(self, counter: int) -> Task | None:
        """Take the task off the lane; None if it is not here (a late or repeated answer)."""
        task = self.outstanding.pop(counter, None)
        if task is not None:
            self.load -= task.est
            task.lane = None
        return task

    def ride(self, task: Task) -> None:
        """Send a task behind its inputs, which this worker makes, when there is room."""
        if self.parked or not self.roomy:
            task.lane = self
            self.parked.append(task)
        else:
            self.push(task)

    def unpark(self) -> None:
        """Send riders for which there is room now. Their inputs may have come in meanwhile: the row is made here."""
        while self.parked and self.roomy:
            task = self.parked.popleft()
            if task.lane is self and not task.cancelled:
                self.push(task)


def riding_lane(task: Task) -> Lane | None:
    """The one lane on which all pending inputs of `task` are queued, if there is one and the task may ride there."""
    lane = None
    for entry in task.inputs():
        if entry.state == PENDING:
            producer = entry.task
            if producer is None or producer.lane is None or producer.counter != entry.counter:
                return None
            if lane is None:
                lane = producer.lane
            elif lane is not producer.lane:
                return None
    if lane is None or lane.home is not task.peer or lane.closed or lane.recalled or not inputs_can_be_ridden(task):
        return None
    return lane


def inputs_can_be_ridden(task: Task) -> bool:
    """The worker keeps only single results for riders, and a failure that its owner retries is no result yet. Nor is
    one there, when the rider's turn comes, of a call that lets others go first."""
    producers = [entry.task for entry in task.inputs() if entry.task is not None]
    return all(
        len(each.entries) == 1 and not each.template.retry_exceptions and not lets_go(each.template.target)
        for each in producers
    )


def describe(task: Task, me: bytes) -> str:
    """`f (task 0000002a)` for messages."""
    return f"{task.template.name} (task {short(object_id(me, task.counter))})"


def first_unusable(task: Task) -> Entry | None:
    """An input that failed or was freed: the task can never run."""
    for entry in task.inputs():
        if entry.state in (FAILED, FREED):
            return entry
    return None


def pending_inputs(task: Task) -> list[Entry]:
    """Inputs that are not there yet, each once."""
    return list({id(entry): entry for entry in task.inputs() if entry.state == PENDING}.values())


__all__ = ["STORED", "Dep", "Lane", "Task", "TaskHome", "Template", "Wires"]
