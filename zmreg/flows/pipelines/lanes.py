"""A stage with `concurrency`: as many actors, each working on items of its own, and their results in order again."""

from __future__ import annotations

import contextlib
from collections import deque
from collections.abc import Iterator
from typing import Any, Final

from zmreg.api.actors import ActorClass, ActorHandle, kill
from zmreg.api.context import get_runtime_context
from zmreg.api.refs import ObjectRef
from zmreg.core.flow_metrics import StageMetrics
from zmreg.core.reorder import Reorder
from zmreg.flows.pipelines.inbox import Found, Inbox
from zmreg.flows.pipelines.parcels import packed, portable, unpacked
from zmreg.flows.pipelines.segments import Stretch
from zmreg.flows.pipelines.side_loop import PipelineStopped
from zmreg.flows.pipelines.stages import DeadLetter, StageSpec, StageTerms, failure
from zmreg.model.errors import PipelineError, ZmregError

Results = tuple[list[Any], PipelineError | None]
"""What was made of an item, as it is sent, before it failed or was done."""

# One in work and one to go on with.
_EACH: Final = 2
# Finished items that wait for an earlier one, for each lane: a slow item holds up the others only after so many.
_AHEAD: Final = 8
_REPORT_S: Final = 5.0
_STOP_S: Final = 0.5


class LaneActor:
    """One of them. Calls run one after the other."""

    def __init__(self, spec: StageSpec) -> None:
        self._spec = spec
        self._dead: list[DeadLetter] = []
        self._node = get_runtime_context().get_node_id()
        self._stretch = Stretch([spec], self._node, self._dead.append)
        self._open = False

    def work(self, index: int, sent: tuple[Any, ...], joined: bool) -> Results:
        """All that is made of one item."""
        made: list[Any] = []
        try:
            self.open()
            try:
                item = tuple(map(unpacked, sent)) if joined else unpacked(sent[0])
            except ZmregError as error:
                raise failure(self._spec.name, index, None, error, self._node) from error
            made.extend(packed(out)[0] for out in self._stretch.one(index, item))
        except PipelineError as error:
            return made, portable(error)
        return made, None

    def open(self) -> None:
        """`initialize`, once in each process."""
        if not self._open:
            self._stretch.open()
            self._open = True

    def finish(self) -> Results:
        """What `flush` has left, and the end: all is closed."""
        made: list[Any] = []
        try:
            if self._open:
                made.extend(packed(out)[0] for out in self._stretch.finish())
            wrong = self._stretch.close()
        except PipelineError as error:
            self._stretch.close()
            return made, portable(error)
        return made, None if wrong is None else portable(wrong)

    def end(self) -> None:
        """`cleanup`, whatever was done."""
        self._stretch.close()

    def report(self) -> tuple[tuple[StageMetrics, ...], list[DeadLetter]]:
        """Numbers up to now, and what could not be done."""
        return self._stretch.metrics(), self._dead


