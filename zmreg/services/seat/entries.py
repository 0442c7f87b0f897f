"""What a process knows of one object: an `Entry`, shared by every handle to it in this process.

Local reference counting is Python's own: a handle holds its entry, an entry holds what its value contains. Only what
crosses a process is counted by us (services/seat/sharing.py). Nothing here takes a lock in a finalizer: whatever must
be told to others when an entry dies is appended to a deque and said at the next turn.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from zmreg.model.ids import counter_of, object_id
from zmreg.net.waiting import Waiter
from zmreg.services.seat.unread import Unread
from zmreg.wire.failures import decode_failure, few_notes, with_notes

if TYPE_CHECKING:
    from zmreg.services.calling.calls import Task
    from zmreg.services.seat.lineage import Recipe

T = TypeVar("T")

PENDING: Final = 0
INLINE: Final = 1
STORED: Final = 2
FAILED: Final = 3
FREED: Final = 4
STATE_NAMES: Final = ("pending", "inline", "stored", "failed", "freed")

Listener = Callable[["Entry"], None]


class Outbox(deque[T]):
    """What finalizers leave to be told to others; each note asks for a turn, as no message may ever follow it."""

    def __init__(self, note_turn: Callable[[], None]) -> None:
        super().__init__()
        self._note_turn = note_turn

    def append(self, item: T, /) -> None:
        """Leave a note. Takes no lock."""
        super().append(item)
        self._note_turn()


class Entry:
    """One object as this process sees it. All changes happen under the client's lock.

    `value` is the pickled payload (INLINE), a `Stored` (STORED), packed failure bytes or an `Inherited` (FAILED).
    `seen` is True once somebody has asked for the error, an `Unread` while it is there and nobody has.
    """

    __slots__ = (
        "__weakref__", "contained", "counter", "listeners", "owner", "seen", "state", "task", "took_us", "type_name",
        "value",
    )  # fmt: skip

    def __init__(self, owner: bytes, counter: int, state: int = PENDING, value: object = None) -> None:
        self.owner = owner
        self.counter = counter
        self.state = state
        self.value = value
        self.listeners: Listener | list[Listener] | None = None
        self.task: Task | None = None
        self.contained: tuple[Entry, ...] = ()
        self.took_us = 0
        self.type_name = ""
        self.seen: bool | Unread = False

    @property
    def object_id(self) -> bytes:
        """The 16-byte id."""
        return object_id(self.owner, self.counter)

    @property
    def nbytes(self) -> int:
        """Size of the pickled value; 0 while pending."""
        value = self.value
        if isinstance(value, Stored):
            return value.nbytes
        return len(value) if isinstance(value, bytes) else 0

    @property
    def failure(self) -> bytes | None:
        """The packed error of a FAILED entry; None for any other."""
        value = self.value
        if self.state != FAILED:
            return None
        return value.packed() if isinstance(value, Inherited) else bytes(value) if isinstance(value, bytes) else None

    def see(self) -> None:
        """Somebody reads the error, or has asked for it before it was there: it will not be reported as unread."""
        if isinstance(self.seen, Unread):
            self.seen.read = True
        self.seen = True

    def listen(self, listener: Listener) -> None:
        """Call `listener(self)` once, when the entry leaves PENDING."""
        held = self.listeners
        if held is None:
            self.listeners = listener
        elif type(held) is list:
            held.append(listener)
        else:
            self.listeners = [held, listener]  # type: ignore[list-item]

    def unlisten(self, listener: Listener) -> None:
        """Forget a listener; harmless if it is not there."""
        held = self.listeners
        if type(held) is list:
            if listener in held:
                held.remove(listener)
        elif held == listener:
            self.listeners = None

    def settle(self, state: int, value: object) -> None:
        """Leave PENDING (or change state later, when a value is lost or freed) and tell the listeners."""
        self.state = state
        self.value = value
        held = self.listeners
        if held is not None:
            self.listeners = None
            if type(held) is list:
                for listener in held:
                    listener(self)
            else:
                held(self)  # type: ignore[operator]


def error_line(entry: Entry, chars: int = 100) -> str:
    """The error of a FAILED entry in one line, for a look: nobody has read it by that. Empty for any other."""
    failure = entry.failure
    if failure is None:
        return ""
    line = " ".join(decode_failure(failure)[0].headline().split())
    return line if len(line) <= chars else line[: chars - 3] + "..."


class Plain(Entry):
    """A large argument that was passed by value: no user holds it, only the calls that take it."""

    __slots__ = ()


class Borrowed(Entry):
    """An entry whose owner is another process. When it dies, the owner hears so if it had been told of us."""

    __slots__ = ("asked", "lends", "outbox")

    def __init__(self, any_object_id: bytes, outbox: deque[tuple[bytes, int]]) -> None:
        super().__init__(any_object_id[:8], counter_of(any_object_id))
        self.lends = 0
        self.asked = False
        self.outbox = outbox

    def __del__(self) -> None:
        if getattr(self, "lends", 0):  # an interrupt may have ended __init__
            self.outbox.append((object_id(self.owner, self.counter), self.lends))


class Lifeline(Entry):
    """The entry behind an actor's handles, at its creator: when it dies, the actor may end."""

    __slots__ = ("outbox",)

    def __init__(self, owner: bytes, counter: int, outbox: deque[bytes]) -> None:
        super().__init__(owner, counter, INLINE, b"\x80\x05N.")
        self.outbox = outbox

    def __del__(self) -> None:
        outbox = getattr(self, "outbox", None)
        if outbox is not None:  # an interrupt may have ended __init__
            outbox.append(object_id(self.owner, self.counter))


