"""Names of things: what identifies a process, an object, a task and an actor.

A process id is 8 random bytes. An object id is 16 bytes: the owner's process id, then a counter of the owner.
A task is known by the id of its first result, an actor by the id of the object that stands for its life. So the
owner of any ref is found from its id alone, and no id is ever used twice.
"""

from __future__ import annotations

import os
from typing import NewType

ProcessId = NewType("ProcessId", bytes)
ObjectId = NewType("ObjectId", bytes)

PROCESS_ID_BYTES = 8
OBJECT_ID_BYTES = 16


def new_process_id() -> ProcessId:
    """8 random bytes; the first is never zero, which ROUTER sockets keep for names of their own making."""
    while True:
        fresh = os.urandom(PROCESS_ID_BYTES)
        if fresh[0]:
            return ProcessId(fresh)


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
