"""A pipeline whose stretches are actors: the driver makes them, watches over them, feeds the first ones and takes from
the last ones. Between them it is on nobody's way.
"""

from __future__ import annotations

import contextlib
import os
import threading
from collections.abc import Callable, Iterable
from queue import SimpleQueue
from typing import Any, Final

from zmreg.api.actors import ActorClass, ActorHandle, kill
from zmreg.api.cluster import nodes, wait
from zmreg.api.refs import ObjectRef
from zmreg.core.flow_metrics import StageMetrics
from zmreg.core.pipelines import Segment
from zmreg.flows.pipelines.feeding import Feeder, Feeding
from zmreg.flows.pipelines.inbox import DRIVER, Inbox, Way
from zmreg.flows.pipelines.lanes import placement
from zmreg.flows.pipelines.pipeline_run import MAX_DEAD_LETTERS, Plan
from zmreg.flows.pipelines.rooms import check_room, held_cpus, roomy
from zmreg.flows.pipelines.segment_actor import Output, Report, SegmentActor, Wiring
from zmreg.flows.pipelines.stages import SOURCE, DeadLetter, failure
from zmreg.model.errors import ActorDiedError, ActorUnavailableError, PipelineError, ZmregError

# For stages to close when a run is stopped; whoever has not by then is killed.
_STOP_S: Final = 1.0
_REPORT_S: Final = 5.0
_AGAIN_S: Final = 0.5
# `run`, `stop`, `report`, and calls that still wait on behalf of a stage that has died.
_SPARE_CALLS: Final = 8
# Of the machine's memory, for one stage's process: beyond it, it takes in one item at a time.
_RSS_SHARE: Final = 4