class Stored:
    """Bytes in the store of `holder`, the node where they were made; others may have copies.

    The owner's instance frees them when it dies (`outbox` None: not ours to free). `copies`: other nodes that have
    been asked to keep one; `recipe`: how to make them again, if a task of ours has made them.
    """

    __slots__ = ("__weakref__", "copies", "holder", "nbytes", "object_id", "outbox", "recipe")

    def __init__(
        self, any_object_id: bytes, nbytes: int, holder: bytes, outbox: deque[tuple[bytes, bytes]] | None
    ) -> None:
        self.object_id = any_object_id
        self.nbytes = nbytes
        self.holder = holder
        self.outbox = outbox
        self.copies: tuple[bytes, ...] = ()
        self.recipe: Recipe | None = None

    def __del__(self) -> None:
        if self.outbox is not None:
            self.outbox.append((self.object_id, self.holder))
            for holder in self.copies:
                self.outbox.append((self.object_id, holder))


class Verdict(bytes):
    """The packed error of a call that this process, or its host, has ended. What user code raises is never one, were it
    of the same class."""


class Unrun(Verdict):
    """Of a call that was not begun, and never will be: it may be made elsewhere."""


class Inherited:
    """The failure of a call that never ran: its input's, shared with it, and how it came from there."""

    __slots__ = ("_failure", "_notes")

    def __init__(self, source: Entry, note: str) -> None:
        """`source` is the FAILED input."""
        value = source.value
        assert isinstance(value, (bytes, Inherited))
        self._failure: bytes = value if isinstance(value, bytes) else value._failure
        self._notes: tuple[str, ...] = few_notes((*(() if isinstance(value, bytes) else value._notes), note))

    def packed(self) -> bytes:
        """As bytes of its own."""
        return with_notes(self._failure, self._notes)


class EntryRef:
    """Base of everything users hold that stands for an entry: object refs."""

    __slots__ = ("__weakref__", "_entry")

    _entry: Entry


class Gathering:
    """Waits for `need` of some entries, or for the first failure if `stop_on_failure`."""

    __slots__ = ("_need", "_stop", "waiter")

    def __init__(self, entries: list[Entry], need: int, stop_on_failure: bool) -> None:
        """Call under the client's lock. `entries` hold each object once."""
        self.waiter = Waiter()
        self._need = need
        self._stop = stop_on_failure
        for entry in entries:
            if entry.state == PENDING:
                entry.listen(self.heard)
            else:
                self.heard(entry)

    def heard(self, entry: Entry) -> None:
        """One entry is there."""
        self._need -= 1
        if self._need <= 0 or (self._stop and entry.state >= FAILED):
            self.waiter.finish()
