"""A stretch of a pipeline in an actor: one thread runs it, others answer those who take from it.

The calls `take` and `feed` answer late, when there is something or room for it. So nothing is asked twice, nobody looks
at a clock, and what is on its way is bounded by what was asked for.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any, Final

from zmreg.api.context import get_runtime_context
from zmreg.core.flow_metrics import StageMetrics
from zmreg.core.outbox import Outbox
from zmreg.flows.pipelines.inbox import OVER, Ask, Entry, Found, Inbox, Way
from zmreg.flows.pipelines.lanes import Lanes
from zmreg.flows.pipelines.parcels import EDGE_BYTES, packed, portable, unpacked
from zmreg.flows.pipelines.segments import Stretch
from zmreg.flows.pipelines.side_loop import PipelineStopped
from zmreg.flows.pipelines.stages import SOURCE, DeadLetter, StageSpec, failure
from zmreg.model.errors import PipelineError
from zmreg.model.record import Record

Batch = tuple[int, Sequence[Entry], Any]
"""(number of the first, entries, what ended the stream if these are the last)."""
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


class SegmentActor:
    """The actor. `run` is called once, by the driver; it returns when all was taken that was made."""

    def __init__(self, wiring: Wiring) -> None:
        self._changed = threading.Condition()
        self._wiring = wiring
        first = wiring.specs[0]
        self._inbox = Inbox(wiring.ways, first.terms.merge, wiring.buffer, self._changed, wiring.rss)
        self._inbox.keeps = wiring.keeps
        self._boxes = {out.key: Outbox[Entry](1, EDGE_BYTES, out.keeps) for out in wiring.outputs}
        self._marks: deque[tuple[tuple[Found, ...], list[int]]] = deque()
        """What was read, and how far each outbox was when all of it was made: it is done when that has come."""
        self._node = get_runtime_context().get_node_id()
        self._dead: list[DeadLetter] = []
        self._stretch = Stretch(wiring.specs, self._node, self._dead.append)
        self._lanes: Lanes | None = None
        self._in_hand: tuple[Found, ...] | None = None
        self._origin, self._part = _NONE, 0
        self._blocked_s = 0.0

    # -- the run ------------------------------------------------------------------------------------------------------

    def run(self) -> Report:
        """All of it. What goes wrong travels in its place in the stream, and is not raised here."""
        over: Any = OVER
        try:
            self._work()
        except PipelineError as error:
            over = portable(error)
        except PipelineStopped:
            pass
        with self._changed:
            for box in self._boxes.values():
                box.end(over)
            self._changed.notify_all()
            while not self._inbox.stopped and not all(box.is_drained for box in self._boxes.values()):
                self._changed.wait()
        return self.report()

    def _work(self) -> None:
        specs = self._wiring.specs
        if specs[0].terms.concurrency > 1:
            self._lanes = Lanes(specs[0], self._changed, self._inbox)
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
        inbox, changed, joined = self._inbox, self._changed, self._wiring.specs[0].terms.merge == "zip"
        while True:
            with changed:
                if self._in_hand is not None:
                    self._pass(self._in_hand)
                    self._in_hand = None
                while (found := inbox.poll()) is None:
                    if inbox.stopped:
                        raise PipelineStopped
                    if inbox.is_over:
                        self._origin, self._part = _FLUSHED, 0
                        return
                    changed.wait()
                if inbox.stopped:
                    raise PipelineStopped
                self._in_hand = found
            self._origin, self._part = found[0][:2], 0
            sent = [self._opened(each) for each in found]
            yield tuple(sent) if joined else sent[0]

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
        with self._changed:
            for box in self._boxes.values():
                if not box.has_room() and not self._inbox.stopped:
                    began = time.perf_counter()
                    while not box.has_room() and not self._inbox.stopped:
                        self._changed.wait()
                    self._blocked_s += time.perf_counter() - began
                if self._inbox.stopped:
                    raise PipelineStopped
                box.put(entry, nbytes)
            self._changed.notify_all()

    # -- what is done -------------------------------------------------------------------------------------------------

    def _pass(self, found: tuple[Found, ...]) -> None:
        """All was made of it that will be."""
        if self._wiring.keeps:
            self._marks.append((found, [box.put_count for box in self._boxes.values()]))

    def _settle(self) -> None:
        """Those before us may forget what is done: what was made of it has come to those behind us."""
        boxes = self._boxes.values()
        while self._marks and all(box.come >= put for box, put in zip(boxes, self._marks[0][1], strict=True)):
            self._inbox.passed(self._marks.popleft()[0])

    # -- calls of others ----------------------------------------------------------------------------------------------

    def take(self, key: int, come: int, consumed: int, done: int, want: int, items: int, nbytes: int) -> Batch:
        """The stage behind us, or the driver, asks for more; answered when there is some."""
        box = self._boxes[key]
        with self._changed:
            had = box.has_room()
            box.allow(items, nbytes)
            box.ask(come, consumed, done)
            if box.has_room() is not had or box.is_drained:
                self._changed.notify_all()
            while not box.is_ready(come):
                if not want or self._inbox.stopped:
                    return max(come, 0), (), None
                self._changed.wait()
            return box.give(come, want)

    def feed(self, key: int, first: int, entries: Sequence[Entry], over: Any) -> Ask | None:
        """The driver has items; answered when there is room for more."""
        return self._inbox.feed(key, first, entries, over)

    def rewire(self, key: int, handle: Any) -> None:
        """That stream comes from another actor now."""
        with self._changed:
            self._inbox.rewire(self._inbox.place_of(key), handle)

    def lose(self, key: int, error: PipelineError) -> None:
        """Nothing more comes by that stream, and this is why."""
        with self._changed:
            self._inbox.fail(self._inbox.place_of(key), error)

    def stop(self) -> None:
        """Enough. `run` returns when the stages are closed."""
        with self._changed:
            self._inbox.stop()
        self._stretch.stop()

    def report(self) -> Report:
        """Numbers up to now."""
        metrics = list(self._stretch.metrics() if self._lanes is None else self._lanes.metrics())
        with self._changed:
            metrics[0] = metrics[0].but(depth=len(self._inbox), nbytes=self._inbox.nbytes)
            metrics[-1] = metrics[-1].but(blocked_s=self._blocked_s)
        dead = self._dead if self._lanes is None else self._lanes.dead_letters
        return Report(tuple(metrics), tuple(dead))
