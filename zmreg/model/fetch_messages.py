"""What nodes say to each other to move an object's bytes. The bytes themselves travel as chunks, see wire/chunks.py.

A node that wants an object names each attempt to get it from somebody with a number of its own, the transfer, and never
uses one twice. All of these may be lost, doubled or late: what is silent is asked again, what is not known is ignored.
"""

from __future__ import annotations

from typing import ClassVar, Final, Literal

from zmreg.model.record import Sentence

# 1 MiB: as one frame 100 MB go at half the speed under CURVE, and below it the cost of a message begins to show. How
# large each chunk is says who sends it, core/serving.py.
CHUNK_BYTES: Final = 1 << 20
# What one transfer may have under way. 16 MiB keep 10 Gbit/s busy over 13 ms.
WINDOW_BYTES: Final = 16 * CHUNK_BYTES

Refusal = Literal["NOT_HERE", "BUSY", "GONE", "WRONG_SIZE", "NO_MEMORY"]
"""
NOT_HERE    never had it, or has dropped its copy
BUSY        has it, and sends it to as many nodes as it may; `others` will have it sooner
GONE        it was freed
WRONG_SIZE  has it with another size, `nbytes`
NO_MEMORY   has it on disk, and no memory became free for it in time
"""


class FetchObject(Sentence):
    """node -> holder's node: send me the bytes from `offset` on; you may go up to `upto`, which is not included."""

    KIND: ClassVar[int] = 90
    transfer: int
    object_id: bytes
    offset: int
    upto: int


class FetchCredit(Sentence):
    """node -> holder's node: you may go on up to `upto`."""

    KIND: ClassVar[int] = 91
    transfer: int
    upto: int


class FetchStop(Sentence):
    """node -> holder's node: send no more of this transfer; I have all of it, or need it no longer."""

    KIND: ClassVar[int] = 92
    transfer: int


class FetchRefused(Sentence):
    """holder's node -> node: nothing more comes from me by this transfer."""

    KIND: ClassVar[int] = 93
    transfer: int
    reason: Refusal
    others: tuple[bytes, ...]
    """Nodes that got it from me, or are getting it."""
    nbytes: int
    """Its size, -1 when not known."""


class FetchWait(Sentence):
    """holder's node -> node: I have it, but not in memory; do not take my silence amiss. About once a second."""

    KIND: ClassVar[int] = 94
    transfer: int
