"""The caller's side of an actor: calls in order to wherever it lives now.

One peer per actor and caller. Calls to an ordered (sync) actor are sent in submission order, so a slow input holds back
this caller's later calls, and nobody else's. The head tells where the actor is and when it dies; which calls had begun
is in `ProcessDied.running`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Protocol

from zmreg.model.actor_messages import WANTED_ENDS
from zmreg.model.errors import ActorDiedError, ActorUnavailableError, OutOfMemoryError, ZmregError
from zmreg.model.ids import counter_of, object_id
from zmreg.model.messages import ActorState, ProcessDied
from zmreg.net.waiting import Shield
from zmreg.services.calling.calls import Lane, Task, first_unusable, pending_inputs, riding_lane
from zmreg.services.calling.kinds import lets_go
from zmreg.services.seat.entries import Entry
from zmreg.wire.payload import unpack_failure

# Calls sent and not answered: so many small ones, or as long as it is so few any. An argument has 64 KiB at most, the
# rest goes through the store: so 80 MiB together. With 1,024 small ones a stream of them was a third slower.
_AHEAD = 4_096
_FEW_AHEAD = 1_024
_SMALL_BYTES = 4_096


class PeerKeeper(Protocol):
    """What a peer needs of the task book."""

    departing: list[Peer]
    """Peers with lanes to settle at the end of this round, when every answer that has arrived was taken."""
    shield: Callable[[], Shield]

    def fail(self, task: Task, error: ZmregError, unrun: bool = False) -> None:
        """The call gives no value. `unrun`: it was not begun, for certain."""

    def tell(self, task: Task, text: str) -> None:
        """Remember what has happened to a call that goes on."""

    def fail_by_input(self, task: Task, bad: Entry) -> None:
        """An input failed, and so does the call."""

    def await_inputs(self, task: Task) -> None:
        """Have `advance` called when they are there."""

    def lane_to_actor(self, worker: bytes, peer: Peer) -> Lane:
        """A new lane to the actor's worker."""

    def drop_lane(self, worker: bytes) -> None:
        """Nothing from that worker counts any more."""


