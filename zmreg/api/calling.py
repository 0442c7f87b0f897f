"""Calls by name: `call`, `acall`, and what names there are."""

from __future__ import annotations

import time
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

from zmreg.api.refs import ObjectRef, notified
from zmreg.model.arguments import check_count, check_name, check_seconds
from zmreg.model.errors import (
    FunctionNotFoundError,
    GetTimeoutError,
    NoRouteError,
    RequestTimeoutError,
)
from zmreg.model.function_messages import FunctionRow
from zmreg.model.ids import node_of
from zmreg.model.record import Record
from zmreg.services.calling.built_in import BUILT_IN, row_of
from zmreg.services.calling.literals import plain
from zmreg.services.calling.naming import Naming, Wanted, naming, was_lost, was_refused
from zmreg.services.seat.client import Client
from zmreg.services.seat.entries import FAILED, PENDING, Entry
from zmreg.services.seat.seats import client

BIND_TIMEOUT_S: Final = 1.0
"""For which a function that nobody serves is waited for: word of it may be on its way."""


def call(
    name: str,
    /,
    *args: Any,
    locs: Collection[str] = (),
    timeout: float | None = None,
    version: str | None = None,
    retries: int = 0,
    queue_until: float | None = None,
    **kwargs: Any,
) -> Any:
    """Call a function by its name, wherever it is served with all `locs`, and return its value.

    `version`: "2.1" or a constraint such as ">=2,<3"; the highest that is there is called. Refs among the arguments
    arrive as values. `timeout`: seconds after which the call is cancelled. `retries`: how often it is called again when
    the process that may have run it is gone. `queue_until`: seconds for which one that can be called is waited for, one
    by default. Arguments of these names go by `zmreg.request`.
    Raises what the function raised, as TaskError; FunctionNotFoundError, NoRouteError, TimeoutError, WorkerDiedError,
    SerializationError, GraphError for a `Ref`, ValueError for a constraint that is none.
    """
    made = _Call(name, args, kwargs, _Terms(locs, timeout, version, retries, queue_until))
    while True:
        entry = made.send()
        if entry is None:
            made.naming.require(made.wanted, made.patience())
            continue
        try:
            made.seat.settled(entry, made.left())
        except GetTimeoutError:
            made.give_up(entry)
        except BaseException:
            made.cancel(entry)
            raise
        if not made.goes_again(entry):
            return ObjectRef[Any](entry).get(made.left())


async def acall(
    name: str,
    /,
    *args: Any,
    locs: Collection[str] = (),
    timeout: float | None = None,
    version: str | None = None,
    retries: int = 0,
    queue_until: float | None = None,
    **kwargs: Any,
) -> Any:
    """`call` for coroutines. Cancelling whoever awaits it cancels the call."""
    import asyncio

    seat = client()
    if seat.naming is None:
        await asyncio.to_thread(naming, seat)
    made = _Call(name, args, kwargs, _Terms(locs, timeout, version, retries, queue_until))
    while True:
        entry = made.send()
        if entry is None:
            await asyncio.to_thread(made.naming.require, made.wanted, made.patience())
            continue
        try:
            if entry.state == PENDING:
                await _settled(seat, entry, made.left())
            if entry.state == PENDING:
                made.give_up(entry)
        except BaseException:
            made.cancel(entry)
            raise
        if not made.goes_again(entry):
            return await ObjectRef[Any](entry)


async def _settled(seat: Client, entry: Entry, timeout: float | None) -> None:
    await notified(lambda wake: seat.when_settled(entry, wake), timeout)


class _Terms(Record):
    """How a call is made."""

    locs: Collection[str]
    timeout: float | None
    version: str | None
    retries: int
    queue_until: float | None


