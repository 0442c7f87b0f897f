"""What reaches a worker while user code runs or not: calls, definitions, steals, cancellations; and its answers.

All of it runs on whatever thread pumps, beside the main thread, which takes calls from the inbox. Both ends of the
inbox are touched by atomic deque operations only; the main thread takes from the left, steals from the right.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from zmreg.model.ask_messages import WhoseCalls
from zmreg.model.ids import ProcessId, object_id
from zmreg.model.lodging_messages import Evict, Lodge
from zmreg.model.messages import (
    CancelCall,
    Construct,
    DeadlockProbe,
    Definition,
    Exit,
    GaveBack,
    NodeGone,
    Prefetch,
    ProcessDied,
    RetireActor,
    RunHere,
    Steal,
    TidyUp,
    UseDevices,
)
from zmreg.model.stream_messages import StreamClosed, StreamCredit
from zmreg.net.waiting import Waiter
from zmreg.services.calling.peers import Peer
from zmreg.services.machine import accelerators
from zmreg.services.node.deadlocks import Deadlocks
from zmreg.services.node.spoken import tell_callers
from zmreg.services.seat.client import Client
from zmreg.services.seat.station import Handler
from zmreg.services.worker import execute
from zmreg.services.worker.graces import Graces
from zmreg.services.worker.hosting import Host
from zmreg.services.worker.interrupts import WorkerInterrupts
from zmreg.services.worker.tidying import tidy_up
from zmreg.services.worker.yielding import Yielding
from zmreg.wire import batches

if TYPE_CHECKING:
    from zmreg.services.worker.lodging import Lodgers

ANSWER_ROWS = 64
# A tombstone of a call that was over before it was cancelled is never used up.
_TOMBSTONES = 10_000

Item = tuple[bytes, batches.Row]

_perf = time.perf_counter


class Intake(Client):
    """The receiving and answering side of a worker."""

    signals_kind: type[WorkerInterrupts] = WorkerInterrupts
    lodgers: Lodgers | None = None
    """Who else lives in this process."""

    def __init__(self, session: Path, me: ProcessId, node: ProcessId) -> None:
        self.inbox: deque[Item] = deque()
        self.out: deque[Item] = deque()
        self.idle = Waiter()
        self.signals = self.signals_kind()
        super().__init__(session, me, node, self.signals)
        self.blobs: dict[bytes, bytes] = {}
        self.unknown: dict[bytes, list[Item]] = {}
        self.cancelled: set[bytes] = set()
        self.graces = Graces(self)
        self.host: Host | None = None
        self.construct: Construct | None = None
        self._constructs = False
        self.ending = False
        self.moving = False
        """It ends here because the actor that it is goes on elsewhere."""
        self.heirless = False
        """The whole cluster ends: nothing is left to anybody."""
        self.blocked = False
        self.devices: tuple[str, ...] = ()
        """Ids of the GPUs that belong to what runs here."""
        self.by_hand = 0
        """Number of the call that waits in the inbox to be run by this worker inside a wait
        (services/worker/helping.py)."""
        self._first_ready = 0.0
        self._answering = threading.Lock()
        self.rest: Callable[[], None] = self.pump.touch
        """Behind answers: whoever has run the calls receives the next ones, and the I/O thread rests meanwhile. Hosts
        that run calls on other threads than the one that receives have it do nothing."""
        self.deadlocks = Deadlocks(self)
        self.yielding = Yielding(self)
        self.handlers |= {
            Definition: self._on_definition,
            Steal: self._on_steal,
            CancelCall: self._on_cancel,
            Construct: self._on_construct,
            RetireActor: lambda _, m: self._on_retire(m.moves),
            Exit: lambda _, m: self._on_exit(m.last),
            UseDevices: lambda _, m: self._on_devices(m.devices),
            DeadlockProbe: self.deadlocks.on_probe,
            StreamCredit: self.yielding.on_credit,
            StreamClosed: self.yielding.on_closed,
            RunHere: self._on_run_here,
            Lodge: self._on_lodging,
            Evict: self._on_lodging,
            TidyUp: lambda _, m: tidy_up(),
            WhoseCalls: partial(tell_callers, self),
            ProcessDied: self._on_death(self.handlers[ProcessDied]),
            NodeGone: self._on_death(self.handlers[NodeGone]),
        }

    # -- what arrives (on whatever thread pumps) ----------------------------------------------------------------------

    def _on_death(self, hear: Handler) -> Handler:
        """What runs here for the dead has nobody to give to."""

        def heard(sender: bytes, message: ProcessDied | NodeGone) -> None:
            hear(sender, message)
            self.yielding.on_death(message)

        return heard

    def on_calls(self, sender: bytes, rows: list[batches.Row]) -> None:
        """Queue calls; on a worker that waits inside a task, give back what could run elsewhere."""
        host = self.host
        if host is not None and host.takes(sender, rows):
            return
        inbox = self.inbox
        queued = self.idle.done  # the main thread runs something
        for row in rows:
            if queued and len(row) > batches.SHORT_ROW and row[6]:
                self._fetch_inputs(row)
            inbox.append((sender, row))
            queued = True
        if self.blocked and host is None:
            with self.lock:
                self.give_back_unstarted()
        self.idle.finish()

    def _fetch_inputs(self, row: batches.Row) -> None:
        """Inputs of a call that waits here come meanwhile: the worker does not stand still for them when it runs."""
        for dep in row[6]:
            if dep[1] == batches.STORED and dep[4] not in (b"", self.node):
                self.tell_node(Prefetch(*dep[2:]))

    def _on_definition(self, sender: bytes, message: Definition) -> None:
        self.blobs[message.digest] = message.blob
        waiting = self.unknown.pop(message.digest, None)
        if waiting:
            self.inbox.extendleft(reversed(waiting))
            self.idle.finish()

    def _on_steal(self, sender: bytes, message: Steal) -> None:
        self.post(sender, GaveBack(self._take_back(sender, message.count, message.riders), False))

    def _take_back(self, sender: bytes, count: int, riders: bool = False) -> tuple[int, ...]:
        """Unstarted calls of `sender`, newest first. Those that ride on an input of this worker stay, unless `riders`;
        so does the one that we are about to run by hand."""
        stay: list[Item] = []
        taken: list[int] = []
        inbox = self.inbox
        by_hand = self.by_hand if sender == self.me else 0
        while len(taken) < count:
            try:
                item = inbox.pop()
            except IndexError:
                break
            if item[0] != sender or item[1][0] == by_hand or (rides(item[1]) and not riders):
                stay.append(item)
            else:
                taken.append(item[1][0])
        if stay:
            inbox.extend(reversed(stay))
            self.idle.finish()  # the main thread may have found nothing meanwhile
        return tuple(reversed(taken))

    def give_back_unstarted(self) -> None:
        """Riders too: what they ride on may go elsewhere now, or be what the call that waits waits for."""
        for sender in {item[0] for item in list(self.inbox)}:
            counters = self._take_back(sender, len(self.inbox), riders=True)
            if counters:
                self.post(sender, GaveBack(counters, True))

    def _on_cancel(self, sender: bytes, message: CancelCall) -> None:
        task_id = object_id(sender, message.counter)
        if message.recursive:
            for task in list(self.tasks.live.values()):
                if task.parent == task_id and task.entries:
                    grace_s = None if isinstance(task.peer, Peer) else message.grace_s
                    self.tasks.cancel(task.entries[0], False, True, grace_s)
        if self.host is not None and self.host.cancel(task_id):
            self.yielding.cancelled(task_id)
            return
        # The tombstone comes first: a call that is not in the inbox may be loading its arguments, or waiting for its
        # definition, and looks here when it begins.
        if len(self.cancelled) >= _TOMBSTONES:
            self.cancelled.clear()
        self.cancelled.add(task_id)
        if self.host is not None or message.grace_s is not None:  # any other parked one is interrupted
            self.yielding.cancelled(task_id)
        if self.signals.executing == task_id:
            if self.host is None:
                self.graces.cut(task_id, message.force, message.grace_s)
            return
        for item in list(self.inbox):
            if item[0] == sender and item[1][0] == message.counter:
                try:
                    self.inbox.remove(item)
                except ValueError:  # the main thread took it in between
                    return
                self.cancelled.discard(task_id)
                self._answer(sender, [message.counter, 0, [execute.CANCELLED_ROW], ()])
                self.answer_now()
                return

    def _on_run_here(self, sender: bytes, message: RunHere) -> None:
        from zmreg.services.worker.running_here import run_here  # late: few workers are ever asked

        run_here(self, sender, message)

    def _on_lodging(self, _sender: bytes, message: Lodge | Evict) -> None:
        from zmreg.services.worker import lodging  # late: few share their process

        lodging.hear(self, message)

    def drop_call(self, caller: bytes, counter: int) -> None:
        """Cancel a call, at once."""
        self._on_cancel(caller, CancelCall(counter, False, True, None))

    def has_unfinished(self, caller: bytes, counter: int) -> bool:
        """Whether a call of `caller` is queued or running here, on the one thread that runs calls one by one."""
        task_id = object_id(caller, counter)
        if self.host is not None and self.host.holds(task_id):
            return True
        if self.signals.executing == task_id:
            return True
        return any(item[0] == caller and item[1][0] == counter for item in list(self.inbox))

    def _on_construct(self, _sender: bytes, message: Construct) -> None:
        if self._constructs:  # one actor for life; the next head cannot know whether the last one has said it
            return
        self._constructs = True
        self.construct = message
        self.idle.finish()

    def _end_when_idle(self) -> None:
        self.ending = self.host is None or not self.host.releasing.puts_off_end()
        self.idle.finish()
        if self.host is not None:
            self.host.end_when_idle()

    def _on_devices(self, devices: tuple[str, ...]) -> None:
        """What comes behind this on the same way, and is not even unpickled yet, has these."""
        self.devices = devices
        if self.lodgers is None:
            accelerators.expose(devices)
        else:
            self.lodgers.show_devices()

    def _on_retire(self, moves: bool) -> None:
        self.moving = moves
        self._end_when_idle()

    def _on_exit(self, last: bool) -> None:
        self.heirless = last
        self._end_when_idle()

    # -- answers ----------------------------------------------------------------------------------------------------

    def _answer(self, caller: bytes, row: batches.Row) -> None:
        if not self.out:
            self._first_ready = _perf()
        self.out.append((caller, row))

    def answer(self, caller: bytes, row: batches.Row) -> None:
        """For hosts: collect an answer; it leaves at the next turn."""
        self.out.append((caller, row))

    def answer_now(self) -> None:
        """Send the answers that have collected, in order."""
        out = self.out
        if not out:
            return
        with self._answering:
            batch: list[batches.Row] = []
            to = b""
            while out:
                try:
                    caller, row = out.popleft()
                except IndexError:
                    break
                if caller != to and batch:
                    self.send(to, batches.encode_results(batch))
                    batch = []
                to = caller
                batch.append(row)
            if batch:
                self.send(to, batches.encode_results(batch))
        self.rest()


def rides(row: batches.Row) -> bool:
    """The call takes an input from an earlier call on this worker."""
    return len(row) > 3 and any(dep[1] == batches.CHAINED for dep in row[6])
