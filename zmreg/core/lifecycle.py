"""Lifecycles as tables: the rows are what may happen, a missing row is the error."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import Final, Generic, TypeVar

from zmreg.model.errors import InternalError
from zmreg.model.ids import short

State = TypeVar("State", bound=str)
Event = TypeVar("Event", bound=str)

# Enough for a few restarts of story; one line each, kept per living thing.
_STORY_LINES: Final = 16


class IllegalMove(InternalError):
    """A state machine was told something that cannot follow from where it stands; `.story` tells how it got there."""


class Lifecycle(Generic[State, Event]):
    """One thing's state and the story of its last moves. `move` is the only writer."""

    __slots__ = ("_moves", "_story", "state", "what")

    def __init__(self, what: str, start: State, moves: Mapping[tuple[State, Event], State]) -> None:
        self.what = what
        self.state = start
        self._moves = moves
        self._story: deque[str] = deque(maxlen=_STORY_LINES)

    def can(self, event: Event) -> bool:
        return (self.state, event) in self._moves

    def move(self, event: Event, why: str = "") -> None:
        """Take the row (state, event). Raises IllegalMove, with the story so far, when there is none."""
        after = self._moves.get((self.state, event))
        if after is None:
            story = "\n".join(f"  {line}" for line in self._story)
            raise IllegalMove(f"{self.what} is {self.state}, cannot take {event!r} ({why or 'no cause'})", story)
        self._story.append(f"{self.state} -> {after}  {event}{f': {why}' if why else ''}")
        self.state = after

    def story(self) -> tuple[str, ...]:
        """The last moves, oldest first, one line each."""
        return tuple(self._story)

    def __repr__(self) -> str:
        return f"<Lifecycle {self.what} {self.state}>"


def named(kind: str, any_id: bytes) -> str:
    """`actor 1f3a...`: how messages name a thing."""
    return f"{kind} {short(any_id)}"
