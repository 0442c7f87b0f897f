"""What is said when values move between nodes that both stay (core/rebalancing.py)."""

from __future__ import annotations

from typing import ClassVar

from zmreg.model.record import Sentence


class Demote(Sentence):
    """owner -> a node: other nodes keep these objects from now on; drop your copies, those in use when they are not.

    Answered by a `Replicated` for each, after what my store has in use now was told to the owner's node.
    """

    KIND: ClassVar[int] = 223
    object_ids: tuple[bytes, ...]
