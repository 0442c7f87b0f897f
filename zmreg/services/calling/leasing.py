"""The owner's pools: which one a task goes to, and what its node and others say about leases.

All methods run under the client's lock.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable

from zmreg.core.graves import Graves
from zmreg.model.errors import PlacementGroupRemovedError, UnschedulableError, WorkerStartError
from zmreg.model.messages import LeaseGranted, TryNodes, Unschedulable
from zmreg.model.specs import GROUP, NEAR, ON, TRY, Shape
from zmreg.services.calling.calls import Lane, Task, Template, Wires, describe
from zmreg.services.calling.endings import Endings
from zmreg.services.calling.manners import DIGEST_BYTES
from zmreg.services.calling.pools import LEASE_IDLE_S, Pool
from zmreg.services.seat.entries import Stored
from zmreg.services.seat.sharing import Sharing

# Below this an input is moved in less time than it takes to ask another node for a worker.
NEAR_BYTES = 1 << 20


class Leasing(Endings):
    """The pools of one process, by shape, and the lanes they go by."""

    def __init__(self, wires: Wires, sharing: Sharing, free: Callable[[Stored], None]) -> None:
        super().__init__(wires, sharing, free)
        self.pools: dict[Shape, Pool] = {}
        self.known: dict[bytes, set[bytes]] = {}
        """Definitions that each worker has been sent."""
        self.templates: weakref.WeakValueDictionary[bytes, Template] = weakref.WeakValueDictionary()
        """Definitions by digest, while a function object or a queued task needs them: workers may ask again."""
        self.gone_nodes = Graves()

    def start(self, task: Task) -> None:
        """Send, queue or hold a task, by the state of its inputs (tasks.py)."""
        raise TypeError(f"{type(self).__name__} has pools and nobody to start tasks")

    def blob_of(self, digest: bytes, worker: bytes) -> bytes:
        """The definition that a worker lacks; empty when nobody needs it any more."""
        template = self.templates.get(digest)
        lane = self.lanes.get(worker)
        if template is None and lane is not None:  # a twin of the same digest died, and took the table's row along
            sent = (task.template for task in lane.outstanding.values())
            template = next((each for each in sent if each.target[:DIGEST_BYTES] == digest), None)
        return template.blob if template is not None else b""

    def pool_for(self, shape: Shape) -> Pool:
        """The pool of a shape, made on first use."""
        pool = self.pools.get(shape)
        if pool is None:
            pool = self.pools[shape] = Pool(self.wires, shape, self)
        return pool

    def near_inputs(self, task: Task, home: Pool) -> Pool:
        """The pool for the node that has most of the task's input bytes, if moving them would cost more than asking."""
        held: dict[bytes, int] = {}
        for entry in task.inputs():
            value = entry.value
            if isinstance(value, Stored) and value.holder not in self.gone_nodes:
                held[value.holder] = held.get(value.holder, 0) + value.nbytes
        if not held or (len(held) == 1 and self.wires.node in held and not home.is_far):
            return home
        best = max(held, key=lambda node: held[node])
        if held[best] - held.get(self.wires.node, 0) * (best != self.wires.node) < NEAR_BYTES:
            return home
        return self.pool_for(home.shape.with_strategy(NEAR + best.hex()))

    def return_idle(self, wanting: Pool) -> None:
        """Give back leases that other pools do not use just now: they may be what this one asks for."""
        for pool in self.pools.values():
            if pool is not wanting:
                pool.return_idle()

    def elsewhere(self, task: Task) -> None:
        """The node that the task's strategy names is gone, or of no use."""
        assert isinstance(task.peer, Pool)
        shape = task.peer.shape
        if shape.strategy.startswith(ON):
            node = shape.strategy.removeprefix(ON)
            text = f"{describe(task, self.wires.me)} can never run: node {node}, where it has to, is not in the cluster"
            self.fail(task, UnschedulableError(text))
        else:
            task.peer = self.pool_for(shape.with_strategy(""))
            task.peer.place(task)

    # -- what nodes say -----------------------------------------------------------------------------------------------

    def on_grant(self, message: LeaseGranted) -> None:
        """A worker to send to."""
        pool = self.pool_for(Shape(message.resources, message.locs, message.strategy, message.terms))
        worker = message.worker
        if self.lanes.get(worker) in pool.lanes:  # said twice: what was sent meanwhile must stay known
            return
        lane = self.lanes.get(worker)
        if lane is None or not lane.outstanding:
            lane = self.lanes[worker] = Lane(self.wires, worker, pool, self.known.setdefault(worker, set()))
        else:  # ourselves: we were idle, and answers of calls that we ran by our own hands are still on their way
            lane.home, lane.closed, lane.recalled = pool, False, False
        lane.devices = message.devices
        pool.granted(lane)

    def on_try_nodes(self, message: TryNodes) -> None:
        """Our node cannot serve all of a shape now; others could."""
        pool = self.pools.get(Shape(message.resources, message.locs, message.strategy, message.terms))
        if pool is not None:
            pool.try_nodes(message.nodes, message.counts)

    def on_unschedulable(self, message: Unschedulable) -> None:
        """Nobody can ever meet this shape, or no process could be started for it."""
        pool = self.pool_for(Shape(message.resources, message.locs, message.strategy, message.terms))
        shape = pool.shape
        if shape.strategy.startswith((TRY, NEAR)) and not message.cannot_start:
            pool.go_anywhere()
            return
        queue = list(pool.queue)
        pool.queue.clear()
        pool.told = {node: pool.held_at(node) for node in pool.told}
        for task in queue:
            what = describe(task, self.wires.me)
            if shape.term(GROUP):
                self.fail(task, PlacementGroupRemovedError(f"{what} did not run: {message.reason}"))
            elif message.cannot_start:
                self.fail(task, WorkerStartError(f"{what} did not run: {message.reason}"))
            else:
                self.fail(task, UnschedulableError(f"{what} can never run: {message.reason}{of_a_node(shape)}"))

    def processes_on(self, prefix: bytes) -> set[bytes]:
        """The workers of a node to which there are lanes."""
        return {worker for worker in self.lanes if worker.startswith(prefix)}

    def tick(self, now: float, idle_s: float = LEASE_IDLE_S) -> None:
        """Give back leases nobody used for `idle_s` seconds."""
        for pool in list(self.pools.values()):
            pool.tick(now, idle_s)


def of_a_node(shape: Shape) -> str:
    """What to say to who knows nodes from Ray, where each has a resource called by its address."""
    if not any(name.startswith("node:") for name, _ in shape.resources):
        return ""
    return "; to have it on one node, say scheduling_strategy=zmreg.NodeAffinitySchedulingStrategy(node_id)"
