"""Which kept results go: those that are too old, and the oldest when all together are too large. Pure."""

from __future__ import annotations

from collections.abc import Iterable

from zmreg.model.record import Record


class Kept(Record):
    """A result, or a call under way that will have one (`settled` None): such a one never goes by itself."""

    name: str
    nbytes: int
    settled: float | None
    """When it was there; of any clock."""
    ttl_s: float


def overdue(rows: Iterable[Kept], most_bytes: int, now: float) -> dict[str, str]:
    """{name: why} of what is to go. The youngest stays, were it alone larger than all may be."""
    found: dict[str, str] = {}
    left: list[tuple[float, Kept]] = []
    for row in rows:
        if row.settled is None:
            continue
        if now - row.settled >= row.ttl_s:
            found[row.name] = f"it was kept for the {row.ttl_s:g} s that it was to be kept"
        else:
            left.append((row.settled, row))
    left.sort(key=lambda pair: (pair[0], pair[1].name))
    total = sum(row.nbytes for _, row in left)
    for _, row in left[:-1]:
        if total <= most_bytes:
            break
        if row.nbytes:
            total -= row.nbytes
            found[row.name] = f"younger results needed its {row.nbytes} bytes: {most_bytes} are the most that is kept"
    return found