class Lanes:
    """What a stretch has in place of its loop when its only stage is worked on by several."""

    def __init__(self, spec: StageSpec, inbox: Inbox) -> None:
        self._spec = spec
        self._changed = inbox.news
        self._inbox = inbox
        self._count = spec.terms.concurrency
        self._joined = spec.terms.merge == "zip"
        made: ActorClass[LaneActor] = ActorClass(LaneActor, {}).options(**placement(spec.terms), **again(spec.terms))
        self._actors: list[ActorHandle[LaneActor]] = [made.remote(spec) for _ in range(self._count)]
        self._order: Reorder[tuple[tuple[Found, ...], Results]] = Reorder(self._count * _AHEAD, spec.terms.ordered)
        self._out = [0] * self._count
        self._done: deque[tuple[int, int, tuple[Found, ...], ObjectRef[Results]]] = deque()
        self._passed: tuple[Found, ...] = ()
        self._metrics: tuple[StageMetrics, ...] = (StageMetrics(spec.name),)
        self.dead_letters: list[DeadLetter] = []

    def run(self) -> Iterator[tuple[tuple[int, int], Iterator[Any]]]:
        """(what item it is, all that was made of it), one after the other. Raises PipelineError in its place."""
        while (step := self._step()) is not None:
            number, lane, found, ref = step
            self._out[lane] -= 1
            for passed, (made, error) in self._order.finish(number, (found, self._results(ref, found))):
                self._passed = passed
                yield passed[0][:2], iter(made)
                if error is not None:
                    raise error
        for actor in self._actors:
            made, error = self._results(actor.finish.remote(), ())
            self._passed = ()
            if made:
                yield (1 << 30, 0), iter(made)
            if error is not None:
                raise error

    def passed(self) -> tuple[Found, ...]:
        """The item that was given out last."""
        return self._passed

    def _step(self) -> tuple[int, int, tuple[Found, ...], ObjectRef[Results]] | None:
        """Hand out what can be, until something is done; None at the end."""
        with self._changed:
            while not self._done:
                if self._inbox.stopped:
                    raise PipelineStopped
                lane = min(range(self._count), key=self._out.__getitem__)
                if self._out[lane] < _EACH and self._order.room and (found := self._next()) is not None:
                    self._out[lane] += 1
                    number = self._order.begin()
                    ref = self._actors[lane].work.remote(found[0][1], tuple(sent for *_, sent in found), self._joined)
                    ref.add_done_callback(
                        lambda ref, number=number, lane=lane, found=found: self._tell(number, lane, found, ref)
                    )
                    continue
                if self._order.is_idle and self._inbox.is_over:
                    return None
                self._changed.wait()
            return self._done.popleft()

    def _next(self) -> tuple[Found, ...] | None:
        """An item, unless the stream has failed: that is told when all before it are done."""
        try:
            found = self._inbox.poll(1)
        except PipelineError:
            if self._order.is_idle:
                raise
            return None
        if not found:
            return None
        self._inbox.begin(found[0])
        return found[0]

    def _tell(self, number: int, lane: int, found: tuple[Found, ...], ref: ObjectRef[Results]) -> None:
        with self._changed:
            self._done.append((number, lane, found, ref))
            self._changed.notify_all()

    def _results(self, ref: ObjectRef[Results], found: tuple[Found, ...]) -> Results:
        try:
            return ref.get()
        except ZmregError as error:
            index = found[0][1] if found else -1
            return [], failure(self._spec.name, index, found[0][2] if found else None, error)

    def close(self) -> PipelineError | None:
        """End them all, with `cleanup`; when the run was stopped, those that are busy by force."""
        reports = []
        patience_s = _STOP_S if self._inbox.stopped else _REPORT_S
        for actor in self._actors:
            with contextlib.suppress(ZmregError):
                actor.end.remote()
                reports.append(actor.report.remote())
        known = []
        for ref in reports:
            with contextlib.suppress(ZmregError):
                known.append(ref.get(timeout=patience_s))
        self._fold(known)
        if self._inbox.stopped:
            for actor in self._actors:
                with contextlib.suppress(ZmregError):
                    kill(actor)
        self._actors.clear()  # and so they end, when others have what they made
        return None

    def _fold(self, known: list[tuple[tuple[StageMetrics, ...], list[DeadLetter]]]) -> None:
        if not known:
            return
        whole = known[0][0][0]
        for metrics, _ in known[1:]:
            whole = whole.merged(metrics[0])
        self._metrics = (whole,)
        self.dead_letters = [letter for _, dead in known for letter in dead]

    def metrics(self) -> tuple[StageMetrics, ...]:
        """All lanes as one stage; while they run, as they say when asked between two items."""
        reports = [actor.report.remote() for actor in list(self._actors)]
        known = []
        for ref in reports:
            with contextlib.suppress(ZmregError):
                known.append(ref.get(timeout=_REPORT_S))
        if self._actors:
            self._fold(known)
        return self._metrics


def placement(terms: StageTerms) -> dict[str, Any]:
    """Where an actor for a stage goes, as options of actors. One that asks for other things than CPUs holds none."""
    wanted: dict[str, Any] = {"locs": sorted(terms.locs), "resources": dict(terms.resources)}
    num_cpus = 0 if terms.num_cpus is None and (terms.num_gpus or terms.resources) else terms.num_cpus
    wanted |= {"num_cpus": num_cpus, "num_gpus": terms.num_gpus}
    return {name: value for name, value in wanted.items() if value is not None and value not in ([], {})}


def again(terms: StageTerms) -> dict[str, Any]:
    """Whether a lane that died comes back, and has its items again."""
    return {"max_restarts": terms.retries, "max_task_retries": terms.retries} if terms.retries else {}
