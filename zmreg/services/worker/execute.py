"""Running one call on a worker: arguments in, function, results out. No decisions about what runs when.

A call never raises out of here, whatever the user's code does, except for what ends the process (SystemExit) and what
ends the actor (ActorExit).
"""

from __future__ import annotations

import inspect
import logging
import os
import weakref
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Final

from zmreg.model.errors import FunctionWithdrawnError, ObjectLostError, TaskCancelledError, ZmregError
from zmreg.model.ids import counter_of, object_id
from zmreg.model.messages import PartReady
from zmreg.services.calling.submit import WHOLE_ARGUMENTS
from zmreg.services.seat import arrivals
from zmreg.services.seat.client import Client
from zmreg.services.seat.entries import Entry
from zmreg.services.seat.shelf import PinTicket
from zmreg.services.worker import breaking
from zmreg.wire import batches, payload
from zmreg.wire.packed import Packed

log = logging.getLogger("zmreg.tasks")

Row = batches.Row
Returns = list[Row]
Advance = Callable[[Iterator[Any]], Any]
Refs = list[weakref.ref[Entry]]


class ActorExit(BaseException):
    """Raised by exit_actor(): the running method ends, and with it the actor."""


class NotBegun(KeyboardInterrupt):
    """A call was cancelled while its arguments were loaded: the function was never called."""


class InputFailed(Exception):
    """An input that rode on the same worker failed; `failure` is its packed error."""

    def __init__(self, failure: bytes) -> None:
        super().__init__("input failed")
        self.failure = failure


class InputMissing(Exception):
    """An input that should ride here is not here any more: the owner must send the call again with the value."""


class Unserved(Exception):
    """A named function is not served here any more. Only hosts raise it: what users raise fails their call."""


class InputLost(Exception):
    """No node gave the bytes of an input: its owner may have them made again, and sends the call once more then."""

    def __init__(self, object_id: bytes, error: ObjectLostError) -> None:
        super().__init__(str(error))
        self.object_id = object_id
        self.error = error


class Outcomes:
    """What a batch of calls gave: (True, value) or (False, what it raised), one a call."""

    __slots__ = ("each",)

    def __init__(self, each: list[tuple[bool, Any]]) -> None:
        self.each = each

    def rows(self, client: Client, caller: bytes, task_id: bytes, name: str) -> Returns:
        """One row a call. One whose value cannot be sent fails alone."""
        first = counter_of(task_id)
        rows = []
        for index, (good, value) in enumerate(self.each):
            try:
                if not good:
                    raise value
                rows.append(pack_one(client, caller, object_id(caller, first + index), value, name))
            except Exception as error:  # noqa: BLE001  this call's error, and no other's
                rows.append(failed_row(failure_of(error, name, client)))
        return rows


# Results kept for calls that ride behind: as many as a lane may hold, and half of what a batch may weigh.
_KEEP_RESULTS = 512
_KEEP_BYTES = 16 << 20


