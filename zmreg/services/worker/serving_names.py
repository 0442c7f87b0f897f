"""Putting functions under a name, and taking them back: in a driver, whose desk runs them, or in an actor, whose calls
they are from then on."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, Protocol

from zmreg.core.versions import read_version, show_version
from zmreg.model.ids import object_id
from zmreg.model.messages import CancelCall, FunctionRow, RegisterFunction, WithdrawFunction
from zmreg.services.calling.carrying import marked
from zmreg.services.calling.hosts import target_of, targets_of
from zmreg.services.seat.client import Client
from zmreg.wire import codec

if TYPE_CHECKING:
    from zmreg.services.worker.intake import Intake


class Shelf(Protocol):
    """What a process serves, by "name\\0version"."""

    def get(self, target: str) -> Callable[..., Any] | None:
        """What serves `target`."""

    def serve(self, target: str, function: Callable[..., Any]) -> None:
        """Run calls of `target` by this function from now on."""

    def withdraw(self, target: str) -> None:
        """Refuse calls of `target`; those that have begun are finished."""

    def withdraw_all(self, name: str, version: str | None) -> None:
        """The same, in that version or in any."""


class ActorShelf:
    """What an actor serves: on its worker, under the rules of its methods."""

    def __init__(self, worker: Intake) -> None:
        assert worker.host is not None
        self._served = worker.host.served
        self._callees: dict[Any, Any] = getattr(worker, "callees", {})

    def get(self, target: str) -> Callable[..., Any] | None:
        """What serves `target`."""
        return self._served.get(target)

    def serve(self, target: str, function: Callable[..., Any]) -> None:
        """Run calls of `target` by this function from now on."""
        self._served[target] = function
        self._forget(target)

    def withdraw(self, target: str) -> None:
        """Refuse calls of `target`; those that have begun are finished."""
        self._served.pop(target, None)
        self._forget(target)

    def _forget(self, target: str) -> None:
        self._callees.pop(target, None)
        self._callees.pop(marked(target), None)

    def withdraw_all(self, name: str, version: str | None) -> None:
        """The same, in that version or in any."""
        for target in targets_of(self._served, name, version):
            self.withdraw(target)


def register(
    client: Client, name: str, function: Callable[..., Any], locs: Collection[str], version: str, replace: bool
) -> None:
    """Serve calls of `name` in this process from now on. Raises ValueError when it does already, unless `replace`, or
    when the name, the version or the process is no good for it."""
    shelf = _shelf(client)
    version = show_version(read_version(version))
    row = FunctionRow(
        name, version, client.me, tuple(locs), signature=_signature(function), doc=inspect.getdoc(function) or ""
    )
    worker = _worker(client)
    if worker is not None and worker.host is not None:
        actor_id, class_name, ordered, *_ = worker.host.facts()
        row = row.but(actor=actor_id, actor_class=class_name, ordered=ordered)
    target = target_of(name, version)
    had = shelf.get(target)
    shelf.serve(target, function)  # before anybody can have heard of it
    why = client.questions.say(lambda request: RegisterFunction(request, codec.encode(row), replace))
    if why:
        if had is None:
            shelf.withdraw(target)
        else:
            shelf.serve(target, had)
        raise ValueError(why)


def withdraw(client: Client, name: str, version: str | None) -> None:
    """Serve it no more, in that version or in any. Calls that have come are finished; later ones go elsewhere."""
    if version is not None:
        version = show_version(read_version(version))
    shelf = _shelf(client)
    why = client.questions.say(
        lambda request: WithdrawFunction(request, client.me, name, version or "", version is None)
    )
    if why:
        raise ValueError(why)
    shelf.withdraw_all(name, version)


def _worker(client: Client) -> Intake | None:
    from zmreg.services.worker.intake import Intake  # late: a program that imports zmreg is no worker

    return client if isinstance(client, Intake) else None


def _shelf(client: Client) -> Shelf:
    worker = _worker(client)
    if worker is not None:
        if worker.host is None:
            raise ValueError(
                "named functions are served by a program or an actor, not by a task, whose process may end at any time"
            )
        return ActorShelf(worker)
    desk = client.desk
    if desk is None:
        from zmreg.services.worker.desk import Desk  # late: asyncio and threads are for those who serve

        desk = client.desk = Desk(client)
        client.handlers[CancelCall] = lambda sender, m: desk.cancel(object_id(sender, m.counter))
    return desk


def _signature(function: Callable[..., Any]) -> str:
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # built in, and says nothing of itself
        return ""
    # Annotations that are texts (`from __future__ import annotations`) are shown as they were written.
    return str(signature).replace("'", "") if _has_texts(signature) else str(signature)


def _has_texts(signature: inspect.Signature) -> bool:
    defaults = (each.default for each in signature.parameters.values())
    written = (signature.return_annotation, *(each.annotation for each in signature.parameters.values()))
    return any(isinstance(each, str) for each in written) and not any(isinstance(each, str) for each in defaults)
