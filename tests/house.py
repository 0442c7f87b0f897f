"""A node made of the pure machines of core and of nothing else, for transcripts: what it decides is written down.

It has members, couriers, the locations table, both ends of fetching, a lease book with workers, and tasks that make an
object each. What services do between the machines is done here in the simplest way; no chance, no losses.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from random import Random
from typing import Any

from zmreg.core import effects as leasing
from zmreg.core import fetch_effects as fetching
from zmreg.core import nodes
from zmreg.core.courier import AskResend, Courier, Deliver, SendAck, Transmit
from zmreg.core.fetching import Fetching
from zmreg.core.index import LocationIndex, everything, location
from zmreg.core.leases import LeaseBook
from zmreg.core.nodes import Members, NodeState
from zmreg.core.placement import choose
from zmreg.core.publishing import Publisher
from zmreg.core.replica_effects import Learned, Publish, SendTo
from zmreg.core.replicas import Replica
from zmreg.core.serving import ServeLimits, Serving
from zmreg.model.fetch_messages import CHUNK_BYTES
from zmreg.model.ids import worker_id
from zmreg.model.mesh_messages import NodeRecord
from zmreg.model.replica_messages import AskReplay, AskSnapshot, Beacon, Delta, ReplicaTable, SnapshotPart
from zmreg.model.specs import UNIT, Shape
from zmreg.testing.simulation import Broadcast, Send

BEAT_S = 0.5
TASK_S = 0.1
MiB = 1 << 20
ONE_CPU = Shape.of(1)
# Chunks of one size, so that a story tells of no more of them than it must.
_EVEN = ServeLimits(large_chunk_bytes=CHUNK_BYTES, least_chunk_bytes=CHUNK_BYTES)

Write = Callable[[str, str], None]


def node_id(name: str) -> bytes:
    return name.encode().ljust(4, b".") + bytes(4)


def name_of(some_id: bytes) -> str:
    """`n1` for a node, `n1/w2` for a worker of it."""
    number = int.from_bytes(some_id[4:8], "big")
    return some_id[:4].decode().rstrip(".") + (f"/w{number}" if number else "")


class House:
    """One node. `write(who, what)` is told everything it decides that a reader would want to know."""

    def __init__(self, name: str, write: Write, cpus: int, is_head: bool) -> None:
        self.name, self.me, self.cpus = name, node_id(name), cpus
        self._write = write
        self.members = Members(self.me, is_head)
        self.couriers: dict[bytes, Courier] = {}
        self.index = LocationIndex()
        self.publisher = Publisher(self.me, ReplicaTable.LOCATIONS, self.index, admit=everything)
        self.replica = Replica(self.me, ReplicaTable.LOCATIONS, self.index)
        self.fetching, self.serving = Fetching(self.me, Random(0)), Serving(_EVEN)
        self.leases = LeaseBook({"CPU": cpus * UNIT}, frozenset(), max_workers=8)
        self.workers = 0
        self.store: dict[bytes, int] = {}
        self.wanted: dict[str, tuple[int, bytes]] = {}
        """Our tasks without a result: (size of it, where it was placed)."""
        self.lineage: dict[bytes, tuple[str, int]] = {}
        self.doing: list[tuple[float, str, int, bytes]] = []
        self._worker_of: dict[str, bytes] = {}
        self.fenced = False
        self._beat_at = self._now = 0.0

    def record(self) -> NodeRecord:
        free = self.leases.statistics().available
        return NodeRecord(
            self.me, self.name, "host", 1, 2, self.members.head == self.me, "3.11.0", "0", 1,
            (("CPU", self.cpus * UNIT),), free, (), 1 << 30, 0, self.workers, 0,
        )  # fmt: skip

    # -- commands ----------------------------------------------------------------------------------------------------

    def meet(self, record: NodeRecord, now: float) -> list[object]:
        """Another node's record, as its admission or its beat brings it."""
        out = self.obey(self.members.on_record(record, now), now)
        if self.members.record(record.node) is not None:
            self.couriers.setdefault(record.node, Courier())
        return out

    def call(self, task: str, nbytes: int, now: float) -> list[object]:
        """Have a task run where there is room; its result is an object of the task's name."""
        self._now = now
        records = [self.record(), *(each for each in self.members.records() if self.members.usable(each.node))]
        place = choose(records, ONE_CPU, {})
        assert place is not None, "no node has a CPU"
        self.wanted[task] = (nbytes, place)
        self.say(f"task {task} goes to {name_of(place)}")
        if place == self.me:
            return self.want(task, nbytes, self.me, now)
        return self.post(place, ("run", task, nbytes))

    def get(self, task: str, now: float) -> list[object]:
        """Fetch the result."""
        object_id = task.encode().ljust(16, b".")
        if object_id in self.store:
            self.say(f"get {task}: it is here")
            return []
        found = self.index.holders(object_id)
        holders = [node for node, _, _ in found]
        self.say(f"get {task}: holders are {', '.join(map(name_of, holders)) or 'unknown'}")
        return self.fetch(self.fetching.want(object_id, found[0][1] if found else 1, holders, now), now)

    # -- what comes in -----------------------------------------------------------------------------------------------

    def on_message(self, sender: Any, message: Any, now: float) -> list[object]:
        """By the simulation."""
        self._now = now
        peer = node_id(sender)
        if self.fenced:
            return []
        out = self.obey(self.members.on_beat(peer, now), now)
        if message == ("fenced",):
            self.say("is fenced: it ends, and may come back under another name")
            self.fenced = True
        if self.fenced or self.members.is_fenced(peer):
            return out
        if isinstance(message, NodeRecord):
            out += self.meet(message, now)
        elif isinstance(message, Delta | Beacon | SnapshotPart):
            out += self.tell(self.replica.on_message(peer, message, now))
        elif isinstance(message, AskReplay | AskSnapshot):
            self.say(f"{sender} asks for {type(message).__name__.removeprefix('Ask').lower()}")
            out += self.tell(self.publisher.on_message(peer, message, now))
        elif isinstance(message, tuple):
            out += self._hear(peer, message, now)
        return out

    def _hear(self, peer: bytes, message: tuple[Any, ...], now: float) -> list[object]:
        courier = self.couriers.get(peer)
        match message:
            case ("letter", seq, ack, letter) if courier is not None:
                return self.deliver(peer, courier.on_letter(seq, ack, letter, 100, now), now)
            case ("ack", ack) if courier is not None:
                return self.deliver(peer, courier.on_ack(ack), now)
            case ("resend", first) if courier is not None:
                return self.deliver(peer, courier.on_resend(first, now), now)
            case ("request", transfer, object_id, offset, upto):
                return self.serve(self.serving.on_request(peer, transfer, object_id, offset, upto, now))
            case ("credit", transfer, upto):
                self.serving.on_credit(peer, transfer, upto, now)
            case ("stop", transfer):
                return self.serve(self.serving.on_stop(peer, transfer))
            case ("chunk", transfer, offset, nbytes):
                return self.fetch(self.fetching.on_chunk(transfer, offset, nbytes, now), now)
            case ("refused", transfer, reason, others, nbytes):
                return self.fetch(self.fetching.on_refused(transfer, reason, others, nbytes, now), now)
        return []

    def letter(self, peer: bytes, letter: tuple[Any, ...], now: float) -> list[object]:
        """A letter that has arrived."""
        match letter:
            case ("run", task, nbytes):
                return self.want(task, nbytes, peer, now)
            case ("result", task):
                if task in self.wanted:
                    nbytes, _ = self.wanted.pop(task)
                    self.lineage[task.encode().ljust(16, b".")] = (task, nbytes)
                    self.say(f"task {task} is done at {name_of(peer)}")
            case ("dead", node, reason):
                return self.obey(self.members.on_declared_dead(node, reason), now)
        return []

    # -- time --------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[object]:
        """By the simulation, a hundred times a second."""
        self._now = now
        if self.fenced:
            return []
        out = self.obey(self.members.tick(now), now)
        out += self.lease(self.leases.tick(now))
        for due in [each for each in self.doing if each[0] <= now]:
            self.doing.remove(due)
            out += self._finish(*due[1:], now)
        for peer, courier in self.couriers.items():
            out += self.deliver(peer, courier.tick(now), now)
        out += self.serve(self.serving.step()) + self.serve(self.serving.tick(now))
        out += self.fetch(self.fetching.tick(now), now)
        out += self.tell(self.publisher.tick(now)) + self.tell(self.replica.tick(now))
        if now >= self._beat_at:
            self._beat_at = now + BEAT_S
            out.append(Broadcast(self.record()))
        return out

    # -- what is done ------------------------------------------------------------------------------------------------

    def say(self, what: str) -> None:
        self._write(self.name, what)

    def post(self, peer: bytes, letter: tuple[Any, ...]) -> list[object]:
        """Send a letter."""
        courier = self.couriers.get(peer)
        return [] if courier is None else self.deliver(peer, courier.send(letter, 100), self._now)

    def deliver(self, peer: bytes, effects: Iterable[object], now: float) -> list[object]:
        """Of a courier."""
        out: list[object] = []
        for effect in effects:
            match effect:
                case Transmit(seq, ack, letter):
                    out.append(Send(name_of(peer), ("letter", seq, ack, letter)))
                case SendAck(ack):
                    out.append(Send(name_of(peer), ("ack", ack)))
                case AskResend(first):
                    self.say(f"misses letter {first} of {name_of(peer)}")
                    out.append(Send(name_of(peer), ("resend", first)))
                case Deliver(letter):
                    assert isinstance(letter, tuple)
                    out += self.letter(peer, letter, now)
        return out

    def want(self, task: str, nbytes: int, owner: bytes, now: float) -> list[object]:
        """A task is to run here."""
        self.doing.append((float("inf"), task, nbytes, owner))
        return self.lease(self.leases.want(owner, ONE_CPU, sum(each[3] == owner for each in self.doing)))

    def lease(self, effects: Iterable[object]) -> list[object]:
        """Of the lease book: workers start at once here, and end when they are told to."""
        out: list[object] = []
        for effect in effects:
            match effect:
                case leasing.StartWorker():
                    self.workers += 1
                    worker = worker_id(self.me, self.workers)
                    self.say(f"starts worker {name_of(worker)}")
                    out += self.lease(self.leases.worker_started(worker))
                case leasing.Granted(owner, _, worker):
                    place = next(i for i, each in enumerate(self.doing) if each[3] == owner and each[0] == float("inf"))
                    _, task, nbytes, _ = self.doing[place]
                    self.say(f"leases {name_of(worker)} to {name_of(owner)} for task {task}")
                    self.doing[place] = (self._now + TASK_S, task, nbytes, owner)
                    self.leases.want(owner, ONE_CPU, 0)
                    self._worker_of[task] = worker
        return out

    def _finish(self, task: str, nbytes: int, owner: bytes, now: float) -> list[object]:
        object_id = task.encode().ljust(16, b".")
        self.store[object_id] = nbytes
        self.say(f"has made {task}, {nbytes / MiB:g} MiB")
        out = self.lease(self.leases.returned(owner, self._worker_of.pop(task)))
        out += self.tell(self.publisher.add(object_id, location(nbytes, True)))
        if owner == self.me:
            return out + self.letter(self.me, ("result", task), now)
        return out + self.post(owner, ("result", task))

    def tell(self, effects: Iterable[object]) -> list[object]:
        """Of the table."""
        out: list[object] = []
        for effect in effects:
            match effect:
                case Publish(message):
                    out.append(Broadcast(message))
                case SendTo(node, message):
                    out.append(Send(name_of(node), message))
                case Learned(node, keys, values):
                    for key, value in zip(keys, values, strict=True):
                        what = "has" if value else "has no more"
                        self.say(f"learns: {name_of(node)} {what} {key.decode().rstrip('.')}")
                        if value:
                            out += self.fetch(self.fetching.learn(key, node, self._now), self._now)
        return out

    def fetch(self, effects: Iterable[object], now: float) -> list[object]:
        """Of the end that gets."""
        out: list[object] = []
        for effect in effects:
            match effect:
                case fetching.Reserve(object_id, _):
                    out += self.fetch(self.fetching.reserved(object_id, True, "", now), now)
                case fetching.Request(holder, transfer, object_id, offset, upto):
                    name = object_id.decode().rstrip(".")
                    self.say(f"asks {name_of(holder)} for {name}, {offset / MiB:g} to {upto / MiB:g} MiB")
                    out.append(Send(name_of(holder), ("request", transfer, object_id, offset, upto)))
                case fetching.Credit(holder, transfer, upto):
                    out.append(Send(name_of(holder), ("credit", transfer, upto)))
                case fetching.Stop(holder, transfer):
                    out.append(Send(name_of(holder), ("stop", transfer)))
                case fetching.AskLocations(object_id):
                    for node, _, _ in self.index.holders(object_id):
                        out += self.fetch(self.fetching.learn(object_id, node, now), now)
                    out += self.fetch(self.fetching.no_more(object_id, now), now)
                case fetching.Completed(object_id, holder, nbytes):
                    self.store[object_id] = nbytes
                    self.say(f"has got {object_id.decode().rstrip('.')} from {name_of(holder)}")
                    out += self.tell(self.publisher.add(object_id, location(nbytes, False)))
                case fetching.Failed(object_id, reason, tried):
                    asked = "; ".join(f"{name_of(node)}: {why}" for node, why in tried)
                    self.say(f"cannot get {object_id.decode().rstrip('.')}: {reason} ({asked or 'nobody was asked'})")
        return out

    def serve(self, effects: Iterable[object]) -> list[object]:
        """Of the end that gives."""
        out: list[object] = []
        for effect in effects:
            match effect:
                case fetching.PinObject(object_id, key):
                    nbytes = self.store.get(object_id)
                    answer = self.serving.missing(key) if nbytes is None else self.serving.pinned(key, 0, nbytes)
                    out += self.serve(answer)
                case fetching.SendChunk(peer, transfer, offset, _, nbytes):
                    out.append(Send(name_of(peer), ("chunk", transfer, offset, nbytes)))
                case fetching.Refuse(peer, transfer, reason, others, nbytes):
                    self.say(f"refuses {name_of(peer)}: {reason}")
                    out.append(Send(name_of(peer), ("refused", transfer, reason, others, nbytes)))
        return out

    def obey(self, effects: Iterable[object], now: float) -> list[object]:
        """Of the members table."""
        out: list[object] = []
        for effect in effects:
            match effect:
                case nodes.DeclareDead(node, reason):
                    self.say(f"declares {name_of(node)} dead: {reason}")
                    for peer in self.couriers:
                        out += self.post(peer, ("dead", node, reason)) if peer != node else []
                case nodes.NodeGone(node, reason, left):
                    self.say(f"{name_of(node)} {'has left' if left else 'is gone'}: {reason}")
                    out += self._bury(node, now)
                case nodes.Fence(node):
                    self.say(f"tells {name_of(node)} that it is dead")
                    out.append(Send(name_of(node), ("fenced",)))
                case nodes.Suspected(node, reason) | nodes.HeadLost(node, reason):
                    word = "suspects" if isinstance(effect, nodes.Suspected) else "misses the head"
                    self.say(f"{word} {name_of(node)}: {reason}")
                case nodes.Joined(node):
                    self.couriers.setdefault(node, Courier())
                    self.say(f"meets {name_of(node)}")
                case nodes.Recovered(node) | nodes.HeadBack(node):
                    self.say(
                        f"{'hears' if isinstance(effect, nodes.Recovered) else 'has a head again,'} {name_of(node)}"
                    )
        return out

    def _bury(self, node: bytes, now: float) -> list[object]:
        self.couriers.pop(node, None)
        self.replica.forget(node)
        out = self.fetch(self.fetching.node_gone(node, now), now) + self.serve(self.serving.peer_gone(node))
        out += self.lease(self.leases.owner_died(node))
        self.doing = [each for each in self.doing if each[3] != node]
        again = [(task, nbytes) for task, (nbytes, place) in self.wanted.items() if place == node]
        for object_id, (task, nbytes) in list(self.lineage.items()):
            if not self.index.holders(object_id) and object_id not in self.store:
                self.say(f"the only copy of {task} is lost: made again")
                del self.lineage[object_id]
                again.append((task, nbytes))
        for task, nbytes in again:
            out += self.call(task, nbytes, now)
        return out

    def states(self) -> str:
        """Of all others, as seen from here."""
        seen = {name_of(each.node): self.members.state(each.node) for each in self.members.records()}
        seen |= {name_of(each.record.node): each.state for each in self.members.departed()}
        seen.pop(self.name, None)
        return ", ".join(f"{name} {state or NodeState.ALIVE}" for name, state in sorted(seen.items())) or "nobody"