class RemoteFlow:
    """A pipeline at work in the cluster. See `zmreg.flows.pipelines.pipeline_run.Flow`."""

    rss_limit = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // _RSS_SHARE
    """Bytes."""

    def __init__(self, plan: Plan, items: Iterable[Any] | None) -> None:
        self._plan = plan
        self._lock = threading.RLock()
        self._feeding: Feeding | None = None
        self._segments = {segment.name: segment for segment in plan.segments}
        self._segment_of = {stage: each.name for each in plan.segments for stage in each.stages}
        self._actors: dict[str, ActorHandle[SegmentActor]] = {}
        self._runs: dict[str, ObjectRef[Report]] = {}
        self._reports: dict[str, Report] = {}
        self._replaced: dict[str, int] = {}
        """How often each stretch was started anew."""
        self._gone: set[str] = set()
        """Those that died, and were not."""
        self._ended: set[str] = set()
        self._events: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._closed = False
        self._items_error: BaseException | None = None
        self.dead_letters: list[DeadLetter] = []
        self._sinks = [segment for segment in plan.segments if not segment.outputs]
        check_room(plan)
        self._specs = roomy(plan, nodes() if held_cpus(plan) else ())
        for segment in plan.segments:
            self._start(segment)
        ways = [Way(self._key_of(sink), sink.stages[-1], self._actors[sink.name]) for sink in self._sinks]
        self._inbox = Inbox(ways, "interleave", plan.buffer, self._lock, self.rss_limit)
        self._inbox.start()
        threading.Thread(target=self._watch, name="zmreg-pipeline-watch", daemon=True).start()
        self._feeding = self._feed(items)

    def _feed(self, items: Iterable[Any] | None) -> Feeding | None:
        fed = [each.name for each in self._plan.segments if self._is_fed(each)]
        if items is None or not fed:
            return None
        feeders = [Feeder(self._keeps(self._segments[name])) for name in fed]
        feeding = Feeding(items, feeders, self._items_failed)
        for name, feeder in zip(fed, feeders, strict=True):
            feeding.start(feeder, lambda name=name: self._actors.get(name))  # type: ignore[misc]
        return feeding

    # -- stretches ----------------------------------------------------------------------------------------------------

    def _is_fed(self, segment: Segment) -> bool:
        return not segment.inputs and self._plan.specs[segment.name].kind != SOURCE

    def _keeps(self, segment: Segment) -> bool:
        """Whether it may be started anew: its outputs follow from its items, and a second try is allowed."""
        specs = [self._plan.specs[name] for name in segment.stages]
        return all(spec.is_item_wise and spec.terms.retries and spec.terms.ordered for spec in specs)

    def _key_of(self, sink: Segment) -> int:
        return DRIVER - 1 - self._sinks.index(sink)

    def _start(self, segment: Segment) -> None:
        plan = self._plan
        specs = tuple(self._specs[name] for name in segment.stages)
        ways = [Way(edge.number, edge.source, self._actors[self._segment_of[edge.source]]) for edge in segment.inputs]
        if self._is_fed(segment):
            ways = [Way(DRIVER, "items", None)]
        outputs = [Output(edge.number, self._keeps(self._segments[edge.target])) for edge in segment.outputs] or [
            Output(self._key_of(segment), False)
        ]
        terms = specs[0].terms if not specs[0].calls_out else specs[0].terms.but(locs=frozenset())
        options = placement(terms if terms.concurrency == 1 else terms.but(resources=(), num_cpus=0, num_gpus=None))
        calls = _SPARE_CALLS + len(ways) + len(outputs)
        made: ActorClass[SegmentActor] = ActorClass(SegmentActor, {}).options(max_concurrency=calls, **options)
        buffer = plan.buffer_of(segment.name)
        keeps = self._keeps(segment)
        actor = made.remote(Wiring(specs, tuple(ways), buffer, tuple(outputs), keeps, self.rss_limit))
        self._actors[segment.name] = actor
        ref = self._runs[segment.name] = actor.run.remote()
        ref.add_done_callback(lambda ref: self._events.put(lambda: self._on_end(segment, ref)))

    def _watch(self) -> None:
        """The life of a thread: what becomes of stretches."""
        while (event := self._events.get()) is not None:
            with contextlib.suppress(ZmregError):  # the cluster is over, and all calls with it
                event()

    def _on_end(self, segment: Segment, ref: ObjectRef[Report]) -> None:
        error = ref.exception(0)
        if error is None:
            self._reports[segment.name] = ref.get()
            self._ended.add(segment.name)
            return
        if self._closed or self._runs.get(segment.name) is not ref:
            return
        behind = {self._segment_of[edge.target] for edge in segment.outputs}
        if behind and behind <= self._ended:  # it was through, and nobody needs what it kept
            return
        if self._may_go_on(segment):
            try:
                self._replace(segment, error)
            except ZmregError as again:  # the try counts, and the next one would not end otherwise
                error = again
            else:
                self._tell(segment, lambda actor, key: actor.rewire.remote(key, self._actors[segment.name]))
                return
        self._gone.add(segment.name)
        lost = failure(segment.stages[0], -1, None, error)
        self._tell(segment, lambda actor, key: actor.lose.remote(key, lost), lost)

    def _replace(self, segment: Segment, error: BaseException) -> None:
        """Start it anew. Raises ZmregError."""
        self._replaced[segment.name] = self._replaced.get(segment.name, 0) + 1
        self._specs = roomy(self._plan, ())  # which nodes there are is old news now
        former = self._actors[segment.name]
        self._start(segment)
        if not isinstance(error, ActorDiedError):  # it is out of reach, and may live
            kill(former)
        if self._feeding is not None:
            self._feeding.look()

    def _may_go_on(self, segment: Segment) -> bool:
        """Whether one that died is started anew. Invariant: those before it have all that it had not done, and those
        behind it all that it had; who was started anew itself has not."""
        if not self._keeps(segment):
            return False
        if self._replaced.get(segment.name, 0) >= min(self._plan.specs[name].terms.retries for name in segment.stages):
            return False
        before = {self._segment_of[edge.source] for edge in segment.inputs}
        around = before | {self._segment_of[edge.target] for edge in segment.outputs}
        return around.isdisjoint(self._replaced) and before.isdisjoint(self._gone)

    def _tell(
        self, segment: Segment, say: Callable[[ActorHandle[Any], int], Any], lost: PipelineError | None = None
    ) -> None:
        """Those that take from it."""
        for edge in segment.outputs:
            self._say(self._segment_of[edge.target], lambda actor, key=edge.number: say(actor, key))  # type: ignore[misc]
        if segment in self._sinks:
            place = self._sinks.index(segment)
            with self._lock:
                if lost is None:
                    self._inbox.rewire(place, self._actors[segment.name])
                else:
                    self._inbox.fail(place, lost)

    def _say(self, name: str, say: Callable[[ActorHandle[Any]], ObjectRef[Any]]) -> None:
        """To the stretch of that name as it is now; once more when nobody knows whether it has heard. Nothing to a dead
        one: who is started in its place is told in its wiring, and those behind it hear that it is gone."""
        actor = self._actors.get(name)
        if actor is None or self._closed:
            return

        def heard(ref: ObjectRef[Any]) -> None:
            if isinstance(ref.exception(0), ActorUnavailableError) and self._actors.get(name) == actor:
                again = threading.Timer(_AGAIN_S, self._events.put, [lambda: self._say(name, say)])
                again.daemon = True
                again.start()

        with contextlib.suppress(ZmregError):
            say(actor).add_done_callback(heard)

    # -- what comes out -----------------------------------------------------------------------------------------------

    def receive(self) -> list[tuple[str, Any]]:
        inbox = self._inbox
        with self._lock:
            while not inbox.stopped:
                try:
                    some = inbox.poll()
                except PipelineError as error:
                    raise self._of(error) from error.cause
                if some:
                    for one in some:
                        inbox.begin(one)
                    return [(self._sinks[place].stages[-1], sent) for ((place, _, sent),) in some]
                if inbox.is_over:
                    break
                inbox.news.wait()
        self._close(_REPORT_S)
        return []

    def _of(self, error: PipelineError) -> BaseException:
        """What the items raised, where they did."""
        return self._items_error if self._items_error is not None and not error.stage else error

    def _items_failed(self, error: BaseException) -> PipelineError:
        self._items_error = error
        return PipelineError(f"the items raised {type(error).__name__}: {error}")

    # -- the end ------------------------------------------------------------------------------------------------------

    def stop(self) -> None:
        with self._lock:
            self._inbox.stop()
        if self._feeding is not None:
            self._feeding.stop()
        self._close(_STOP_S)

    def drop(self) -> None:
        # Nothing that waits: the collector may have come on the way in which calls are answered, or under a lock.
        self._events.put(self.stop)

    def _close(self, patience_s: float) -> None:
        """End all stretches, those that do not end within `patience_s` seconds by force."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self._inbox.stop()
        if self._feeding is not None:
            self._feeding.stop()
        with contextlib.suppress(ZmregError):  # the cluster is over, and all actors with it
            for actor in self._actors.values():
                actor.stop.remote()
            runs = list(self._runs.values())
            _, late = wait(runs, num_returns=len(runs), timeout=patience_s)
            for name, ref in self._runs.items():
                if ref in late:
                    kill(self._actors[name])
                elif not ref.failed():
                    self._reports[name] = ref.get()
                    self._actors[name].__zmreg_terminate__.remote()  # what it made and is still held stays
        self._fold()
        self._events.put(None)
        self._inbox.let_go()
        self._actors.clear()
        self._runs.clear()

    def _fold(self) -> None:
        letters = [letter for name in self._segments for letter in self._reported(name).dead_letters]
        self.dead_letters[:] = letters[:MAX_DEAD_LETTERS]

    def _reported(self, name: str) -> Report:
        nothing = Report(tuple(StageMetrics(stage) for stage in self._segments[name].stages), ())
        return self._reports.get(name, nothing)

    def metrics(self) -> tuple[StageMetrics, ...]:
        for name, actor in list(self._actors.items()):
            with contextlib.suppress(ZmregError):  # it is gone: what it said last stands
                self._reports[name] = actor.report.remote().get(timeout=_REPORT_S)
        self._fold()
        known = {each.stage: each for name in self._segments for each in self._reported(name).metrics}
        return tuple(known[stage] for stage in self._plan.topology.stages)
