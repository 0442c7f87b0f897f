"""What clients and nodes say to each other about the object store."""

from __future__ import annotations

from typing import ClassVar, Final

from zmreg.model.record import Sentence

# The whole reason of a refusal whose object is here already: a second run of a task may take this as success.
ALREADY_HERE: Final = "the object is in this store already"


class Allocate(Sentence):
    """client -> node: room for an object of `nbytes`, please."""

    KIND: ClassVar[int] = 20
    object_id: bytes
    nbytes: int


class Allocated(Sentence):
    """node -> client: write at `offset`; claim the pages first unless they are claimed."""

    KIND: ClassVar[int] = 21
    object_id: bytes
    offset: int
    nbytes: int
    claimed: bool


class AllocateRefused(Sentence):
    """node -> client: no room, and why."""

    KIND: ClassVar[int] = 22
    object_id: bytes
    reason: str


class Sealed(Sentence):
    """client -> node: the object is whole. `ok` False: it never will be."""

    KIND: ClassVar[int] = 23
    object_id: bytes
    ok: bool


class Pin(Sentence):
    """client -> node: I read this object now; keep it where it is. If you do not have it, fetch it from `holder`."""

    KIND: ClassVar[int] = 24
    object_id: bytes
    nbytes: int
    holder: bytes


class Pinned(Sentence):
    """node -> client: it lies here until you unpin it."""

    KIND: ClassVar[int] = 25
    object_id: bytes
    offset: int
    nbytes: int


class PinRefused(Sentence):
    """node -> client: not here, and why. `full`: it is here, on disk, but no memory became free for it in time."""

    KIND: ClassVar[int] = 26
    object_id: bytes
    reason: str
    full: bool
    silent: bool = False
    """Somebody who lives has it, and has sent nothing of it: it is out of reach, which need not be for ever."""


class Unpin(Sentence):
    """client -> node: one pin less on each of these."""

    KIND: ClassVar[int] = 27
    object_ids: tuple[bytes, ...]


class FreeObjects(Sentence):
    """owner -> its node and the holder's: nobody needs these any more. The owner's node tells whoever has copies."""

    KIND: ClassVar[int] = 28
    object_ids: tuple[bytes, ...]


class Prefetch(Sentence):
    """client -> a node: somebody will read this object at your place soon; fetch it from `holder`. Not answered."""

    KIND: ClassVar[int] = 106
    object_id: bytes
    nbytes: int
    holder: bytes


class Replicate(Sentence):
    """client -> a node: have a copy of this object that is not dropped while it lives; fetch it from `holder`."""

    KIND: ClassVar[int] = 108
    object_id: bytes
    nbytes: int
    holder: bytes


class Replicated(Sentence):
    """node -> client: I have that copy (`reason` empty), or cannot have it, and why. Also the answer to `Demote`."""

    KIND: ClassVar[int] = 109
    object_id: bytes
    reason: str


class Revive(Sentence):
    """owner -> its node: these were freed, and are made again under their old ids: do not free what is new."""

    KIND: ClassVar[int] = 105
    object_ids: tuple[bytes, ...]
