"""Running something on every worker at once: beside its tasks, on a thread of its own, by no queue.

Both sides: who asks (`Round`), and the worker (`run_here`). Loaded by those who do it.
"""

from __future__ import annotations

import inspect
import threading
import time
import weakref
from collections.abc import Callable, Collection, Mapping
from typing import Any

from zmreg.model.errors import GetTimeoutError, MessageTooLargeError, WorkerDiedError
from zmreg.model.ids import object_id
from zmreg.model.messages import RanHere, RunHere
from zmreg.model.record import Record
from zmreg.net.waiting import Waiter
from zmreg.services.seat.client import Client
from zmreg.services.seat.watching import when_gone
from zmreg.services.worker.execute import failure_of
from zmreg.services.worker.voice import speaking
from zmreg.wire import payload

# Of 128 MiB that one message carries.
MOST_BYTES = 100 << 20


class Failed(Record):
    """Stands for a value: there is none, but this error."""

    error: BaseException


class Rounds:
    """What this process has asked workers to run, by number."""

    def __init__(self, client: Client) -> None:
        self.open: dict[int, Round] = {}
        self.count = 0
        client.handlers[RanHere] = self._on_answer
        client.questions.at_the_end.append(self._end)
        when_gone(client, self._on_death)

    def _on_answer(self, sender: bytes, message: RanHere) -> None:
        if (asked := self.open.get(message.request)) is not None:
            asked.settle(sender, message.failed, message.value)

    def _on_death(self, who: str) -> None:
        for asked in list(self.open.values()):
            asked.gone.append(who)
            asked.look()

    def _end(self) -> None:
        for asked in list(self.open.values()):
            asked.waiter.finish()


class Round:
    """One function on many workers: who has not answered, and what the others have said."""

    def __init__(self) -> None:
        self.missing: set[bytes] = set()
        self.found: dict[bytes, tuple[bool, bytes]] = {}
        self.gone: list[str] = []
        """Ids, or what they begin with, of who has died since this began."""
        self.waiter = Waiter()
        self.sent = False

    def settle(self, worker: bytes, failed: bool, value: bytes) -> None:
        """A worker has answered."""
        if worker in self.missing:
            self.missing.discard(worker)
            self.found[worker] = failed, value
            self.look()

    def look(self) -> None:
        """Whether all have answered who can."""
        for who in self.gone:
            for worker in [each for each in self.missing if each.hex().startswith(who)]:
                self.missing.discard(worker)
                died = WorkerDiedError(f"worker {worker.hex()} died before it answered")
                self.found[worker] = True, payload.pack_failure(died)
        if self.sent and not self.missing:
            self.waiter.finish()


_rounds: weakref.WeakKeyDictionary[Client, Rounds] = weakref.WeakKeyDictionary()


def run_everywhere(
    client: Client, call: tuple[Callable[..., Any], tuple[Any, ...], Mapping[str, Any]], nodes: Collection[str],
    timeout: float | None,
) -> dict[str, Any]:  # fmt: skip
    """Run it on every worker of these nodes; {worker id (hex): value, or Failed}."""
    deadline = None if timeout is None else time.monotonic() + timeout
    packed = payload.pack(call, [], what="what is to run on every worker")
    blob = packed if isinstance(packed, bytes) else packed.inline()
    if len(blob) > MOST_BYTES:
        raise MessageTooLargeError(f"{len(blob)} bytes are more than the {MOST_BYTES} that go to every worker at once")
    asked = Round()
    with client.shield(), client.lock:
        client.check()
        rounds = _rounds.get(client) or _rounds.setdefault(client, Rounds(client))
        rounds.count += 1
        number = rounds.count
        rounds.open[number] = asked
    try:
        workers = [
            bytes.fromhex(row["WorkerID"])
            for node in nodes
            for row in client.ask("workers", node) or ()
            if row["Ready"] and not row["HouseID"]  # once in a process
        ]
        with client.shield(), client.lock:
            asked.missing = set(workers)
            asked.sent = True
            for worker in workers:
                if worker == client.me:
                    run_here(client, client.me, RunHere(number, blob))
                elif not client.post(worker, RunHere(number, blob)):
                    asked.gone.append(worker.hex())
            asked.look()
        client.pump_until(asked.waiter, deadline)
        client.check()
    finally:
        with client.shield(), client.lock:
            rounds.open.pop(number, None)
    return {worker.hex(): _value(asked.found.get(worker), timeout) for worker in workers}


def _value(found: tuple[bool, bytes] | None, timeout: float | None) -> Any:
    if found is None:
        text = f"the worker has not answered within {timeout} s; it goes on"
        return Failed(GetTimeoutError(text, timeout_s=timeout))
    failed, value = found
    try:
        return Failed(payload.unpack_failure(value)) if failed else payload.unpack(value)
    except Exception as error:  # noqa: BLE001  a value whose class is not here fails the one worker's answer alone
        return Failed(error)


# -- on the worker -----------------------------------------------------------------------------------------------------


def run_here(client: Client, sender: bytes, message: RunHere) -> None:
    """Run it on a thread, whatever the main thread does meanwhile, and answer."""
    work = threading.Thread(target=_run, args=(client, sender, message), name="zmreg-run", daemon=True)
    work.start()


def _run(client: Client, sender: bytes, message: RunHere) -> None:
    with speaking(object_id(sender, 0), "run_on_all"):
        _run_and_answer(client, sender, message)


def _run_and_answer(client: Client, sender: bytes, message: RunHere) -> None:
    failed, value = True, b""
    name = "what was to run on every worker"
    try:
        call: Any = payload.unpack(message.call)
        function, args, kwargs = call
        name = getattr(function, "__qualname__", name)
        result = function(*args, **kwargs)
        if inspect.iscoroutine(result):
            import asyncio  # late: few run coroutines

            result = asyncio.run(result)
        packed = payload.pack(result, [], what="the result of " + name)
        value = packed if isinstance(packed, bytes) else packed.inline()
        if len(value) > MOST_BYTES:
            raise MessageTooLargeError(f"the result of {name} has {len(value)} bytes; zmreg.put it, and return the ref")
        failed = False
    except BaseException as error:  # noqa: BLE001  the user's code may raise anything; it all goes to who has asked
        value = failure_of(error, name, client)
    answer = RanHere(message.request, failed, value)
    with client.shield(), client.lock:
        if client.closed is not None:
            return
        if sender == client.me:
            client.handlers[RanHere](sender, answer)
        else:
            client.post(sender, answer)
