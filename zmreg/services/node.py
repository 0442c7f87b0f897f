"""The node daemon: one loop that routes messages to the machines and performs what they decide. Never unpickles.

It owns the machine's worker processes and its store, grants leases, keeps actors and their names (as head), and tells
everyone who has died. It is on nobody's call path and on nobody's data path.
"""

from __future__ import annotations

import contextlib
import json
import os
import select
import signal
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any, assert_never

from zmreg.core import effects as fx
from zmreg.core.leases import LeaseBook
from zmreg.model.errors import ProtocolError
from zmreg.model.ids import ProcessId, new_process_id
from zmreg.model.messages import (
    Adopt,
    Allocate,
    Answer,
    Ask,
    Blocked,
    Borrow,
    BorrowSettled,
    Exit,
    FreeObjects,
    Goodbye,
    Hello,
    Holds,
    LeaseGranted,
    LeaseRecalled,
    LeaseReturned,
    LogLines,
    Message,
    Pin,
    ProcessDied,
    Resolve,
    Sealed,
    Unborrow,
    Unpin,
    Unschedulable,
    WantLeases,
    Welcome,
    WorkersAtCap,
)
from zmreg.model.settings import Settings
from zmreg.model.specs import UNIT, Shape
from zmreg.net.sockets import Ends
from zmreg.services import views
from zmreg.services.adoption import Adoption
from zmreg.services.descriptors import raise_limit
from zmreg.services.head import Head
from zmreg.services.nursery import Death, Nursery
from zmreg.services.printed import Output
from zmreg.services.storekeeper import Storekeeper
from zmreg.services.zygote import adopt_orphans, end_descendants, fork_zygote, remove_session
from zmreg.wire import batches, codec

TICK_S = 0.2
# What a worker said before it exited is in the kernel by then; our I/O thread needs this long at most to have read it.
# Waited for in vain only when user code ends a worker by sys.exit(0).
LAST_WORDS_S = 0.05
# At the end workers get this long for their atexit handlers before they are killed.
END_S = 0.15


