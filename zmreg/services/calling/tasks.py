"""An owner's tasks from submission to their end: inputs, placement, results, retries, cancellation.

The hot part is `start` and `on_results`; the rest runs only when an input is late, a worker dies or a user cancels.
All methods run under the client's lock.
"""

from __future__ import annotations

from collections.abc import Callable
from time import monotonic

from zmreg.model.errors import ZmregError
from zmreg.model.ids import short
from zmreg.model.messages import (
    ActorState,
    GaveBack,
    PartReady,
    ProcessDied,
    WatchActor,
)
from zmreg.net.waiting import Waiter
from zmreg.services.calling.advice import TINY_US, count_tiny
from zmreg.services.calling.calls import (
    CALL_COST_US,
    Lane,
    Task,
    Template,
    Wires,
    first_unusable,
    pending_inputs,
    riding_lane,
)
from zmreg.services.calling.leasing import Leasing
from zmreg.services.calling.obituary import (
    UNKNOWN,
    cancelled_failure,
    count_begun,
    headline,
    is_to_retry,
    one_more_attempt,
    times_starved,
    worker_died,
)
from zmreg.services.calling.peers import Peer
from zmreg.services.calling.pools import LEASE_IDLE_S, Pool
from zmreg.services.calling.resting import Resting
from zmreg.services.calling.streaming import Streams
from zmreg.services.seat.entries import INLINE, PENDING, STORED, Borrowed, Entry, Stored
from zmreg.services.seat.lineage import Lineage
from zmreg.services.seat.sharing import Sharing
from zmreg.telemetry import past
from zmreg.wire import batches

_EARLY = frozenset({batches.CANCELLED, batches.FAILED, batches.REFUSED})


