"""Requests: many named calls that use each other's values, written down once and run wherever what they need is.

`Run` drives a `GraphRun` by what a `Flight` tells it. The thread that waits for the result is the one that drives;
a run that was only started has a thread of its own.
"""

from __future__ import annotations

import logging
import secrets
import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from zmreg.api.flight import Flight, Landed
from zmreg.api.functions import RemoteFunction
from zmreg.api.refs import ObjectRef
from zmreg.core.binding import Frame
from zmreg.core.fields import follow
from zmreg.core.graph_run import GraphRun
from zmreg.core.graphs import plan as plan_of
from zmreg.flows.trace import ExecutionSummary, LevelRecord, Trace
from zmreg.model.errors import FunctionNotFoundError, NoRouteError, ZmregError
from zmreg.model.graph_events import RunEvent, StepCancelled, StepFinished, StepQueued
from zmreg.model.graphs import Path, StepLike
from zmreg.model.record import Record

log = logging.getLogger("zmreg.requests")

BIND_TIMEOUT_S = 1.0
# A host that was there a moment ago and is not: another may come.
_AGAIN_S = 0.05

_part = RemoteFunction(follow, {"num_cpus": 0, "name": "projection"})


class Options(Record):
    """How a request is run, and what is kept of it."""

    timeout: float | None = None
    bind_timeout: float = BIND_TIMEOUT_S
    """Seconds for which a function that nobody serves is waited for."""
    detail: str = "values"
    """What records hold: "values" (larger ones than the inline limit as refs), "refs", or "summary"."""
    traced: bool = False
    on_level: Callable[[LevelRecord], object] | None = None


