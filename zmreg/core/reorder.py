"""Results that come in any order, given on in the order in which their work was handed out."""

from __future__ import annotations

from typing import Generic, TypeVar

T = TypeVar("T")


class Reorder(Generic[T]):
    """Numbers from 0 on are handed out by `begin`; each `finish`ed once. At most `window` are out or wait for an
    earlier one, so a slow piece of work holds up those behind it, and nothing grows."""

    __slots__ = ("_done", "_given", "_next", "ordered", "window")

    def __init__(self, window: int, ordered: bool = True) -> None:
        """Not `ordered`: each is given on as it comes; the window still bounds what is out. ValueError under 1."""
        if window < 1:
            raise ValueError(f"window={window}: at least one has to be out")
        self.window = window
        self.ordered = ordered
        self._next = self._given = 0
        self._done: dict[int, T] = {}

    @property
    def room(self) -> int:
        """How many more may begin."""
        return self.window - (self._next - self._given)

    @property
    def is_idle(self) -> bool:
        """Everything that began was given on."""
        return self._next == self._given

    def begin(self) -> int:
        """The number of the next piece of work. ValueError without room."""
        if self.room < 1:
            raise ValueError(f"{self.window} are out")
        self._next += 1
        return self._next - 1

    def finish(self, number: int, result: T) -> list[T]:
        """What can be given on now that this is done."""
        if not self.ordered:
            self._given += 1
            return [result]
        if not self._given <= number < self._next or number in self._done:
            raise ValueError(f"{number} is not out")
        self._done[number] = result
        ready = []
        while self._given in self._done:
            ready.append(self._done.pop(self._given))
            self._given += 1
        return ready

    def __repr__(self) -> str:
        return f"<Reorder {self._next - self._given}/{self.window} out, {len(self._done)} wait>"
