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
from collections.abc import Callable
from typing import Protocol

from zmreg.core.tasks import Death
from zmreg.model.ids import node_of, object_id, short
from zmreg.model.messages import Definition, LeaseReturned, Message, Steal, WantLeases
from zmreg.model.specs import Shape
from zmreg.net.waiting import Shield
from zmreg.services.callbacks import Callbacks
from zmreg.services.entries import FAILED, FREED, INLINE, PENDING, STORED, Entry, Stored
from zmreg.wire import batches

BATCH_ROWS = 64
BATCH_BYTES = 1 << 20
AHEAD_US = 2_000.0
MAX_AHEAD = 256
# Receiving, unpickling and answering: what a call costs its worker beside the function itself.
CALL_COST_US = 5.0
UNKNOWN_US = AHEAD_US + 1
LEASE_IDLE_S = 1.0

Dep = tuple[int | str, Entry]


class Template:
    """A remote function or method as its owner sends it: computed once, then shared by every call.

    `target` is the definition's digest, or a method's name. `est_us` is the measured duration (None until known).
    """

    __slots__ = (
        "__weakref__", "blob", "contained", "est_us", "max_retries", "name", "nreturns", "pool", "retry_exceptions",
        "shape", "target", "tiny_calls",
    )  # fmt: skip

    def __init__(self, name: str, target: bytes | str, shape: Shape) -> None:
        self.name = name
        self.target = target
        self.blob = b""
        self.shape = shape
        self.contained: tuple[Entry, ...] = ()
        self.nreturns = 1
        self.max_retries = 3
        self.retry_exceptions: bool | tuple[type[BaseException], ...] = False
        self.est_us: float | None = None
        self.tiny_calls = 0
        self.pool: Pool | None = None


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
            else:
                rows.append([where, batches.CHAINED, entry.counter, 0])
        return [self.counter, template.target, self.payload, template.nreturns, self.attempt, self.depth, rows]

    def description(self) -> Task | None:
        """What `ref.retry()` submits again; None for an actor's call. Without the entries: they hold it, and a cycle
        would outlive them."""
        if not isinstance(self.peer, Pool):
            return None
        copy = Task(self.counter, self.template, self.payload, self.depth)
        copy.peer, copy.deps, copy.pins = self.peer, self.deps, self.pins
        return copy

    def inputs(self) -> list[Entry]:
        """The entries it takes values from."""
        return [entry for _, entry in self.deps] if self.deps else []


class TaskHome(Protocol):
    """Where a task waits to be sent, and where it goes back to: a pool, or an actor's peer."""

    def place(self, task: Task) -> None:
        """Inputs are ready: send or queue."""

    def withdraw(self, task: Task) -> bool:
        """Take a queued task out; False if it is not queued here."""

    def refill(self, lane: Lane) -> None:
        """A lane has answered: send it more."""


class Wires(Protocol):
    """What calls need from their client."""

    me: bytes
    node: bytes
    dirty: set[Lane]
    callbacks: Callbacks
    lock: threading.RLock

    def post(self, peer: bytes, message: Message) -> bool:
        """Send a message."""

    def send(self, peer: bytes, frame: bytes) -> bool:
        """Send an encoded batch."""

    def shield(self) -> Shield:
        """`with` it: no interrupt lands inside."""

    def request_turn(self) -> None:
        """Have `turn()` run soon."""

    def now(self) -> float:
        """Monotonic seconds."""


