"""What the head and the other nodes say to each other about work: actors placed elsewhere, leases to be had there."""

from __future__ import annotations

from typing import ClassVar

from zmreg.model.record import Resources, Sentence, Terms


class PlaceActor(Sentence):
    """head -> node: have a worker host this actor; answered by ActorHosted or ActorUnplaceable."""

    KIND: ClassVar[int] = 17
    actor_id: bytes
    class_name: str
    place: Resources
    hold: Resources
    locs: tuple[str, ...]
    restarts: bool = False
    """It may be restarted when its process dies."""
    terms: Terms = ()


class UnplaceActor(Sentence):
    """head -> node: forget the actor's place."""

    KIND: ClassVar[int] = 18
    actor_id: bytes


class ActorHosted(Sentence):
    """node -> head: this worker is the actor's."""

    KIND: ClassVar[int] = 19
    actor_id: bytes
    worker: bytes


class ActorUnplaceable(Sentence):
    """node -> head: it will have no worker here."""

    KIND: ClassVar[int] = 47
    actor_id: bytes
    reason: str


class KillProcess(Sentence):
    """head -> node: kill -9 this worker of yours."""

    KIND: ClassVar[int] = 48
    worker: bytes
    reason: str


class TryNodes(Sentence):
    """node -> owner: what I can't serve now these nodes could; ask them, for at most so many leases each."""

    KIND: ClassVar[int] = 49
    resources: Resources
    locs: tuple[str, ...]
    strategy: str
    nodes: tuple[bytes, ...]
    counts: tuple[int, ...]
    terms: Terms = ()
