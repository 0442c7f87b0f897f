"""Who listens to which patterns of topics."""

from __future__ import annotations

from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from zmreg.core.topics import Pattern

# Topics for which is remembered who listens. Those of a program come again and again; those of requests do not.
_REMEMBERED: Final = 4_096

Who = TypeVar("Who", bound=Hashable)


class Interests(Generic[Who]):
    """A table of (who, pattern), and what follows from it for a topic. What follows is remembered until it changes."""

    def __init__(self) -> None:
        self._patterns: dict[str, tuple[Pattern, dict[Who, None]]] = {}
        self._of: dict[Who, set[str]] = {}
        self._listeners: dict[str, tuple[Who, ...]] = {}
        self._matching: dict[tuple[Who, str], tuple[str, ...]] = {}
        self._under: dict[str, bool] = {}

    def add(self, who: Who, pattern: str) -> bool:
        """`who` listens to `pattern`. True: nobody did before. Raises ValueError for what is no pattern."""
        found = self._patterns.get(pattern)
        is_new = found is None
        if found is None:
            found = self._patterns[pattern] = (Pattern(pattern), {})
        found[1][who] = None
        self._of.setdefault(who, set()).add(pattern)
        self._changed()
        return is_new

    def remove(self, who: Who, pattern: str) -> bool:
        """`who` does not any more. True: it was the last one."""
        found = self._patterns.get(pattern)
        if found is None or who not in found[1]:
            return False
        del found[1][who]
        self._of[who].discard(pattern)
        if not self._of[who]:
            del self._of[who]
        if not found[1]:
            del self._patterns[pattern]
        self._changed()
        return not found[1]

    def forget(self, who: Who) -> list[str]:
        """Nobody of that name listens any more. What it listened to, in order."""
        patterns = sorted(self._of.get(who, ()))
        for pattern in patterns:
            self.remove(who, pattern)
        return patterns

    def _changed(self) -> None:
        self._listeners.clear()
        self._matching.clear()
        self._under.clear()

    def patterns(self) -> list[str]:
        """All that somebody listens to."""
        return list(self._patterns)

    def of(self, who: Who) -> frozenset[str]:
        """What one listens to."""
        return frozenset(self._of.get(who, ()))

    def who_has(self, pattern: str) -> tuple[Who, ...]:
        """Who listens to this very pattern."""
        found = self._patterns.get(pattern)
        return tuple(found[1]) if found is not None else ()

    def listeners(self, topic: str) -> tuple[Who, ...]:
        """Who hears of what is published under `topic`, each once."""
        found = self._listeners.get(topic)
        if found is None:
            hearing: dict[Who, None] = {}
            for pattern, who in self._patterns.values():
                if pattern.matches(topic):
                    hearing |= who
            if len(self._listeners) >= _REMEMBERED:
                self._listeners.clear()
            found = self._listeners[topic] = tuple(hearing)
        return found

    def matching(self, who: Who, topic: str) -> tuple[str, ...]:
        """Those of the patterns that `who` listens to which stand for `topic`."""
        found = self._matching.get((who, topic))
        if found is None:
            patterns = self._of.get(who, ())
            if len(self._matching) >= _REMEMBERED:
                self._matching.clear()
            found = tuple(each for each in patterns if self._patterns[each][0].matches(topic))
            self._matching[who, topic] = found
        return found

    def under(self, prefix: str) -> bool:
        """Whether somebody may hear of `prefix`, or of a topic that goes on from there."""
        found = self._under.get(prefix)
        if found is None:
            if len(self._under) >= _REMEMBERED:
                self._under.clear()
            found = self._under[prefix] = any(pattern.reaches(prefix) for pattern, _ in self._patterns.values())
        return found

    def __len__(self) -> int:
        return len(self._patterns)

    def __repr__(self) -> str:
        return f"<Interests: {len(self._patterns)} patterns of {len(self._of)}>"