class Lane:
    """The way to one worker: what was sent and not answered, and what collects to be sent."""

    __slots__ = (
        "buffer", "buffered_bytes", "closed", "home", "idle_since", "known", "load", "outstanding", "parked",
        "recalled", "stealing", "wires", "worker",
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
        self.recalled = False
        self.stealing = False
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
        if type(target) is bytes and target not in self.known:
            with self.wires.shield():
                self.known.add(target)
                self.wires.post(self.worker, Definition(target, template.blob))
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
                self.wires.send(self.worker, batches.encode_calls(rows))

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


class Pool:
    """The tasks of one resource shape and the leased workers that run them."""

    def __init__(self, wires: Wires, shape: Shape, restart: Callable[[Task], None]) -> None:
        """`restart(task)` looks at a task's inputs again and places it anew."""
        self.wires = wires
        self.shape = shape
        self.queue: deque[Task] = deque()
        self.lanes: list[Lane] = []
        self.told = 0
        """Leases that our own node was told we would use; `far`: the same for other nodes."""
        self.far: dict[bytes, int] = {}
        self._restart = restart

    def place(self, task: Task) -> None:
        """Send to the lane with the least work ahead, or queue and ask the node for leases."""
        if not self.queue:
            best = None
            for lane in self.lanes:
                if lane.roomy and not lane.closed and not lane.recalled and (best is None or lane.load < best.load):
                    best = lane
            if best is not None:
                best.push(task)
                return
        self.queue.append(task)
        self.ask(task.depth)

    def ask(self, depth: int) -> None:
        """Tell the node how many leases would be used; again only when that has doubled."""
        want = self.held_at(self.wires.node) + len(self.queue)
        if want > self.told:
            with self.wires.shield():
                self.tell(1 << (want - 1).bit_length(), depth)

    def withdraw(self, task: Task) -> bool:
        """Take a queued task out."""
        try:
            self.queue.remove(task)
        except ValueError:
            return False
        return True

    def granted(self, lane: Lane) -> None:
        """The node lends a worker."""
        lane.idle_since = self.wires.now()
        self.lanes.append(lane)
        self.refill(lane)

    def refill(self, lane: Lane) -> None:
        """Keep the right amount of work ahead of this lane."""
        if lane.recalled:
            if not lane.outstanding:
                self.give_back(lane)
            return
        if lane.closed:
            return
        if lane.parked:
            lane.unpark()
        queue = self.queue
        while queue and lane.roomy:
            lane.push(queue.popleft())
        if not queue:
            self.lower()
            if not lane.outstanding:
                lane.idle_since = self.wires.now()
                self._steal_for(lane)

    def tell(self, level: int, depth: int = 0) -> None:
        """State the level anew."""
        self.told = level
        self.wires.post(self.wires.node, WantLeases(self.shape.resources, self.shape.locs, level, depth))

    def held_at(self, node: bytes) -> int:
        """Leases of workers of that node."""
        if not self.far:  # all are our own node's
            return len(self.lanes) if node == self.wires.node else 0
        return sum(node_of(lane.worker) == node for lane in self.lanes)

    def try_nodes(self, nodes: tuple[bytes, ...], counts: tuple[int, ...]) -> None:
        """Other nodes have room for what waits here: ask them."""
        left = len(self.queue)
        for node, room in zip(nodes, counts, strict=True):
            level = self.held_at(node) + min(left, room)
            if left > 0 and level > self.far.get(node, 0):
                self._tell_far(node, level, self.queue[0].depth)
            left -= room

    def _tell_far(self, node: bytes, level: int, depth: int = 0) -> None:
        self.far[node] = level
        self.wires.post(node, WantLeases(self.shape.resources, self.shape.locs, level, depth))

    def node_gone(self, node: bytes) -> None:
        """Nothing more is to be had there."""
        self.far.pop(node, None)

    def _steal_for(self, idle: Lane) -> None:
        """Have the busiest worker give back half of what it has not started."""
        busiest = None
        for lane in self.lanes:
            ahead = len(lane.outstanding) - 1
            if ahead > 0 and not lane.stealing and lane is not idle and (busiest is None or lane.load > busiest.load):
                busiest = lane
        if busiest is not None and busiest.load > AHEAD_US / 4:
            busiest.stealing = True
            busiest.flush()
            self.wires.post(busiest.worker, Steal((len(busiest.outstanding)) // 2))

    def gave_back(self, lane: Lane, counters: tuple[int, ...], blocked: bool) -> None:
        """The worker has not started these and never will. A blocked worker is sent nothing until it answers."""
        lane.stealing = False
        tasks = [task for counter in counters if (task := lane.answered(counter)) is not None]
        # Its words may cross: a worker that has answered everything does not wait any more, and no answer is to come.
        lane.closed = blocked and bool(lane.outstanding)
        if blocked:
            tasks += lane.parked
            lane.parked.clear()
        for task in tasks:
            self._restart(task)
        if not blocked:
            self.refill(lane)

    def lost(self, lane: Lane) -> list[Task]:
        """The worker is gone. Returns what it had, in sending order; what was only parked is placed anew."""
        if lane in self.lanes:
            self.lanes.remove(lane)
        parked, lane.parked = lane.parked, deque()
        tasks = list(lane.outstanding.values())
        lane.outstanding.clear()
        for task in tasks:
            task.lane = None
        for task in parked:
            task.lane = None
            self._restart(task)
        self.lower()
        return tasks

    def give_back(self, lane: Lane) -> None:
        """Return a lease that has nothing outstanding; harmless when that was done already."""
        if lane not in self.lanes:
            return
        self.lanes.remove(lane)
        parked, lane.parked = lane.parked, deque()
        self.lower()
        self.wires.post(node_of(lane.worker), LeaseReturned(lane.worker))
        for task in parked:
            task.lane = None
            self._restart(task)

    def lower(self) -> None:
        """Nothing is queued: want no more leases than there are. Said before a lease goes back, or it would return."""
        if self.queue:
            return
        held = self.held_at(self.wires.node)
        if self.told > held:
            self.tell(held)
        for node, told in list(self.far.items()):
            held = self.held_at(node)
            if told > held:
                self._tell_far(node, held)
            if not held:
                del self.far[node]

    def recall(self, worker: bytes) -> None:
        """The node wants this lease back: nothing more is sent, and what was not started comes home."""
        for lane in self.lanes:
            if lane.worker == worker:
                lane.recalled = True
                if lane.outstanding:
                    lane.flush()
                    self.wires.post(worker, Steal(len(lane.outstanding)))
                else:
                    self.give_back(lane)
                return

    def tick(self, now: float, idle_s: float = LEASE_IDLE_S) -> None:
        """Return leases that nobody used for `idle_s` seconds."""
        for lane in list(self.lanes):
            if not lane.outstanding and not lane.parked and not self.queue and now - lane.idle_since >= idle_s:
                self.give_back(lane)


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
    """The worker keeps only single results for riders, and a failure that its owner retries is no result yet."""
    producers = [entry.task for entry in task.inputs() if entry.task is not None]
    return all(len(each.entries) == 1 and not each.template.retry_exceptions for each in producers)


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


__all__ = ["STORED", "Dep", "Lane", "Pool", "Task", "TaskHome", "Template", "Wires"]
