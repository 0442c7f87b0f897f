"""Calls by name that are under way, and news of how each of them ended. What requests are driven by."""

from __future__ import annotations

import queue
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from zmreg.api.refs import ObjectRef
from zmreg.model.errors import FunctionWithdrawnError
from zmreg.model.function_messages import FunctionRow
from zmreg.model.ids import node_of
from zmreg.services.client import Waiter
from zmreg.services.entries import FAILED, INLINE, Entry
from zmreg.services.naming import Wanted, naming, was_lost
from zmreg.services.seats import client


@dataclass(frozen=True, slots=True)
class Landed:
    """A call that has ended. Exactly one of `ref` and `error` is there."""

    key: str
    ref: ObjectRef[Any] | None
    error: BaseException | None
    node: str
    took_s: float
    nbytes: int
    lost: bool = False
    """Its process is gone, or does not serve it any more."""
    may_have_run: bool = False


class Flight:
    """Used by one thread. `key` names a call; it may be sent again when it has landed."""

    def __init__(self) -> None:
        self._client = client()
        self._naming = naming(self._client)
        self._ended: queue.SimpleQueue[tuple[str, Entry]] = queue.SimpleQueue()
        self._open: dict[str, tuple[ObjectRef[Any], FunctionRow]] = {}
        self._waiter = Waiter()

    def find(self, fun: str, locs: tuple[str, ...], version: str, timeout: float) -> None:
        """See that somebody can be called; wait up to `timeout` seconds for one. Raises FunctionNotFoundError,
        NoRouteError, ValueError."""
        self._naming.require(Wanted(fun, locs, version), timeout)

    def send(
        self, key: str, wanted: tuple[str, tuple[str, ...], str], args: tuple[Any, ...], kwargs: Mapping[str, Any]
    ) -> str:
        """Call `wanted` = (fun, locs, version); returns the node. Refs among the arguments arrive as values.

        Raises as `find`, and SerializationError.
        """
        task, row = self._naming.call(Wanted(*wanted), args, kwargs)
        entry = task.entries[0]
        self._open[key] = ObjectRef(entry), row
        self._client.when_settled(entry, lambda: self._note(key, entry))
        return node_name(row)

    def _note(self, key: str, entry: Entry) -> None:
        self._ended.put((key, entry))
        self._waiter.finish()

    def take(self, deadline: float | None) -> list[Landed]:
        """Those that have ended since the last time, in that order; waits for one until `deadline`, a time of
        time.monotonic(). Empty: none has, or `wake` was called."""
        if self._ended.empty():
            self._waiter = Waiter()
            if self._ended.empty():  # none came between the two
                self._client.pump_until(self._waiter, deadline)
                self._client.check()
        landed = []
        while not self._ended.empty():
            key, entry = self._ended.get_nowait()
            if key in self._open and self._open[key][0]._entry is entry:
                landed.append(self._landed(key, entry))
        return landed

    def wake(self) -> None:
        """Have `take` return; from any thread."""
        self._waiter.finish()

    def _landed(self, key: str, entry: Entry) -> Landed:
        ref, row = self._open.pop(key)
        node, took_s = node_name(row), entry.took_us / 1e6
        if entry.state < FAILED:
            return Landed(key, ref, None, node, took_s, entry.nbytes)
        error = self._client.error_of(entry)
        withdrawn = isinstance(error, FunctionWithdrawnError)
        if withdrawn:
            self._naming.refused(row)
        lost = was_lost(error)
        return Landed(key, None, error, node, took_s, 0, lost, lost and not withdrawn)

    def drop(self, key: str) -> None:
        """Cancel a call. It does not land."""
        found = self._open.pop(key, None)
        if found is not None:
            self._client.cancel(found[0]._entry, force=False, recursive=True)

    def is_inline(self, ref: ObjectRef[Any]) -> bool:
        """Whether the value is small, and here."""
        return ref._entry.state == INLINE

    def now(self) -> float:
        """The clock of deadlines."""
        return time.monotonic()


def node_name(row: FunctionRow) -> str:
    """What people call the node of a host."""
    return row.node_name or node_of(row.host)[:4].hex()
