"""What nodes say to each other about who is in the cluster."""

from __future__ import annotations

from typing import ClassVar

from zmreg.model.record import Resources, Sentence, Terms


class NodeRecord(Sentence):
    """node -> every node (members table, and inside `Join`): who I am, where my ports are, what I have and have free.

    Amounts are in 1/10000 units. Only the node itself writes its record.
    """

    KIND: ClassVar[int] = 62
    node: bytes
    name: str
    host: str
    port: int
    pub_port: int
    is_head: bool
    python: str
    version: str
    pid: int
    total: Resources
    available: Resources
    locs: tuple[str, ...]
    store_bytes: int
    store_used_bytes: int
    workers: int
    waiting: int
    """Leases and actors asked for here that have no worker yet."""
    draining: bool = False
    """It takes nothing new and is about to leave."""
    epoch: int = 0
    """Of the head that it follows, or is; 0: one that keeps nothing."""
    devices: tuple[int, ...] = ()
    """What is free of each of its GPUs: of two that are half used, nobody gets more than a half."""
    labels: Terms = ()
    """(name, value) pairs that its machine was given."""


class Join(Sentence):
    """node -> any node: I have the cluster's key and want to be one of you. Said again until it is answered."""

    KIND: ClassVar[int] = 63
    record: bytes
    """An encoded NodeRecord."""


class Admitted(Sentence):
    """head -> joining node: you are one of us; these are the others (encoded NodeRecords, the head's first)."""

    KIND: ClassVar[int] = 64
    cluster: str
    epoch: int
    inline_limit: int
    namespace: str
    records: tuple[bytes, ...]
    gone: tuple[bytes, ...]
    """Nodes that have died or left lately."""
    heirs: tuple[bytes, ...] = ()
    """Who answers for each of them; empty for the dead."""


class NotAdmitted(Sentence):
    """head -> joining node: no, and why; `kind` is "version", "python", "dead" or "cluster"."""

    KIND: ClassVar[int] = 65
    kind: str
    reason: str


class AskHead(Sentence):
    """node -> joining node: I am not the head; it is there."""

    KIND: ClassVar[int] = 66
    host: str
    port: int


class NodeGone(Sentence):
    """head -> nodes -> their clients: that node is dead for good (or `left` in peace), with every process on it."""

    KIND: ClassVar[int] = 67
    node: bytes
    reason: str
    left: bool
    heir: bytes = b""
    """The node that answers for what it owned."""


class Leaving(Sentence):
    """node -> all nodes: I end in peace; what was mine is with `heir` (empty: nothing was)."""

    KIND: ClassVar[int] = 68
    heir: bytes


class Fenced(Sentence):
    """node -> node that was declared dead: you are not one of us any more; end your workers and join anew."""

    KIND: ClassVar[int] = 69
    reason: str
    node: bytes = b""
    epoch: int = 0
    """Of the head that the sender follows, or has seen."""


class TakesNothing(Sentence):
    """node -> head: more than I may keep waits for that node, and it takes none of it; it is as good as dead."""

    KIND: ClassVar[int] = 125
    node: bytes
    reason: str


class NodeDrains(Sentence):
    """node -> its clients: that node takes no more work, and is about to leave."""

    KIND: ClassVar[int] = 114
    node: bytes


class AskKept(Sentence):
    """node -> heir of a process that left in peace: I have these objects of its; free those that nobody holds."""

    KIND: ClassVar[int] = 116
    object_ids: tuple[bytes, ...]


class Passed(Sentence):
    """leaving node -> its heir: `origin` has said this (an encoded word about refs) to me, and it is for you now."""

    KIND: ClassVar[int] = 117
    origin: bytes
    payload: bytes
