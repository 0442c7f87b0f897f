"""Functions under a name: served by a process for the whole cluster, called by whoever knows the name."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
from collections.abc import Callable, Collection, Iterable, Mapping
from types import FrameType
from typing import Any, Final, TypeVar, overload

from zmreg.api import cluster
from zmreg.api.functions import RemoteFunction
from zmreg.model.arguments import check_name
from zmreg.model.errors import ZmregError
from zmreg.services.seat.client import Client, Waiter
from zmreg.services.seat.seats import client
from zmreg.services.worker import serving_names

F = TypeVar("F", bound=Callable[..., Any])

# For calls that have come, when a serving process is asked to end.
LEAVE_GRACE_S: Final = 10.0
# A signal that comes just before a thread falls asleep at a lock does not wake it: Python notes it, and looks later.
SIGNAL_S: Final = 0.5


@overload
def register(
    name: str, *, locs: Collection[str] = (), version: str = "", replace: bool = False
) -> Callable[[F], F]: ...
@overload
def register(name: str, function: F, *, locs: Collection[str] = (), version: str = "", replace: bool = False) -> F: ...
@overload
def register(name: F, *, locs: Collection[str] = (), version: str = "", replace: bool = False) -> F: ...
def register(
    name: Any, function: Any = None, *, locs: Collection[str] = (), version: str = "", replace: bool = False
) -> Any:
    """Serve `function` as `name` in this process, as long as it lives and does not withdraw it; returns the function.

    It is called for those who ask for any of `locs` and of what its node has; on a thread, or if it is `async def` in
    an event loop. In an actor it is called as a method is, and its constructor registers it again after a restart.
    `register(name)` decorates; `register(function)` takes the name, locs and version of `@zmreg.remote(...)`, or the
    function's own name. ValueError when this process serves that name in that version already, or another program on
    this node does with the same locs, unless `replace` puts this in its place; in a plain task; for a name or version
    that is none. TypeError for what cannot be called.
    """
    if isinstance(name, str):
        if function is None:
            return lambda decorated: register(name, decorated, locs=locs, version=version, replace=replace)
        target, called = function, name
    elif function is None:
        target, called = name, _own_name(name)
    else:
        raise TypeError(f"zmreg.register takes a name first, which is a text, and not {name!r:.60}")
    if isinstance(locs, str):
        raise TypeError(f"locs must be a set of names, not the one string {locs!r}; write {{{locs!r}}}")
    body = target
    if isinstance(target, RemoteFunction):
        options, body = target._options, target._function
        locs, version = (*locs, *(options.get("locs") or ())), version or options.get("version") or ""
    if not callable(body):
        raise TypeError(f"zmreg.register takes something to call as {called!r}, not {body!r:.60}")
    serving_names.register(client(), called, body, locs, version, replace)
    return target


def _own_name(target: Any) -> str:
    if isinstance(target, RemoteFunction):
        return target._name
    name = getattr(target, "__name__", "")
    if not callable(target) or not name or name == "<lambda>":
        raise TypeError(f"{target!r:.60} has no name to be served under: write zmreg.register(name, function)")
    return str(name)


def withdraw(name: str, version: str | None = None) -> None:
    """Serve `name` no more, in that version or in any. Calls that have come are finished."""
    check_name(name)
    serving_names.withdraw(client(), name, version)


Served = Mapping[str, Callable[..., Any]] | Iterable[Callable[..., Any]] | Callable[..., Any] | None


def serve(
    functions: Served = None,
    *,
    address: str | None = None,
    key: str | os.PathLike[str] | None = None,
    locs: Collection[str] = (),
    block: bool = True,
) -> None:
    """Be a process that serves functions, next to what it holds in memory, until Ctrl-C, SIGTERM or the cluster's end.

    `functions`: {name: function}, or functions with names of their own; None: what was registered. `locs` are added to
    each. `address`, `key`: as for `zmreg.init`, which is called if need be. At the end nothing new is taken, calls that
    have come are finished, for ten seconds at most, and the process leaves the cluster. `block=False` returns at once,
    and the process serves as long as it lives. Raises as `zmreg.init` and `zmreg.register`.
    """
    if address is not None or not cluster.is_initialized():
        cluster.init(address, key=key)
    for name, function in _pairs(functions):
        if name is None:
            register(function, locs=locs)
        else:
            register(name, function, locs=locs)
    if block:
        if client().on_wait is not None:
            raise ValueError("zmreg.serve blocks a program; in an actor or a task write zmreg.serve(..., block=False)")
        _stay(client())


def _pairs(functions: Served) -> Iterable[tuple[str | None, Callable[..., Any]]]:
    if functions is None:
        return ()
    if isinstance(functions, Mapping):
        return list(functions.items())
    several = functions if isinstance(functions, Iterable) else (functions,)
    return [(None, function) for function in several]


def _stay(seat: Client) -> None:
    """Until we are asked to end, or there is no cluster any more; then leave in peace."""
    asked = Waiter()
    seat.questions.until_the_end(asked)

    def ask(_number: int, _frame: FrameType | None) -> None:
        asked.finish()
        seat.pump.wake()

    in_main = threading.current_thread() is threading.main_thread()
    before = signal.signal(signal.SIGTERM, ask) if in_main else None
    try:
        with contextlib.suppress(KeyboardInterrupt):
            if seat.closed is None and seat.desk is not None:
                asked.arm()  # not by the pump: there the thread waits that can run what it receives
                seat.desk.attend(True)
                while not asked.done:
                    asked.follow(SIGNAL_S)
            elif seat.closed is None:
                seat.pump_until(asked, None)
        _leave(seat)
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, before)


def _leave(seat: Client) -> None:
    desk = seat.desk
    if desk is not None and seat.closed is None:
        with contextlib.suppress(ZmregError):  # the cluster ended meanwhile
            for name in desk.names():
                serving_names.withdraw(seat, name, None)
            desk.drain(LEAVE_GRACE_S)
    cluster.shutdown()
