"""What a head and the nodes say to each other so that nothing is lost when the head ends and another begins."""

from __future__ import annotations

from typing import ClassVar

from zmreg.model.record import Sentence


class Inventory(Sentence):
    """node -> new head: the actors that I host, each with its worker, and whether its constructor has returned."""

    KIND: ClassVar[int] = 110
    actor_ids: tuple[bytes, ...]
    workers: tuple[bytes, ...]
    constructed: tuple[bool, ...]


class HeadChanged(Sentence):
    """node -> its clients: another head is there, state anew what only it keeps; or (`head` empty) none for a while."""

    KIND: ClassVar[int] = 111
    head: bytes
    reason: str
    """For people: since when there is no head."""


class ForHead(Sentence):
    """node -> head: what a process of mine says about actors, by number. Kept here until `HeadKept`, and said again to
    the next head."""

    KIND: ClassVar[int] = 112
    number: int
    origin: bytes
    payload: bytes
    """The encoded message; of this name because it may be large (wire/codec.py)."""


class HeadKept(Sentence):
    """head -> node: all that you said up to this number is on my disk (or heard, if I keep nothing)."""

    KIND: ClassVar[int] = 118
    number: int


class JobStarted(Sentence):
    """node -> head: a program has taken a seat here; its end is a ProcessDied."""

    KIND: ClassVar[int] = 119
    driver: bytes
    name: str
    started: float
    """Seconds of the epoch."""
