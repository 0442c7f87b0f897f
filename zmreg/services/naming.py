"""Calls by name: which process serves what the own node tells, as it changes; and who of them gets a call.

A host that has withdrawn the name meanwhile, or is gone before the call was sent, is no failure: the call may go to
another one. A call that may have run is the caller's to repeat.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from random import Random
from typing import Any, Final, cast

from zmreg.core.functions import Functions, Router, Wanted, key_of
from zmreg.model.errors import ClusterError, FunctionNotFoundError, NoRouteError
from zmreg.model.function_messages import FunctionNews, FunctionRow, WatchFunctions
from zmreg.model.ids import node_of
from zmreg.model.specs import Shape
from zmreg.net.waiting import Waiter
from zmreg.services.calls import Task, Template
from zmreg.services.client import Client
from zmreg.services.entries import PENDING, Entry
from zmreg.services.hosts import HostPeer
from zmreg.services.submit import submit_to
from zmreg.wire import codec

_FIRST_NEWS_S: Final = 10.0


class Naming:
    """The named functions of the cluster as one process knows them, and its calls of them."""

    def __init__(self, client: Client) -> None:
        self._client = client
        self.table = Functions()
        self._router = Router(self.table, Random())
        self._resting: dict[bytes, None] = {}
        self._hosts: dict[bytes, HostPeer] = {}
        self._templates: dict[str, Template] = {}
        self._whole = False
        self._changed = Waiter()

    def watch(self) -> None:
        """Have the node tell what there is, and wait until it has. ClusterError when it does not."""
        client = self._client
        with client.shield(), client.lock:
            client.handlers[FunctionNews] = lambda _, message: self._on_news(message)
            client.tell_node(WatchFunctions())
        deadline = time.monotonic() + _FIRST_NEWS_S
        while not self._whole:
            if time.monotonic() > deadline:
                raise ClusterError(f"the node did not tell its named functions within {_FIRST_NEWS_S:g} s")
            self._await_news(deadline)

    def _on_news(self, news: FunctionNews) -> None:
        for key in news.gone:
            self.table.remove(key)
        for data in news.rows:
            row = cast(FunctionRow, codec.decode(data))
            self.table.put(key_of(row), row)
            if row.resting:
                self._resting[node_of(row.host)] = None
            else:
                self._resting.pop(node_of(row.host), None)
        self._router.resting = self._resting
        self._whole = self._whole or news.whole
        changed, self._changed = self._changed, Waiter()
        changed.finish()

    def _await_news(self, deadline: float) -> None:
        """Until something has changed, or the deadline."""
        self._client.wait(self._changed, max(0.0, deadline - time.monotonic()))
        self._client.check()

    # -- who serves it ------------------------------------------------------------------------------------------------

    def require(self, wanted: Wanted, timeout: float) -> list[FunctionRow]:
        """Who may be called, at least one; waits up to `timeout` seconds for the first.

        Raises FunctionNotFoundError, NoRouteError, ValueError (a constraint that is none), ClusterError.
        """
        deadline = time.monotonic() + timeout
        while True:
            changed = self._changed
            try:
                with self._client.lock:
                    return self._router.check(wanted)
            except (FunctionNotFoundError, NoRouteError):
                left = deadline - time.monotonic()
                if left <= 0:
                    raise
            self._client.wait(changed, left)
            self._client.check()

    # -- calling ------------------------------------------------------------------------------------------------------

    def call(self, wanted: Wanted, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> tuple[Task, FunctionRow]:
        """Send a call to one who serves it now. Raises as `require`, and SerializationError."""
        client = self._client
        with client.lock:
            row = self._router.take(wanted)
            target = f"{row.name}\0{row.version}"
            template = self._templates.get(target)
            if template is None:
                template = self._templates[target] = Template(row.name, target, Shape())
                template.max_retries = 0
            peer = self._hosts.get(row.host)
            if peer is None:
                peer = self._hosts[row.host] = HostPeer(client.tasks, client.me, row.host)
        try:
            task = submit_to(client, template, peer, None, args, kwargs)
        except BaseException:
            self._router.ended(row.host)
            raise

        def ended(_: Entry) -> None:
            self._router.ended(row.host)
            if peer.state == "dead":
                self._hosts.pop(row.host, None)
                self._router.forget(row.host)

        with client.lock:
            entry = task.entries[0]
            if entry.state == PENDING:
                entry.listen(ended)
            else:
                ended(entry)
        return task, row

    def refused(self, row: FunctionRow) -> None:
        """It was not begun there: nobody is sent there again unless the node tells of it anew."""
        with self._client.lock:
            self.table.remove(key_of(row))


def naming(client: Client) -> Naming:
    """The one of this seat."""
    if client.naming is None:
        made = Naming(client)
        made.watch()
        client.naming = made
    return client.naming


__all__ = ["Naming", "Wanted", "naming"]
