"""The node's store: the table decides, this performs. Copies to and from disk run on one thread of their own."""

from __future__ import annotations

import os
import queue
import threading
from collections import deque
from collections.abc import Callable, Container, Iterable
from pathlib import Path
from typing import Protocol, assert_never

from zmreg.core.graves import Graves
from zmreg.model.errors import ObjectStoreFullError, ZmregError
from zmreg.model.ids import NODE_BYTES
from zmreg.model.messages import (
    Allocate,
    Allocated,
    AllocateRefused,
    FreeObjects,
    Message,
    Pin,
    Pinned,
    PinRefused,
    Sealed,
    Unpin,
)
from zmreg.model.settings import Settings
from zmreg.store import objects
from zmreg.store.arena import Mapping
from zmreg.store.objects import SPOILT, ObjectTable
from zmreg.store.records import (
    DropSpilled,
    Freed,
    Granted,
    Missing,
    Refused,
    StartRestore,
    StartSpill,
    StoreEffect,
)
from zmreg.store.records import Pinned as PinnedHere
from zmreg.store.spill import SpillDirectory

Job = StartSpill | StartRestore | DropSpilled
_KEY_BYTES = 16
"""Readers are processes, 8 bytes, or transfers to other nodes (core/serving.py)."""


class Own(Protocol):
    """The node itself as creator and reader, when it moves objects between nodes (services/network/fetcher.py)."""

    def granted(self, object_id: bytes, offset: int, claimed: bool) -> None:
        """Room for an object that comes."""

    def refused(self, object_id: bytes, reason: str) -> None:
        """No room for it."""

    def pinned(self, key: bytes, offset: int, nbytes: int) -> None:
        """The transfer may read here."""

    def missing(self, key: bytes, full: bool) -> None:
        """The transfer cannot read it."""

    def elsewhere(self, client: bytes, object_id: bytes) -> bool:
        """Whether another node has it, from where a client gets it that cannot read it here."""


