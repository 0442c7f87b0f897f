"""Where an owner's tasks of one shape wait, and the leased workers that run them, on whatever nodes.

Who is asked for leases: our own node, which serves what it can and names others for the rest (`try_nodes`); or the
node that the strategy names. What each was told is a level, so that saying it twice does no harm. Straight code of the
hot path, as calls.py; all methods run under the client's lock.
"""

from __future__ import annotations

from collections import deque
from functools import partial
from typing import Protocol

from zmreg.model.ids import node_of
from zmreg.model.messages import LeaseReturned, Steal, WantLeases
from zmreg.model.specs import NEAR, SPREAD, Shape, node_named_in
from zmreg.services.calling.calls import AHEAD_US, Lane, Task, Wires
from zmreg.services.seat.entries import Stored

LEASE_IDLE_S = 1.0
# A task waits so long for a worker where its inputs are before it goes to where there is one: moving 100 MB takes less.
NEAR_S = 0.25
# A node lends only some workers at first for calls that need nothing of it (core/claims.py), and more to whoever says
# again what it wants. That is said when not one call has left the queue for so long, and so much longer for each worker
# there is: they may all be at work. Or, up to so many workers, when calls take so long each: then they mostly sleep.
STUCK_S = 0.5
STUCK_EACH_S = 0.02
SLEEPERS = 32
SLEEP_US = 20_000.0


class Office(Protocol):
    """What pools need from the book of all tasks."""

    def start(self, task: Task) -> None:
        """Look at its inputs again and place it anew."""

    def elsewhere(self, task: Task) -> None:
        """The node that its strategy names is of no use: find another pool for it, or fail it."""

    def return_idle(self, wanting: Pool) -> None:
        """Give back leases that other pools do not use just now: they may be what this one asks for."""


