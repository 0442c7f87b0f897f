"""The node daemon: one loop that routes messages to the machines and performs what they decide. Never unpickles.

It owns the machine's worker processes and its store, grants leases, keeps actors and their names (as head), and tells
everyone who has died. It is on nobody's call path and on nobody's data path.
"""

from __future__ import annotations

import os
import select
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zmreg.core.leases import LeaseBook
from zmreg.model.ask_messages import CallersOf
from zmreg.model.errors import ProtocolError
from zmreg.model.ids import NODE_BYTES
from zmreg.model.messages import (
    Adopt,
    Allocate,
    Ask,
    AskKept,
    Blocked,
    Borrow,
    BorrowSettled,
    Events,
    EventsTaken,
    Exit,
    FreeObjects,
    Goodbye,
    Hello,
    Holds,
    JobStarted,
    KillOverdue,
    KillProcess,
    LeaseReturned,
    Leaving,
    Lost,
    Message,
    NodeGone,
    NodeRecord,
    Passed,
    Pin,
    PlaceActor,
    Prefetch,
    ProcessDied,
    RegisterFunction,
    Repeatable,
    Replicate,
    Replicated,
    Resolve,
    Revive,
    Sealed,
    SetPlugin,
    Subscribe,
    TakesNothing,
    Unborrow,
    Unpin,
    UnplaceActor,
    Unsubscribe,
    WantLeases,
    WatchFunctions,
    WatchPatterns,
    Welcome,
    WithdrawFunction,
)
from zmreg.model.settings import Settings
from zmreg.model.specs import ACCELERATOR, UNIT
from zmreg.net.sockets import Ends
from zmreg.services.head.head import Head
from zmreg.services.head.jobs import program
from zmreg.services.machine import accelerators
from zmreg.services.network.far_head import FarHead
from zmreg.services.network.heirs import stand_in
from zmreg.services.network.leaving import TURN_S, Departure
from zmreg.services.node import on_demand, views
from zmreg.services.node.adoption import Adoption
from zmreg.services.node.guard import Guard
from zmreg.services.node.loop import Loop
from zmreg.services.node.mourning import Mourning
from zmreg.services.node.nursery import Nursery
from zmreg.services.node.overdue import Overdue
from zmreg.services.node.placing import Placing
from zmreg.services.node.restarting import Restarting
from zmreg.services.node.spoken import Spoken
from zmreg.services.node.storekeeper import Storekeeper
from zmreg.services.node.visitors import Visitors
from zmreg.services.node.zygote import remove_session
from zmreg.services.seat import storing
from zmreg.wire import codec

if TYPE_CHECKING:  # a node that listens on no network has no use for them, and starts 20 ms sooner
    from zmreg.services.network.fetcher import Fetcher
    from zmreg.services.network.neighbours import Neighbours
    from zmreg.services.network.registry import Registry
    from zmreg.services.node.functions import NamedFunctions
    from zmreg.services.node.plugins import Plugins
    from zmreg.services.node.topics import Topics

TICK_S = 0.2
# At the end workers get this long for their atexit handlers before they are killed.
END_S = 0.15
# Last words to other nodes.
LINGER_MS = 200
# A program that ends does not wait for what runs on a node of its own for others.
FOUNDER_GRACE_S = 2.0


