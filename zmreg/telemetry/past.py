"""What an owner remembers of its calls: a bounded ring of what came by anyway, made sense of when somebody asks.

Of each batch of answers the frame in which they came is kept, with the time and the names of the functions; of each
batch of calls only when it left and which numbers were in it. That costs a call 20 ns. What happens seldom (a retry,
an end without an answer) is put down in words.

All times are of the owner's monotonic clock, in seconds; how long a call ran is measured by its worker, with its own.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
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

    __slots__ = ("_batches", "_bytes", "_count", "_marks", "_most", "_sent", "ends", "folded", "noted", "words")

    def __init__(self, most: int = MOST_CALLS) -> None:
        self._most = most
        self._batches: deque[tuple[float, bytes, bytes | list[Row], Names, int, int]] = deque()
        self._count = 0
        self._bytes = 0
        self._marks: deque[tuple[int, float]] = deque(maxlen=most)
        """(n, t): the calls with numbers below n were submitted by t; both grow."""
        self._sent: deque[tuple[float, bytes, int, int]] = deque(maxlen=most)
        self.words: deque[Words] = deque(maxlen=MOST_WORDS)
        self.ends: deque[End] = deque(maxlen=MOST_WORDS)
        self.noted = 0
        """Grows with whatever ends: what was folded before is out of date then."""
        self.folded: tuple[int, Any] | None = None
        """(`noted` at that time, the fold), for whoever has made one."""

    def __repr__(self) -> str:
        return f"<Past [{self._count} of {self._most} calls, {self._bytes} bytes]>"

    # -- noting, on the hot path -------------------------------------------------------------------------------------

    def mark(self, number: int, now: float) -> None:
        """The calls with numbers below this one are submitted."""
        marks = self._marks
        if not marks or marks[-1][0] < number:
            marks.append((number, now))

    def sent(self, worker: bytes, rows: list[Row], now: float) -> None:
        """These calls leave."""
        last, marks = rows[-1][0], self._marks
        self._sent.append((now, worker, rows[0][0], last))
        if not marks or marks[-1][0] <= last:
            marks.append((last + 1, now))

    def answered(self, worker: bytes, frame: bytes, names: Names, rows: list[Row], now: float) -> None:
        """These came back."""
        count, nbytes = len(rows), len(frame)
        kept: bytes | list[Row] = frame
        if nbytes > MOST_FRAME_BYTES:
            kept = [_without_values(row) for row in rows]
            nbytes = sum(map(_size, kept))
        self._batches.append((now, worker, kept, names, count, nbytes))
        self.noted += 1
        self._count += count
        self._bytes += nbytes
        while self._count > self._most or self._bytes > MOST_BYTES:
            *_, count, nbytes = self._batches.popleft()
            self._count -= count
            self._bytes -= nbytes

    # -- noting what is rare -----------------------------------------------------------------------------------------

    def tell(self, counter: int, text: str, now: float, attempt: int) -> None:
        """Something happened to an attempt of a call."""
        self.words.append(Words(counter, now, clipped(text), attempt))

    def end(self, end: End) -> None:
        """A call is over without a worker's answer, or by one that is not the whole truth."""
        self.ends.append(end)
        self.noted += 1

    # -- reading -----------------------------------------------------------------------------------------------------

    def batches(self) -> list[Batch]:
        """The answers that are remembered, in the order in which they came."""
        return [Batch(*each[:4]) for each in self._batches]

    def submissions(self) -> Submissions:
        """When calls were submitted."""
        return Submissions(list(self._marks), len(self._marks) == self._most)

    def sendings(self) -> Sendings:
        """When calls were sent."""
        return Sendings(list(self._sent))


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
