"""What a node asks owners before it ends a worker for want of memory."""

from __future__ import annotations

from typing import ClassVar

from zmreg.model.record import Sentence


class AskRepeatable(Sentence):
    """node -> owner: memory runs short; if I have to end this worker in that call of yours, is it tried again?"""

    KIND: ClassVar[int] = 122
    worker: bytes
    counter: int


class Repeatable(Sentence):
    """owner -> node: it is, or (`again` False) its end is an error for somebody."""

    KIND: ClassVar[int] = 123
    worker: bytes
    counter: int
    again: bool
