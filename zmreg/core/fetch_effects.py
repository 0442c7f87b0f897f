"""What the two ends of a fetch want done: `Fetching`, which gets objects, and `Serving`, which gives them.

Nodes are named by 8 bytes, objects by 16. Offsets and sizes are bytes; offsets count within the object.
"""

from __future__ import annotations

from typing import Literal

from zmreg.model.fetch_messages import Refusal
from zmreg.model.record import Record

# -- the node that wants an object -------------------------------------------------------------------------------------


class Reserve(Record):
    """Ask the own store for room for a secondary copy; answer once with `reserved`, unless Release comes before."""

    object_id: bytes
    nbytes: int


class Release(Record):
    """Give back the room, or the wish for it: the object will not be written here."""

    object_id: bytes


class Request(Record):
    """Send FetchObject to `holder`."""

    holder: bytes
    transfer: int
    object_id: bytes
    offset: int
    upto: int


class Write(Record):
    """Put the bytes of the chunk at hand into the reserved room at `offset`, before any effect behind this one."""

    object_id: bytes
    offset: int
    nbytes: int


class Credit(Record):
    """Send FetchCredit to `holder`."""

    holder: bytes
    transfer: int
    upto: int


class Stop(Record):
    """Send FetchStop to `holder`."""

    holder: bytes
    transfer: int


class AskLocations(Record):
    """Look for holders in the replica and ask the owner: `learn` for each that is found, then `no_more`, always."""

    object_id: bytes


class Completed(Record):
    """Every byte is written: seal it and let its readers have it. `holder` sent the last part; b"" for no bytes."""

    object_id: bytes
    holder: bytes
    nbytes: int


class Failed(Record):
    """It cannot be had. `tried` is (node, why not) of everybody asked, in the order of the last answers."""

    object_id: bytes
    reason: str
    tried: tuple[tuple[bytes, str], ...]
    cause: Literal["lost", "silent", "room"] = "lost"
    """Nobody has it; somebody who may have it sends nothing; the own store has no room for it."""


# -- the node that holds it --------------------------------------------------------------------------------------------


class PinObject(Record):
    """Pin the object for the reader `key` if it is whole and here, perhaps on disk; else refuse it at once.

    Answer once with `pinned` or `missing`. Never wait for an object that is still being written: two nodes that both
    fetch it would wait for each other.
    """

    object_id: bytes
    key: bytes


class UnpinObject(Record):
    """The reader `key` needs it no more. Who sends without copying keeps a pin of his own until the frames left."""

    object_id: bytes
    key: bytes


class SendChunk(Record):
    """Send `nbytes` of the object's bytes from `offset` on; in the arena they lie at `arena_offset`."""

    peer: bytes
    transfer: int
    offset: int
    arena_offset: int
    nbytes: int


class Refuse(Record):
    """Send FetchRefused to `peer`."""

    peer: bytes
    transfer: int
    reason: Refusal
    others: tuple[bytes, ...]
    nbytes: int


class SayWait(Record):
    """Send FetchWait to `peer`."""

    peer: bytes
    transfer: int


FetchEffect = Reserve | Release | Request | Write | Credit | Stop | AskLocations | Completed | Failed
ServeEffect = PinObject | UnpinObject | SendChunk | Refuse | SayWait
