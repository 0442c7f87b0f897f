"""Names of things: what identifies a process, an object, a task and an actor.

A process id is 8 bytes: 4 random ones that name the life of its node, then a number on that node, 0 for the node's
own daemon. An object id is 16 bytes: the owner's process id, then a counter of the owner. A task is known by the id of
its first result, an actor by the id of the object that stands for its life. So the owner of any ref, and the node to
ask, are found from its id alone, and no id is ever used twice: a node that was declared dead comes back as another.
"""

from __future__ import annotations

import os
from typing import NewType

ProcessId = NewType("ProcessId", bytes)
ObjectId = NewType("ObjectId", bytes)

PROCESS_ID_BYTES = 8
NODE_BYTES = 4
_DAEMON = bytes(PROCESS_ID_BYTES - NODE_BYTES)
OBJECT_ID_BYTES = 16


def new_node_id() -> ProcessId:
    """A fresh node life: 4 random bytes, of which the first is never zero (ROUTER sockets keep that for names of their
    own making). Two of 1,000 lives share a prefix once in 8,600 clusters; the head refuses the second."""
    while True:
        fresh = os.urandom(NODE_BYTES)
        if fresh[0]:
            return ProcessId(fresh + _DAEMON)


def worker_id(node: bytes, number: int) -> ProcessId:
    """The id of a node's `number`-th worker, from 1."""
    return ProcessId(node[:NODE_BYTES] + number.to_bytes(4, "big"))


def new_driver_id(node: bytes) -> ProcessId:
    """A fresh id for a driver that takes a seat at a node, which it does unasked: random, in the upper half, which no
    count of workers reaches."""
    first, *rest = os.urandom(4)
    return ProcessId(node[:NODE_BYTES] + bytes((first | 0x80, *rest)))


def is_driver(process: bytes) -> bool:
    """Whether a process has taken a seat unasked, as `new_driver_id` names it."""
    return process[NODE_BYTES] >= 0x80


def node_of(any_id: bytes) -> ProcessId:
    """The node of a process, or of the owner of an object."""
    return ProcessId(any_id[:NODE_BYTES] + _DAEMON)


def object_id(owner: bytes, counter: int) -> ObjectId:
    """The id of the `counter`-th object of `owner`."""
    return ObjectId(owner + counter.to_bytes(8, "big"))


def owner_of(object_id: bytes) -> ProcessId:
    """The process that owns an object."""
    return ProcessId(object_id[:PROCESS_ID_BYTES])


def counter_of(object_id: bytes) -> int:
    """The owner's own number for an object."""
    return int.from_bytes(object_id[PROCESS_ID_BYTES:], "big")


def short(any_id: bytes) -> str:
    """8 hex characters for messages and reprs: the part of the id that differs between neighbours."""
    return any_id[-4:].hex()
