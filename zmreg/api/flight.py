"""Calls by name that are under way, and news of how each of them ended. What requests are driven by."""

from __future__ import annotations

import queue
import time
from collections.abc import Callable, Mapping
from typing import Any

from zmreg.api.functions import RemoteFunction
from zmreg.api.refs import ObjectRef
from zmreg.model.function_messages import FunctionRow
from zmreg.model.ids import node_of
from zmreg.model.record import Record
from zmreg.services.calling.hosts import MAX_THREADS
from zmreg.services.calling.naming import Wanted, naming, was_lost, was_refused
from zmreg.services.seat.client import Waiter
from zmreg.services.seat.entries import FAILED, INLINE, PENDING, Entry
from zmreg.services.seat.seats import client
from zmreg.services.worker.filling import Filling, is_template

Local = Mapping[str, RemoteFunction[..., Any]]
"""Functions that nobody has to serve: they run as tasks."""


class Landed(Record):
    """A call that has ended. Exactly one of `ref` and `error` is there."""

    key: str
    ref: ObjectRef[Any] | None
    error: BaseException | None
    row: FunctionRow
    took_s: float
    nbytes: int
    lost: bool = False
    """Its process is gone, or does not serve it any more."""
    may_have_run: bool = False

    @property
    def node(self) -> str:
        """What people call its node."""
        return node_name(self.row)


class Flight:
    """Used by one thread, besides `wake`. `key` names a call; it may be sent again when it has landed."""

    def __init__(self, local: Local | None = None) -> None:
        self._client = client()
        self._naming = naming(self._client)
        self._local = local or {}
        self._filling: dict[str, RemoteFunction[..., Any]] = {}
        self._ended: queue.SimpleQueue[tuple[str, Entry]] = queue.SimpleQueue()
        self._open: dict[str, tuple[ObjectRef[Any], FunctionRow]] = {}
        self._at: dict[bytes, dict[str, None]] = {}
        """{host: calls of ours there, in the order of their sending}."""
        self._waiter = Waiter()
        self._woken = False

    def find(self, fun: str, locs: tuple[str, ...], version: str, timeout: float) -> None:
        """See that somebody can be called; wait up to `timeout` seconds for one. Raises FunctionNotFoundError,
        NoRouteError, ValueError."""
        if fun not in self._local:
            self._naming.require(Wanted(fun, locs, version), timeout)

    def send(
        self, key: str, wanted: tuple[str, tuple[str, ...], str], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> FunctionRow:
        """Call `wanted` = (fun, locs, version); returns who was called. Refs among the arguments arrive as values.

        Raises as `find`, and SerializationError.
        """
        if wanted[0] in self._local:
            ref, row = self._task(wanted, args, kwargs)
        else:
            task, row = self._naming.call(Wanted(*wanted), args, kwargs)
            ref = ObjectRef(task.entries[0])
        entry = ref._entry
        self._open[key] = ref, row
        self._at.setdefault(row.host, {})[key] = None
        with self._client.lock:  # what collects goes with the next `take`, and by itself when that is late
            if entry.state == PENDING:
                entry.listen(lambda _: self._note(key, entry))
                return row
        self._note(key, entry)
        return row

    def _task(
        self, wanted: tuple[str, tuple[str, ...], str], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> tuple[ObjectRef[Any], FunctionRow]:
        function = self._local[wanted[0]]
        row = FunctionRow(function._name, "", self._client.node, node_name="a worker")
        if not is_template(args):
            return function.remote(*args, **kwargs), row
        filling = self._filling.get(wanted[0])
        if filling is None:  # values go inside of containers: by whoever runs it
            filling = self._filling[wanted[0]] = RemoteFunction(Filling(function._function), function._options)
        return filling.remote(*args, **kwargs), row

    def _note(self, key: str, entry: Entry) -> None:
        self._ended.put((key, entry))
        self._waiter.finish()

    def take(self, deadline: float | None) -> list[Landed]:
        """Those that have ended since the last time, in that order; waits for one until `deadline`, a time of
        time.monotonic(). Empty: none has, or `wake` was called."""
        if self._ended.empty():
            self._waiter = Waiter()
            if self._ended.empty() and not self._woken:  # nothing came between the two
                self._client.pump_until(self._waiter, deadline)
                self._client.check()
        self._woken = False
        landed = []
        while not self._ended.empty():
            key, entry = self._ended.get_nowait()
            if key in self._open and self._open[key][0]._entry is entry:
                landed.append(self._landed(key, entry))
        return landed

    def wake(self) -> None:
        """Have `take` return; from any thread."""
        self._woken = True
        self._waiter.finish()

    def _landed(self, key: str, entry: Entry) -> Landed:
        ref, row = self._pop(key)
        took_s = entry.took_us / 1e6
        if entry.state < FAILED:
            return Landed(key, ref, None, row, took_s, entry.nbytes)
        error = self._client.error_of(entry)
        refused = was_refused(entry)
        if refused:
            self._naming.refused(row)
        lost = was_lost(entry, error)
        return Landed(key, None, error, row, took_s, 0, lost, lost and not refused)

    def _pop(self, key: str) -> tuple[ObjectRef[Any], FunctionRow]:
        ref, row = self._open.pop(key)
        there = self._at[row.host]
        del there[key]
        if not there:
            del self._at[row.host]
        return ref, row

    def under_way(self) -> list[str]:
        """The calls that have not landed, in the order of their sending."""
        return list(self._open)

    def runs(self, key: str) -> bool:
        """Whether a call is likely to have begun: as many as a host runs at once have, in the order of their sending,
        unless it has others' calls to run before."""
        ref, row = self._open[key]
        if row.host == self._client.node:  # a task of ours
            return self._client.is_sent(ref._entry)
        there = self._at[row.host]
        if row.actor and row.ordered:
            return next(iter(there)) == key
        return len(there) <= MAX_THREADS or key in list(there)[:MAX_THREADS]

    def drop(self, key: str) -> None:
        """Cancel a call, if it is under way. It does not land."""
        if key in self._open:
            ref, _ = self._pop(key)
            self._client.cancel(ref._entry, force=False, recursive=True)

    def is_inline(self, ref: ObjectRef[Any]) -> bool:
        """Whether the value is small, and here."""
        return ref._entry.state == INLINE

    def now(self) -> float:
        """The clock of deadlines."""
        return time.monotonic()


def unix_offset_s() -> float:
    """What makes Unix seconds of `Flight.now`."""
    return time.time() - time.monotonic()


def node_name(row: FunctionRow) -> str:
    """What people call the node of a host."""
    return row.node_name or node_of(row.host)[:4].hex()


def code_of(row: FunctionRow) -> Callable[..., Any]:
    """The function itself. Raises FunctionNotFoundError when nobody serves it any more, SerializationError."""
    from zmreg.services.calling.sources import fetch  # late: only who looks into a failure needs it

    return fetch(client(), row)
