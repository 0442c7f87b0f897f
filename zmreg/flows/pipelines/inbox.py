"""What a stretch of a pipeline reads in a process of its own: streams out of other processes, merged into one.

Each stream is taken by a thread: it asks the process before with `take`, which answers when there is something, and
asks again when there is room. The driver, which nobody can call, calls `feed` instead and is told the next question.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any, Final

from zmreg.api.lines import LineLostError
from zmreg.core.merging import INTERLEAVE, ZIP, Merge
from zmreg.core.outbox import ANEW
from zmreg.flows.pipelines.batches import Columns, Last, fresh
from zmreg.flows.pipelines.callers import Caller
from zmreg.flows.pipelines.parcels import EDGE_BYTES, Memory, Parcel, arrived, unpacked, weights
from zmreg.flows.pipelines.stages import failure
from zmreg.model.errors import ActorDiedError, ActorUnavailableError, PipelineError, ZmregError
from zmreg.model.record import Record

Batch = tuple[int, Columns | None, Any]
"""(number of the first, entries, what ended the stream if these are the last)."""
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
# What the reader has of what spilled, without looking at what came meanwhile.
_MOST: Final = 256
_NEVER: Final = 1 << 62


class Way(Record):
    """A stream into a stretch. `name`: of the stage that it comes from."""

    key: int
    name: str
    handle: Any
    """Of the actor that has it; None: it is fed."""


class _Stream:
    __slots__ = (
        "come", "consumed", "done", "failure", "handle", "is_anew", "key", "last", "line", "name", "sent_bytes",
        "shift", "sizes", "waiting_bytes", "wake_at", "wanted",
    )  # fmt: skip

    def __init__(self, way: Way, lock: threading.RLock) -> None:
        self.key, self.name, self.handle = way.key, way.name, way.handle
        self.come = self.done = self.sent_bytes = self.waiting_bytes = 0
        self.consumed = 0
        """How many are in hand, or were. Written by the reader, without the lock."""
        self.sizes: deque[tuple[int, int]] = deque()
        """Of what came together: (where it ends, bytes)."""
        self.wanted = threading.Condition(lock)
        """For whoever asks for more: the reader has begun number `wake_at`, or something else is new."""
        self.wake_at = _NEVER
        self.line = Caller()
        """To whoever has it."""
        self.is_anew = True
        """Whoever has it is to say where it begins."""
        self.shift = 0
        """What our numbers are above the sender's, which may be another one than at first: negative, by those that it
        sent again."""
        self.failure: PipelineError | None = None
        self.last: Last = {}

    def bytes_waiting(self) -> int:
        """Of all that came together the bytes count until the last of it is in hand."""
        while self.sizes and self.sizes[0][0] <= self.consumed:
            self.waiting_bytes -= self.sizes.popleft()[1]
        return self.waiting_bytes


class Inbox:
    """Under `lock`, but for `begin`. Its reader waits for `news`; whoever shares the lock may do so, too."""

    def __init__(self, ways: Sequence[Way], mode: str, buffer: int, lock: threading.RLock, rss: int) -> None:
        self.lock = lock
        self.news = threading.Condition(lock)
        self.buffer = buffer
        self.keeps = False
        """Whether `done` is told apart from "in hand": the owner says `passed`."""
        self.stopped = False
        self._spills = mode != INTERLEAVE
        self._merge: Merge[Found] = Merge(mode, len(ways), buffer)
        self._streams = [_Stream(way, lock) for way in ways]
        self._base = 0
        """Of "zip": the number of the first items that are read together."""
        self._memory = Memory(rss)
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

    # -- for the one who reads ----------------------------------------------------------------------------------------

    def poll(self, most: int = _MOST) -> list[tuple[Found, ...]]:
        """The next items, at most so many, of "zip" one of each stream; each goes on waiting until `begin`. Empty:
        nothing yet, or `is_over`. Raises the PipelineError that ended a stream, when all before it was read."""
        found = self._merge.some(most)
        if not found:
            for place, stream in enumerate(self._streams):
                if stream.failure is not None and not self._merge.waiting(place):
                    raise stream.failure
        return found

    def begin(self, found: tuple[Found, ...]) -> None:
        """It is in hand. Without the lock."""
        for place, number, _ in found:
            stream = self._streams[place]
            stream.consumed = number + 1
            if number >= stream.wake_at:  # set before `consumed` is looked at: one of the two sees the other
                with self.lock:
                    stream.wake_at = _NEVER
                    stream.wanted.notify_all()

    @property
    def is_over(self) -> bool:
        """Nothing comes any more."""
        return self._merge.is_over

    def __len__(self) -> int:
        if self._merge.mode == ZIP and self._merge.is_over:
            return 0
        return sum(stream.come - stream.consumed for stream in self._streams)

    @property
    def nbytes(self) -> int:
        """What has come, roughly."""
        return sum(stream.sent_bytes for stream in self._streams)

    def passed(self, found: tuple[Found, ...]) -> None:
        """All that was made of it is safe."""
        for place, number, _ in found:
            self._streams[place].done = number + 1

    def fail(self, place: int, error: PipelineError) -> None:
        """The stream ends with it behind what has come; not one that has ended by itself."""
        if self._merge.has_ended(place):
            return
        self._streams[place].failure = self._streams[place].failure or error
        self._streams[place].line.cut()
        self._ring(place)

    def rewire(self, place: int, handle: Any) -> None:
        """Somebody else has the stream: who had it is dead. Idempotent."""
        stream = self._streams[place]
        if stream.handle == handle:
            return
        stream.handle, stream.is_anew = handle, True
        stream.line.cut()
        stream.line = Caller()
        self._ring(place)

    def stop(self) -> None:
        """Take no more."""
        self.stopped = True
        self.news.notify_all()
        for place, stream in enumerate(self._streams):
            stream.line.cut()
            self._ring(place)

    def _ring(self, place: int) -> None:
        self.news.notify_all()
        self._streams[place].wanted.notify_all()

    def let_go(self) -> None:
        """Of those it took from."""
        for stream in self._streams:
            stream.handle = None

    # -- the streams --------------------------------------------------------------------------------------------------

    def _room(self, stream: _Stream) -> int:
        return self.buffer - (stream.come - stream.consumed)

    def _wants(self, stream: _Stream) -> bool:
        # By halves: asking for each item that was read would be a question an item.
        if self._spills or stream.come == stream.consumed:
            return True
        if stream.bytes_waiting() > EDGE_BYTES // 2 or self._memory.is_short():
            return False
        return self._room(stream) >= max(1, self.buffer // 2)

    def _ask(self, stream: _Stream) -> Ask:
        room = self.buffer if self._spills else max(1, self._room(stream))
        items, nbytes = self.buffer, EDGE_BYTES
        if self._memory.is_short():
            room, items, nbytes = 1, 1, EDGE_BYTES // 16
        if stream.is_anew:
            return ANEW, 0, 0, room, items, nbytes
        consumed = stream.come if self._spills else stream.consumed
        done = stream.done if self.keeps else consumed
        return stream.come - stream.shift, consumed - stream.shift, done - stream.shift, room, items, nbytes

    def accept(self, place: int, first: int, batch: Columns | None, over: Any, handle: Any = None) -> bool:
        """What was sent, by `handle`. Entries that have come before from one who died are dropped. False: it was sent
        twice, or somebody else has the stream since."""
        stream = self._streams[place]
        with self.lock:
            if stream.handle != handle:
                return False
            if stream.is_anew:
                if not stream.come:  # ours begin where its do: what we make is numbered by them
                    stream.come = stream.consumed = stream.done = first
                    if first and self._merge.mode == ZIP:
                        self._align(first)
                stream.is_anew, stream.shift = False, stream.come - first
        if first != stream.come - stream.shift:  # a line was lost with its answer
            return False
        come = stream.come
        sent: Sequence[Any] = () if batch is None else batch[3]
        behind = first + len(sent)
        if batch is not None and (new := fresh(batch, stream.last)) is not None:
            sent = [sent[at] for at in new]
        end = come + len(sent)
        nbytes = weights(sent)
        if not self._spills and Parcel in set(map(type, sent)):
            sent = list(map(unpacked, sent))
        found = list(zip(repeat(place), range(come, end), sent))
        with self.lock:
            if come < self._base:
                found = [each for each in found if each[1] >= self._base]
                stream.consumed = stream.done = min(self._base, end)
            # What had come before has no number of ours: nobody would ever have it in hand, and its room stayed taken.
            stream.come, stream.shift = end, end - behind
            if found:
                stream.sent_bytes += nbytes
                stream.waiting_bytes += nbytes
                stream.sizes.append((end, nbytes))
                self._merge.take(place, found)
            if isinstance(over, PipelineError):
                stream.failure = arrived(over)
            elif over is not None:
                self._merge.end(place)
            self.news.notify_all()
        return True

    def _align(self, first: int) -> None:
        """All before that number was done by who died, whether or not it has told the other streams."""
        with self.lock:
            self._base = max(self._base, first)
            for place, stream in enumerate(self._streams):
                begin = min(self._base, stream.come)
                if stream.consumed < begin:
                    self._merge.drop(place, begin - stream.consumed)
                    stream.consumed = stream.done = begin

    def feed(self, key: int, first: int, batch: Columns | None, over: Any) -> Ask | None:
        """`accept`; returns when more is wanted, with the question. None: nothing more, ever."""
        place = self.place_of(key)
        over = (batch is not None or over is not None) and self.accept(place, first, batch, over) and over
        stream = self._streams[place]
        with self.lock:
            if not self._await_want(stream) or over:
                return None
            self._on_ask()
            return self._ask(stream)

    def _await_want(self, stream: _Stream) -> bool:
        """False: it was stopped."""
        half = max(1, self.buffer // 2)
        while not self.stopped:
            # The one by which there is room, or the next one when bytes or memory are what is short.
            stream.wake_at = max(stream.consumed, stream.come - self.buffer + half - 1)
            if self._wants(stream):
                break
            stream.wanted.wait()
        stream.wake_at = _NEVER
        return not self.stopped

    def _pull(self, place: int) -> None:
        """The life of a thread."""
        stream = self._streams[place]
        try:
            while (asked := self._next_question(stream)) is not None:
                handle, line, ask = asked
                try:
                    if not self._take(place, handle, line, ask):
                        return
                except LineLostError:  # asked again, by a call
                    continue
                except (ActorDiedError, ActorUnavailableError) as error:
                    if not self._await_successor(stream, handle, error):
                        return
                except ZmregError as error:  # what cannot be sent, or is lost
                    with self.lock:
                        self.fail(place, failure(stream.name, -1, None, error))
                    return
                finally:
                    if stream.line is not line:
                        line.close()
        finally:
            stream.line.close()

    def _next_question(self, stream: _Stream) -> tuple[Any, Caller, Ask] | None:
        """When there is room; None: none any more."""
        with self.lock:
            if not self._await_want(stream) or stream.failure is not None:
                return None
            self._on_ask()
            return stream.handle, stream.line, self._ask(stream)

    def _take(self, place: int, handle: Any, line: Caller, ask: Ask) -> bool:
        """Ask, and take in what comes. False: that was the last."""
        stream = self._streams[place]
        first, batch, over = line.call(handle, "take", stream.key, *ask)
        if not self.accept(place, first, batch, over, handle):
            return True
        if over is not None:
            come = stream.come - stream.shift
            handle.take.remote(stream.key, come, come, ask[2], 0, self.buffer, EDGE_BYTES)
        return over is None

    def _await_successor(self, stream: _Stream, handle: Any, error: ZmregError) -> bool:
        """Whether to go on, with the same one if it was only out of reach. False: it was stopped, or has failed."""
        deadline = time.monotonic() + REPLACED_S
        with self.lock:
            while stream.handle == handle and not self.stopped and stream.failure is None:
                if isinstance(error, ActorUnavailableError):
                    stream.wanted.wait(_AGAIN_S)
                    return not self.stopped
                left = deadline - time.monotonic()
                if left <= 0:
                    stream.failure = failure(stream.name, -1, None, error)
                    self.news.notify_all()
                    return False
                stream.wanted.wait(left)
            return not self.stopped and stream.failure is None