class Node:
    """One machine's daemon, which is the head as well while there is only one."""

    def __init__(self, config: dict[str, Any], ends: Ends, nursery: tuple[Any, int]) -> None:
        self.config = config
        self.settings: Settings = settings_of(config)
        self.me = ends.me
        self.ends = ends
        self.nursery = Nursery(*nursery, config, self._worker_died)
        self.total = totals(self.settings)
        cpus = max(1, int(self.settings.num_cpus))
        self.leases = LeaseBook(
            self.total,
            frozenset(self.settings.locs),
            self.settings.max_workers,
            keep_idle=cpus,
            idle_s=self.settings.idle_worker_s,
        )
        self.head = Head(self)
        arena = Path(config["arena"])
        self.store = Storekeeper(arena, Path(config["spill"]), self.settings, self.post)
        self.adoption = Adoption(self.me, self.post, self.store, self.head.release)
        self.clients: dict[bytes, Hello] = {}
        self.leaving: set[bytes] = set()
        self.protocol_errors = 0
        self.stopping = False
        self._logs_due = 0.0

    # -- the loop ---------------------------------------------------------------------------------------------------

    def run(self, driver_fd: int) -> None:
        """Serve until the driver leaves or dies."""
        poller = select.poll()
        channel = self.nursery.channel
        for fd in (self.ends.door_fd, channel.fileno(), self.store.poll_fd, driver_fd):
            poller.register(fd, select.POLLIN)
        self.perform(self.leases.prestart(max(1, int(self.settings.num_cpus))))
        due = time.monotonic()
        while not self.stopping:
            self._drain()
            now = time.monotonic()
            if now >= due:
                self._tick(now)
                due = now + TICK_S
            if self.stopping or self.ends.pending():
                continue
            for fd, _ in poller.poll(max(1.0, (due - now) * 1e3)):
                if fd == driver_fd:
                    self.stopping = True
                elif fd == self.store.poll_fd:
                    self.store.finish()
                elif fd == channel.fileno() and not self.nursery.hear():
                    poller.unregister(fd)
                    self.nursery.replace_zygote()
                    channel = self.nursery.channel
                    poller.register(channel.fileno(), select.POLLIN)

    def _drain(self) -> None:
        while self.ends.pending():
            sender, frame = self.ends.receive()
            try:
                message = codec.decode(frame)
            except ProtocolError:
                self.protocol_errors += 1
                continue
            self._route(sender, message)

    def _tick(self, now: float) -> None:
        self.perform(self.leases.tick(now))
        self.head.tick(now)
        self.store.tick(now)
        self.nursery.tick(now)
        self.tell_output()

    def tell_output(self) -> None:
        """Show the drivers what workers have printed, as fast as the cap allows."""
        settings = self.settings
        limit = int(settings.log_bytes_per_s * TICK_S) if settings.log_to_driver else 0
        for output in self.nursery.printed.news(limit, settings.log_bytes_per_worker):
            self._show(self.nursery.children[output.worker].label(), output)

    def _show(self, label: str, output: Output) -> None:
        if self.settings.log_to_driver and (output.text or output.skipped):
            for client, hello in self.clients.items():
                if hello.role == "driver":
                    self.post(client, LogLines(label, output.text, output.skipped))

    def post(self, peer: bytes, message: Message) -> bool:
        """Send one message."""
        return self.ends.send(peer, codec.encode(message))

    # -- what is heard ----------------------------------------------------------------------------------------------

    def _route(self, sender: bytes, message: Message) -> None:
        match message:
            case Allocate():
                self.store.on_allocate(sender, message, time.monotonic())
            case Sealed():
                self.store.on_sealed(sender, message)
            case Pin():
                self.store.on_pin(sender, message, time.monotonic())
            case Unpin():
                self.store.on_unpin(sender, message)
            case FreeObjects():
                self.store.on_free(message)
            case WantLeases(resources, locs, count, depth):
                self.perform(self.leases.want(sender, Shape(resources, locs), count, depth))
            case LeaseReturned(worker):
                self.perform(self.leases.returned(sender, worker))
            case Blocked(blocked):
                self.perform(self.leases.blocked(sender) if blocked else self.leases.unblocked(sender))
            case Hello():
                self._on_hello(sender, message)
            case Goodbye():
                self._on_goodbye(sender)
            case Adopt():
                self.adoption.adopt(sender, message)
            case Resolve() | Borrow() | BorrowSettled() | Unborrow() | Holds():
                self.adoption.on_message(sender, message)
            case Ask(request, topic, key):
                found = views.answer(self, topic, key)
                self.post(sender, Answer(request, found is not None, batches.pack_plain(found)))
            case _:
                if not self.head.hears(sender, message):
                    self.protocol_errors += 1

    def _on_hello(self, sender: bytes, message: Hello) -> None:
        child = self.nursery.children.get(sender)
        if child is None and message.role == "worker":
            return  # it died while this was under way
        self.clients[sender] = message
        self.post(
            sender,
            Welcome(
                self.me, str(self.store.arena), self.store.nbytes, self.settings.inline_limit_bytes,
                self.settings.namespace, self.settings.num_cpus,
            ),
        )  # fmt: skip
        if child is not None:
            child.ready = True
            self.perform(self.leases.worker_started(sender))

    def _on_goodbye(self, sender: bytes) -> None:
        hello = self.clients.get(sender)
        if hello is None:
            return
        self.leaving.add(sender)
        if hello.role == "driver":
            self.stopping = True
        self.nursery.spare(sender)  # it has run its users' code to the end, but others may wait for results of its own

    def _worker_died(self, death: Death) -> None:
        worker = death.worker
        self._show(death.label, death.output)
        if not death.was_ready:
            self.perform(self.leases.worker_start_failed(f"{death.reason}\n{death.log_tail}".strip()))
            return
        if death.exit_code == 0:
            self._hear_out(worker)
        self.adoption.owner_left(worker)
        adopted = worker in self.leaving
        self.leaving.discard(worker)
        self.clients.pop(worker, None)
        self.ends.forget(worker)
        word = ProcessDied(
            worker, death.exit_code, death.signal, death.words.running, death.reason, death.log_tail, adopted
        )  # fmt: skip
        for client in self.clients:
            self.post(client, word)
        self.store.process_died(worker, self.adoption, death.words.sealed)
        self.adoption.process_died(worker)
        self.head.process_died(worker, death.reason, self.adoption if adopted else ())
        self.perform(self.leases.owner_died(worker))
        self.perform(self.leases.worker_died(worker))

    def _hear_out(self, worker: bytes) -> None:
        """Take the last words of a worker that may have left in peace. They were sent before it ended, but come by
        another way than the news of its end; without them an actor that ended itself would be restarted."""
        poller = select.poll()
        poller.register(self.ends.door_fd, select.POLLIN)
        deadline = time.monotonic() + LAST_WORDS_S
        self._drain()
        while worker not in self.leaving and (left := deadline - time.monotonic()) > 0:
            poller.poll(left * 1e3)
            self._drain()

    # -- what is done -----------------------------------------------------------------------------------------------

    def perform(self, effects: Iterable[fx.LeaseEffect]) -> None:
        """Do what the lease book decided."""
        for effect in effects:
            match effect:
                case fx.StartWorker():
                    if not self.stopping:
                        self.nursery.start()
                case fx.StopWorker(worker):
                    self.nursery.end(worker, time.monotonic(), self._ask_to_exit)
                case fx.Granted(owner, shape, worker):
                    self.post(owner, LeaseGranted(shape.resources, shape.locs, worker))
                case fx.Recall(owner, worker):
                    self.post(owner, LeaseRecalled(worker))
                case fx.Hosted(actor_id, worker):
                    self.head.hosted(actor_id, worker)
                case fx.Infeasible(owner, actor_id, shape, reason) | fx.CannotStart(owner, actor_id, shape, reason):
                    if owner is not None:
                        cannot_start = isinstance(effect, fx.CannotStart)
                        self.post(owner, Unschedulable(shape.resources, shape.locs, reason, cannot_start))
                    if actor_id is not None:
                        self.head.unplaceable(actor_id, reason)
                case fx.AtCap(owner, shape):
                    self.post(owner, WorkersAtCap(shape.resources, shape.locs))
                case _:
                    assert_never(effect)

    def _ask_to_exit(self, worker: bytes) -> None:
        self.post(worker, Exit(False))

    # -- the end ----------------------------------------------------------------------------------------------------

    def shut_down(self) -> None:
        """Workers are asked to end, then made to; files go last."""
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
        end_descendants()
        self.ends.close(clean=False)
        self.store.close()
        remove_session(self.config)


