"""What nodes say to each other to keep replicas of a table of which each node writes its own part.

In each of them `node` is the writer of the part it is about, `table` says which (a `ReplicaTable`), and `incarnation`
which life of that writer: a higher one makes everything said in a lower one void.
"""

from __future__ import annotations

from enum import IntEnum
from typing import ClassVar

from zmreg.model.record import Sentence


class ReplicaTable(IntEnum):
    """The replicated tables."""

    LOCATIONS = 1
    TOPICS = 2
    FUNCTIONS = 3


class Delta(Sentence):
    """node -> all nodes, or -> a node that asked for a replay: operations on its part, numbered from `first_seq` on."""

    KIND: ClassVar[int] = 80
    node: bytes
    table: int
    incarnation: int
    first_seq: int
    keys: tuple[bytes, ...]
    values: tuple[bytes, ...]
    """One for each key; an empty one: the row is gone."""


class Beacon(Sentence):
    """node -> all nodes, twice a second: how far my part has come, and what it adds up to there."""

    KIND: ClassVar[int] = 81
    node: bytes
    table: int
    incarnation: int
    last_seq: int
    count: int
    digest: int


class AskReplay(Sentence):
    """node -> writer: I have missed your operations from `first` to before `until`."""

    KIND: ClassVar[int] = 82
    node: bytes
    table: int
    incarnation: int
    first: int
    until: int


class AskSnapshot(Sentence):
    """node -> writer: `count` parts of your snapshot, please, from number `first` on."""

    KIND: ClassVar[int] = 83
    node: bytes
    table: int
    incarnation: int
    cut: int
    """Of the snapshot I am reading; -1: I begin, any will do."""
    least: int
    """A snapshot with a lower cut is of no use to me."""
    first: int
    count: int


class SnapshotPart(Sentence):
    """writer -> node that asked: rows of my part as they were after operation `cut`; number `part` of 0..`last`."""

    KIND: ClassVar[int] = 84
    node: bytes
    table: int
    incarnation: int
    cut: int
    part: int
    last: int
    keys: tuple[bytes, ...]
    values: tuple[bytes, ...]


ReplicaMessage = Delta | Beacon | AskReplay | AskSnapshot | SnapshotPart
