"""What stands between one who publishes and one who reads slowly: on each of the ways that an event takes.

Process to node, node to node, node to process: each way has an `Outlet` at its beginning and `Receipts` at its end. So
much may be under way; what comes beyond waits in a backlog, of which the oldest go. What went is counted for each
pattern that it would have matched at the other end, and that is told with what does get through: whoever subscribed
knows how much it has missed, wherever that was.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Final

from zmreg.core.topics import BACKLOG_BYTES, BACKLOG_ITEMS, Backlog
from zmreg.model.event_messages import Events
from zmreg.model.record import Record

# Events and bytes that have been sent and not been acknowledged. A round trip between machines is 1 ms: 256,000 a
# second is more than any of these processes can do.
WINDOW_ITEMS: Final = 256
WINDOW_BYTES: Final = 1 << 20
BATCH_ITEMS: Final = 64
BATCH_BYTES: Final = 256 << 10
# Of what has come: less than a window, so that what has all arrived never keeps a sender waiting.
_DUE_ITEMS: Final = WINDOW_ITEMS // 4
_DUE_BYTES: Final = WINDOW_BYTES // 4


def cost(events: Events) -> tuple[int, int]:
    """(items, bytes) that a batch takes of the window: at least one item."""
    nbytes = sum(map(len, events.topics)) + sum(map(len, events.values))
    return max(1, len(events.topics)), nbytes


class OutletStatistics(Record):
    """`waiting` and `under_way` are events of this moment, the others count since the start."""

    waiting: int
    under_way: int
    sent: int
    dropped: int


class Outlet:
    """One way's beginning. Invariant: what is under way is less than a window and one batch."""

    def __init__(
        self,
        matching: Callable[[str], Iterable[str]],
        most: int = BACKLOG_ITEMS,
        most_bytes: int = BACKLOG_BYTES,
    ) -> None:
        """`matching(topic)`: those of the patterns at the other end that stand for `topic`."""
        self._matching = matching
        self._backlog: Backlog[tuple[str, bytes, float]] = Backlog(most, most_bytes, self._gone)
        self._lost: dict[str, int] = {}
        self._items = self._nbytes = 0
        """Under way."""
        self._sent = 0

    def put(self, topic: str, value: bytes, kept: float = 0.0) -> None:
        """An event is to go this way; as one that is kept there, if it says when it was logged. The oldest that wait
        make room."""
        self._backlog.put((topic, value, kept), len(topic) + len(value))

    def _gone(self, event: tuple[str, bytes, float]) -> None:
        for pattern in self._matching(event[0]):
            self.lose(pattern, 1)

    def lose(self, pattern: str, count: int) -> None:
        """So many that `pattern` stands for will not come, says whoever had them."""
        self._lost[pattern] = self._lost.get(pattern, 0) + count

    def taken(self, items: int, nbytes: int) -> None:
        """So much has arrived."""
        self._items = max(0, self._items - items)
        self._nbytes = max(0, self._nbytes - nbytes)

    def next(self) -> Events | None:
        """What is to be sent now; None: nothing, or not before something is taken."""
        if self._items >= WINDOW_ITEMS or self._nbytes >= WINDOW_BYTES or not (self._backlog or self._lost):
            return None
        batch = self._batch()
        items, nbytes = cost(batch)
        self._items += items
        self._nbytes += nbytes
        return batch

    def rest(self) -> Iterator[Events]:
        """All that is left, whatever is under way: this process ends. Bounded by the backlog."""
        while self._backlog or self._lost:
            yield self._batch()

    def _batch(self) -> Events:
        topics: list[str] = []
        values: list[bytes] = []
        kept: list[float] = []
        size = 0
        while self._backlog and len(topics) < BATCH_ITEMS and size < BATCH_BYTES:
            ((topic, value, logged),) = self._backlog.take(1)
            topics.append(topic)
            values.append(value)
            kept.append(logged)
            size += len(topic) + len(value)
        lost, self._lost = self._lost, {}
        self._sent += len(topics)
        return Events(tuple(topics), tuple(values), tuple(lost), tuple(lost.values()), tuple(kept) if any(kept) else ())

    def statistics(self) -> OutletStatistics:
        return OutletStatistics(len(self._backlog), self._items, self._sent, self._backlog.dropped)

    def __repr__(self) -> str:
        return f"<Outlet {len(self._backlog)} waiting, {self._items} under way, {self._backlog.dropped} dropped>"


class Receipts:
    """One way's end: when to say how much has come."""

    def __init__(self) -> None:
        self._items = self._nbytes = 0

    def note(self, events: Events) -> tuple[int, int] | None:
        """A batch has come. (items, bytes) to be acknowledged now; None: later."""
        items, nbytes = cost(events)
        self._items += items
        self._nbytes += nbytes
        if self._items < _DUE_ITEMS and self._nbytes < _DUE_BYTES:
            return None
        due = self._items, self._nbytes
        self._items = self._nbytes = 0
        return due
