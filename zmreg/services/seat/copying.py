"""Copies of objects that are to stay at other nodes: asked for, and waited for, by whoever wants them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from zmreg.model.messages import Replicate, Replicated
from zmreg.net.waiting import Waiter
from zmreg.services.seat.entries import STORED, Borrowed, Entry, Stored

if TYPE_CHECKING:
    from zmreg.services.seat.station import Station

Key = tuple[bytes, bytes]
"""(object id, node)."""


class _Order:
    """What one caller waits for."""

    def __init__(self, keys: Iterable[Key]) -> None:
        self.left = set(keys)
        self.refused: dict[Key, str] = {}
        self.waiter = Waiter()


class Copying:
    """One process's orders for copies."""

    def __init__(self, station: Station) -> None:
        self._station = station
        self._orders: list[_Order] = []

    def copy(self, wanted: Iterable[tuple[Entry, bytes]]) -> dict[Key, str]:
        """Have each node get its entry's bytes and keep them; returns when all have answered: why not, where not.

        Nodes that are asked at once for one object get it from each other (core/serving.py). Entries that are not
        stored are left out. ClusterError when our own node is gone.
        """
        station = self._station
        pairs = [(entry, node) for entry, node in wanted if entry.state == STORED]
        order = _Order((entry.object_id, node) for entry, node in pairs)
        if not pairs:
            return {}
        with station.shield():
            with station.lock:
                station.check()
                self._orders.append(order)
                for entry, node in pairs:
                    if isinstance(stored := entry.value, Stored):
                        station.post(node, Replicate(stored.object_id, stored.nbytes, stored.holder))
            try:
                station.wait(order.waiter)
            finally:
                self._orders.remove(order)
            with station.lock:
                for entry, node in pairs:
                    if (entry.object_id, node) not in order.refused:
                        _book(entry, node)
        station.check()
        return order.refused

    def on_replicated(self, node: bytes, message: Replicated) -> None:
        """A node has its copy, or cannot have it."""
        self._answered((message.object_id, node), message.reason)

    def node_gone(self, node: bytes) -> None:
        """It answers nothing any more."""
        for order in list(self._orders):
            for key in [key for key in order.left if key[1] == node]:
                self._answered(key, "the node is gone")

    def give_up(self) -> None:
        """Our node is gone: nobody answers."""
        for order in list(self._orders):
            order.waiter.finish()

    def _answered(self, key: Key, reason: str) -> None:
        for order in self._orders:
            if key in order.left:
                order.left.discard(key)
                if reason:
                    order.refused[key] = reason
                if not order.left:
                    order.waiter.finish()


def _book(entry: Entry, node: bytes) -> None:
    """The owner frees what it has ordered; a borrower's copy is found by the owner's node, as any other is."""
    stored = entry.value
    if isinstance(stored, Stored) and not isinstance(entry, Borrowed) and node not in (stored.holder, *stored.copies):
        stored.copies = (*stored.copies, node)