class Storekeeper:
    """Arena, table and spill files of one node. `poll_fd` becomes readable when a copy is done: call `finish`."""

    def __init__(
        self, me: bytes, arena: Path, spill: Path, settings: Settings, post: Callable[[bytes, Message], object]
    ) -> None:
        self._me = me
        self.own: Own | None = None
        self.on_offered: Callable[[bytes, int, bool], None] = lambda object_id, nbytes, primary: None
        """Told of each object that is whole: (object id, nbytes, primary)."""
        self.on_gone: Callable[[bytes], None] = lambda object_id: None
        """Told of each of them that is no longer offered."""
        self.arena = arena
        self.nbytes = settings.object_store_bytes
        self.table = ObjectTable(self.nbytes, cache_bytes=settings.cache_bytes)
        self._mapping = Mapping.create(arena, self.nbytes)
        self._spill_path = spill
        self._spill_bytes = settings.spill_bytes
        self._spill: SpillDirectory | None = None
        self._wait_s = settings.allocate_timeout_s
        self._post = post
        self._deadlines: dict[tuple[bytes, bytes], float] = {}
        self._read_by: dict[tuple[bytes, bytes], float] = {}
        self._jobs: queue.SimpleQueue[Job | None] = queue.SimpleQueue()
        self._gone = Graves()
        self._done: deque[tuple[Job, str | None]] = deque()
        self.poll_fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._thread: threading.Thread | None = None

    # -- messages ---------------------------------------------------------------------------------------------------

    def on_allocate(self, sender: bytes, message: Allocate, now: float) -> None:
        """Room for an object."""
        if sender in self._gone:  # it was killed while this was under way: nobody would ever write there
            return
        self._deadlines[sender, message.object_id] = now + self._wait_s
        self.perform(self.table.allocate(sender, message.object_id, message.nbytes, now))

    def on_sealed(self, sender: bytes, message: Sealed) -> None:
        """A creator is done, or gives up."""
        if message.ok:
            self.perform(self.table.claimed(message.object_id))
            self.perform(self.table.seal(sender, message.object_id))
            if self.table.contains(message.object_id):
                nbytes, secondary = self.table.describe(message.object_id)
                self.on_offered(message.object_id, nbytes, not secondary)
        else:
            self._deadlines.pop((sender, message.object_id), None)
            self.perform(self.table.abort(sender, message.object_id))

    def on_pin(self, sender: bytes, message: Pin, now: float) -> None:
        """A reader comes."""
        if sender in self._gone:
            return
        self._read_by.setdefault((sender, message.object_id), now + self._wait_s)
        self.perform(self.table.pin(sender, message.object_id))

    def on_unpin(self, sender: bytes, message: Unpin) -> None:
        """Views died."""
        for object_id in message.object_ids:
            self.perform(self.table.unpin(sender, object_id))

    def on_free(self, message: FreeObjects) -> None:
        """The owner needs these no more."""
        for object_id in message.object_ids:
            self.perform(self.table.free(object_id))

    def process_died(self, process: bytes, adopted: Container[bytes], stored: Iterable[bytes] = ()) -> None:
        """Drop its pins and unsealed rooms, and what it owned except what is `adopted`.

        `stored`: objects it had written wholly, whether or not its word of that has arrived.
        """
        self._gone.bury(process)
        for object_id in stored:
            self.on_sealed(process, Sealed(object_id, True))
        for waits in (self._deadlines, self._read_by):
            for key in [key for key in waits if key[0] == process]:
                del waits[key]
        self.perform(self.table.process_died(process))
        self.perform(self.table.free_owned_by(process, adopted))

    def used_bytes(self) -> int:
        """Bytes of memory that objects take."""
        return self.table.statistics().used_bytes

    def node_gone(self, node: bytes, adopted: Container[bytes]) -> None:
        """Another node is gone: nobody reads for it, and what its processes owned goes unless it is `adopted`."""
        self._gone.bury(node)
        self.perform(self.table.process_died(node))
        self.perform(self.table.free_owned_by(node[:NODE_BYTES], adopted))

    def tick(self, now: float) -> None:
        """Creators, and readers of what is on disk, that have waited long enough for room are told the reason."""
        self.perform(self.table.tick(now))
        for (process, object_id), deadline in list(self._deadlines.items()):
            if now >= deadline:
                del self._deadlines[process, object_id]
                self.perform(self.table.allocate_timed_out(process, object_id))
        for (process, object_id), deadline in list(self._read_by.items()):
            while now >= deadline and self.table.waits_for_room(process, object_id):
                self.perform(self.table.pin_timed_out(process, object_id), full=True)

    # -- for the node itself ------------------------------------------------------------------------------------------

    def reserve(self, object_id: bytes, nbytes: int, now: float) -> None:
        """Room for a copy of another node's object; answered through `own`."""
        self._deadlines[self._me, object_id] = now + self._wait_s
        self.perform(self.table.allocate(self._me, object_id, nbytes, now, secondary=True))

    def write(self, offset: int, data: memoryview, claimed: bool) -> None:
        """Write into reserved room. ObjectStoreFullError when the machine has no memory for pages not claimed yet."""
        if not claimed:
            self._mapping.claim(offset, len(data))
        view = self._mapping.writable(offset, len(data))
        view[:] = data
        view.release()

    def lend(self, offset: int, nbytes: int, back: Callable[[], object]) -> memoryview:
        """Bytes of the arena, to be sent by libzmq without a copy. `back()` is called, in any thread, when it has.

        The object has to stay pinned until then.
        """
        self._mapping.writable(offset, nbytes).release()  # has the pages mapped at once: a MiB is 256 faults
        return self._mapping.view(offset, nbytes, back)

    def promote(self, object_id: bytes) -> None:
        """A copy of another node's object is to stay as if it had been made here."""
        self.perform(self.table.promote(object_id))
        self.on_offered(object_id, self.table.describe(object_id)[0], True)

    def demote(self, object_id: bytes) -> None:
        """Another node keeps it from now on."""
        self.perform(objects.demote(self.table, object_id))
        if self.table.contains(object_id):
            self.on_offered(object_id, self.table.describe(object_id)[0], False)

    def unpin(self, key: bytes, object_id: bytes) -> None:
        """A transfer has read enough."""
        self.perform(self.table.unpin(key, object_id))

    # -- effects ----------------------------------------------------------------------------------------------------

    def perform(self, effects: Iterable[StoreEffect], full: bool = False) -> None:
        """Do what the table asks. `full`: what is missing now is so for want of room."""
        for effect in effects:
            match effect:
                case Granted(process, object_id, offset, nbytes, claimed):
                    self._deadlines.pop((process, object_id), None)
                    if process == self._me and self.own is not None:
                        self.own.granted(object_id, offset, claimed)
                    else:
                        self._post(process, Allocated(object_id, offset, nbytes, claimed))
                case Refused(process, object_id, reason):
                    self._deadlines.pop((process, object_id), None)
                    if process == self._me and self.own is not None:
                        self.own.refused(object_id, reason)
                    else:
                        self._post(process, AllocateRefused(object_id, reason))
                case PinnedHere(process, object_id, offset, nbytes):
                    self._read_by.pop((process, object_id), None)
                    if len(process) == _KEY_BYTES and self.own is not None:
                        self.own.pinned(process, offset, nbytes)
                    else:
                        self._post(process, Pinned(object_id, offset, nbytes))
                case Missing(process, object_id, reason):
                    self._read_by.pop((process, object_id), None)
                    if len(process) == _KEY_BYTES and self.own is not None:
                        self.own.missing(process, full)
                    elif (
                        self.own is None or not reason.startswith(SPOILT) or not self.own.elsewhere(process, object_id)
                    ):
                        self._post(process, PinRefused(object_id, reason, full))
                case StartSpill() | StartRestore() | DropSpilled():
                    self._start(effect)
                case Freed(object_id):
                    self.on_gone(object_id)
                case _:
                    assert_never(effect)

    def _start(self, job: Job) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._copy, name="zmreg-spill", daemon=True)
            self._thread.start()
        self._jobs.put(job)

    def _copy(self) -> None:
        while (job := self._jobs.get()) is not None:
            error: str | None = None
            try:
                self._carry_out(job)
            except (ZmregError, OSError) as problem:
                error = f"{type(problem).__name__}: {problem}"
            self._done.append((job, error))
            os.eventfd_write(self.poll_fd, 1)

    def _carry_out(self, job: Job) -> None:
        if self._spill is None:
            self._spill = SpillDirectory(self._spill_path, limit_bytes=self._spill_bytes)
        match job:
            case StartSpill(object_id, offset, nbytes):
                view = self._mapping.writable(offset, nbytes)
                try:
                    self._spill.write(object_id, view)
                finally:
                    view.release()
            case StartRestore(object_id, offset, nbytes, claimed):
                if not claimed:
                    self._mapping.claim(offset, nbytes)
                view = self._mapping.writable(offset, nbytes)
                try:
                    self._spill.read_into(object_id, view)
                finally:
                    view.release()
            case DropSpilled(object_id):
                self._spill.delete(object_id)

    def finish(self) -> None:
        """Tell the table which copies are done."""
        os.eventfd_read(self.poll_fd)
        while self._done:
            job, error = self._done.popleft()
            if isinstance(job, StartSpill):
                self.perform(self.table.spilled(job.object_id, error))
            elif isinstance(job, StartRestore):
                if error is None and not job.claimed:
                    self.perform(self.table.claimed(job.object_id))
                self.perform(self.table.restored(job.object_id, error))

    def close(self) -> None:
        """Stop copying and remove the arena."""
        if self._thread is not None:
            self._jobs.put(None)
            self._thread.join(timeout=5)
        self._mapping.close()
        self.arena.unlink(missing_ok=True)


__all__ = ["ObjectStoreFullError", "Storekeeper", "objects"]
