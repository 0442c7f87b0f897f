"""What the taker of a generator's items tells the worker that makes them. The items themselves are rows of results."""

from __future__ import annotations

from typing import ClassVar

from zmreg.model.record import Sentence


class StreamCredit(Sentence):
    """owner -> worker: so many items of this call are taken, of all that it ever sent."""

    KIND: ClassVar[int] = 150
    counter: int
    taken: int
    wanted: int
    """Somebody waits for so many, of all that there ever were. Told where all generators of an actor have one bound."""


class StreamClosed(Sentence):
    """owner -> worker: nobody takes items of this call any more; it is to end at its next `yield`."""

    KIND: ClassVar[int] = 151
    counter: int
