"""How rows go from one process to a sink: a batch at a time, what gathers meanwhile is the next one.

Rows wait here only while a batch is under way, and at most MOST_ROWS of them (MOST_CHARS of text); then whoever writes
waits. So nothing grows, whatever the disk does.
"""

from __future__ import annotations

import logging
import threading
import time
import weakref
from typing import TYPE_CHECKING, Any, Final

from zmreg.core.aggregates import Measures, measures_of
from zmreg.core.columns import Columns, columned
from zmreg.model.errors import ActorError, GetTimeoutError

if TYPE_CHECKING:
    from zmreg.api.actors import ActorHandle
    from zmreg.api.refs import ObjectRef
    from zmreg.flows.results.sink_actor import SinkActor

log = logging.getLogger("zmreg.sinks")

MOST_ROWS: Final = 4_000
MOST_CHARS: Final = 4 << 20

Piece = tuple[Any, Measures | None, str | None]
"""An encoded row, what it is counted by, its key."""
COUNTED: Final[Measures] = ("", "", {})
"""By what is in it: looked up where it is counted, and for many rows together."""


class Lane:
    """The way of this process to one sink, shared by all that write into it here."""

    def __init__(self, actor: ActorHandle[SinkActor], by_columns: bool) -> None:
        """`by_columns`: rows are dicts, and are sent by columns where they have the same fields. Then a row that is to
        be counted by what is in it has COUNTED for what it is counted by."""
        self.actor = actor
        self._by_columns = by_columns
        self._lock = threading.RLock()
        self._guard = threading.Condition(self._lock)
        self._pieces: list[Piece] = []
        self._chars = 0
        self._under_way = 0
        self._answers = 0
        self._trouble: BaseException | None = None
        """What the last batch met; told once, to whoever writes next."""
        self._put = 0
        self._taken = 0
        self._dead: BaseException | None = None

    def put(self, piece: Piece) -> bool:
        """The next row; whether whoever writes should wait for room. Raises what earlier rows met; then this one is
        not among those that are kept, and they are tried again."""
        with self._lock:  # by itself it is entered in a third of the time
            if self._dead is not None or self._trouble is not None:
                self._raise()
            pieces = self._pieces
            pieces.append(piece)
            self._put += 1
            if type(piece[0]) is str:
                self._chars += len(piece[0])
            if not self._under_way:  # one at a time: of two, the later may find the room that the earlier missed
                self._send()
                return self._is_full()
            return len(pieces) >= MOST_ROWS or self._chars >= MOST_CHARS

    def wait_for_room(self) -> None:
        """Until rows may be put again, or the next one will be told why not: the one before was taken all the same."""
        with self._guard:
            self._guard.wait_for(lambda: not self._is_full() or self._trouble or self._dead)

    def drain(self, timeout: float | None = None) -> None:
        """Until the sink has taken all that was put before. Raises what it met instead; GetTimeoutError."""
        until = None if timeout is None else time.monotonic() + timeout
        with self._guard:
            self._trouble, wanted = None, self._put
            earlier = self._answers + self._under_way
            if self._pieces and self._dead is None and not self._under_way:
                self._send()
            while self._taken < wanted and self._dead is None:
                if self._has_trouble():
                    if self._answers > earlier:
                        break
                    self._trouble = None  # of a batch that left before, when the disk may have been another
                    if self._pieces and not self._under_way:
                        self._send()
                left = None if until is None else until - time.monotonic()
                if left is not None and left <= 0:
                    raise GetTimeoutError("the sink has not taken all rows yet; they stay", timeout_s=timeout)
                self._guard.wait(left)
            self._raise()

    def hand_over(self) -> None:
        """Send what has gathered: a call that is made after this one finds all rows counted that were put before."""
        with self._guard:
            if self._pieces and self._trouble is None and self._dead is None:
                self._send()

    # -- inside -------------------------------------------------------------------------------------------------------

    def _has_trouble(self) -> bool:
        return self._trouble is not None

    def _is_full(self) -> bool:
        return len(self._pieces) >= MOST_ROWS or self._chars >= MOST_CHARS

    def _raise(self) -> None:
        if self._dead is not None:
            raise self._dead
        if self._trouble is not None:
            trouble, self._trouble = self._trouble, None
            if not self._under_way:
                self._send()
            raise trouble

    def _send(self) -> None:
        pieces = self._pieces
        ref = self.actor.push.remote(*_by_columns(pieces) if self._by_columns else _one_by_one(pieces))
        self._pieces, self._chars = [], 0
        self._under_way += 1
        ref.add_done_callback(lambda done: self._answered(pieces, done))

    def _answered(self, pieces: list[Piece], done: ObjectRef[Any]) -> None:
        taken, trouble, dead = True, None, None
        try:
            taken, trouble = done.get()
        except ActorError as error:
            dead = error
            error.add_note(f"{len(pieces)} rows were on their way to this sink, {len(self._pieces)} waited behind them")
            log.error("a sink is gone, and with it %s rows that were on their way: %s", len(pieces), error)
        except Exception as error:  # noqa: BLE001  whatever it was, whoever writes next has to know
            trouble = error
            log.error("a sink did not take %s rows: %s", len(pieces), error)
        with self._guard:
            self._under_way -= 1
            self._answers += 1
            if taken:
                self._taken += len(pieces)
            else:
                self._pieces[:0] = pieces
                self._chars = sum(len(piece[0]) for piece in self._pieces if type(piece[0]) is str)
            self._trouble = trouble or self._trouble
            self._dead = dead or self._dead
            if self._pieces and self._trouble is None and self._dead is None and not self._under_way:
                self._send()
            self._guard.notify_all()


def _one_by_one(pieces: list[Piece]) -> tuple[list[Any], list[Measures], list[str]]:
    rows, measures, keys = zip(*pieces, strict=True)
    return list(rows), [each for each in measures if each is not None], [each for each in keys if each is not None]


def _by_columns(pieces: list[Piece]) -> tuple[list[Any] | Columns, list[Measures] | None, list[str]]:
    rows, measures, _ = zip(*pieces, strict=True)
    kinds = set(map(id, measures))
    if kinds <= {id(COUNTED)} or kinds == {id(None)}:
        columns = columned(rows)
        if columns is not None:
            return columns, None if measures[0] is COUNTED else [], []
    return _one_by_one([(row, measures_of(row) if each is COUNTED else each, key) for row, each, key in pieces])


_lanes: weakref.WeakValueDictionary[str, Lane] = weakref.WeakValueDictionary()
_guard = threading.Lock()


def lane_of(sink: str, actor: ActorHandle[SinkActor], by_columns: bool) -> Lane:
    """The one of this process for that sink."""
    with _guard:
        found = _lanes.get(sink)
        if found is None:
            found = _lanes[sink] = Lane(actor, by_columns)
        return found


def drain_here(sink: str) -> None:
    """Have the sink take what waits in this process, if anybody writes into it here."""
    with _guard:
        found = _lanes.get(sink)
    if found is not None:
        found.drain()
