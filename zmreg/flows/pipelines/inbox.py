"""What a stretch of a pipeline reads in a process of its own: streams out of other processes, merged into one.

Each stream is taken by a thread: it asks the process before with `take`, which answers when there is something, and
asks again when there is room. The driver, which nobody can call, calls `feed` instead and is told the next question.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Final

from zmreg.core.merging import INTERLEAVE, Merge
from zmreg.core.outbox import ANEW
from zmreg.flows.pipelines.parcels import EDGE_BYTES, Memory, arrived, unpacked, weight
from zmreg.flows.pipelines.stages import failure
from zmreg.model.errors import ActorDiedError, ActorUnavailableError, PipelineError, ZmregError
from zmreg.model.record import Record

Entry = tuple[int, int, int, Any]
"""(edge, number) of the item that it was made of, the how many-th of it, and what is sent. Who gets entries of a stage
that runs for the second time knows by these which it has."""
Ask = tuple[int, int, int, int, int, int]
"""(come, in hand, done, how many are wanted now, how many may be out, how many bytes)."""
Found = tuple[int, int, Any]
"""An item as it waits: the place of its edge, its number there, what was sent."""

DRIVER: Final = -1
"""The key of the stream from the driver, and of the one to it."""
OVER: Final = "over"
# Who takes the place of a dead one is known within seconds: its node is declared dead after ten.
REPLACED_S: Final = 60.0
_AGAIN_S: Final = 0.5


class Way(Record):
    """A stream into a stretch. `name`: of the stage that it comes from."""

    key: int
    name: str
    handle: Any
    """Of the actor that has it; None: it is fed."""


class _Stream:
    __slots__ = (
        "come", "consumed", "done", "failure", "handle", "is_anew", "key", "last", "name", "sent_bytes", "shift",
        "waiting_bytes",
    )  # fmt: skip

    def __init__(self, way: Way) -> None:
        self.key, self.name, self.handle = way.key, way.name, way.handle
        self.come = self.consumed = self.done = self.sent_bytes = self.waiting_bytes = 0
        self.is_anew = True
        """Whoever has it is to say where it begins."""
        self.shift = 0
        """What our numbers are above the sender's: it may be another one than at first."""
        self.failure: PipelineError | None = None
        self.last: dict[int, tuple[int, int]] = {}
        """Of each edge, what the last entry that came was made of."""