class _Call:
    """One call, which may be sent more than once."""

    def __init__(self, name: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], terms: _Terms) -> None:
        if isinstance(terms.locs, str):
            raise TypeError(f"locs must be a set of names, not the one string {terms.locs!r}; write {{{terms.locs!r}}}")
        if type(name) is not str or not name:
            check_name(name)
        if terms.retries != 0:
            check_count(terms.retries, "retries")
        check_seconds(terms.timeout, past=True)
        check_seconds(terms.queue_until, "queue_until", past=True)
        self.seat = client()
        self.naming: Naming = naming(self.seat)
        self.wanted = Wanted(name, tuple(terms.locs), terms.version or "")
        self._args, self._kwargs = plain(name, args, kwargs)
        self._timeout = terms.timeout
        self._deadline = None if terms.timeout is None else time.monotonic() + terms.timeout
        self._retries = terms.retries
        self._bind_s = BIND_TIMEOUT_S if terms.queue_until is None else terms.queue_until
        self._row: FunctionRow | None = None

    def left(self) -> float | None:
        """Seconds."""
        return None if self._deadline is None else max(0.0, self._deadline - time.monotonic())

    def patience(self) -> float:
        """For how long one that can be called is waited for."""
        left = self.left()
        return self._bind_s if left is None else min(left, self._bind_s)

    def send(self) -> Entry | None:
        """Its result; None when nobody can be called for it just now."""
        try:
            task, self._row = self.naming.call(self.wanted, self._args, self._kwargs)
        except (FunctionNotFoundError, NoRouteError):
            return None
        return task.entries[0]

    def goes_again(self, entry: Entry) -> bool:
        """Whether it is to be sent once more: it was not begun, or may be repeated."""
        if entry.state < FAILED:
            return False
        if was_refused(entry):
            assert self._row is not None
            self.naming.refused(self._row)
            return True
        if not was_lost(entry, self.seat.error_of(entry)):
            return False
        self._retries -= 1
        return self._retries >= 0

    def cancel(self, entry: Entry) -> None:
        """Nobody waits for it any more."""
        if self.seat.closed is None and entry.state == PENDING:
            self.seat.cancel(entry, force=False, recursive=True)

    def give_up(self, entry: Entry) -> None:
        """Its time is up: raises RequestTimeoutError, which is a TimeoutError."""
        self.cancel(entry)
        raise RequestTimeoutError(f"{self.wanted.name}() was not done within {self._timeout:g} s, and is cancelled")


# -- what there is ----------------------------------------------------------------------------------------------------


class FunctionHost(Record):
    """A process that serves a name."""

    process: str
    node: str
    node_name: str
    version: str
    locs: tuple[str, ...]
    """Of its node and of the function."""
    actor: str
    """Id of the actor that it is, or ""."""
    reachable: bool
    """Its node is neither silent nor about to leave."""


class FunctionInfo(Record):
    """What is known of a name."""

    name: str
    signature: str
    """Of the highest version."""
    doc: str
    versions: tuple[str, ...]
    """The highest first; "" is none."""
    locs: tuple[str, ...]
    """What its hosts have, all together."""
    nodes: tuple[str, ...]
    """Ids, as in `zmreg.nodes()`, of those where it is served."""
    hosts: tuple[FunctionHost, ...]
    """The processes that serve it."""


def functions() -> list[FunctionInfo]:
    """All named functions of the cluster, by name, the built-in ones among them."""
    seat = client()
    table = naming(seat).table
    with seat.lock:
        rows = table.rows()
    named: dict[str, list[FunctionRow]] = {}
    for row in rows:
        named.setdefault(row.name, []).append(row)
    for name in BUILT_IN:
        if name not in named:
            named[name] = _everywhere(seat, name)
    return [_info(named[name]) for name in sorted(named)]


def describe(name: str) -> FunctionInfo:
    """What is known of one name. FunctionNotFoundError, with names like it, when there is none."""
    check_name(name)
    seat = client()
    known = naming(seat)
    with seat.lock:
        rows = known.table.rows(name)
    if not rows and name in BUILT_IN:
        rows = _everywhere(seat, name)
    return _info(rows or known.require(Wanted(name), BIND_TIMEOUT_S))


def _everywhere(seat: Client, name: str) -> list[FunctionRow]:
    nodes: Iterable[dict[str, Any]] = seat.ask("nodes")
    return [
        row_of(name, bytes.fromhex(row["NodeID"]), row["NodeName"], tuple(row["Locs"])) for row in nodes if row["Alive"]
    ]


def _info(rows: list[FunctionRow]) -> FunctionInfo:
    hosts = tuple(
        FunctionHost(
            row.host.hex(), node_of(row.host).hex(), row.node_name, row.version,
            tuple(sorted({*row.locs, *row.node_locs})), row.actor.hex(), not row.resting,
        )
        for row in rows
    )  # fmt: skip
    return FunctionInfo(
        rows[0].name, rows[0].signature, rows[0].doc,
        tuple(dict.fromkeys(row.version for row in rows)), tuple(sorted({loc for host in hosts for loc in host.locs})),
        tuple(dict.fromkeys(host.node for host in hosts)), hosts,
    )  # fmt: skip
