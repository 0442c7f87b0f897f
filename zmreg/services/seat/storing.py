"""What is said to a node about objects: to its store, or, for those of other nodes, to its fetcher."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from zmreg.model.ids import node_of
from zmreg.model.messages import (
    Allocate,
    Demote,
    FreeObjects,
    Pin,
    Prefetch,
    Replicate,
    Replicated,
    Revive,
    Sealed,
    Unpin,
)

if TYPE_CHECKING:
    from zmreg.services.node.node import Node


def hear(
    node: Node,
    sender: bytes,
    message: Allocate | Sealed | Pin | Unpin | FreeObjects | Prefetch | Replicate | Revive,
) -> None:
    """Act on what a process, or another node, says about an object."""
    match message:
        case Allocate():
            node.store.on_allocate(sender, message, time.monotonic())
        case Sealed():
            node.store.on_sealed(sender, message)
        case Pin():
            now = time.monotonic()
            if node.fetcher is None or not node.fetcher.brings(sender, message, now):
                node.store.on_pin(sender, message, now)
        case Prefetch() | Replicate() | Revive():
            if node.fetcher is not None:
                node.fetcher.on_wish(sender, message, time.monotonic())
        case Unpin():
            node.store.on_unpin(sender, message)
        case FreeObjects():
            _free(node, sender, message)


def _free(node: Node, sender: bytes, message: FreeObjects) -> None:
    """An owner needs these no more. Its own node tells the others that have copies."""
    node.store.on_free(message)
    if node.fetcher is None:
        return
    node.fetcher.freed(message.object_ids)
    if node_of(sender) == node.me:
        for holder, object_ids in node.registry.by_holder(message.object_ids).items():
            if holder != node.me:
                node.post(holder, FreeObjects(tuple(object_ids)))


def demote(node: Node, owner: bytes, message: Demote) -> None:
    """Others keep them. The owner's node hears first what is in use here now: the next plan is made by that."""
    for object_id in message.object_ids:
        node.store.demote(object_id)
    if node.neighbours is not None and node_of(owner) != node.me:
        node.post(node_of(owner), node.neighbours.view()[0])
    for object_id in message.object_ids:
        node.post(owner, Replicated(object_id, ""))
