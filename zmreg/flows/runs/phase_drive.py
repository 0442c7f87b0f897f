"""Driving a run: one thread, the caller's, starts what is ready, hears what has ended, and writes it down.

What a phase has under way is a `Work` (phase_work.py); what follows from its end, the machine says (core/phases.py).
"""

from __future__ import annotations

import heapq
import itertools
import logging
import os
import queue
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from zmreg.api import events
from zmreg.api.refs import ObjectRef
from zmreg.core.live_table import Line
from zmreg.core.phases import CANCELLED, ENDED, RUNNING, Moved, PhaseMachine, PhaseRow, plan_phases
from zmreg.core.thresholds import unmet
from zmreg.flows.live.figures import ENDS, PHASES, STATES, Facts
from zmreg.flows.results.recording import Recording
from zmreg.flows.runs.journal import wall_s
from zmreg.flows.runs.phase_ledger import PhaseLedger
from zmreg.flows.runs.phase_plan import Prepared, prepare
from zmreg.flows.runs.phase_work import Calls, Request, Stream, Terms, Work, items_for
from zmreg.flows.runs.phases import Phase, RunOptions
from zmreg.model.errors import GetTimeoutError, ZmregError
from zmreg.model.phase_events import PhaseChanged, RunEnded
from zmreg.model.policy import classes

log = logging.getLogger("zmreg.runs")


