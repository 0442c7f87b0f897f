"""A stretch of a pipeline in an actor: one thread runs it, others answer those who take from it.

The calls `take` and `feed` answer late, when there is something or room for it. So nothing is asked twice, nobody looks
at a clock, and what is on its way is bounded by what was asked for.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from zmreg.api.context import get_runtime_context
from zmreg.api.lines import Address, LineServer, serve_lines
from zmreg.core.flow_metrics import StageMetrics
from zmreg.core.outbox import Outbox
from zmreg.flows.live.figures import STREAMS, Facts
from zmreg.flows.pipelines.batches import Columns, Entry, columns
from zmreg.flows.pipelines.inbox import OVER, Ask, Batch, Found, Inbox, Way
from zmreg.flows.pipelines.lanes import Lanes
from zmreg.flows.pipelines.parcels import EDGE_BYTES, Parcel, packed, portable, unpacked
from zmreg.flows.pipelines.segments import Stretch
from zmreg.flows.pipelines.side_loop import PipelineStopped
from zmreg.flows.pipelines.stages import SOURCE, DeadLetter, StageSpec, failure
from zmreg.model.errors import PipelineError
from zmreg.model.record import Record

log = logging.getLogger("zmreg.pipelines")

Origin = tuple[int, int]

_NONE: Final[Origin] = (-2, 0)
"""What an output was made of that was made of nothing: a source's own."""
_FLUSHED: Final[Origin] = (1 << 30, 0)


class Output(Record):
    """A stream out of a stretch. `keeps`: its items are held until they are done, because the stage that takes them may
    be started anew. How many may be out, that one says when it asks."""

    key: int
    keeps: bool


class Wiring(Record):
    """What a stretch is, and what it is connected to."""

    specs: tuple[StageSpec, ...]
    ways: tuple[Way, ...]
    buffer: int
    outputs: tuple[Output, ...]
    keeps: bool
    """Whether it may be started anew: then those before it are told what is done."""
    rss: int
    """Bytes of memory from which on less is taken in."""


class Report(Record):
    """What there is to say of a stretch."""

    metrics: tuple[StageMetrics, ...]
    dead_letters: tuple[DeadLetter, ...]


class _Outlet:
    """A stream out of the stretch, and those that wait to take from it."""

    __slots__ = ("box", "parked", "ready")

    def __init__(self, keeps: bool, lock: threading.RLock) -> None:
        self.box: Outbox[Entry] = Outbox(1, EDGE_BYTES, keeps)  # until it is asked for
        self.ready = threading.Condition(lock)
        self.parked = 0

    def ring(self) -> None:
        """Under the lock: there is news."""
        if self.parked:
            self.ready.notify_all()


