"""What is said about placement groups."""

from __future__ import annotations

from typing import ClassVar

from zmreg.model.record import Resources, Sentence


class CreateGroup(Sentence):
    """owner -> head: hold these bundles for me, all of them or none."""

    KIND: ClassVar[int] = 170
    group_id: bytes
    name: str
    """With its namespace in front, and a NUL between; empty: none."""
    bundles: tuple[Resources, ...]
    strategy: str
    detached: bool
    """Outlives its owner."""


class RemoveGroup(Sentence):
    """any client -> head: let go of everything that is held for the group."""

    KIND: ClassVar[int] = 171
    group_id: bytes


class PrepareBundles(Sentence):
    """head -> node: set these bundles aside, (index, amounts). Answered by BundlesPrepared."""

    KIND: ClassVar[int] = 172
    group_id: bytes
    turn: int
    bundles: tuple[tuple[int, Resources], ...]


class BundlesPrepared(Sentence):
    """node -> head: they are set aside, or (`agreed` false) none of them is."""

    KIND: ClassVar[int] = 173
    group_id: bytes
    turn: int
    agreed: bool


class CommitBundles(Sentence):
    """head -> node: the group stands; its bundles may be used."""

    KIND: ClassVar[int] = 174
    group_id: bytes


class DropBundles(Sentence):
    """head -> node: let go of these bundles; `removed`: of the whole group, for good."""

    KIND: ClassVar[int] = 175
    group_id: bytes
    indexes: tuple[int, ...]
    removed: bool


class AskGroup(Sentence):
    """node -> head: somebody waits here for this group; answered (DropBundles) if there is none."""

    KIND: ClassVar[int] = 176
    group_id: bytes


class HeldBundles(Sentence):
    """node -> new head: the bundles that I hold for this group: those that stand, and those that I only set aside."""

    KIND: ClassVar[int] = 177
    group_id: bytes
    standing: tuple[int, ...]
    prepared: tuple[int, ...]


class HoldBack(Sentence):
    """head -> node: for so many seconds give nobody but this group what comes free of these amounts."""

    KIND: ClassVar[int] = 178
    group_id: bytes
    amounts: Resources
    seconds: float


GroupWord = (
    CreateGroup
    | RemoveGroup
    | PrepareBundles
    | BundlesPrepared
    | CommitBundles
    | DropBundles
    | AskGroup
    | HeldBundles
    | HoldBack
)
GROUP_WORDS = (
    CreateGroup, RemoveGroup, PrepareBundles, BundlesPrepared, CommitBundles, DropBundles, AskGroup, HeldBundles,
    HoldBack,
)  # fmt: skip
