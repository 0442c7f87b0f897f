"""What a head and the nodes say to each other when somebody asks for a clean cluster."""

from __future__ import annotations

from typing import ClassVar

from zmreg.model.record import Sentence


class EndWorkers(Sentence):
    """head -> node: kill every worker that is there now, and tell me when they are gone."""

    KIND: ClassVar[int] = 120
    number: int


class WorkersEnded(Sentence):
    """node -> head: they are, and others start in their place."""

    KIND: ClassVar[int] = 121
    number: int
