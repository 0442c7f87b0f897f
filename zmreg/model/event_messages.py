"""Events on their way: who wants to hear of what, and what was published."""

from __future__ import annotations

from typing import ClassVar

from zmreg.model.record import Sentence


class Subscribe(Sentence):
    """client -> its node: I listen to what `pattern` stands for. Answered by `Answer`: why not, or an empty text."""

    KIND: ClassVar[int] = 142
    request: int
    pattern: str


class Unsubscribe(Sentence):
    """client -> its node: I do not listen to it any more."""

    KIND: ClassVar[int] = 143
    pattern: str


class WatchPatterns(Sentence):
    """client -> its node: I publish; tell me what anybody listens to, now and whenever that changes."""

    KIND: ClassVar[int] = 144


class PatternNews(Sentence):
    """node -> client that watches: patterns that somebody listens to, and those that nobody does any more.

    With `whole` all that the node knows has been said.
    """

    KIND: ClassVar[int] = 145
    added: tuple[str, ...]
    gone: tuple[str, ...]
    whole: bool


class Events(Sentence):
    """client -> its node -> other nodes that have listeners -> clients that listen: what was published, in order.

    A node that has it from another node passes it on to its own clients only.
    """

    KIND: ClassVar[int] = 146
    topics: tuple[str, ...]
    values: tuple[bytes, ...]
    """Pickled, one for each topic."""
    lost: tuple[str, ...]
    """Patterns that stand for events which were to be here, and had to go."""
    counts: tuple[int, ...]
    """How many, one for each of `lost`."""
    kept: tuple[float, ...] = ()
    """From a client to its node, if that is to keep any: when each was logged, in Unix seconds; 0 for the others."""


class EventsTaken(Sentence):
    """receiver of `Events` -> its sender: so much of them has come since the last time; more may."""

    KIND: ClassVar[int] = 147
    items: int
    nbytes: int
