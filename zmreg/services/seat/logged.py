"""Events that nodes keep (`Bus.log`), as whoever comes later asks for them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from zmreg.core.topics import Pattern
from zmreg.model.errors import ClusterError, SerializationError
from zmreg.wire import payload

if TYPE_CHECKING:
    from zmreg.services.seat.station import Station

# A node that is busy answers within milliseconds, one that is about to be declared dead not at all.
_ANSWER_S: Final = 5.0

Row = tuple[float, str, str, bytes]
"""(Unix seconds, node id, topic, pickled value)."""


def kept(seat: Station, pattern: str, limit: int) -> list[Row]:
    """The newest `limit` of all living nodes that answer, the oldest first. Raises ValueError for what is no pattern,
    ClusterError."""
    Pattern(pattern)
    rows: list[Row] = []
    for node in [row["NodeID"] for row in seat.ask("nodes") if row["Alive"]]:
        rows += _of(seat, node, pattern, limit)
    rows.sort(key=_time)  # stable: those of one process stay in its order
    return rows[-limit:]


def _time(row: Row) -> float:
    return row[0]


def _of(seat: Station, node: str, pattern: str, limit: int) -> list[Row]:
    """Of one node, in the order in which they came there."""
    pages: list[list[Any]] = []
    found = before = 0
    older = True
    while older and found < limit:
        try:
            answer = seat.ask("events", f"{node} {limit - found} {before} {pattern}", timeout=_ANSWER_S)
        except ClusterError:
            seat.check()
            break
        if not answer or not answer[0]:
            break
        page, older = answer
        pages.append(page)
        found += len(page)
        before = page[0][0]
    return [(time, node, topic, value) for page in reversed(pages) for _, topic, time, value in page]


def value_of(row: Row) -> Any:
    """Raises SerializationError, with a note of the topic."""
    try:
        return payload.unpack(row[3])
    except SerializationError as error:
        error.add_note(f"while reading a kept event of topic {row[2]!r}; a pattern without it reads the others")
        raise
