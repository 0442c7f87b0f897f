"""Putting functions under a name, and taking them back: in a driver, whose desk runs them, or in an actor."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import Any

from zmreg.model.messages import CancelCall, FunctionRow, RegisterFunction, WithdrawFunction
from zmreg.model.ids import object_id
from zmreg.services.client import Client
from zmreg.wire import codec


def register(
    client: Client, name: str, function: Callable[..., Any], locs: Collection[str], version: str, replace: bool
) -> None:
    """Serve calls of `name` in this process from now on. Raises ValueError when it does already, unless `replace`, or
    when the name, the version or the process is no good for it."""
    row = FunctionRow(
        name, version, client.me, tuple(locs), signature=_signature(function), doc=inspect.getdoc(function) or ""
    )
    target = f"{name}\0{version}"
    desk = _desk(client)
    had = desk.get(target)
    desk.serve(target, function)  # before anybody can have heard of it
    why = client.questions.say(lambda request: RegisterFunction(request, codec.encode(row), replace))
    if why:
        if had is None:
            desk.withdraw(target)
        else:
            desk.serve(target, had)
        raise ValueError(why)


def withdraw(client: Client, name: str, version: str | None) -> None:
    """Serve it no more, in that version or in any. Calls that have come are finished; later ones go elsewhere."""
    why = client.questions.say(
        lambda request: WithdrawFunction(request, client.me, name, version or "", version is None)
    )
    if why:
        raise ValueError(why)
    _desk(client).withdraw_all(name, version)


def _desk(client: Client) -> Any:
    host = getattr(client, "host", None)
    if host is not None or hasattr(client, "inbox"):
        raise ValueError("named functions are served by a driver, not by a task or an actor")
    if client.desk is None:
        from zmreg.services.desk import Desk  # late: most drivers serve nothing

        desk = client.desk = Desk(client)
        client.handlers[CancelCall] = lambda sender, m: desk.cancel(object_id(sender, m.counter))
    return client.desk


def _signature(function: Callable[..., Any]) -> str:
    try:
        return str(inspect.signature(function))
    except (TypeError, ValueError):  # built in, and says nothing of itself
        return ""
