"""What an owner remembers of its calls: a bounded ring of what came by anyway, made sense of when somebody asks.

Of each batch of answers the frame in which they came is kept, with the time and the names of the functions; of each
batch of calls only when it left and which numbers were in it. That costs a batch of any size 1 us. What happens seldom
(a retry, an end without an answer) is put down in words.

All times are of the owner's monotonic clock, in seconds; how long a call ran is measured by its worker, with its own.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Final

from zmreg.model.record import Record

MOST_CALLS: Final = 10_000
# Frames of all of them together; a plain answer has 15 to 30 bytes. In a larger frame than MOST_FRAME_BYTES are users'
# values, most of all: of such a batch the rows are kept without these.
MOST_BYTES: Final = 2 << 20
MOST_FRAME_BYTES: Final = 8 << 10
# Rare words kept, of all calls together.
MOST_WORDS: Final = 2_000
_TEXT_CHARS: Final = 300
# What a row without values takes, roughly.
_ROW_BYTES: Final = 200

DONE: Final = "done"
FAILED: Final = "failed"
CANCELLED: Final = "cancelled"

# Things kept of each, one behind the other.
_BATCH: Final = 6
_MARK: Final = 2
_SENT: Final = 4

Row = list[Any]
Names = list[tuple[int, str]]
"""(number, function): from the row with this number on, the answers of a batch are of this function."""


class Batch(Record):
    """Answers that came together."""

    at: float
    worker: bytes
    rows: bytes | list[Row]
    """The frame as it came; of a large one the rows, without values."""
    names: Names


class Words(Record):
    """Something that happens seldom to a call."""

    counter: int
    at: float
    text: str
    attempt: int
    """The one that it happened to; 0 for the first."""


class End(Record):
    """A call that is over without an answer of a worker's, or by one that its owner made something else of."""

    counter: int
    at: float
    name: str
    worker: bytes
    """Empty when it was never sent."""
    state: str
    attempt: int
    returns: int
    error: str


class Past:
    """One owner's. All calls come under the client's lock, except for `mark`, which needs none."""

    __slots__ = (
        "_batches",
        "_bytes",
        "_count",
        "_marks",
        "_most",
        "_sent",
        "ends",
        "folds",
        "marked",
        "noted",
        "words",
    )

    def __init__(self, most: int = MOST_CALLS) -> None:
        self._most = most
        # All three are flat, one thing behind the other: a tuple for each would be one more container for the garbage
        # collector, kept for long, and that is what a call on its own would pay for most.
        self._batches: deque[Any] = deque()
        """Of each batch when, by whom, its frame or rows, names, count and bytes (_BATCH things)."""
        self._count = 0
        self._bytes = 0
        self._marks: deque[Any] = deque(maxlen=_MARK * most)
        """n, t: the calls with numbers below n were submitted by t; both grow."""
        self.marked = 0
        """The calls with numbers below this one are marked."""
        self._sent: deque[Any] = deque(maxlen=_SENT * most)
        """When, to whom, first number, last number."""
        self.words: deque[Words] = deque(maxlen=MOST_WORDS)
        self.ends: deque[End] = deque(maxlen=MOST_WORDS)
        self.noted = 0
        """Grows with whatever ends: what was folded before is out of date then."""
        self.folds: dict[int, Any] = {}
        """By `noted` at that time the fold, for whoever has made one; the copies have it together."""

    def __repr__(self) -> str:
        return f"<Past [{self._count} of {self._most} calls, {self._bytes} bytes]>"

    # -- noting, on the hot path -------------------------------------------------------------------------------------

    def mark(self, number: int, now: float) -> None:
        """The calls with numbers below this one are submitted."""
        if self.marked < number:
            self.marked = number
            self._marks.extend((number, now))

    def sent(self, worker: bytes, rows: list[Row], now: float) -> None:
        """These calls leave."""
        last = rows[-1][0]
        self._sent.extend((now, worker, rows[0][0], last))
        if self.marked <= last:
            self.marked = last + 1
            self._marks.extend((last + 1, now))

    def answered(self, worker: bytes, frame: bytes, names: Names, rows: list[Row], now: float) -> None:
        """These came back."""
        count, nbytes = len(rows), len(frame)
        kept: bytes | list[Row] = frame
        if nbytes > MOST_FRAME_BYTES:
            kept = [_without_values(row) for row in rows]
            nbytes = sum(map(_size, kept))
        self._batches.extend((now, worker, kept, names[0] if len(names) == 1 else names, count, nbytes))
        self.noted += 1
        self._count += count
        self._bytes += nbytes
        if self._count > self._most or self._bytes > MOST_BYTES:
            self._forget()

    def _forget(self) -> None:
        pop = self._batches.popleft
        while self._count > self._most or self._bytes > MOST_BYTES:
            pop(), pop(), pop(), pop()
            self._count -= pop()
            self._bytes -= pop()

    # -- noting what is rare -----------------------------------------------------------------------------------------

    def tell(self, counter: int, text: str, now: float, attempt: int) -> None:
        """Something happened to an attempt of a call."""
        self.words.append(Words(counter, now, clipped(text), attempt))

    def end(self, end: End) -> None:
        """A call is over without a worker's answer, or by one that is not the whole truth."""
        self.ends.append(end)
        self.noted += 1

    @property
    def count(self) -> int:
        """Answers that are remembered."""
        return self._count

    @property
    def is_full(self) -> bool:
        """Whether earlier answers may be forgotten: batches go whole, so that some room is left."""
        return self._count > 0.99 * self._most or self._bytes > 0.99 * MOST_BYTES

    # -- reading -----------------------------------------------------------------------------------------------------

    def copy(self) -> Past:
        """As it is now, for whoever makes sense of it without the lock. That of a full one takes a millisecond."""
        made = Past(self._most)
        made._batches, made._marks, made._sent = self._batches.copy(), self._marks.copy(), self._sent.copy()
        made.words, made.ends = self.words.copy(), self.ends.copy()
        made._count, made._bytes, made.marked, made.noted = self._count, self._bytes, self.marked, self.noted
        made.folds = self.folds
        return made

    def tail(self, most: int) -> Past:
        """A copy with as many of the latest batches of answers as have `most` calls in them, and all the rest."""
        made, flat, count = self.copy(), list(self._batches), 0
        at = len(flat)
        while at > 0 and count < most:
            at -= _BATCH
            count += flat[at + 4]
        made._batches, made._count, made.folds = deque(flat[at:]), count, {}
        made._bytes = sum(flat[at + 5 :: _BATCH])
        return made

    def behind(self, frame: object) -> tuple[int, object]:
        """How many calls are in the batches behind the one of this frame, or in all; and the latest frame."""
        flat, count = list(self._batches), 0
        for at in range(len(flat) - _BATCH, -1, -_BATCH):
            if flat[at + 2] is frame:
                break
            count += flat[at + 4]
        return count, flat[2 - _BATCH] if flat else frame

    def latest(self, wanted: Callable[[bytes | list[Row]], bool]) -> Iterator[Batch]:
        """The answers of which that is so, those that came last first."""
        flat = list(self._batches)
        for at in range(len(flat) - _BATCH, -1, -_BATCH):
            if wanted(flat[at + 2]):
                now, worker, rows, names = flat[at : at + 4]
                yield Batch(now, worker, rows, names if type(names) is list else [names])

    def sent_at(self, counter: int, worker: bytes, before: float) -> float | None:
        """As `Sendings.when`, for one call."""
        flat = list(self._sent)
        for at in range(len(flat) - _SENT, -1, -_SENT):
            if flat[at + 2] <= counter <= flat[at + 3] and flat[at + 1] == worker and flat[at] <= before:
                return float(flat[at])
        return None

    def batches(self) -> list[Batch]:
        """The answers that are remembered, in the order in which they came."""
        return [
            Batch(now, worker, rows, names if type(names) is list else [names])
            for now, worker, rows, names, _, _ in _by(_BATCH, self._batches)
        ]

    def submissions(self) -> Submissions:
        """When calls were submitted."""
        return Submissions(_by(_MARK, self._marks), len(self._marks) == self._marks.maxlen)

    def sendings(self) -> Sendings:
        """When calls were sent."""
        return Sendings(_by(_SENT, self._sent))


