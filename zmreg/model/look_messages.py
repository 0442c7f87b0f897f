"""How a node looks into the processes on its machine when somebody asks it to: their stacks, their memory."""

from __future__ import annotations

from typing import ClassVar

from zmreg.model.record import Sentence


class Look(Sentence):
    """node -> driver or worker of its machine: say how it is with you. Answered by `Looked`."""

    KIND: ClassVar[int] = 200
    request: int
    what: str
    """`stacks` or `memory`."""


class Looked(Sentence):
    """driver or worker -> its node: the answer, plain containers packed (services/seat/looked.py says which)."""

    KIND: ClassVar[int] = 201
    request: int
    body: bytes
