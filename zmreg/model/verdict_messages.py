"""What nodes tell a head about deaths that it may not know of."""

from __future__ import annotations

from typing import ClassVar

from zmreg.model.record import Sentence


class KnownDead(Sentence):
    """node -> head that it follows from now on, or again: these nodes are dead, and you may not have heard of it.

    The last head has said so and had no time to write it down, or a member had to decide while there was no head.
    """

    KIND: ClassVar[int] = 190
    nodes: tuple[bytes, ...]
    reasons: tuple[str, ...]
    """One for each of `nodes`, for people."""