class Recent:
    """The latest single results of this worker, for calls that were sent behind their inputs."""

    __slots__ = ("_bytes", "_kept")

    def __init__(self) -> None:
        self._kept: dict[bytes, bytes | Row] = {}
        self._bytes = 0

    def keep(self, task_id: bytes, result: bytes | Row) -> None:
        """`result` is an inline value's payload, or the row [status, data, nbytes, type name, contained]."""
        kept = self._kept
        kept[task_id] = result
        self._bytes += len(result)
        if len(kept) > _KEEP_RESULTS or self._bytes > _KEEP_BYTES:
            self._trim()

    def _trim(self) -> None:
        kept = self._kept
        for task_id in list(kept)[: _KEEP_RESULTS // 4]:
            self._bytes -= len(kept.pop(task_id))

    def find(self, task_id: bytes) -> Row | None:
        """The row, if it is still kept."""
        found = self._kept.get(task_id)
        return [batches.OK_INLINE, found] if isinstance(found, bytes) else found


def load_arguments(client: Client, recent: Recent, caller: bytes, row: Row) -> tuple[Sequence[Any], dict[str, Any]]:
    """(args, kwargs) of a call, its inputs filled in. Stored inputs are read in place and pinned by their views.

    Raises InputFailed, InputLost, InputMissing, SerializationError.
    """
    if len(row) == batches.SHORT_ROW:
        value = payload.unpack(row[2])
        return (value, {}) if type(value) is tuple else (value[0], value[1])  # type: ignore[index]
    deps = row[6]
    data: bytes | memoryview = row[2]
    # Each object is asked for once: a second ticket for it would be lost, and its pin with it.
    stored = {dep[2]: dep for dep in deps if dep[1] == batches.STORED}
    tickets = {key: client.shelf.ask(*dep[2:]) for key, dep in stored.items()}
    try:
        if deps and deps[0][0] == WHOLE_ARGUMENTS:
            whole = deps[0]
            data = whole[2] if whole[1] == batches.INLINE else _view(client, tickets.pop(whole[2]))
            deps = deps[1:]
        value = payload.unpack(data)
        if not deps:
            return (value, {}) if type(value) is tuple else (value[0], value[1])  # type: ignore[index]
        args, kwargs = (list(value), {}) if type(value) is tuple else (list(value[0]), value[1])  # type: ignore[index]
        for where, kind, key, *_ in deps:
            filled = _input(client, recent, caller, kind, key, tickets)
            if type(where) is int:
                args[where] = filled
            else:
                kwargs[where] = filled
        return args, kwargs
    finally:
        for ticket in tickets.values():
            client.shelf.abandon(ticket)


def _input(client: Client, recent: Recent, caller: bytes, kind: int, key: Any, tickets: dict[bytes, Any]) -> Any:
    if kind == batches.INLINE:
        return payload.unpack(key)
    if kind == batches.STORED:
        ticket = tickets.pop(key, None) or client.shelf.ask(key)  # the second time it is here
        return payload.unpack(_view(client, ticket))
    if kind == batches.FAILED_INPUT:
        raise InputFailed(key)
    task_id = object_id(caller, key)
    row = recent.find(task_id)
    if row is None:
        raise InputMissing
    if row[0] == batches.OK_INLINE:
        return payload.unpack(row[1])
    if row[0] == batches.OK_STORED:
        return payload.unpack(_view(client, client.shelf.ask(task_id)))
    if row[0] in (batches.FAILED, batches.REFUSED):
        raise InputFailed(row[1])
    raise InputFailed(payload.pack_failure(TaskCancelledError("an input was cancelled", task_id=task_id.hex())))


def _view(client: Client, ticket: PinTicket) -> memoryview:
    try:
        return client.shelf.view(ticket)
    except ObjectLostError as error:
        raise InputLost(ticket.object_id, error) from None


def pack_returns(
    client: Client, caller: bytes, task_id: bytes, result: Any, nreturns: int, name: str, advance: Advance = next
) -> Returns:
    """One row a return value. Raises SerializationError, ObjectStoreFullError, ValueError (wrong number of values).

    The values of a generator are sent as they come; `advance` is how its body is run on.
    """
    if nreturns == 1:
        return [pack_one(client, caller, task_id, result, name)]
    if nreturns == 0:
        return []
    if type(result) is Outcomes:
        return result.rows(client, caller, task_id, name)
    if inspect.isgenerator(result):
        return _pack_generated(client, (caller, task_id), result, nreturns, name, advance)
    try:
        length = len(result)
    except TypeError:
        raise ValueError(
            f"{name} has num_returns={nreturns} but returned {type(result).__name__}: return {nreturns} in a tuple"
        ) from None
    if length != nreturns:
        raise ValueError(f"{name} has num_returns={nreturns} but returned {length} values")
    first = counter_of(task_id)
    return [
        pack_one(client, caller, object_id(caller, first + index), value, name) for index, value in enumerate(result)
    ]


def _pack_generated(
    client: Client, call: tuple[bytes, bytes], values: Iterator[Any], nreturns: int, name: str, advance: Advance
) -> Returns:
    parts = Parts(client, call, nreturns, name)
    try:
        for _ in range(nreturns):
            parts.give(advance(values))
    except StopIteration:
        return parts.failed(parts.too_few())
    except Exception as raised:  # noqa: BLE001  the user's generator raised: the values before it are good
        return parts.failed(raised)
    _run_out(values, nreturns, name, advance)
    return parts.whole()


class Parts:
    """The values of a generator whose caller wants so many: each is sent as soon as it is there."""

    def __init__(self, client: Client, call: tuple[bytes, bytes], nreturns: int, name: str) -> None:
        self._client = client
        self._caller, task_id = call
        self._first = counter_of(task_id)
        self._nreturns = nreturns
        self._name = name
        self._sent = 0

    def give(self, value: Any) -> None:
        """Send the next one. Raises SerializationError, ObjectStoreFullError."""
        client, caller, first, index = self._client, self._caller, self._first, self._sent
        row = pack_one(client, caller, object_id(caller, first + index), value, self._name)
        status, data, nbytes, type_name, contained = row
        stored = status == batches.OK_STORED
        client.post(caller, PartReady(first, index, stored, data, nbytes, type_name, contained))
        self._sent += 1

    def too_few(self) -> ValueError:
        """It has ended."""
        return ValueError(f"{self._name} has num_returns={self._nreturns} but yielded only {self._sent} values")

    def failed(self, error: Exception) -> Returns:
        """What the call gives: those that were sent are good."""
        row = failed_row(payload.pack_failure(error, self._name, node_id=self._client.node.hex()))
        return [SENT_AHEAD_ROW] * self._sent + [row] * (self._nreturns - self._sent)

    def whole(self) -> Returns:
        """What the call gives: all were sent."""
        return [SENT_AHEAD_ROW] * self._nreturns


RAISED_BEHIND: Final = "%s raised after its %d values (num_returns), which are good"
TOO_MANY: Final = "%s yields more than its %d values (num_returns): the others are not made"


def _run_out(values: Iterator[Any], nreturns: int, name: str, advance: Advance) -> None:
    """Let a generator that has given all its values end. What it gives besides, or raises, is logged and no more."""
    try:
        advance(values)
    except StopIteration:
        return
    except Exception:
        log.exception(RAISED_BEHIND, name, nreturns)
    else:
        log.warning(TOO_MANY, name, nreturns)


def pack_one(client: Client, caller: bytes, any_object_id: bytes, value: Any, name: str) -> Row:
    """The row of one value: inline when small, else stored under the owner's id for it."""
    refs: list[Any] = []
    packed = payload.pack(value, refs, what="the result of " + name)
    return row_of(client, caller, any_object_id, packed, refs, type(value).__name__)


class Parting(tuple[bytes, ...]):
    """Ids of refs that an answer hands out, which lives as long as the answer does, and they as long as it.

    Whoever gets them may be their owner: it is to hear that it has them before it hears that we have them no more.
    """

    refs: Sequence[Any] = ()


_NOTHING = Parting()


def row_of(
    client: Client, caller: bytes, any_object_id: bytes, packed: bytes | Packed, refs: list[Any], type_name: str
) -> Row:
    """The row of a packed value, with the refs inside it handed out to the caller."""
    contained = _NOTHING
    if refs:
        with client.lock:
            contained = Parting(client.sharing.hand_out([ref._entry for ref in refs], caller))
        contained.refs = refs
    if isinstance(packed, bytes):
        return [batches.OK_INLINE, packed, len(packed), type_name, contained]
    assert client.welcome is not None
    if packed.nbytes <= client.welcome.inline_limit:
        return [batches.OK_INLINE, packed.inline(), packed.nbytes, type_name, contained]
    client.shelf.put(any_object_id, packed)
    return [batches.OK_STORED, b"", packed.nbytes, type_name, contained]


def failed_row(failure: bytes) -> Row:
    """The row of a value that is an error."""
    return [batches.FAILED, failure, 0, "", ()]


SENT_AHEAD_ROW: Row = [batches.SENT_AHEAD, b"", 0, "", ()]
CANCELLED_ROW: Row = [batches.CANCELLED, b"", 0, "", ()]


def result_row(
    client: Client, caller: bytes, counter: int, took_us: int, returns: Returns, refs: Refs | None = None
) -> Row:
    """The answer to one call, short form when it can be; books the refs that are still held here.

    `refs`: those that came with the call; by default all that came into this thread since the call began.
    """
    if refs is None:
        refs = arrivals.take()
    held: tuple[bytes, ...] = ()
    if refs:
        alive = _alive(refs)
        if alive:
            with client.lock:
                held = client.sharing.still_held(alive, caller)
    if len(returns) == 1 and returns[0][0] == batches.OK_INLINE and not held and not returns[0][4]:
        return [counter, took_us, returns[0][1]]
    return [counter, took_us, returns, held]


def _alive(refs: list[weakref.ref[Entry]]) -> list[Entry]:
    return list({id(entry): entry for ref in refs if (entry := ref()) is not None}.values())


def failed_rows(error: BaseException, name: str, client: Client, nreturns: int) -> Returns:
    """The rows of a call that raised, or could not begin."""
    if isinstance(error, InputLost):
        row: Row = [batches.INPUT_LOST, error.object_id, 0, str(error), ()]
    elif isinstance(error, NotBegun):
        row = CANCELLED_ROW
    elif isinstance(error, Unserved):
        row = [batches.REFUSED, payload.pack_failure(FunctionWithdrawnError(str(error))), 0, "", ()]
    else:
        row = failed_row(failure_of(error, name, client))
    return [row] * max(1, nreturns)


def failure_of(error: BaseException, name: str, client: Client) -> bytes:
    """The packed error of a call that raised."""
    if isinstance(error, InputFailed):
        return error.failure
    if isinstance(error, InputLost):
        return payload.pack_failure(error.error)
    if breaking.POST_MORTEM in os.environ:
        breaking.hold(client, error, name)
    return payload.pack_failure(error, name, node_id=client.node.hex())


Target = Callable[..., Any]
__all__ = ["ZmregError"]
