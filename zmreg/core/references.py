"""Who still needs an object: the owner's count of what it let out of its process.

A record begins with `export` and ends with `Release`, said once, when none of these is left: the owner's own handles,
borrowing processes, pins (tasks under way that carry it), and other objects whose values contain it.

Order. Messages of one process arrive in the order sent, so the last word of a process about an object is true, and
`borrowed` and `released` set a state instead of counting: a repeated one does no harm, and a `released` without a
`borrowed` before it is ignored (holding on too long is mended when the process dies; freeing too early never is).
Messages of *different* processes overtake each other. So whoever hands a ref on keeps its own hold, a pin or its
borrow, until the receiver's `borrowed` was answered: then there is no moment in which nobody holds it.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from zmreg.core.effects import ReferenceEffect, Release
from zmreg.core.graves import Graves
from zmreg.model.ids import short


@dataclass(slots=True, eq=False)
class _Record:
    local: bool = True
    borrowers: set[bytes] = field(default_factory=set)
    pins: int = 0
    containers: set[bytes] = field(default_factory=set)

    def is_held(self) -> bool:
        return self.local or self.pins > 0 or bool(self.borrowers) or bool(self.containers)


@dataclass(frozen=True, slots=True)
class Holds:
    """Why an object is kept: for `zmreg memory` and `zmreg why`."""

    local: bool
    borrowers: tuple[bytes, ...]
    pins: int
    containers: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class ReferenceStatistics:
    """Counts of this moment; an object may be counted in several of the last four."""

    exported: int
    local: int
    borrowed: int
    pinned: int
    contained: int
    borrowers: int


class ReferenceBook:
    """The owner's side of reference counting. Says `Release` in the same breath as the last hold ends."""

    def __init__(self) -> None:
        self._records: dict[bytes, _Record] = {}
        self._borrowed_by: dict[bytes, set[bytes]] = {}
        self._contents: dict[bytes, set[bytes]] = {}  # outer (ours or another's) -> the objects of ours inside
        self._gone = Graves()

    def export(self, object_id: bytes) -> list[ReferenceEffect]:
        """The object leaves the process for the first time; whoever exports has a handle. Repeating it is harmless."""
        self._records.setdefault(object_id, _Record())
        return []

    def borrowed(self, object_id: bytes, process: bytes) -> list[ReferenceEffect]:
        """`process` has a handle now. Ignored for a dead process and for what is released or was never exported."""
        record = self._records.get(object_id)
        if record is not None and process not in self._gone:
            record.borrowers.add(process)
            self._borrowed_by.setdefault(process, set()).add(object_id)
        return []

    def released(self, object_id: bytes, process: bytes) -> list[ReferenceEffect]:
        """The last handle in `process` is gone."""
        record = self._records.get(object_id)
        if record is None or process not in record.borrowers:
            return []
        record.borrowers.discard(process)
        theirs = self._borrowed_by[process]
        theirs.discard(object_id)
        if not theirs:
            del self._borrowed_by[process]
        return self._release_unheld([object_id])

    def local(self, object_id: bytes, alive: bool) -> list[ReferenceEffect]:
        """Whether the owner itself has handles. A level: the last word counts."""
        record = self._records.get(object_id)
        if record is None:
            return []
        record.local = alive
        return self._release_unheld([object_id])

    def pin(self, object_id: bytes) -> list[ReferenceEffect]:
        """One task under way, or one message not yet answered, carries it. Counted: each `pin` needs its `unpin`.

        Raises ValueError when the object is not exported: nothing would ever say `Release` for it.
        """
        self._known(object_id, "pin").pins += 1
        return []

    def unpin(self, object_id: bytes) -> list[ReferenceEffect]:
        """Raises ValueError when there is no pin to take off: the count would be wrong from here on."""
        record = self._known(object_id, "unpin")
        if record.pins == 0:
            raise ValueError(f"unpin of object {short(object_id)}, which has no pin left; each pin is taken off once")
        record.pins -= 1
        return self._release_unheld([object_id])

    def contained(self, inner: bytes, outer: bytes) -> list[ReferenceEffect]:
        """The value of `outer` holds a ref to `inner`: kept until `outer` is released here, or `uncontained` is said.

        Raises ValueError when `inner` is not exported or is `outer` itself.
        """
        if inner == outer:
            raise ValueError(f"object {short(inner)} cannot contain itself: it would never be released")
        self._known(inner, "contained").containers.add(outer)
        self._contents.setdefault(outer, set()).add(inner)
        return []

    def uncontained(self, inner: bytes, outer: bytes) -> list[ReferenceEffect]:
        """`outer`, mostly one that another process owns, is gone, or holds `inner` no more."""
        contents = self._contents.get(outer, set())
        if inner not in contents:
            return []
        contents.discard(inner)
        if not contents:
            del self._contents[outer]
        self._records[inner].containers.discard(outer)
        return self._release_unheld([inner])

    def process_died(self, process: bytes) -> list[ReferenceEffect]:
        """All it borrowed is given back; what it still says afterwards is ignored."""
        self._gone.bury(process)
        theirs = self._borrowed_by.pop(process, set())
        for object_id in theirs:
            self._records[object_id].borrowers.discard(process)
        return self._release_unheld(sorted(theirs))

    def is_exported(self, object_id: bytes) -> bool:
        """Whether a `Release` is still to come for it."""
        return object_id in self._records

    def why(self, object_id: bytes) -> Holds | None:
        """What keeps the object; None when it is not exported or already released."""
        record = self._records.get(object_id)
        if record is None:
            return None
        return Holds(record.local, tuple(sorted(record.borrowers)), record.pins, tuple(sorted(record.containers)))

    def statistics(self) -> ReferenceStatistics:
        records = self._records.values()
        return ReferenceStatistics(
            exported=len(records),
            local=sum(record.local for record in records),
            borrowed=sum(bool(record.borrowers) for record in records),
            pinned=sum(record.pins > 0 for record in records),
            contained=sum(bool(record.containers) for record in records),
            borrowers=len(self._borrowed_by),
        )

    def __repr__(self) -> str:
        now = self.statistics()
        return (
            f"<ReferenceBook {now.exported} exported [{now.local} local, {now.borrowed} borrowed by {now.borrowers}, "
            f"{now.pinned} pinned, {now.contained} contained]>"
        )

    def _known(self, object_id: bytes, what: str) -> _Record:
        record = self._records.get(object_id)
        if record is None:
            raise ValueError(f"{what}: object {short(object_id)} is not exported, or released already; export it first")
        return record

    def _release_unheld(self, candidates: list[bytes]) -> list[ReferenceEffect]:
        """Release those of `candidates` that nothing holds, and what only they contained, outermost first."""
        effects: list[ReferenceEffect] = []
        stack = candidates[::-1]
        while stack:
            object_id = stack.pop()
            record = self._records.get(object_id)
            if record is None or record.is_held():
                continue
            del self._records[object_id]
            effects.append(Release(object_id))
            for inner in sorted(self._contents.pop(object_id, ()), reverse=True):
                # Held by the container until now, so the record of `inner` is there.
                self._records[inner].containers.discard(object_id)
                stack.append(inner)
        return effects