class SegmentActor:
    """The actor. `run` is called once, by the driver; it returns when all was taken that was made, and if some of that
    is kept for a stage that may be started anew, when all are told to stop."""

    def __init__(self, wiring: Wiring) -> None:
        self._lock = threading.RLock()
        self._wiring = wiring
        first = wiring.specs[0]
        self._inbox = Inbox(wiring.ways, first.terms.merge, wiring.buffer, self._lock, wiring.rss)
        self._inbox.keeps = wiring.keeps
        self._news = self._inbox.news
        self._outlets = {out.key: _Outlet(out.keeps, self._lock) for out in wiring.outputs}
        self._outs = list(self._outlets.values())
        self._marks: deque[tuple[tuple[Found, ...], list[int]]] = deque()
        """What was read, and how far each outbox was when all of it was made: it is done when that has come."""
        self._node = get_runtime_context().get_node_id()
        self._dead: list[DeadLetter] = []
        self._stretch = Stretch(wiring.specs, self._node, self._dead.append)
        self._lanes: Lanes | None = None
        self._lines: LineServer | None = None
        self._origin, self._part = _NONE, 0
        self._blocked_s = 0.0

    # -- the run ------------------------------------------------------------------------------------------------------

    def run(self) -> Report:
        """All of it. What goes wrong travels in its place in the stream, and is not raised here."""
        over: Any = OVER
        told = STREAMS.begin(self._facts)
        try:
            self._work()
        except PipelineError as error:
            over = portable(error)
        except PipelineStopped:
            pass
        with self._lock:
            for out in self._outs:
                out.box.end(over)
                out.ring()
            while not self._inbox.stopped and not all(out.box.is_needless for out in self._outs):
                self._news.wait()
        if self._lines is not None:
            self._lines.close()
        STREAMS.end(told)
        return self.report()

    def _facts(self) -> Facts:
        """As the cluster's metrics have it."""
        first, last = self._wiring.specs[0].name, self._wiring.specs[-1].name
        if first != last:
            yield first, (0.0,), (len(self._inbox),)
        yield last, (self._blocked_s,), (len(self._inbox) if first == last else 0,)

    def _work(self) -> None:
        specs = self._wiring.specs
        if specs[0].terms.concurrency > 1:
            self._lanes = Lanes(specs[0], self._inbox)
            work = self._lanes
        else:
            work = None
            self._stretch.open()
        failed = True
        try:
            self._inbox.start(self._settle)
            if work is not None:
                for origin, made in work.run():
                    if specs[0].terms.ordered:
                        self._origin, self._part = origin, 0
                    for out in made:
                        self._emit(out)
                    self._pass(work.passed())
            else:
                self._flow()
            failed = False
        finally:
            wrong = work.close() if work is not None else self._stretch.close()
            if wrong is not None and not failed:
                raise wrong

    def _flow(self) -> None:
        outs = self._stretch.run(() if self._wiring.specs[0].kind == SOURCE else self._items())
        try:
            for out in outs:
                self._emit(out)
        finally:
            outs.close()  # the generators of the stages end with it

    def _items(self) -> Iterator[Any]:
        inbox, keeps = self._inbox, self._wiring.keeps
        joined = self._wiring.specs[0].terms.merge == "zip"
        while some := self._next_items():
            for found in some:
                if inbox.stopped:
                    raise PipelineStopped
                inbox.begin(found)
                self._origin, self._part = found[0][:2], 0
                if joined:
                    yield tuple(map(self._opened, found))
                else:
                    sent = found[0][2]
                    yield self._opened(found[0]) if type(sent) is Parcel else sent
                if keeps:  # whoever comes for the next one has given out all that this one became
                    with self._lock:
                        self._pass(found)
        self._origin, self._part = _FLUSHED, 0

    def _next_items(self) -> list[tuple[Found, ...]]:
        """Waits for some; [] at the end. Raises PipelineError, PipelineStopped."""
        inbox = self._inbox
        with self._lock:
            while not (some := inbox.poll()):
                if inbox.stopped:
                    raise PipelineStopped
                if inbox.is_over:
                    return []
                self._news.wait()
            return some

    def _opened(self, found: Found) -> Any:
        try:
            return unpacked(found[2])
        except Exception as error:
            raise failure(self._wiring.specs[0].name, found[1], None, error, self._node) from error

    def _emit(self, out: Any) -> None:
        """To all who take from here: each gets every item. Waits for the slowest."""
        try:
            sent, nbytes = packed(out)
        except Exception as error:
            raise failure(self._wiring.specs[-1].name, self._origin[1], out, error, self._node) from error
        entry = (*self._origin, self._part, sent)
        self._part += 1
        with self._lock:
            for outlet in self._outs:
                box = outlet.box
                if not box.has_room():
                    self._await_room(box)
                if self._inbox.stopped:
                    raise PipelineStopped
                box.put(entry, nbytes)
                if outlet.parked:
                    outlet.ready.notify_all()

    def _await_room(self, box: Outbox[Entry]) -> None:
        began = time.perf_counter()
        while not box.has_room() and not self._inbox.stopped:
            self._news.wait()
        self._blocked_s += time.perf_counter() - began

    # -- what is done -------------------------------------------------------------------------------------------------

    def _pass(self, found: tuple[Found, ...]) -> None:
        """All was made of it that will be."""
        if self._wiring.keeps:
            self._marks.append((found, [out.box.put_count for out in self._outs]))

    def _settle(self) -> None:
        """Those before us may forget what is done: what was made of it has come to those behind us."""
        while self._marks and all(out.box.come >= put for out, put in zip(self._outs, self._marks[0][1], strict=True)):
            self._inbox.passed(self._marks.popleft()[0])

    # -- calls of others ----------------------------------------------------------------------------------------------

    def take(self, key: int, come: int, consumed: int, done: int, want: int, items: int, nbytes: int) -> Batch:
        """The stage behind us, or the driver, asks for more; answered when there is some."""
        outlet = self._outlets[key]
        box = outlet.box
        with self._lock:
            had = box.has_room()
            box.allow(items, nbytes)
            box.ask(come, consumed, done)
            if box.has_room() is not had or box.is_drained:
                self._news.notify_all()
            while not box.is_ready(come):
                if not want or self._inbox.stopped:
                    return max(come, 0), None, None
                outlet.parked += 1
                outlet.ready.wait()
                outlet.parked -= 1
            first, entries, over = box.give(come, want)
        return first, columns(entries), over

    def feed(self, key: int, first: int, batch: Columns | None, over: Any) -> Ask | None:
        """The driver has items; answered when there is room for more."""
        return self._inbox.feed(key, first, batch, over)

    def lines(self) -> Address | None:
        """Where `take` and `feed` may be asked from this node, at less cost; None: nowhere."""
        with self._lock:
            if self._lines is None:
                try:
                    self._lines = serve_lines(lambda name, *args: getattr(self, name)(*args))
                except OSError as error:
                    log.warning("processes of this node ask each other by calls: %s", error)
                    return None
            return self._lines.address

    def rewire(self, key: int, handle: Any) -> None:
        """That stream comes from another actor now."""
        with self._lock:
            self._inbox.rewire(self._inbox.place_of(key), handle)

    def lose(self, key: int, error: PipelineError) -> None:
        """Nothing more comes by that stream, and this is why."""
        with self._lock:
            self._inbox.fail(self._inbox.place_of(key), error)

    def stop(self) -> None:
        """Enough. `run` returns when the stages are closed."""
        with self._lock:
            self._inbox.stop()
            for out in self._outs:
                out.ring()
        self._stretch.stop()

    def report(self) -> Report:
        """Numbers up to now."""
        metrics = list(self._stretch.metrics() if self._lanes is None else self._lanes.metrics())
        with self._lock:
            metrics[0] = metrics[0].but(depth=len(self._inbox), nbytes=self._inbox.nbytes)
            metrics[-1] = metrics[-1].but(blocked_s=self._blocked_s)
        dead = self._dead if self._lanes is None else self._lanes.dead_letters
        return Report(tuple(metrics), tuple(dead))
