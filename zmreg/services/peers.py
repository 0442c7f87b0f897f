"""The caller's side of an actor: calls in order to wherever it lives now.

One peer per actor and caller. Calls to an ordered (sync) actor are sent in submission order, so a slow input holds back
this caller's later calls, and nobody else's. The head tells where the actor is and when it dies; which calls had begun
is in `ProcessDied.running`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable

from zmreg.model.errors import ActorDiedError, ActorUnavailableError, ZmregError
from zmreg.model.messages import ActorState, ProcessDied
from zmreg.services.calls import Lane, Task, Wires, first_unusable, pending_inputs, riding_lane

Fail = Callable[[Task, ZmregError], None]


class Peer:
    """An actor as one caller sees it. All methods run under the client's lock."""

    def __init__(
        self, wires: Wires, actor_id: bytes, class_name: str, ordered: bool, fail: Fail, unpack: Callable[[bytes], BaseException]
    ) -> None:
        self.wires = wires
        self.actor_id = actor_id
        self.class_name = class_name
        self.ordered = ordered
        self.state = "pending"
        self.queue: deque[Task] = deque()
        self.lane: Lane | None = None
        self.worker = b""
        self.died: ProcessDied | None = None
        self.restarts = 0
        self._death: ActorDiedError | None = None
        self._fail = fail
        self._unpack = unpack

    def __repr__(self) -> str:
        return f"<Peer {self.class_name} {self.actor_id.hex()[-8:]} [{self.state} | {len(self.queue)} queued]>"

    # -- sending ----------------------------------------------------------------------------------------------------

    def place(self, task: Task) -> None:
        """Queue a call and send what can be sent."""
        if self._death is not None:
            self._fail(task, self._death)
            return
        if self.lane is not None and not self.queue and task.deps is None:
            self.lane.push(task)
            return
        self.queue.append(task)
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
            if task.deps is not None and not self._ready(task, lane):
                if self.ordered:
                    break
                held.append(queue.popleft())
                continue
            queue.popleft()
            if not task.cancelled and first_unusable(task) is None:
                lane.push(task)
        queue.extendleft(reversed(held))

    @staticmethod
    def _ready(task: Task, lane: Lane) -> bool:
        return not pending_inputs(task) or riding_lane(task) is lane

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

    def backlog(self) -> int:
        """Calls accepted and not answered."""
        return len(self.queue) + (len(self.lane.outstanding) if self.lane else 0)

    # -- what is heard ----------------------------------------------------------------------------------------------

    def on_state(self, message: ActorState, lane_to: Callable[[bytes, Peer], Lane]) -> None:
        """The head tells how the actor stands."""
        self.state = message.state
        self.restarts = message.restarts
        if message.state == "alive":
            if message.worker != self.worker:
                self._leave_lane(dead=None)
                self.worker = message.worker
                self.lane = lane_to(message.worker, self)
            self.advance()
        elif message.state == "dead":
            self._death = self._death_of(message)
            self._leave_lane(dead=self._death)
            queue, self.queue = self.queue, deque()
            for task in queue:
                self._fail(task, self._death)
        else:
            self._leave_lane(dead=None)

    def _death_of(self, message: ActorState) -> ActorDiedError:
        if message.init_failed:
            cause = self._unpack(message.failure)
            text = f"{self.class_name} never came to life: its constructor raised {type(cause).__name__}: {cause}"
            return ActorDiedError(text, cause=cause, init_failed=True)
        why = message.failure.decode(errors="replace") or "it ended"
        return ActorDiedError(f"actor {self.class_name} {self.actor_id.hex()[-8:]} is dead: {why}")

    def _leave_lane(self, dead: ActorDiedError | None) -> None:
        """Decide on every call that was sent and not answered: begun calls run at most once unless retries allow."""
        lane, self.lane, self.worker = self.lane, None, b""
        if lane is None:
            return
        tasks = list(lane.outstanding.values())
        lane.outstanding.clear()
        again: list[Task] = []
        begun = self._count_begun(tasks)
        for place, task in enumerate(tasks):
            task.lane = None
            limit = task.template.max_retries
            may_have_run = place < begun
            if dead is not None:
                self._fail(task, dead)
            elif task.cancelled or (may_have_run and limit != -1 and task.attempt >= limit):
                self._fail(task, self._unavailable(task))
            else:
                task.attempt += may_have_run
                again.append(task)
        self.queue.extendleft(reversed(again))

    def _count_begun(self, tasks: list[Task]) -> int:
        """How many of the sent calls, from the front, may have run."""
        if not self.ordered or self.died is None:
            return len(tasks)
        running = self.died.running
        if not running:
            return 0
        for place, task in enumerate(tasks):
            if running == self.wires.me + task.counter.to_bytes(8, "big"):
                return place + 1
        # It ran another caller's call: ours before that one are done or not begun; which, nobody can tell.
        return len(tasks)

    def _unavailable(self, task: Task) -> ActorUnavailableError:
        why = self.died.reason if self.died is not None else "its process is gone"
        return ActorUnavailableError(
            f"actor {self.class_name} restarts ({why}); {task.template.name}() had been sent and may or may not have "
            "run. Call again, or allow repeats with max_task_retries."
        )