class Inbox:
    """Under `changed`, which it shares with whatever else its owner waits for."""

    def __init__(self, ways: Sequence[Way], mode: str, buffer: int, changed: threading.Condition, rss: int) -> None:
        self.changed = changed
        self.buffer = buffer
        self.keeps = False
        """Whether `done` is told apart from "in hand": the owner says `passed`."""
        self.stopped = False
        self._spills = mode != INTERLEAVE
        self._merge: Merge[Found] = Merge(mode, len(ways), buffer)
        self._streams = [_Stream(way) for way in ways]
        self._memory = Memory(rss)
        self._wake_at = [False] * len(ways)
        self._on_ask: Callable[[], None] = lambda: None

    def start(self, on_ask: Callable[[], None] = lambda: None) -> None:
        """Take from all that can be asked. `on_ask`: called before each question."""
        self._on_ask = on_ask
        for place, stream in enumerate(self._streams):
            if stream.handle is not None:
                name = f"zmreg-pipeline-take-{stream.name}"
                threading.Thread(target=self._pull, args=(place,), name=name, daemon=True).start()

    def place_of(self, key: int) -> int:
        """Which of the streams that is."""
        return next(place for place, stream in enumerate(self._streams) if stream.key == key)

    # -- for the one who reads: under `changed` -----------------------------------------------------------------------

    def poll(self) -> tuple[Found, ...] | None:
        """The next item, of "zip" one of each stream; None: nothing yet, or `is_over`. Raises the PipelineError that
        ended a stream, when all before it was read."""
        made = self._merge.next()
        if made is not None:
            for place, number, sent in made:
                self._streams[place].consumed = number + 1
                self._streams[place].waiting_bytes -= weight(sent)
                if self._wake_at[place] and self._wants(place):
                    self.changed.notify_all()
            return made
        for place, stream in enumerate(self._streams):
            if stream.failure is not None and not self._merge.waiting(place):
                raise stream.failure
        return None

    @property
    def is_over(self) -> bool:
        """Nothing comes any more."""
        return self._merge.is_over

    def __len__(self) -> int:
        return len(self._merge)

    @property
    def nbytes(self) -> int:
        """What has come, roughly."""
        return sum(stream.sent_bytes for stream in self._streams)

    def passed(self, found: tuple[Found, ...]) -> None:
        """All that was made of it is safe."""
        for place, number, _ in found:
            self._streams[place].done = number + 1

    def fail(self, place: int, error: PipelineError) -> None:
        """The stream ends with it behind what has come."""
        self._streams[place].failure = self._streams[place].failure or error
        self.changed.notify_all()

    def rewire(self, place: int, handle: Any) -> None:
        """Somebody else has the stream: who had it is dead."""
        stream = self._streams[place]
        stream.handle, stream.is_anew = handle, True
        self.changed.notify_all()

    def stop(self) -> None:
        """Take no more."""
        self.stopped = True
        self.changed.notify_all()

    def let_go(self) -> None:
        """Of those it took from."""
        for stream in self._streams:
            stream.handle = None

    # -- the streams --------------------------------------------------------------------------------------------------

    def _wants(self, place: int) -> bool:
        # By halves: asking for each item that was read would be a question an item.
        if self._spills or not self._merge.waiting(place):
            return True
        if self._streams[place].waiting_bytes > EDGE_BYTES // 2 or self._memory.is_short():
            return False
        return self._merge.room(place) >= max(1, self.buffer // 2)

    def _ask(self, place: int) -> Ask:
        stream = self._streams[place]
        room = self.buffer if self._spills else max(1, self._merge.room(place))
        items, nbytes = self.buffer, EDGE_BYTES
        if self._memory.is_short():
            room, items, nbytes = 1, 1, EDGE_BYTES // 16
        if stream.is_anew:
            return ANEW, 0, 0, room, items, nbytes
        consumed = stream.come if self._spills else stream.consumed
        done = stream.done if self.keeps else consumed
        return stream.come - stream.shift, consumed - stream.shift, done - stream.shift, room, items, nbytes

    def accept(self, key: int, first: int, entries: Sequence[Entry], over: Any) -> None:
        """What was sent. Entries that have come before from one who died are dropped."""
        place = self.place_of(key)
        stream = self._streams[place]
        if stream.is_anew:
            if not stream.come:  # ours begin where its do: what we make is numbered by them
                stream.come = stream.consumed = stream.done = first
            stream.is_anew, stream.shift = False, stream.come - first
        found = []
        for number, (edge, origin, part, sent) in enumerate(entries, stream.come):
            if stream.last.get(edge, (-1, -1)) < (origin, part):
                stream.last[edge] = (origin, part)
                found.append((place, number, sent if self._spills else unpacked(sent)))
        with self.changed:
            stream.come += len(entries)
            if not found and not self._merge.waiting(place):  # all of it had come before
                if stream.done == stream.consumed:
                    stream.done = stream.come
                stream.consumed = stream.come
            nbytes = sum(weight(sent) for *_, sent in found)
            stream.sent_bytes += nbytes
            stream.waiting_bytes += nbytes
            self._merge.take(place, found)
            if isinstance(over, PipelineError):
                stream.failure = arrived(over)
            elif over is not None:
                self._merge.end(place)
            self.changed.notify_all()

    def feed(self, key: int, first: int, entries: Sequence[Entry], over: Any) -> Ask | None:
        """`accept`; returns when more is wanted, with the question. None: nothing more, ever."""
        place = self.place_of(key)
        if entries or over is not None:
            self.accept(key, first, entries, over)
        with self.changed:
            if not self._await_want(place) or over is not None:
                return None
            self._on_ask()
            return self._ask(place)

    def _await_want(self, place: int) -> bool:
        """False: it was stopped."""
        while not self.stopped:
            if self._wants(place):
                return True
            self._wake_at[place] = True
            self.changed.wait()
            self._wake_at[place] = False
        return False

    def _pull(self, place: int) -> None:
        """The life of a thread: one question after the other, until the stream ends."""
        stream = self._streams[place]
        while True:
            with self.changed:
                if not self._await_want(place):
                    return
                self._on_ask()
                ask, handle = self._ask(place), stream.handle
            try:
                first, entries, over = handle.take.remote(stream.key, *ask).get()
                self.accept(stream.key, first, entries, over)
            except (ActorDiedError, ActorUnavailableError) as error:
                if not self._await_successor(stream, handle, error):
                    return
                continue
            except ZmregError as error:  # what cannot be sent, or is lost
                with self.changed:
                    self.fail(place, failure(stream.name, -1, None, error))
                return
            if over is not None:
                come = stream.come - stream.shift
                handle.take.remote(stream.key, come, come, ask[2], 0, self.buffer, EDGE_BYTES)
                return

    def _await_successor(self, stream: _Stream, handle: Any, error: ZmregError) -> bool:
        """Whether to go on, with the same one if it was only out of reach. False: it was stopped, or has failed."""
        deadline = time.monotonic() + REPLACED_S
        pause = _AGAIN_S if isinstance(error, ActorUnavailableError) else REPLACED_S
        with self.changed:
            while stream.handle == handle and not self.stopped and stream.failure is None:
                if isinstance(error, ActorUnavailableError):
                    self.changed.wait(pause)
                    return not self.stopped
                left = deadline - time.monotonic()
                if left <= 0:
                    stream.failure = failure(stream.name, -1, None, error)
                    self.changed.notify_all()
                    return False
                self.changed.wait(left)
            return not self.stopped and stream.failure is None