class Run:
    """A request that runs, or has run."""

    def __init__(self, steps: Iterable[StepLike], options: Options, keep: Iterable[str] | str, request_id: str) -> None:
        self.plan = plan_of(steps, keep)
        self.request_id = request_id or secrets.token_hex(8)
        self.options = options
        self._flight = Flight()
        self._run = GraphRun(self.plan, self.request_id, options.timeout, options.traced)
        self.trace = Trace(self.plan, self.request_id, time.time() - time.monotonic()) if options.traced else None
        self._parts: dict[tuple[str, Path], Any] = {}
        self._homeless: dict[str, float] = {}
        """Steps for which nobody is there just now: until when they are tried."""
        self._cancelled = False
        self._over = threading.Event()

    def __repr__(self) -> str:
        return f"<Run {self._run!r}>"

    # -- driving ------------------------------------------------------------------------------------------------------

    def drive(self) -> None:
        """Run it to its end, on this thread. Raises what keeps it from beginning; else the end is in `outcome`."""
        try:
            for step in self.plan.steps.values():
                self._flight.find(step.fun, tuple(step.locs), step.version or "", self.options.bind_timeout)
            self._act(self._run.begin(self._flight.now()))
            while not self._run.done:
                self._turn()
        except BaseException:
            if not self._run.done:
                self._act(self._run.cancel(self._flight.now()))
            raise
        finally:
            self._over.set()

    def _turn(self) -> None:
        deadline = self._run.next_deadline()
        if self._homeless:
            soon = self._flight.now() + _AGAIN_S
            deadline = soon if deadline is None else min(deadline, soon)
        for landed in self._flight.take(deadline):
            self._act(self._heard(landed))
        now = self._flight.now()
        if self._cancelled:
            self._act(self._run.cancel(now))
        for step in list(self._homeless):
            if not self._run.done:
                self._act(self._start(step))
        self._act(self._run.expire(now))

    def _heard(self, landed: Landed) -> list[RunEvent]:
        run, step, now = self._run, landed.key, self._flight.now()
        if landed.error is None:
            return run.finished(step, landed.ref, now, landed.node, landed.nbytes, landed.took_s)
        if landed.lost:
            return run.lost(step, landed.may_have_run, landed.error, now, landed.node)
        return run.failed(step, landed.error, now, landed.node, landed.took_s)

    def _act(self, events: Iterable[RunEvent]) -> None:
        todo = deque(events)
        while todo:
            event = todo.popleft()
            if self.trace is not None:
                self._tell(event)
            if isinstance(event, StepQueued):
                todo.extend(self._start(event.step))
            elif isinstance(event, StepCancelled):
                self._homeless.pop(event.step, None)
                self._flight.drop(event.step)

    def _start(self, step: str) -> list[RunEvent]:
        asked = self.plan.steps[step]
        wanted = (asked.fun, tuple(asked.locs), asked.version or "")
        now = self._flight.now()
        try:
            args, kwargs = self._bound(step)
            self._flight.send(step, wanted, args, kwargs)
        except (FunctionNotFoundError, NoRouteError) as error:
            if now > self._homeless.setdefault(step, now + self.options.bind_timeout):
                del self._homeless[step]
                return self._run.failed(step, error, now)
            return []
        except (ZmregError, TypeError, ValueError) as error:  # what cannot be bound or sent
            return self._run.failed(step, error, now)
        self._homeless.pop(step, None)
        return []

    # -- values -------------------------------------------------------------------------------------------------------

    def _bound(self, step: str) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        """What to send: refs to the values, which go from who has them to who takes them. Those that go inside of
        containers are put there where the call is run."""
        template = self.plan.templates[step]
        parts = [part for _, part in (*template.args_parts, *template.kwargs_parts)]
        if any(isinstance(part, Frame) for part in parts):
            return (template, *(self._value(use.step, use.path) for use in template.uses)), {}
        return template.fill([self._value(use.step, use.path) for use in template.uses])

    def _value(self, step: str, path: Path) -> Any:
        ref = self._run.values[step]
        if not path:
            return ref
        known = self._parts.get((step, path))
        if known is None:
            assert isinstance(ref, ObjectRef)
            if self._flight.is_inline(ref):
                return follow(ref.get(), path, step)
            known = self._parts[step, path] = _part.remote(ref, path, step)
        return known

    # -- what is told -------------------------------------------------------------------------------------------------

    def _tell(self, event: RunEvent) -> None:
        assert self.trace is not None
        if isinstance(event, StepFinished):
            event = event.but(value=self._shown(event))
        record = self.trace.hear(event)
        if record is not None and self.options.on_level is not None:
            try:
                self.options.on_level(record)
            except Exception:
                log.exception("on_level of request %s raised; the request goes on", self.request_id)

    def _shown(self, event: StepFinished) -> Any:
        """The value as records have it: a copy of its own, or a ref, or words."""
        ref, detail = event.value, self.options.detail
        assert isinstance(ref, ObjectRef)
        if detail == "refs" or (detail == "values" and not self._flight.is_inline(ref)):
            return ref
        if detail == "values":
            return ref.get()
        text = repr(ref.get())[:200] if self._flight.is_inline(ref) else ""
        return {"type": ref.meta.type_name, "nbytes": event.nbytes, "repr": text}

    # -- the end ------------------------------------------------------------------------------------------------------

    def result(self) -> GraphResult:
        """The values of the sinks. Raises what the request failed with; the past is on the error."""
        run = self._run
        if run.error is not None:
            raise self._error()
        refs = run.results()
        values = {name: ref.get() for name, ref in refs.items() if isinstance(ref, ObjectRef)}
        return GraphResult(values, self)

    def _error(self) -> BaseException:
        error, step = self._run.error, self._run.failed_step
        assert isinstance(error, BaseException)
        cause = getattr(error, "cause", None)
        if isinstance(cause, BaseException) and error.__cause__ is None:
            error.__cause__ = cause
        past = self.trace.past() if self.trace is not None else None
        facts = {
            "request_id": self.request_id,
            "step": step,
            "level_index": self.plan.depth.get(step),
            "node": past.node if past is not None else "",
            "intermediate_results": past.intermediate_results if past is not None else (),
            "partial": past.partial if past is not None else {},
        }
        for name, value in facts.items():
            setattr(error, name, value)
        return error


class GraphResult(dict[str, Any]):
    """{step: value} of what a request returns, and what it tells of how it went."""

    def __init__(self, values: Mapping[str, Any], run: Run) -> None:
        super().__init__(values)
        self.request_id = run.request_id
        self.trace = run.trace

    @property
    def r(self) -> GraphResult:
        """Itself."""
        return self

    @property
    def intermediate_results(self) -> tuple[LevelRecord, ...]:
        """One record a level; empty when they were not asked for."""
        return tuple(self.trace.records) if self.trace is not None else ()

    @property
    def execution_summary(self) -> ExecutionSummary | None:
        """Where the time went; None when nothing was traced."""
        return self.trace.summary() if self.trace is not None else None


def request(
    steps: Iterable[StepLike], *, keep: Iterable[str] | str = (), request_id: str = "", **options: Any
) -> GraphResult:
    """Run steps (README: requests) and return {name: value} of those that no other step uses."""
    run = Run(steps, Options(**options), keep, request_id)
    run.drive()
    return run.result()
