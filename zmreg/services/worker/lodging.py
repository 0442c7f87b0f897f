"""A process with a name and its lodgers: workers beside the one that it was forked as, each on threads of its own.

A lodger is a worker like any other: it has an id, a door, a seat at the node and an actor, answers for itself, and ends
without the others. What it shares with them is what modules hold, the environment, the log, and the interpreter's lock.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import partial
from signal import SIGKILL
from typing import TYPE_CHECKING

from zmreg.model.errors import StateError
from zmreg.model.ids import ProcessId, short
from zmreg.model.lodging_messages import Evict, Lodge, LodgerGone
from zmreg.net.sockets import Ends
from zmreg.services.machine import accelerators
from zmreg.services.seat.client import Client, share_process
from zmreg.services.seat.entries import Entry
from zmreg.services.worker import threads
from zmreg.services.worker.threaded import ThreadWorker
from zmreg.services.worker.voice import Speech
from zmreg.services.worker.worker import Worker

if TYPE_CHECKING:
    from zmreg.services.worker.intake import Intake

_FAILED = 1 << 8


class LodgerEnds(Ends):
    """Door and link of a lodger, that can be cut off."""

    def cut(self) -> None:
        """As when a process dies: nothing goes out any more, whatever its threads still do."""
        self._send = _to_nobody  # type: ignore[method-assign,assignment]


def _speech_here() -> Speech | None:
    worker = threads.worker_here()
    return None if worker is None else worker.speech


def _to_nobody(_peer: bytes, _frame: bytes, _header: bytes = b"") -> bool:
    return False


class Lodger(ThreadWorker):
    """A worker in the process of another."""

    ends_kind = LodgerEnds

    def __init__(self, house: Worker, me: ProcessId, gone: Callable[[int], None]) -> None:
        super().__init__(house.session, me, ProcessId(house.node), gone)
        self.house = house
        self._lodgers = house.lodgers
        self.speech = Speech(self)
        keep_apart(self)

    def _on_devices(self, devices: tuple[str, ...]) -> None:
        """The process sees those of all in it; each knows which ones are its own."""
        self.devices = devices
        if self._lodgers is not None:
            self._lodgers.show_devices()


class Lodgers:
    """Who lives in this process beside the worker that it was made for."""

    def __init__(self, house: Worker) -> None:
        self._house = house
        self._guard = threading.Lock()
        self._there: dict[bytes, Lodger] = {}
        self._evicted: set[bytes] = set()
        self._threads: dict[bytes, threading.Thread] = {}
        keep_apart(house)
        threads.know_threads(True)
        share_process(lambda: threads.worker_here() or house)
        if house.speech is not None:
            house.speech.guest = _speech_here

    def take_in(self, message: Lodge) -> None:
        """Make one more worker; the node hears from itself that it is there, or from us that it is not."""
        me = message.worker
        name = f"zmreg-lodger-{short(me)}"
        thread = threading.Thread(target=self._live, args=(ProcessId(me),), daemon=True, name=name)
        try:
            with self._guard:
                thread.start()
                self._threads[me] = thread
        except RuntimeError as error:  # there can be no more threads
            self._left(me, _FAILED, str(error))

    def evict(self, message: Evict) -> None:
        """End one at once. Another thread does it: it takes a moment, and we are on the one that receives."""
        with self._guard:
            lodger = self._there.get(message.worker)
            if lodger is None and message.worker in self._threads:  # it has yet to become one
                self._evicted.add(message.worker)
        if lodger is not None:
            threading.Thread(target=lodger.die, args=(int(SIGKILL),), daemon=True, name="zmreg-evict").start()

    def show_devices(self) -> None:
        """Have the process's environment name the GPUs of everybody here."""
        with self._guard:
            here = [*self._house.devices, *(each for lodger in self._there.values() for each in lodger.devices)]
        accelerators.expose(tuple(sorted(set(here), key=lambda device: (len(device), device))))

    def wait(self) -> None:
        """Until all have ended; they were told to. Whoever waits for us bounds it."""
        for thread in list(self._threads.values()):
            thread.join()

    def _live(self, me: ProcessId) -> None:
        try:
            lodger = Lodger(self._house, me, partial(self._left, me, reason=""))
            threads.belongs(lodger)
            with self._guard:
                self._there[me] = lodger
                evicted = me in self._evicted
            if evicted:
                lodger.die(int(SIGKILL))
            lodger.live()
        except Exception as error:  # noqa: BLE001  no descriptors, no threads: unless told, its node waits for ever
            self._left(me, _FAILED, f"{type(error).__name__}: {error}")
        finally:
            threads.leaves()
            with self._guard:
                self._there.pop(me, None)
                self._threads.pop(me, None)
                self._evicted.discard(me)

    def _left(self, me: bytes, status: int, reason: str) -> None:
        self._house.tell_node(LodgerGone(me, status, reason))


def keep_apart(seat: Client) -> None:
    """From now on refs that another worker of this process got, and that came here by a variable of both, are refused
    where this one would wait for them or hand them over: it would not be told of the value, nor its owner of the loan.
    """
    sharing = seat.sharing
    want, show = sharing.want, sharing.show

    def checked_want(entry: Entry) -> None:
        _require_own(seat, entry)
        want(entry)

    def checked_show(entry: Entry) -> None:
        _require_own(seat, entry)
        show(entry)

    sharing.want, sharing.show = checked_want, checked_show  # type: ignore[method-assign]


def _require_own(seat: Client, entry: Entry) -> None:
    if not seat.sharing.knows(entry):
        raise StateError(
            f"the ref {short(entry.object_id)} was given to another actor, or to a task, of the process "
            f"{seat.environment.process!r}: refs do not go over by a variable that both see. Have it returned by a "
            "call, or keep its value there"
        )


def hear(house: Intake, message: Lodge | Evict) -> None:
    """A word of our node's about who lives in this process."""
    assert isinstance(house, Worker)
    if house.lodgers is None:
        house.lodgers = Lodgers(house)
    if isinstance(message, Lodge):
        house.lodgers.take_in(message)
    else:
        house.lodgers.evict(message)