class Pool:
    """The tasks of one shape and the leased workers that run them."""

    is_pool = True

    def __init__(self, wires: Wires, shape: Shape, office: Office) -> None:
        self.wires = wires
        self.shape = shape
        self.queue: deque[Task] = deque()
        self.lanes: list[Lane] = []
        self.first = node_named_in(shape.strategy) or wires.node
        """The node to ask first."""
        self.told: dict[bytes, int] = {}
        """Leases that each node was told we would use."""
        self._office = office
        self._restart = office.start
        self._waiting_since = 0.0
        self._next = (-1, 0.0)
        """The call that was first in the queue at the last tick, and since when."""
        self._stranded = False
        """The node that the strategy names is gone."""
        self._doubtful = False
        """A worker has nothing to do while another has calls ahead, too few to be worth taking if all goes well."""

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
            if task.deps is not None and (best := next(filter(partial(_comes_ahead, task), self.lanes), None)):
                best.push(task)
                return
        if self._stranded:
            self._office.elsewhere(task)
            return
        queue = self.queue
        if not queue:
            self._waiting_since = self.wires.now()
            self.wires.past.mark(task.counter + 1, self._waiting_since)
        elif not self.lanes:  # no answers and no ticks come by which the time would be known
            self.wires.past.mark(task.counter + 1, self.wires.now())
        queue.append(task)
        self.ask(task.depth)

    def ask(self, depth: int) -> None:
        """Tell the node how many leases would be used; again only when that has doubled."""
        want = self.held_at(self.first) + len(self.queue)
        if want > self.told.get(self.first, 0):
            with self.wires.shield():
                self._office.return_idle(self)
                self.tell(self.first, 1 << (want - 1).bit_length(), depth, self.shape.strategy != SPREAD)

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
        if queue and queue[0].deps is not None and _comes_ahead(queue[0], lane):
            lane.push(queue.popleft())
        if not queue:
            self.lower()
            if not lane.outstanding:
                lane.idle_since = self.wires.now()
                self._steal_for(lane)

    def tell(self, node: bytes, level: int, depth: int = 0, book: bool = True) -> None:
        """State to a node the level anew."""
        self.told[node] = level
        shape = self.shape
        self.wires.post(node, WantLeases(shape.resources, shape.locs, shape.strategy, level, depth, book, shape.terms))

    def held_at(self, node: bytes) -> int:
        """Leases of workers of that node."""
        if len(self.told) <= 1:  # all are of one node
            return len(self.lanes) if node in self.told else 0
        return sum(node_of(lane.worker) == node for lane in self.lanes)

    @property
    def is_far(self) -> bool:
        """Some of its workers are on other nodes than the first."""
        return len(self.told) > 1

    def try_nodes(self, nodes: tuple[bytes, ...], counts: tuple[int, ...]) -> None:
        """These nodes have room for what waits here: ask them."""
        left = len(self.queue)
        share = -(-left // len(nodes)) if self.shape.strategy == SPREAD else left
        for node, room in zip(nodes, counts, strict=True):
            wanted = min(left, room, share)
            level = self.held_at(node) + wanted
            if wanted > 0 and (level > self.told.get(node, 0) or node == self.first):
                self.tell(node, level, self.queue[0].depth)
            left -= wanted

    def node_gone(self, node: bytes) -> None:
        """Nothing more is to be had there."""
        if node == self.wires.node and not node_named_in(self.shape.strategy):
            return  # our own node, which leaves: it has nothing for us, but goes on to name others that have
        self.told.pop(node, None)
        if node == self.first:
            self._stranded = True
            self.first = self.wires.node
            self.go_anywhere()
        elif self.queue:  # our own node may have said no more than that name, and has to name another
            self.told.pop(self.first, None)
            self.ask(self.queue[0].depth)

    def go_anywhere(self) -> None:
        """The node of our choice is gone or does not serve us: what waits is placed by another strategy, or fails."""
        queue, self.queue = self.queue, deque()
        self.lower()
        for task in queue:
            self._office.elsewhere(task)

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
        elif busiest is not None and not self._doubtful:
            self._doubtful = True
            self.wires.look_soon()

    def _look(self, now: float) -> None:
        """Take back what stands behind calls that take much longer than their functions did until now.

        Where a call was not expected to be short, what is behind it was sent in spite of that (`_comes_ahead`).
        """
        going_on = False
        for lane in self.lanes:
            if len(lane.outstanding) < 2 or lane.stealing or lane.closed or lane.recalled:
                continue
            first = next(iter(lane.outstanding.values()))
            if first.est > AHEAD_US:
                continue
            if lane.progress.lasts(first.counter, first.est, now):
                lane.stealing = lane.still = True
                lane.flush()
                self.wires.post(lane.worker, Steal(len(lane.outstanding), riders=True))
            else:
                going_on = True
        self._doubtful = going_on and any(not lane.outstanding for lane in self.lanes)
        if self._doubtful:
            self.wires.look_soon()

    def gave_back(self, lane: Lane, counters: tuple[int, ...], blocked: bool) -> None:
        """The worker has not started these and never will. One that is blocked or stands still is sent nothing until
        it answers."""
        held_up = blocked or lane.still
        lane.stealing = lane.still = False
        tasks = [task for counter in counters if (task := lane.answered(counter)) is not None]
        # Its words may cross: a worker that has answered everything does not wait any more, and no answer is to come.
        lane.closed = held_up and bool(lane.outstanding)
        if held_up:
            for task in lane.parked:
                task.lane = None  # or it would not be looked at again when its inputs are there
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

    def abandon(self) -> None:
        """Forget every task and every lease: their workers are to end."""
        self.queue.clear()
        for lane in self.lanes:
            lane.abandon()
        self.lanes.clear()
        self.lower()

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
        for node, told in list(self.told.items()):
            held = self.held_at(node)
            if told > held:
                self.tell(node, held)
            if not held and len(self.told) > 1:
                del self.told[node]

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

    def return_idle(self) -> None:
        """Give back what is not used at this moment."""
        for lane in list(self.lanes):
            if not lane.outstanding and not lane.parked and not self.queue:
                self.give_back(lane)

    def _insist(self, now: float) -> None:
        """Say again how many leases would be used, if the calls do not get on with those there are."""
        task, (number, since) = self.queue[0], self._next
        stands = task.counter == number and now - since >= STUCK_S + STUCK_EACH_S * len(self.lanes)
        if stands or task.counter != number:
            self._next = task.counter, now
        est = task.template.est_us
        if stands or (est is not None and est > SLEEP_US and len(self.lanes) < SLEEPERS):
            for node, level in list(self.told.items()):
                self.tell(node, level, task.depth, self.shape.strategy != SPREAD or node != self.first)

    def tick(self, now: float, idle_s: float = LEASE_IDLE_S) -> None:
        """Return leases that nobody used for `idle_s` seconds, and look after those that stand still."""
        self._look(now)
        for lane in list(self.lanes):
            if not lane.outstanding and not lane.parked and not self.queue and now - lane.idle_since >= idle_s:
                self.give_back(lane)
        if self.queue and not self.shape.resources:
            self._insist(now)
        if self.queue and self.shape.strategy.startswith(NEAR) and now - self._waiting_since >= NEAR_S:
            self.go_anywhere()


def _comes_ahead(task: Task, lane: Lane) -> bool:
    """Send it behind the one call that its worker is in: its inputs come from other nodes, and can do so meanwhile.

    If another worker has nothing to do before, that one gets it after all (`_steal_for`).
    """
    if len(lane.outstanding) != 1 or lane.closed or lane.recalled or lane.parked:
        return False
    here = node_of(lane.worker)
    return any(isinstance(value := entry.value, Stored) and value.holder != here for entry in task.inputs())