class Peer:
    """An actor as one caller sees it. All methods run under the client's lock."""

    def __init__(self, keeper: PeerKeeper, me: bytes, actor_id: bytes, class_name: str, ordered: bool) -> None:
        self.me = me
        self.actor_id = actor_id
        self.class_name = class_name
        self.ordered = ordered
        self.state = "pending"
        self.queue: deque[Task] = deque()
        self.lane: Lane | None = None
        self.restarts = 0
        self._keeper = keeper
        self._end: ActorState | None = None
        """The head's word that it is dead. The error is made of it anew each time: the traceback of a constructor's
        error leads to the frames of whoever unpacks it, and would keep what is in them (wire/payload.py)."""
        self._died: ProcessDied | None = None
        self._headless: ZmregError | None = None
        """There is no head, and nobody knows when there will be one."""
        self._moved: Lane | None = None
        """The lane to a worker that still answers what it has, while the actor goes to another node."""
        self._next = b""
        """The worker that is the actor now: used when all calls to the one before are answered or decided on."""
        self._left: list[Lane] = []
        """Lanes to workers that are gone or given up, with calls still to be decided on."""

    def __repr__(self) -> str:
        return f"<Peer {self.class_name} {self.actor_id.hex()[-8:]} [{self.state} | {len(self.queue)} queued]>"

    # -- sending ----------------------------------------------------------------------------------------------------

    is_pool = False

    def place(self, task: Task) -> None:
        """Queue a call and send what can be sent."""
        if self._end is not None or (self._headless is not None and self.lane is None):
            with self._keeper.shield():
                self._refuse(task)
            return
        if self.lane is not None and not self.queue and task.deps is None and not self._is_full(self.lane, task):
            self.lane.push(task)
            return
        if task.attempt:  # it was sent before all that wait here, and some may wait for it
            self.queue.appendleft(task)
        else:
            self.queue.append(task)
        if self.lane is not None and not self._is_full(self.lane, self.queue[0]):
            with self._keeper.shield():
                self.advance()

    def _is_full(self, lane: Lane, task: Task) -> bool:
        """What is sent to one that stands still fills its node. Unordered calls may wait for a later one: no limit."""
        ahead = len(lane.outstanding)
        return ahead >= _FEW_AHEAD and self.ordered and (ahead >= _AHEAD or len(task.payload) > _SMALL_BYTES)

    def place_first(self, task: Task) -> None:
        """Back to where it stood: it was sent, and came back unbegun."""
        if self._end is not None:
            self.place(task)
            return
        later = (place for place, other in enumerate(self.queue) if other.counter > task.counter)
        self.queue.insert(next(later, len(self.queue)), task)
        self.advance()

    def advance(self) -> None:
        """Send from the head of the queue; an unordered actor's calls may overtake those that wait for inputs."""
        lane = self.lane
        if lane is None:
            return
        queue = self.queue
        held: list[Task] = []
        while queue:
            task = queue[0]
            if self._is_full(lane, task):
                break
            if task.deps is not None and not self._ready(task, lane):
                if not task.waiting:  # an input that was there is just made again
                    self._keeper.await_inputs(task)
                if self.ordered:
                    break
                held.append(queue.popleft())
                continue
            queue.popleft()
            bad = first_unusable(task) if task.deps is not None else None
            if bad is not None:
                self._keeper.fail_by_input(task, bad)
            elif not task.cancelled:
                lane.push(task)
        queue.extendleft(reversed(held))

    def _ready(self, task: Task, lane: Lane) -> bool:
        """Only a worker that runs calls one by one keeps their results for those that ride behind."""
        return not pending_inputs(task) or (self.ordered and riding_lane(task) is lane)

    def withdraw(self, task: Task) -> bool:
        """Take a queued call out."""
        try:
            self.queue.remove(task)
        except ValueError:
            return False
        return True

    def refill(self, lane: Lane) -> None:
        """An answer came in: calls that rode on it may go."""
        if self.queue:
            self.advance()

    def abandon(self) -> None:
        """Forget every call: the actor is to end."""
        self.queue.clear()
        for lane in (self.lane, self._moved, *self._left):
            if lane is not None:
                lane.abandon()

    def backlog(self) -> int:
        """Calls accepted and not answered."""
        return len(self.queue) + sum(len(lane.outstanding) for lane in (self.lane, self._moved, *self._left) if lane)

    def death(self) -> ZmregError | None:
        """Why the actor is gone for good; None while it is not."""
        return None if self._end is None else self._death_of(self._end)

    def end_was_wanted(self) -> bool:
        """It is dead because somebody has killed it, or dropped it, or it has left."""
        return self._end is not None and not self._end.init_failed and self._end.failure in WANTED_ENDS

    # -- what is heard ----------------------------------------------------------------------------------------------

    def on_state(self, message: ActorState) -> None:
        """The head tells how the actor stands."""
        self.state = message.state
        self.restarts = message.restarts
        if message.state == "alive":
            self._next = message.worker
            if self._moved is None or not self._moved.outstanding:
                self._arrive()
        elif message.state == "moving":
            if self.lane is not None:
                self._moved, self.lane = self.lane, None
            self._leave_moved()
        elif message.state == "dead":
            self._end = message
            if self.lane is None or self.lane.worker != message.worker:
                self._leave_lane()
            self._leave_moved()
            # Else it left in peace, and its worker still sends answers: what has none when that is gone, fails.
            queue, self.queue = self.queue, deque()
            for task in queue:
                self._refuse(task)
        else:
            self._leave_lane()

    def _arrive(self) -> None:
        """Send to where the actor is now, first of all what came back from where it was."""
        worker, self._next = self._next, b""
        if self.lane is None or self.lane.worker != worker:
            self._leave_lane()
            if self._moved is not None:
                self._left.append(self._moved)
                self._moved = None
            self.settle()
            self.lane = self._keeper.lane_to_actor(worker, self)
        self.advance()

    def _leave_moved(self) -> None:
        """If the worker that the actor has left is gone, its last answer is here."""
        moved = self._moved
        if moved is not None and self._died is not None and self._died.process == moved.worker:
            self._moved = None
            self._left.append(moved)
            self._keeper.departing.append(self)

    def on_headless(self, error: ZmregError | None) -> None:
        """Only a head could say where the actor is; None: there is one again."""
        self._headless = error
        if error is not None and self.lane is None:
            queue, self.queue = self.queue, deque()
            for task in queue:
                self._keeper.fail(task, error)

    def process_died(self, message: ProcessDied) -> None:
        """The worker is gone. Whether the actor comes back, the head tells next (or has told, if it left in peace)."""
        self._died = message
        self._leave_moved()
        if self._end is not None:
            self._leave_lane()
        elif self.lane is not None and self.lane.worker == message.process:
            self._left.append(self.lane)  # what comes from now on waits, and was never sent
            self.lane = None

    def _refuse(self, task: Task, may_have_run: bool = False) -> None:
        """The actor is dead, or nobody can say where it is."""
        if self._end is not None:
            self._keeper.fail(task, self._death_of(self._end), not may_have_run)
        elif self._headless is not None:
            self._keeper.fail(task, self._headless)

    def _death_of(self, message: ActorState) -> ZmregError:
        actor_id = self.actor_id.hex()
        if message.init_failed:
            cause = unpack_failure(message.failure)
            try:
                text = f"{self.class_name} never came to life: its constructor raised {type(cause).__name__}: {cause}"
                return ActorDiedError(text, cause=cause, init_failed=True, actor_id=actor_id)
            finally:
                del cause  # else it is in a cycle with our frame, and all frames below
        why = message.failure.decode(errors="replace") or "it ended"
        text = f"actor {self.class_name} {actor_id[-8:]} is dead: {why}"
        died = self._died
        if died is not None and died.memory_bytes and died.reason == why:
            starved = OutOfMemoryError(f"the actor's process was {why}", rss_bytes=died.memory_bytes)
            return ActorDiedError(text, cause=starved, actor_id=actor_id)
        return ActorDiedError(text, actor_id=actor_id)

    def _leave_lane(self) -> None:
        """Send nothing more by this lane. Its calls are decided on in `settle`: answers of theirs may have arrived."""
        lane, self.lane = self.lane, None
        if lane is not None:
            self._left.append(lane)
        if self._left:
            self._keeper.departing.append(self)

    def settle(self) -> None:
        """Decide on every call that was sent and not answered: begun calls run at most once unless retries allow."""
        again: list[Task] = []
        for lane in self._left:
            self._keeper.drop_lane(lane.worker)
            tasks = list(lane.outstanding.values())
            lane.outstanding.clear()
            for task, may_have_run in zip(tasks, self._may_have_run(lane, tasks), strict=True):
                task.lane = None
                limit = task.template.max_retries
                if self._end is not None:
                    self._refuse(task, may_have_run)
                elif task.cancelled or (may_have_run and limit != -1 and task.attempt >= limit):
                    self._keeper.fail(task, self._unavailable(lane, task))
                else:
                    self._keeper.tell(task, f"the process of actor {self.class_name} is gone")
                    task.attempt += may_have_run
                    again.append(task)
        self._left.clear()
        self.queue.extendleft(reversed(again))
        if self._next and self._moved is None:
            self._arrive()

    def _may_have_run(self, lane: Lane, tasks: list[Task]) -> list[bool]:
        """Of each of the sent calls."""
        begun = self._count_begun(lane, tasks)
        return [place < begun for place in range(len(tasks))]

    def _count_begun(self, lane: Lane, tasks: list[Task]) -> int:
        """How many of the sent calls, from the front, may have run."""
        died = self._died
        if died is None or died.process != lane.worker:
            return len(tasks)
        if died.adopted:  # it left in peace, and has answered what it had begun
            return 0
        if not self.ordered:
            return len(tasks)
        running = died.running  # the last call it began: for an ordered actor it stays on the board when that ends
        if not running:
            return 0
        if running[:8] != self.me:
            # It ran another caller's call: ours before that one are done or not begun; which, nobody can tell.
            return len(tasks)
        for place, task in enumerate(tasks):
            if running == object_id(self.me, task.counter):
                return place + 1
        # That one was answered, so those after it had not begun; and of those before it, only calls that had let go of
        # the actor may be unanswered (services/worker/releasing.py).
        return _last_waiting(tasks, counter_of(running)) + 1

    def _unavailable(self, lane: Lane, task: Task) -> ActorUnavailableError:
        died = self._died
        why = died.reason if died is not None and died.process == lane.worker else "its process was ended"
        return ActorUnavailableError(
            f"actor {self.class_name} restarts ({why}); {task.template.name}() had been sent and may or may not have "
            "run. Call again, or allow repeats with max_task_retries.",
            actor_id=self.actor_id.hex(),
        )


def _last_waiting(tasks: list[Task], before: int) -> int:
    """Place of the last call with a number below `before` that may wait without holding the actor; -1: none."""
    places = [place for place, task in enumerate(tasks) if task.counter < before and lets_go(task.template.target)]
    return places[-1] if places else -1