class PhaseDrive:
    """One run of some phases."""

    def __init__(self, phases: Sequence[Phase], options: RunOptions) -> None:
        """Raises PhaseError for phases that make no sense. Nothing is written before that is known."""
        self.options = options
        prepared = [prepare(phase, options) for phase in phases]
        self._phases = {each.name: each for each in prepared}
        rows = [PhaseRow(each.name, each.deps, each.phase.required) for each in prepared]
        self.machine = PhaseMachine(plan_phases(rows))
        self.run_id = options.get("id") or f"run-{os.urandom(6).hex()}"
        self.refs: dict[str, ObjectRef[Any]] = {}
        self.errors: dict[str, BaseException] = {}
        self.item_errors: dict[str, dict[int, BaseException]] = {}
        self.partial: dict[str, dict[int, ObjectRef[Any]]] = {}
        self.seconds: dict[str, float] = {}
        self.aggregated: Any = None
        self._last: dict[str, list[Line]] = {}
        """Of phases that have run: how far they were."""
        self._recording = Recording(options)
        keep_rows = None if self._recording.sink is None else self._recording.keep
        self._ledger = PhaseLedger(self.run_id, options, self.machine.plan, keep_rows)
        self._topic = f"run.{self.run_id}"
        self._work: dict[str, Work] = {}
        self._began: dict[str, float] = {}
        self._inbox: queue.SimpleQueue[tuple[str, int, Any]] = queue.SimpleQueue()
        self._timers: list[tuple[float, int, Callable[[], None]]] = []
        self._numbers = itertools.count()
        self._stopped: str | None = None

    # -- the loop -----------------------------------------------------------------------------------------------------

    def go(self) -> None:
        """Run it to its end. What interrupts it, as Ctrl-C does, cancels it, and goes through."""
        self._ledger.open()
        told = PHASES.begin(self._facts), STATES.begin(self._states), ENDS.begin(self._ends)
        try:
            self._tell(self.machine.begin())
            if (limit := self.options.get("timeout")) is not None:
                self._later(limit, lambda: self._cancel(f"the run was not done within {limit} s"))
            while not self.machine.is_over:
                self._start_ready()
                if not self.machine.is_over:
                    self._turn()
                if self._stopped is not None:
                    self._cancel(self._stopped)
        except BaseException as error:
            self._cancel(f"{type(error).__name__}: {error}")
            raise
        finally:
            for sheet, number in zip((PHASES, STATES, ENDS), told, strict=True):
                sheet.end(number)
            self._end()

    def stop(self, reason: str) -> None:
        """Have it cancelled. From any thread; nothing for one that is over."""
        self._stopped = reason
        self._inbox.put(("", 0, None))  # for whoever waits

    def _turn(self) -> None:
        """The next report, or the next timer."""
        pause = max(0.0, self._timers[0][0] - time.monotonic()) if self._timers else None
        try:
            name, index, what = self._inbox.get(timeout=pause)
        except queue.Empty:
            _, _, call = heapq.heappop(self._timers)
            call()
        else:
            work = self._work.get(name)
            if work is not None:
                work.land(index, what)
        for name, work in list(self._work.items()):
            if work.over:
                self._close(name, work)

    def _later(self, seconds: float, call: Callable[[], None]) -> None:
        heapq.heappush(self._timers, (time.monotonic() + seconds, next(self._numbers), call))

    def _cancel(self, reason: str) -> None:
        for work in self._work.values():
            work.cancel()
        self._work.clear()
        self._tell(self.machine.cancel(reason))

    def _end(self) -> None:
        status = self.machine.status if self.machine.is_over else CANCELLED
        self._ledger.close_items()  # their rows are in the sink, which is open yet
        try:
            self.aggregated = self._recording.close(status)
        finally:
            self._ledger.close(status)
            self._publish(f"{self._topic}.done", RunEnded(self.run_id, status, wall_s()))

    # -- one phase ----------------------------------------------------------------------------------------------------

    def _start_ready(self) -> None:
        most = self.options.get("concurrency")
        while ready := self.machine.ready:  # one that is reused, skipped or failed at once may have freed others
            if most is not None and len(self._work) >= most:
                return
            name = ready[0]
            try:
                self._start(self._phases[name])
            except Exception as error:  # noqa: BLE001  a condition, `foreach` or the disk: it is the phase that fails
                self._fail(name, error)

    def _start(self, phase: Prepared) -> None:
        name = phase.name
        if (ref := self._ledger.earlier(phase)) is not None:
            self.refs[name] = ref
            self._ledger.publish(name, ref)
            self._tell(self.machine.reused(name))
            return
        context = phase.context(self.run_id, {dep: self.refs.get(dep) for dep in phase.deps}, self._recording.sink)
        if (why := _declined(phase, context)) is not None:
            self._tell(self.machine.declined(name, why))
            return
        items = phase.items(context)
        self._tell(self.machine.started(name))
        self._began[name] = time.monotonic()
        work = self._work[name] = self._work_of(phase, context, items)
        if (limit := phase.phase.timeout) is not None:
            self._later(limit, lambda: self._late(name, work, limit))
        work.start()
        if work.over:
            self._close(name, work)

    def _work_of(self, phase: Prepared, context: Any, items: list[Any] | None) -> Work:
        name, wish = phase.name, phase.phase

        def report(index: int, what: Any) -> None:
            self._inbox.put((name, index, what))

        if phase.kind == "request":
            return Request(wish.fn, context, report)
        if phase.kind == "stream":
            return Stream(wish.fn, items_for(context, items, phase.config), report)
        contexts = [context] if items is None else [context.at(index, item) for index, item in enumerate(items)]
        terms = Terms(wish.retries, classes(wish.retry_on), wish.backoff, wish.on_error == "skip")

        def note(index: int | None, ref: ObjectRef[Any]) -> None:
            self._recording.note(name, index, ref, phase.writes)
            if index is not None:
                self._ledger.item_done(name, index, ref)

        call = phase.caller(self.refs, items)
        done = self._ledger.items_done(phase, items) if items is not None else {}
        return Calls(call, contexts, terms, wish.concurrency, (report, self._later, note), done)

    def _late(self, name: str, work: Work, limit: float) -> None:
        if self._work.get(name) is work:
            work.cancel()
            work.error = GetTimeoutError(f"phase {name!r} was not done within {limit} s", timeout_s=limit)

    def _close(self, name: str, work: Work) -> None:
        """Its work is over."""
        if self._work.pop(name, None) is None:
            return
        self.seconds[name] = time.monotonic() - self._began[name]
        self._last[name] = work.lines(name)
        if isinstance(work, Calls):
            if work.errors:
                self.item_errors[name] = work.errors
            if work.error is not None and work.results:
                self.partial[name] = dict(work.results)
        if work.error is not None:
            self._fail(name, work.error)
            return
        assert work.output is not None
        phase = self._phases[name]
        try:
            if phase.kind != "call":
                self._recording.note(name, None, work.output, phase.writes)
            if self._ledger.is_kept:
                self._recording.keep()
            self._ledger.keep(phase, work.output, self.seconds[name])
        except Exception as error:  # noqa: BLE001  it cannot be pickled, is no row of the sink, the disk is full
            self._fail(name, error)
            return
        self.refs[name] = work.output
        self._tell(self.machine.done(name), kept=True)

    def _fail(self, name: str, error: BaseException) -> None:
        self._work.pop(name, None)
        self.errors[name] = error
        text = str(error).partition("\n")[0]
        log.warning("phase %s of run %s failed: %s: %s", name, self.run_id, type(error).__name__, text)
        self._tell(self.machine.failed(name, f"{type(error).__name__}: {text}"))

    # -- telling ------------------------------------------------------------------------------------------------------

    def lines(self) -> list[Line]:
        """How far each phase is. From any thread."""
        work = self._work.copy()
        lines: list[Line] = []
        for name, state in self.machine.states.copy().items():
            if name in work and state == RUNNING:
                lines += work[name].lines(name)
            else:
                lines += [each.but(state=state, waiting=0) for each in self._last.get(name, [Line(name)])]
        return lines

    def _facts(self) -> Facts:
        """As the cluster's metrics have it; a pipeline's stages say so themselves, where they run."""
        lines = {name: work.lines(name)[0] for name, work in self._work.copy().items() if not isinstance(work, Stream)}
        lines |= {name: told[0].but(waiting=0) for name, told in self._last.copy().items()}
        return [(name, (one.items_in, one.items_out), (one.waiting,)) for name, one in lines.items()]

    def _states(self) -> Facts:
        states = list(self.machine.states.copy().values())
        return [(state, (), (states.count(state),)) for state in set(states)]

    def _ends(self) -> Facts:
        return [(state, count, ()) for state, (), count in self._states() if state in ENDED]

    def _tell(self, moves: Sequence[Moved], kept: bool = False) -> None:
        """`kept`: the first of them is in the journal already, with its output."""
        for move in moves:
            now = wall_s()
            if not kept and (move.state in ENDED or move.state == "running"):
                self._ledger.write(move, now)
            kept = False
            change = PhaseChanged(self.run_id, move.phase, move.state, now, move.reason)
            self._publish(f"{self._topic}.phase.{move.phase}.{move.state}", change)
            if (on_phase := self.options.get("on_phase")) is not None:
                try:
                    on_phase(change)
                except Exception:
                    log.exception("on_phase of run %s raised; the run goes on", self.run_id)

    def _publish(self, topic: str, value: object) -> None:
        try:
            if events.wanted(self._topic):
                events.publish(topic, value)
        except (ZmregError, ValueError) as error:  # a name that is no word of a topic; a cluster that is gone
            log.debug("run %s could not publish %s: %s", self.run_id, topic, error)


def _declined(phase: Prepared, context: Any) -> str | None:
    """Why it does not run, if its condition says so. Raises what the condition does."""
    when = phase.phase.when
    if when is None:
        return None
    if isinstance(when, Mapping):
        return unmet(when, context.result)
    return None if when(context) else "its condition does not hold"
