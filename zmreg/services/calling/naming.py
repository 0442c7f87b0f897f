"""Calls by name: which process serves what the own node tells, as it changes; and who of them gets a call.

A host that has withdrawn the name meanwhile, or is gone before the call was sent, is no failure: the call may go to
another one. A call that may have run is the caller's to repeat.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from random import Random
from typing import Any, Final, cast

from zmreg.core.functions import Functions, Router, Wanted, key_of
from zmreg.core.graves import Graves
from zmreg.model.errors import (
    ActorDiedError,
    ActorUnavailableError,
    ClusterError,
    FunctionNotFoundError,
    NoRouteError,
    WorkerDiedError,
)
from zmreg.model.function_messages import FunctionNews, FunctionRow, WatchFunctions
from zmreg.model.ids import node_of
from zmreg.model.messages import ProcessDied
from zmreg.model.specs import Shape
from zmreg.net.waiting import Waiter
from zmreg.services.calling.built_in import BUILT_IN, BuiltIn
from zmreg.services.calling.calls import Task, Template
from zmreg.services.calling.hosts import CODE_TARGET, HostPeer, target_of
from zmreg.services.calling.peers import Peer
from zmreg.services.calling.submit import submit_task, submit_to
from zmreg.services.seat.client import Client
from zmreg.services.seat.entries import PENDING, Entry, Unrun, Verdict
from zmreg.wire import codec

_FIRST_NEWS_S: Final = 10.0
_LOST: Final = (WorkerDiedError, ActorDiedError, ActorUnavailableError)


class Naming:
    """The named functions of the cluster as one process knows them, and its calls of them."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.table = Functions(BUILT_IN)
        self._router = Router(self.table, Random())
        self._built_in = BuiltIn(client)
        self._hosts: dict[bytes, HostPeer] = {}
        self._templates: dict[str, Template] = {}
        self._whole = False
        self._graves = Graves()
        """News of a death and of the rows that go with it come by different ways."""
        self._waiting: list[Waiter] = []
        """Of threads that wait for news, one each."""

    def watch(self) -> None:
        """Have the node tell what there is, and wait until it has. ClusterError when it does not."""
        client = self._client
        heard = self._waiter()
        with client.shield(), client.lock:
            client.handlers[FunctionNews] = lambda _, message: self._on_news(message)
            hear = client.handlers[ProcessDied]
            client.handlers[ProcessDied] = lambda sender, message: self._on_death(hear, sender, message)
            client.tell_node(WatchFunctions())
        deadline = time.monotonic() + _FIRST_NEWS_S
        while not self._whole:
            if time.monotonic() > deadline:
                raise ClusterError(f"the node did not tell its named functions within {_FIRST_NEWS_S:g} s")
            self._await(heard, deadline)
            heard = self._waiter()
        self._waiting.remove(heard)

    def _on_death(self, hear: Callable[[bytes, Any], object], sender: bytes, message: ProcessDied) -> None:
        self._graves.bury(message.process)
        hear(sender, message)

    def _on_news(self, news: FunctionNews) -> None:
        for key in news.gone:
            self.table.remove(key)
        for data in news.rows:
            row = cast(FunctionRow, codec.decode(data))
            if row.host in self._graves:
                continue
            self.table.put(key_of(row), row)
        self._whole = self._whole or news.whole
        waiting, self._waiting = self._waiting, []
        for waiter in waiting:
            waiter.finish()

    def _waiter(self) -> Waiter:
        """One that is finished when the next news has come: made before a look at what there is."""
        waiter = Waiter()
        with self._client.lock:
            self._waiting.append(waiter)
        return waiter

    def _await(self, waiter: Waiter, deadline: float) -> None:
        """Until it is finished, or the deadline."""
        self._client.wait(waiter, max(0.0, deadline - time.monotonic()))
        self._client.check()

    # -- who serves it ------------------------------------------------------------------------------------------------

    def require(self, wanted: Wanted, timeout: float) -> list[FunctionRow]:
        """Who may be called, at least one; waits up to `timeout` seconds for the first.

        Raises FunctionNotFoundError, NoRouteError, ValueError (a constraint that is none), ClusterError.
        """
        deadline = time.monotonic() + timeout
        while True:
            changed = self._waiter()
            try:
                try:
                    with self._client.lock:
                        return self._router.check(wanted)
                except (FunctionNotFoundError, NoRouteError):
                    row = self._built_in.look(wanted)
                    if row is not None:
                        return [row]
                    raise
            except (FunctionNotFoundError, NoRouteError):
                if time.monotonic() >= deadline:
                    raise
                self._await(changed, deadline)
            finally:
                if not changed.done:
                    with self._client.lock:
                        if changed in self._waiting:
                            self._waiting.remove(changed)

    # -- calling ------------------------------------------------------------------------------------------------------

    def call(self, wanted: Wanted, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Task, FunctionRow]:
        """Send a call to one who serves it now; never waits. Raises as `require`, and SerializationError."""
        client = self._client
        try:
            with client.lock:
                row, peer = self._taken(wanted)
        except (FunctionNotFoundError, NoRouteError):
            built_in = self._built_in.row(wanted)
            if built_in is None:
                raise
            return submit_task(client, self._built_in.template(wanted), args, kwargs), built_in
        with client.lock:
            target = target_of(row.name, row.version)
            template = self._templates.get(target)
            if template is None:
                template = self._templates[target] = Template(row.name, target, Shape())
                template.max_retries = 0
        try:
            task = submit_to(client, template, peer, None, args, kwargs)
        except BaseException:
            self._router.ended(row.host)
            raise

        def ended(_: Entry) -> None:
            self._router.ended(row.host)
            if peer.state == "dead":
                self._graves.bury(row.host)
                self._hosts.pop(row.host, None)
                self._router.forget(row.host)

        with client.lock:
            entry = task.entries[0]
            if entry.state == PENDING:
                entry.listen(ended)
            else:
                ended(entry)
        return task, row

    def ask_for_code(self, row: FunctionRow) -> Task:
        """Have that host say the code of that function: bytes of `wire.payload.pack_code`."""
        with self._client.lock:
            peer = self._peer(row)
        return submit_to(
            self._client, Template(row.name, CODE_TARGET, Shape()), peer, None, (target_of(row.name, row.version),), {}
        )

    def _taken(self, wanted: Wanted) -> tuple[FunctionRow, Peer]:
        """Whose turn it is, and the way there. Of some we know that they are gone before the node has said so."""
        while True:
            row = self._router.take(wanted)
            if row.host not in self._graves and node_of(row.host) not in self._client.tasks.gone_nodes:
                peer = self._peer(row)
                if peer.state != "dead":
                    return row, peer
                self._graves.bury(row.host)
            self._hosts.pop(row.host, None)
            self._router.forget(row.host)
            self.table.remove(key_of(row))

    def _peer(self, row: FunctionRow) -> Peer:
        tasks = self._client.tasks
        if row.actor:
            return tasks.peer_for(row.actor, row.actor_class, row.ordered)
        peer = self._hosts.get(row.host)
        if peer is None:
            for host in [host for host, each in self._hosts.items() if each.state == "dead"]:
                del self._hosts[host]
                self._graves.bury(host)
            peer = self._hosts[row.host] = HostPeer(tasks, self._client.me, row.host, row.node_name)
        return peer

    def refused(self, row: FunctionRow) -> None:
        """It was not begun there: nobody is sent there again unless the node tells of it anew."""
        with self._client.lock:
            self.table.remove(key_of(row))


def was_refused(entry: Entry) -> bool:
    """Whether a call by name was not begun, for certain."""
    return isinstance(entry.value, Unrun)


def was_lost(entry: Entry, error: BaseException) -> bool:
    """Whether a call by name ended with the process that was to run it, and not by what the function did. `error`: what
    it failed with; a function may have raised one like it."""
    return was_refused(entry) or (isinstance(entry.value, Verdict) and type(error) in _LOST)


_making = threading.Lock()


def naming(client: Client) -> Naming:
    """The one of this seat."""
    if client.naming is None:
        with _making:
            if client.naming is None:
                made = Naming(client)
                made.watch()
                client.naming = made
    return client.naming


__all__ = ["Naming", "Wanted", "naming", "was_lost", "was_refused"]
