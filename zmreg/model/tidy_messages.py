"""What idle processes are told for the sake of others on their machine."""

from __future__ import annotations

from typing import ClassVar

from zmreg.model.record import Sentence


class TidyUp(Sentence):
    """node -> worker: you have run something, and nothing for a second: give back the memory that is free."""

    KIND: ClassVar[int] = 199
