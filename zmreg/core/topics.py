"""Topics of events: words joined by dots, patterns over them, and what is kept for a subscriber that reads slowly.

In a pattern `*` stands for one word and `#` for any number of them, also none: `debug.rpc.*.intermediate`, `task.#`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, Generic, TypeVar

from zmreg.model.record import Record

# A topic is in every event. Deep enough for anything a person reads.
MAX_TOPIC_CHARS: Final = 255
ONE_WORD: Final = "*"
ANY_WORDS: Final = "#"
# For a subscriber that stands still for a while.
BACKLOG_ITEMS: Final = 10_000
BACKLOG_BYTES: Final = 16 << 20

Item = TypeVar("Item")


def check_topic(topic: str) -> str:
    """The topic itself. Raises ValueError for one that nothing can be published under."""
    words = _words(topic)
    if ONE_WORD in words or ANY_WORDS in words:
        raise ValueError(f"{topic!r} is a pattern: events are published under a topic without * and #")
    return topic


def topic_for(template: str, request_id: str) -> str:
    """`template` with the request's id in place of `{request_id}`, and nothing else changed. Raises ValueError when
    that is no topic."""
    return check_topic(template.replace("{request_id}", request_id))


class Pattern:
    """What a subscriber wants to hear."""

    __slots__ = ("_words", "text")

    def __init__(self, text: str) -> None:
        """Raises ValueError for an empty word, or one with a * or # among other characters."""
        self.text = text
        self._words = _words(text)
        for word in self._words:
            if len(word) > 1 and (ONE_WORD in word or ANY_WORDS in word):
                raise ValueError(f"pattern {text!r}: {word!r} mixes * or # with text; each of them is a whole word")

    def matches(self, topic: str) -> bool:
        """Whether it stands for this topic. In the worst case as many steps as the product of their words.

        A later `#` can take all that an earlier one could, so only the last one is ever given more.
        """
        pattern, words = self._words, topic.split(".")
        at = here = taken = 0
        last = -1
        while here < len(words):
            if at < len(pattern) and pattern[at] == ANY_WORDS:
                last, taken = at, here
                at += 1
            elif at < len(pattern) and pattern[at] in (ONE_WORD, words[here]):
                at += 1
                here += 1
            elif last >= 0:
                taken += 1
                at, here = last + 1, taken
            else:
                return False
        return all(word == ANY_WORDS for word in pattern[at:])

    def reaches(self, prefix: str) -> bool:
        """Whether it stands for `prefix`, or for some topic that goes on from there with a dot."""
        pattern = self._words
        places = self._with_skipped({0})
        for word in prefix.split("."):
            stays = {at for at in places if at < len(pattern) and pattern[at] == ANY_WORDS}
            goes_on = {at + 1 for at in places if at < len(pattern) and pattern[at] in (ONE_WORD, word)}
            places = self._with_skipped(stays | goes_on)
        return bool(places)

    def _with_skipped(self, places: set[int]) -> set[int]:
        """Places in the pattern, and those that are reached from them by taking no word for a `#`."""
        found = set(places)
        for at in sorted(places):
            while at < len(self._words) and self._words[at] == ANY_WORDS:
                at += 1
                found.add(at)
        return found

    def __eq__(self, other: object) -> bool:
        return self.text == other.text if isinstance(other, Pattern) else NotImplemented

    def __hash__(self) -> int:
        return hash(self.text)

    def __repr__(self) -> str:
        return f"<Pattern {self.text}>"


class BacklogStatistics(Record):
    """`waiting` and `nbytes` are of this moment; the others count since the start."""

    waiting: int
    nbytes: int
    taken: int
    dropped: int


class Backlog(Generic[Item]):
    """What one subscriber has not read yet, in order. Whoever publishes never waits: over the bounds the oldest go.

    Invariant: at most `most` items, and `most_bytes` bytes unless a single item has more.
    """

    def __init__(
        self,
        most: int = BACKLOG_ITEMS,
        most_bytes: int = BACKLOG_BYTES,
        gone: Callable[[Item], object] | None = None,
    ) -> None:
        """`gone(item)` is called for each that has to go. Raises ValueError for a bound below 1."""
        if most < 1 or most_bytes < 1:
            raise ValueError(f"a backlog of {most} items and {most_bytes} bytes keeps nothing; both are 1 at least")
        self._most = most
        self._most_bytes = most_bytes
        self._gone = gone
        self._items: deque[tuple[Item, int]] = deque()
        self._nbytes = 0
        self._taken = 0
        self.dropped = 0
        """How many were never read."""

    def put(self, item: Item, nbytes: int) -> int:
        """Add one of so many bytes. How many had to go for it."""
        before = self.dropped
        while self._items and (len(self._items) >= self._most or self._nbytes + nbytes > self._most_bytes):
            oldest, size = self._items.popleft()
            self._nbytes -= size
            self.dropped += 1
            if self._gone is not None:
                self._gone(oldest)
        self._items.append((item, nbytes))
        self._nbytes += nbytes
        return self.dropped - before

    def take(self, most: int = BACKLOG_ITEMS) -> list[Item]:
        """The oldest, up to so many; they are no longer here."""
        taken = [self._items.popleft() for _ in range(min(most, len(self._items)))]
        self._nbytes -= sum(nbytes for _, nbytes in taken)
        self._taken += len(taken)
        return [item for item, _ in taken]

    def clear(self) -> None:
        """Nobody reads what is left; it does not count as dropped."""
        self._items.clear()
        self._nbytes = 0

    def statistics(self) -> BacklogStatistics:
        return BacklogStatistics(len(self._items), self._nbytes, self._taken, self.dropped)

    def __len__(self) -> int:
        return len(self._items)

    def __repr__(self) -> str:
        return f"<Backlog {len(self)} waiting, {self._nbytes} bytes, {self.dropped} dropped>"


def _words(text: str) -> tuple[str, ...]:
    words = tuple(text.split("."))
    if not all(words) or len(text) > MAX_TOPIC_CHARS:
        raise ValueError(
            f"{text[:60]!r} is no topic: words joined by dots are, none of them empty, of {MAX_TOPIC_CHARS} characters "
            f"in all"
        )
    return words
