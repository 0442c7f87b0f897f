"""Several workers in one process: what its node and the process that they are to live in say about it."""

from __future__ import annotations

from typing import ClassVar

from zmreg.model.record import Sentence


class Lodge(Sentence):
    """node -> worker: make one more worker in your process, under this id. It says `Hello` by itself; when that cannot
    be, `LodgerGone` is the answer."""

    KIND: ClassVar[int] = 224
    worker: bytes


class Evict(Sentence):
    """node -> worker: end that lodger of yours at once. Nothing that it does from now on is heard of."""

    KIND: ClassVar[int] = 225
    worker: bytes


class LodgerGone(Sentence):
    """worker -> its node: a lodger of mine has ended. `status`: what waitpid would say of a process."""

    KIND: ClassVar[int] = 226
    worker: bytes
    status: int
    reason: str
    """Why, where the status does not say it."""


LodgingWord = Lodge | Evict | LodgerGone