def _by(size: int, flat: deque[Any]) -> list[tuple[Any, ...]]:
    """So many things together."""
    return list(zip(*[iter(list(flat))] * size, strict=True))


class Submissions:
    """When calls were submitted, at the latest: those that leave together have one time."""

    def __init__(self, marks: list[tuple[int, float]], is_cut: bool) -> None:
        """`is_cut`: earlier marks are forgotten."""
        self._marks = marks
        self._is_cut = is_cut

    def when(self, counter: int) -> float | None:
        """None when it is forgotten, or not known yet."""
        place = bisect_right(self._marks, counter, key=lambda mark: mark[0])
        if place == len(self._marks) or (place == 0 and self._is_cut):
            return None
        return self._marks[place][1]


class Sendings:
    """The batches of calls that have left, by worker."""

    # Calls that are sent again are not in the order of their numbers: so many batches are looked through.
    _NEAR: Final = 16

    def __init__(self, sent: list[tuple[float, bytes, int, int]]) -> None:
        """`sent`: (when, to whom, first number, last number) of each batch."""
        by_worker: dict[bytes, list[tuple[int, int, float]]] = {}
        for now, worker, first, last in sent:
            by_worker.setdefault(worker, []).append((first, last, now))
        for batches in by_worker.values():
            batches.sort()
        self._by_worker = by_worker

    def when(self, counter: int, worker: bytes, before: float) -> float | None:
        """The latest time, not after `before`, at which a batch left for `worker` that may have had this call in it."""
        batches = self._by_worker.get(worker, [])
        place = bisect_right(batches, counter, key=lambda batch: batch[0])
        near = batches[max(0, place - self._NEAR) : place]
        return max((now for _, last, now in near if counter <= last and now <= before), default=None)


def clipped(text: str) -> str:
    """One line of a bounded length."""
    line = " ".join(text.split())
    return line if len(line) <= _TEXT_CHARS else line[: _TEXT_CHARS - 3] + "..."


def _size(row: Row) -> int:
    return _ROW_BYTES + (sum(len(each[1]) for each in row[2]) if len(row) > 3 else 0)


def _without_values(row: Row) -> Row:
    """Of an answer: the number, the time, and of each value what it is. Of what is no value (a failure has its own
    kind), as much as is no longer than a frame that is kept."""
    if len(row) == 3:
        return [row[0], row[1], b""]
    values = [
        [each[0], each[1] if each[0] and len(each[1]) <= MOST_FRAME_BYTES else b"", each[2], each[3], ()]
        for each in row[2]
    ]
    return [row[0], row[1], values, ()]