def settings_of(config: dict[str, Any]) -> Settings:
    """The settings that the launching process sent."""
    values = dict(config["settings"])
    values["locs"] = tuple(values["locs"])
    return Settings(**values)


def totals(settings: Settings) -> dict[str, int]:
    """What this node has, in 1/10000 units."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") - settings.object_store_bytes
    total = {"CPU": round(settings.num_cpus * UNIT), "GPU": round(settings.num_gpus * UNIT)}
    total["memory"] = max(0, memory) * UNIT
    total |= {name: round(amount * UNIT) for name, amount in settings.resources.items()}
    return {name: amount for name, amount in total.items() if amount}


def main() -> None:
    """The life of a node process: configuration on stdin, a byte on `ready_fd` when the door is open.

    What to remove at the end is in argv as well: the driver may be killed before it has written the configuration.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        config = json.loads(sys.stdin.buffer.read())
    except ValueError:
        remove_session({"remove": sys.argv[1:]})
        sys.exit("the driver ended before it had said what to start")
    config["remove"] = sys.argv[1:]
    config["node"] = new_process_id().hex()
    try:
        node = start(config)
    except BaseException as error:
        os.write(config["ready_fd"], f"E{type(error).__name__}: {error}".encode()[:4_000])
        remove_session(config)
        raise
    signal.signal(signal.SIGTERM, lambda *_: setattr(node, "stopping", True))
    with contextlib.suppress(BrokenPipeError):  # the driver is dead: its descriptor below says so too
        os.write(config["ready_fd"], b"R" + node.ends.me)
    os.close(config["ready_fd"])
    try:
        node.run(config["driver_fd"])
    finally:
        node.shut_down()


def start(config: dict[str, Any]) -> Node:
    """Zygote first, while there is no thread, context or socket; then the door. OSError, ClusterError when it fails."""
    adopt_orphans()
    nursery = fork_zygote({**config, "close": [config["driver_fd"], config["ready_fd"]]})
    raise_limit()
    return Node(config, Ends(Path(config["session"]), ProcessId(bytes.fromhex(config["node"]))), nursery)
