"""The latest events of each topic that a node keeps for those who ask later. Bounded in every direction.

Over the bounds of a topic its oldest events go; with too many topics the one that has been silent longest; over the
bytes of all the oldest event there is. What goes is counted.
"""

from __future__ import annotations

import heapq
from collections import OrderedDict, deque
from collections.abc import Iterator
from typing import Final

from zmreg.core.topics import Pattern
from zmreg.model.record import Record

TOPIC_EVENTS: Final = 1_000
TOPIC_BYTES: Final = 1 << 20
TOPICS: Final = 1_000
ALL_BYTES: Final = 16 << 20
# What an event takes beside its topic and its value, in this process: small ones would cost twenty times their bytes.
EVENT_BYTES: Final = 300

Kept = tuple[int, str, float, bytes]
"""(number, topic, Unix seconds at which it was logged, value)."""


class KeptStatistics(Record):
    """`topics`, `events` and `nbytes` are of this moment; `gone` counts events since the start."""

    topics: int
    events: int
    nbytes: int
    gone: int


class _Ring:
    """Of one topic."""

    __slots__ = ("nbytes", "numbers")

    def __init__(self) -> None:
        self.numbers: deque[int] = deque()
        self.nbytes = 0


class KeptEvents:
    """Invariants: each bound holds after every `put`; numbers grow; a topic's ring has its numbers in order, and is
    there as long as it has any."""

    def __init__(
        self,
        topic_events: int = TOPIC_EVENTS,
        topic_bytes: int = TOPIC_BYTES,
        topics: int = TOPICS,
        all_bytes: int = ALL_BYTES,
    ) -> None:
        self._most_events = topic_events
        self._most_topic_bytes = topic_bytes
        self._most_topics = topics
        self._most_bytes = all_bytes
        # Ordered, since their first is taken away again and again: a dict would look over the gaps each time.
        self._events: OrderedDict[int, Kept] = OrderedDict()
        self._rings: OrderedDict[str, _Ring] = OrderedDict()
        """The one that has been silent longest first."""
        self._nbytes = 0
        self._last = 0
        self._gone = 0

    def put(self, topic: str, time: float, value: bytes) -> None:
        """Keep one; others go for it. One that is larger than a bound is not kept."""
        nbytes = len(topic) + len(value) + EVENT_BYTES
        if nbytes > min(self._most_topic_bytes, self._most_bytes):
            self._gone += 1
            return
        ring = self._rings.get(topic)
        if ring is None:
            ring = _Ring()
        else:
            self._rings.move_to_end(topic)
        while len(ring.numbers) >= self._most_events or ring.nbytes + nbytes > self._most_topic_bytes:
            self._drop(ring.numbers[0], ring)
        self._rings[topic] = ring  # its last one may just have gone
        while len(self._rings) > self._most_topics:
            silent = next(iter(self._rings.values()))
            while silent.numbers:
                self._drop(silent.numbers[0], silent)
        while self._nbytes + nbytes > self._most_bytes:
            oldest, event = next(iter(self._events.items()))
            self._drop(oldest, self._rings[event[1]])
        self._rings[topic] = ring
        self._last += 1
        self._events[self._last] = (self._last, topic, time, value)
        ring.numbers.append(self._last)
        ring.nbytes += nbytes
        self._nbytes += nbytes

    def _drop(self, number: int, ring: _Ring) -> None:
        """The oldest of its topic."""
        _, topic, _, value = self._events.pop(number)
        nbytes = len(topic) + len(value) + EVENT_BYTES
        ring.numbers.popleft()
        ring.nbytes -= nbytes
        self._nbytes -= nbytes
        self._gone += 1
        if not ring.numbers:
            self._rings.pop(topic, None)

    def page(self, pattern: str, most: int, most_bytes: int, before: int = 0) -> tuple[list[Kept], bool]:
        """(the newest events that `pattern` stands for, in the order in which they came, whether there are older ones).

        `most` of them, and `most_bytes` of topics and values unless it is one; with `before` only those of lower
        numbers. Raises ValueError for what is no pattern.
        """
        wanted = Pattern(pattern)
        found: list[Kept] = []
        size = 0
        for number in self._newest_first(wanted):
            if before and number >= before:
                continue
            event = self._events[number]
            size += len(event[1]) + len(event[3])
            if len(found) >= most or (found and size > most_bytes):
                return found[::-1], True
            found.append(event)
        return found[::-1], False

    def _newest_first(self, wanted: Pattern) -> Iterator[int]:
        rings = [reversed(ring.numbers) for topic, ring in self._rings.items() if wanted.matches(topic)]
        return heapq.merge(*rings, reverse=True)

    def statistics(self) -> KeptStatistics:
        return KeptStatistics(len(self._rings), len(self._events), self._nbytes, self._gone)

    def __repr__(self) -> str:
        return f"<KeptEvents {len(self._events)} under {len(self._rings)} topics, {self._nbytes} bytes>"