class Node(Loop):
    """One machine's daemon, which is the head as well while there is only one."""

    nursery_kind: type[Nursery] = Nursery

    def __init__(self, config: dict[str, Any], settings: Settings, ends: Ends, nursery: tuple[Any, int]) -> None:
        super().__init__()
        self.config = config
        self.settings = settings
        self.me = ends.me
        self.ends = ends
        self.mourning = Mourning(self)
        ends.far = self.mourning.nobody_there
        self.nursery = self.nursery_kind(*nursery, config, self.mourning.worker_died)
        self.nursery.post = self.post
        self.spoken = Spoken(self, int(settings.log_bytes_per_s * TICK_S) if settings.log_to_driver else 0)
        self.total = totals(self.settings)
        cpus = max(1, int(self.settings.num_cpus))
        self.leases = LeaseBook(
            self.total,
            frozenset(self.settings.locs),
            self.settings.max_workers,
            keep_idle=cpus,
            idle_s=self.settings.idle_worker_s,
        )
        self.leases.name_devices(accelerators.device_ids(self.settings.num_gpus))
        self.leases.prefix = self.me[:NODE_BYTES]
        self.head: Head | FarHead = Head(self)
        arena = Path(config["arena"])
        self.store = Storekeeper(self.me, arena, Path(config["spill"]), self.settings, self.post)
        self.overdue = Overdue(Path(config["session"]), self.nursery.kill)
        self.guard = Guard(self)
        self.adoption = Adoption(self.me, self.post, self.store, lambda object_id: self.head.release(object_id))
        self.adoption.free = lambda message: storing.hear(self, self.me, message)
        self.departure = Departure(self)
        self.named: NamedFunctions | None = None
        self.topics: Topics | None = None
        self.plugins: Plugins | None = None
        self.clients: dict[bytes, Hello] = {}
        self.leaving: set[bytes] = set()
        self.visitors = Visitors(self)
        self.placing = Placing(self)
        self.restarting = Restarting(self)
        self.perform = self.placing.perform
        self.protocol_errors = 0
        self.exit_code = 0
        self.cluster = ""
        """Its id, if we listen on the network."""
        self.neighbours: Neighbours | None = None
        """The rest of the cluster, if we listen on the network."""
        self.fetcher: Fetcher | None = None
        self.registry: Registry
        self.ready: Callable[[], object] = _nothing
        """Called once, when clients may come."""

    # -- the loop ---------------------------------------------------------------------------------------------------

    def run(self, driver_fd: int) -> None:
        """Serve until the driver that started us leaves or dies (-1: there is none), or somebody says stop."""
        self.watch(self.ends.door_fd, self.drain, passing=True)
        self.watch(self.store.poll_fd, self.store.finish)
        self.watch(self.nursery.channel.fileno(), self._hear_nursery)
        if driver_fd >= 0:
            self.watch(driver_fd, partial(self._launcher_died, driver_fd))
        self.perform(self.leases.prestart(int(self.settings.num_cpus)))
        if self.neighbours is None or self.neighbours.joined:
            self.ready()
        due = time.monotonic()
        while not self.stopping:
            self.drain()
            now = time.monotonic()
            if now >= due:
                self._tick(now)
                self.turn_due = True
                due = now + TICK_S
            until = due
            if self.neighbours is not None:
                until = min(due, self.neighbours.turn(now) or due)
            self.departure.turn(now)
            if self.named is not None:
                self.named.turn(now)
            if self.topics is not None:
                self.topics.turn()
            if self.stopping or self.ends.pending():
                continue
            self.turn_due = False
            self._rest(min(until, now + TURN_S) if self.departure.draining else until)

    def _rest(self, until: float) -> None:
        """Sleep until there is something to do. What only passes through leaves at once, and needs no turn."""
        while (left := until - time.monotonic()) > 0 and not (self.turn_due or self.stopping):
            self.sleep(left)
            if self.neighbours is not None:
                until = min(until, self.neighbours.letters.look_at())

    def _launcher_died(self, fd: int) -> None:
        """What others need of a program's own node goes to them."""
        self.unwatch(fd)
        if self.config["founder"]:
            self.departure.asked.append(0.0)
        else:
            self.stop()

    def _hear_nursery(self) -> None:
        fd = self.nursery.channel.fileno()
        if not self.nursery.hear():
            self.unwatch(fd)
            self.nursery.replace_zygote()
            self.watch(self.nursery.channel.fileno(), self._hear_nursery)

    def drain(self) -> None:
        """Take what our own processes have said."""
        while self.ends.pending():
            sender, frame = self.ends.receive()
            if sender:
                self.take(sender, frame)

    def take(self, sender: bytes, frame: bytes) -> None:
        """A message from a process of ours, or from elsewhere by letter."""
        self.turn_due = True
        try:
            message = codec.decode(frame)
        except ProtocolError:
            self.protocol_errors += 1
        else:
            self._route(sender, message)

    def _tick(self, now: float) -> None:
        self.placing.tick(now)
        self.head.tick(now)
        self.store.tick(now)
        self.overdue.tick(now)
        self.guard.tick(now)
        self.nursery.tick(now)
        self.spoken.tick(now)

    def post(self, peer: bytes, message: Message) -> bool:
        """Send one message, to a process of any node."""
        return self.ends.send(peer, codec.encode(message))

    # -- what is heard ----------------------------------------------------------------------------------------------

    def _route(self, sender: bytes, message: Message) -> None:
        match message:
            case Allocate() | Sealed() | Pin() | Unpin() | FreeObjects() | Prefetch() | Replicate() | Revive():
                storing.hear(self, sender, message)
            case WantLeases():
                self.placing.on_want(sender, message)
            case LeaseReturned(worker):
                self.perform(self.leases.returned(sender, worker))
            case Blocked(blocked):
                self.perform(self.leases.blocked(sender) if blocked else self.leases.unblocked(sender))
            case KillOverdue():
                self.overdue.expect(sender, message, time.monotonic())
            case Hello():
                self._on_hello(sender, message)
            case Goodbye():
                self._on_goodbye(sender)
            case Adopt():
                self.adoption.adopt(sender, message)
            case Passed(origin, payload):
                stand_in(self, origin, payload)
            case Replicated():
                self.departure.on_replicated(sender, message)
            case Resolve() | Lost() | Borrow() | BorrowSettled() | Unborrow() | Holds() | AskKept():
                self.adoption.on_message(sender, message)
            case Ask():
                views.hear(self, sender, message)
            case RegisterFunction() | WithdrawFunction() | WatchFunctions():
                self.functions.hear(sender, message)
            case Events() | EventsTaken() | Subscribe() | Unsubscribe() | WatchPatterns() | SetPlugin():
                on_demand.hear(self, sender, message)
            case PlaceActor() | UnplaceActor() | KillProcess():
                self.placing.for_the_head(message)
            case CallersOf():
                self.spoken.on_callers(message)
            case Repeatable():
                self.guard.on_answer(message)
            case ProcessDied():
                self.mourning.far_death(message)
            case NodeRecord() | NodeGone() | Leaving() | TakesNothing():
                if self.neighbours is not None:
                    self.neighbours.on_word(sender, message)
            case _:
                if not (on_demand.hears(self, sender, message) or self.head.hears(sender, message)):
                    self.protocol_errors += 1

    def _on_hello(self, sender: bytes, message: Hello) -> None:
        child = self.nursery.children.get(sender)
        if child is None and message.role == "worker":
            return  # it died while this was under way
        if message.role == "observer":
            self.visitors.attend(sender, message.pid, self.ends.forget)
            return
        self.clients[sender] = message
        if message.role == "driver":
            self.head.hears(self.me, JobStarted(sender, program(message.pid), time.time()))
        if message.role == "driver" and not self.is_founder(message):
            self.visitors.attend(sender, message.pid, self.mourning.driver_gone)
        self.post(
            sender,
            Welcome(
                self.me, str(self.store.arena), self.store.nbytes, self.settings.inline_limit_bytes,
                self.settings.namespace, views.cpus(self),
                self.plugins.living() if child is not None and self.plugins is not None else (),
            ),
        )  # fmt: skip
        self.visitors.greet(sender)
        if self.neighbours is not None:
            self.neighbours.succession.greet(sender)
        if child is not None:
            child.ready = True
            self.perform(self.leases.worker_started(sender))

    def _on_goodbye(self, sender: bytes) -> None:
        hello = self.clients.get(sender)
        if hello is None:
            self.visitors.farewell(sender)
            return
        self.leaving.add(sender)
        if self.is_founder(hello):
            self.departure.asked.append(min(FOUNDER_GRACE_S, self.settings.drain_grace_s))
        elif hello.role == "driver":
            self.visitors.farewell(sender)
        self.nursery.spare(sender)  # it has run its users' code to the end, but others may wait for results of its own

    def is_founder(self, hello: Hello) -> bool:
        """The driver that started this node, which ends with it."""
        return hello.role == "driver" and hello.pid == self.config["founder"]

    @property
    def functions(self) -> NamedFunctions:
        """Named functions: what a node alone loads with the first word about one."""
        if self.named is None:
            from zmreg.services.node.functions import NamedFunctions  # late: few have any

            self.named = NamedFunctions(self)
        return self.named

    def head_node(self) -> bytes:
        """The head's id."""
        return self.neighbours.head if self.neighbours is not None else self.me

    def tell(self, node: bytes, message: Message) -> None:
        """Say something to a node: to ourselves at once."""
        if node == self.me:
            self._route(node, message)
        else:
            self.post(node, message)

    def admitted(self, head: bytes) -> None:
        """We are one of them now."""
        self.head = FarHead(self, head)
        self.ready()

    def raw(self, node: bytes, message: Message) -> None:
        """Say to a node what is said again when it gets lost."""
        if self.neighbours is not None:
            self.neighbours.raw(node, message)

    def send_frames(self, node: bytes, frames: tuple[bytes, memoryview]) -> None:
        """A part of an object, to another node."""
        if self.neighbours is not None:
            self.neighbours.send_frames(node, frames)

    def other_nodes(self) -> list[bytes]:
        """The ids of the nodes that live, but for ours."""
        return self.neighbours.others() if self.neighbours is not None else []

    # -- the end ----------------------------------------------------------------------------------------------------

    def shut_down(self) -> None:
        """Workers are asked to end, then made to; files go last."""
        self.head.close()  # first: that they end now is no fate of theirs to be written down
        for worker, child in list(self.nursery.children.items()):
            if child.ready:
                self.post(worker, Exit(True))
            else:  # it has no door yet, so it could not be told, and has run nothing
                self.nursery.kill(worker, "the cluster was shut down")
        deadline = time.monotonic() + END_S
        poller = select.poll()
        poller.register(self.nursery.channel.fileno(), select.POLLIN)
        self.clients.clear()
        while self.nursery.children and (left := deadline - time.monotonic()) > 0:
            if poller.poll(left * 1e3) and not self.nursery.hear():
                break
        self.nursery.close()
        if self.neighbours is not None:
            self.neighbours.close(LINGER_MS)
        self.ends.close(clean=False)
        self.store.close()
        remove_session(self.config)


def _nothing() -> None:
    """The loop drains the door in every turn."""


def totals(settings: Settings) -> dict[str, int]:
    """What this node has, in 1/10000 units."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") - settings.object_store_bytes
    total = {"CPU": round(settings.num_cpus * UNIT), "GPU": round(settings.num_gpus * UNIT)}
    total["memory"] = max(0, memory) * UNIT
    total |= {name: round(amount * UNIT) for name, amount in settings.resources.items()}
    if total["GPU"] and not any(name.startswith(ACCELERATOR) for name in total) and (kind := accelerators.kind()):
        total[ACCELERATOR + kind] = UNIT
    return {name: amount for name, amount in total.items() if amount}
