"""Copies of objects that are to stay at other nodes: asked for, and waited for, by whoever wants them.

A value moves as a copy that stays, and then the first node's copy that stays no more: at no moment is it nowhere.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Final

from zmreg.model.messages import Demote, Message, Replicate, Replicated
from zmreg.net.waiting import Waiter
from zmreg.services.seat.entries import STORED, Borrowed, Entry, Stored

if TYPE_CHECKING:
    from zmreg.services.seat.station import Station

# Ids of 16 bytes in one message.
_TOLD_AT_ONCE: Final = 10_000
_GONE: Final = "the node is gone"

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
        station, given = self._station, list(wanted)
        pairs: list[tuple[Entry, bytes]] = []
        words: list[tuple[bytes, Message]] = []
        with station.shield():
            with station.lock:
                for entry, node in given:
                    if entry.state == STORED and isinstance(stored := entry.value, Stored):
                        pairs.append((entry, node))
                        words.append((node, Replicate(stored.object_id, stored.nbytes, stored.holder)))
            refused = self._ask(words, [(entry.object_id, node) for entry, node in pairs])
            with station.lock:
                for entry, node in pairs:
                    if (entry.object_id, node) not in refused:
                        _book(entry, node)
        return refused

    def leave(self, moved: Iterable[tuple[Entry, bytes, bytes]]) -> None:
        """(entry, node, other): another node that keeps a copy is the one that counts, and `node` keeps its no more.

        Returns when all nodes that live have done so. Entries whose values were made again meanwhile stay as they are.
        """
        station, by_node = self._station, dict[bytes, list[bytes]]()
        with station.shield():  # what is noted here is to be said
            with station.lock:
                keys = [(entry.object_id, node) for entry, node, other in moved if _moved(entry, node, other)]
            for object_id, node in keys:
                by_node.setdefault(node, []).append(object_id)
            self._ask(
                [
                    (node, Demote(tuple(ids[start : start + _TOLD_AT_ONCE])))
                    for node, ids in by_node.items()
                    for start in range(0, len(ids), _TOLD_AT_ONCE)
                ],
                keys,
            )

    def _ask(self, words: list[tuple[bytes, Message]], keys: Iterable[Key]) -> dict[Key, str]:
        """Say these, and wait until each key was answered for."""
        station, order = self._station, _Order(keys)
        if not words:
            return {}
        with station.shield():
            with station.lock:
                station.check()
                self._orders.append(order)
                for node, message in words:
                    station.post(node, message)
                for key in [key for key in order.left if key[1] in station.tasks.gone_nodes]:
                    self._answered(key, _GONE)  # that was told before we asked, and is not told again
            try:
                station.wait(order.waiter)
            finally:
                self._orders.remove(order)
        station.check()
        return order.refused

    def on_replicated(self, node: bytes, message: Replicated) -> None:
        """A node has its copy, or cannot have it; or keeps one no more, as it was told."""
        self._answered((message.object_id, node), message.reason)

    def node_gone(self, node: bytes) -> None:
        """It answers nothing any more."""
        for order in list(self._orders):
            for key in [key for key in order.left if key[1] == node]:
                self._answered(key, _GONE)

    def give_up(self) -> None:
        """Our node is gone: nobody answers."""
        for order in list(self._orders):
            order.waiter.finish()

    def _answered(self, key: Key, reason: str) -> None:
        for order in list(self._orders):  # whoever has waited for one takes it out, at any moment
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


def _moved(entry: Entry, node: bytes, other: bytes) -> bool:
    """Note that `other` has it in `node`'s place; False when that is not so (any more)."""
    stored = entry.value
    if not isinstance(stored, Stored) or other not in stored.copies:
        return False
    copies = [each for each in stored.copies if each not in (node, other)]
    if stored.holder == node:
        stored.holder = other
    else:
        copies.append(other)
    stored.copies = tuple(copies)
    return True