class Tasks(Leasing):
    """Every task this process owns, the pools and lanes they go by, and the actors it calls."""

    def __init__(self, wires: Wires, sharing: Sharing, free: Callable[[Stored], None]) -> None:
        super().__init__(wires, sharing, free)
        self.shield = wires.shield
        self.next_number = 1
        self.submitted = 0
        self.peers: dict[bytes, Peer] = {}
        self.departing: list[Peer] = []
        self.actor_waits: list[Waiter] = []
        """Finished when the head has told of any actor (services/calling/reviving.py)."""
        self._headless: ZmregError | None = None
        self.finished = 0
        self.not_ok = 0
        """Of these answers, those that were no values: some are asked for again."""
        self.late_answers = 0
        self.lineage = Lineage(self)
        self.streams = Streams(self)
        self.resting = Resting(self.start)
        self.on_input_lost: Callable[[Task, batches.Row], None] = lambda task, row: None
        """Told of a call that was not begun because its worker could not have an input (services/seat/recovery.py)."""

    def take_numbers(self, count: int) -> int:
        """The first of `count` fresh object numbers in a row."""
        with self.wires.lock:
            first = self.next_number
            self.next_number = first + count
            return first

    # -- starting ---------------------------------------------------------------------------------------------------

    def peer_for(self, actor_id: bytes, class_name: str, ordered: bool) -> Peer:
        """This process's way to an actor, made on first use; the head is asked where it lives."""
        peer = self.peers.get(actor_id)
        if peer is None:
            with self.shield():
                peer = self.peers[actor_id] = Peer(self, self.wires.me, actor_id, class_name, ordered)
                peer.on_headless(self._headless)
                self.wires.post(self.wires.node, WatchActor(actor_id))
        return peer

    def start(self, task: Task) -> None:
        """Send, queue or hold a task, by the state of its inputs."""
        home = task.peer
        assert home is not None
        if task.cancelled:  # it was sent, and came back unstarted or for another attempt
            self.end(task)
            self.remember(task, past.CANCELLED, "")
            self.settle_all(task, cancelled_failure(task, self.wires.me))
            return
        if task.deps is not None:
            bad = first_unusable(task)
            if bad is not None:
                with self.shield():
                    self.fail_by_input(task, bad)
                return
            pending = pending_inputs(task)
            if pending:
                lane = riding_lane(task)
                with self.shield():
                    if lane is not None and isinstance(home, Pool):
                        lane.ride(task)
                        return
                    self.await_inputs(task)
                if isinstance(home, Pool):
                    return
            elif isinstance(home, Pool) and not home.shape.strategy:
                home = task.peer = self.near_inputs(task, home)
        home.place(task)

    def await_inputs(self, task: Task) -> None:
        """Look at it again when its inputs are there."""
        pending = pending_inputs(task)
        task.waiting = len(pending)
        for entry in pending:
            entry.listen(lambda done: self._input_there(task, done))
            self.sharing.want(entry)

    def _input_there(self, task: Task, entry: Entry) -> None:
        task.waiting -= 1
        if task.counter not in self.live or task.lane is not None:
            return
        if entry.state != INLINE and entry.state != STORED:
            assert task.peer is not None
            task.peer.withdraw(task)
            self.fail_by_input(task, entry)
            if isinstance(task.peer, Peer):
                task.peer.advance()
        elif task.waiting == 0 and isinstance(task.peer, Pool):
            self.start(task)
        elif isinstance(task.peer, Peer):
            task.peer.advance()

    # -- results ----------------------------------------------------------------------------------------------------

    def on_results(self, worker: bytes, rows: list[batches.Row], frame: bytes = b"") -> None:
        """A batch of answers from a worker. `frame`: they as they came, to be remembered."""
        lane = self.lanes.get(worker)
        if lane is None:
            self.late_answers += len(rows)
            return
        outstanding, live = lane.outstanding, self.live
        template = named = None
        names: list[tuple[int, str]] = []
        for row in rows:
            counter = row[0]
            task = outstanding.pop(counter, None)
            if task is None:
                self.late_answers += not self.streams.took(lane, row)
                if names and names[-1][1]:
                    names.append((counter, ""))
                    named = None
                continue
            lane.load -= task.est
            task.lane = None
            template, us = task.template, row[1]
            if template is not named:
                named = template
                names.append((counter, template.name))
            est = template.est_us
            if est is None:
                template.est_us = us + CALL_COST_US
            else:
                template.est_us = est + (us + CALL_COST_US - est) * (0.5 if us > est else 0.25)
            if len(row) == 3:
                del live[counter]
                entry = task.entries[0]
                entry.task = None
                entry.took_us = us
                entry.settle(INLINE, row[2])
            else:
                self._long_result(task, worker, row)
        if template is not None:
            self.wires.past.answered(worker, frame, names, rows, monotonic())
            if est is not None and est < TINY_US:
                count_tiny(template, len(rows), self.wires.callbacks)
        self.finished += len(rows)
        lane.closed = False
        lane.home.refill(lane)

    def _long_result(self, task: Task, worker: bytes, row: batches.Row) -> None:
        _, us, returns, held = row
        if held:
            self.sharing.worker_holds(held, worker)
        if returns and returns[0][0] == batches.INPUT_LOST:
            self.not_ok += 1
            self.on_input_lost(task, returns[0])
            return
        failure = next((each[1] for each in returns if each[0] == batches.FAILED), None)
        self.not_ok += failure is not None
        if failure is not None and self._retries(task, failure):
            return
        self.end(task)
        if returns and returns[0][0] in _EARLY and self.ended_early(task, returns[0]):
            self.not_ok += failure is None
            return
        self.failed += failure is not None
        for entry, (status, data, nbytes, type_name, contained) in zip(task.entries, returns, strict=False):
            if status == batches.SENT_AHEAD:
                continue
            if entry.state != PENDING:  # made again for the sake of a sibling
                self.sharing.receive(contained, worker)
                continue
            entry.took_us, entry.type_name = us, type_name
            entry.contained = self.sharing.receive(contained, worker) if contained else ()
            if status != batches.FAILED:
                self.settle_good(entry, status == batches.OK_STORED, data, nbytes, worker)
            else:
                self.settle_failed(task, entry, data)
        if returns and returns[0][0] in (batches.OK_STORED, batches.SENT_AHEAD, batches.OK_INLINE):
            self.lineage.keep(task)
            self.lineage.make_up(task)

    def on_part(self, worker: bytes, message: PartReady) -> None:
        """One of several values is there before the call ends; what is stored can be made again from now on."""
        if self.settle_part(worker, message) and message.stored:
            self.lineage.keep(self.lanes[worker].outstanding[message.counter])

    def _retries(self, task: Task, failure: bytes) -> bool:
        """A user error that the task's options let it try again."""
        if not is_to_retry(task, failure):
            return False
        self.tell(task, headline(failure))
        task.attempt += 1
        self.start(task)
        return True

    def on_gave_back(self, worker: bytes, message: GaveBack) -> None:
        """A worker did not start these."""
        lane = self.lanes.get(worker)
        if lane is None:
            return
        if isinstance(lane.home, Pool):
            lane.home.gave_back(lane, message.counters, message.blocked)
            if lane.recalled and not lane.outstanding and lane in lane.home.lanes:
                lane.home.give_back(lane)
            return
        for counter in reversed(message.counters):  # an actor's rider lost its input: back to the head of the queue
            task = lane.answered(counter)
            if task is not None and isinstance(lane.home, Peer):
                lane.home.queue.appendleft(task)
        lane.home.refill(lane)

    # -- what the node says -----------------------------------------------------------------------------------------

    def on_actor_state(self, message: ActorState) -> None:
        """The head tells how an actor stands."""
        peer = self.peers.get(message.actor_id)
        if peer is not None:
            peer.on_state(message)
            for waiter in self.actor_waits:
                waiter.finish()

    def on_head(self, headless: ZmregError | None) -> None:
        """Another head has to be told whose fate we follow. Without one, calls to actors with no place fail."""
        self._headless = headless
        for peer in list(self.peers.values()):
            peer.on_headless(headless)
            if headless is None and peer.state != "dead":
                self.wires.post(self.wires.node, WatchActor(peer.actor_id))

    def settle_departed(self) -> None:
        """Decide on what was sent to actors' workers that are gone. After the last answer that has arrived."""
        departing, self.departing[:] = self.departing[:], []
        for peer in departing:
            peer.settle()

    def drop_lane(self, worker: bytes) -> None:
        """Answers of that worker are late from now on."""
        self.lanes.pop(worker, None)

    def lane_to_actor(self, worker: bytes, peer: Peer) -> Lane:
        """A new lane to an actor's worker."""
        lane = Lane(self.wires, worker, peer, self.known.setdefault(worker, set()))
        self.lanes[worker] = lane
        return lane

    def process_died(self, message: ProcessDied) -> None:
        """Retry or fail what that worker had. For an actor's worker the head's next word decides (peers.py)."""
        self.known.pop(message.process, None)
        lane = self.lanes.get(message.process)
        if lane is None:
            return
        if isinstance(lane.home, Peer):
            lane.home.process_died(message)
            return
        del self.lanes[message.process]
        assert isinstance(lane.home, Pool)
        tasks = lane.home.lost(lane)
        begun = count_begun(tasks, message.running, self.wires.me)
        unsure = message.running == UNKNOWN
        for place, task in enumerate(tasks):
            suspect = unsure or place == begun - 1
            if place < begun:
                self.tell(task, f"worker {message.process.hex()} died: {message.reason}")
            if place < begun and (task.cancelled or not one_more_attempt(task, message, suspect)):
                self.fail(task, worker_died(task, message, self.wires.me))
            elif place < begun and suspect and message.memory_bytes:
                self.resting.put(task, times_starved(task), self.wires.now())
            else:
                self.start(task)

    def tick(self, now: float, idle_s: float = LEASE_IDLE_S) -> None:
        """Give back what nobody uses, and try again what has rested for long enough."""
        super().tick(now, idle_s)
        self.past.mark(self.next_number, now)
        self.resting.tick(now, self.lives)

    # -- the rest ---------------------------------------------------------------------------------------------------

    def fail_everything(self, error: ZmregError) -> None:
        """The cluster is gone: every task ends with `error`."""
        for task in list(self.live.values()):
            self.fail(task, error)
        for lane in self.lanes.values():
            lane.outstanding.clear()  # answers may come until the ends are closed

    def drop_actor(self, actor_id: bytes) -> None:
        """Its last strong handle is gone. A peer with calls by weak handles stays, to hear how they end."""
        peer = self.peers.get(actor_id)
        if peer is not None and not peer.backlog():
            del self.peers[actor_id]

    def statistics(self) -> dict[str, int]:
        """Counts for stats()."""
        return {
            "pending": len(self.live),
            "finished": self.finished,
            "late_answers": self.late_answers,
            "leases": sum(len(pool.lanes) for pool in self.pools.values()),
            "queued": sum(len(pool.queue) for pool in self.pools.values()),
            **self.lineage.statistics(),
        }


__all__ = ["Borrowed", "Tasks", "Template", "short"]
