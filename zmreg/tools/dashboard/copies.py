"""Which questions are due: a copy of each answer, made anew while somebody reads it, and no oftener than is good.

Pure: times are seconds of whatever clock the caller has.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

from zmreg.model.record import Record

Key = tuple[str, ...]
"""A source's name, and what it is asked for."""

# A page asks every two seconds; who has not asked for so long looks at something else.
WANTED_S: Final = 10.0
# Of the time, so much may go into one question: an answer that takes half a second is asked for every 2.5 s.
SHARE: Final = 0.2
# One question goes to every node: no more than fifty nodes a second.
A_NODE_S: Final = 0.02
# Questions that somebody wants at a time, besides those of the pages: each is somebody's click.
MOST_CLICKS: Final = 16


class Copy(Record):
    """The last answer to one question, and when it came; `error` says why there was none at the last try."""

    value: Any
    at: float
    error: str = ""


class Copies:
    """Not for several threads."""

    def __init__(self, every: Mapping[str, float], always: Mapping[str, float]) -> None:
        """{source: seconds from one question to the next}, while somebody looks and (`always`) while nobody does."""
        self._every = every
        self._always: dict[Key, float] = {(name,): seconds for name, seconds in always.items()}
        self._until: dict[Key, float] = {}
        self._pause: dict[Key, float] = {}
        self._begun: dict[Key, float] = {}
        self._found: dict[Key, Copy] = {}
        self.nodes = 1

    def want(self, key: Key, now: float) -> bool:
        """Somebody reads it. False: too many others are asked for by a click at this moment."""
        self._forget(now)
        if len(key) > 1 and key not in self._until and sum(len(each) > 1 for each in self._until) >= MOST_CLICKS:
            return False
        self._until[key] = now + WANTED_S
        return True

    def _forget(self, now: float) -> None:
        for key in [each for each, until in self._until.items() if until <= now]:
            del self._until[key]
            if key not in self._always:
                for facts in (self._found, self._begun, self._pause):
                    facts.pop(key, None)

    def due(self, now: float) -> list[Key]:
        """To be asked now, those first that wait longest."""
        self._forget(now)
        found = sorted((self._at(key), key) for key in {*self._until, *self._always})
        return [key for at, key in found if at <= now]

    def next_at(self, now: float) -> float:
        """When something is due, if nobody wants anything else before; infinity: never."""
        self._forget(now)
        return min((self._at(key) for key in {*self._until, *self._always}), default=float("inf"))

    def _at(self, key: Key) -> float:
        if key not in self._begun:
            return float("-inf")
        least = self._every[key[0]] if key in self._until else self._always[key]
        return self._begun[key] + max(least, self._pause[key], self.nodes * A_NODE_S)

    def put(self, key: Key, value: Any, began: float, now: float) -> None:
        """It was asked at `began`, and answered."""
        self._note(key, Copy(value, now), began, now)

    def fail(self, key: Key, error: str, began: float, now: float) -> None:
        """It was asked, and there is no answer: the copy before is what there is."""
        before = self._found.get(key)
        self._note(key, Copy(None, now, error) if before is None else before.but(error=error), began, now)

    def _note(self, key: Key, copy: Copy, began: float, now: float) -> None:
        if key not in self._until and key not in self._always:
            return  # who wanted it has gone while it was asked: nobody would forget it any more
        self._begun[key] = began
        self._pause[key] = (now - began) / SHARE
        self._found[key] = copy

    def of(self, key: Key) -> Copy | None:
        """What there is."""
        return self._found.get(key)
