"""From a plan to its values: a `GraphRun` decides, a `Flight` calls, and this stands between the two.

One thread drives: the one that waits for the result, or one that a started request has for itself.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterable, Mapping
from typing import Any

from zmreg.api.flight import Flight, Landed, Local, node_name
from zmreg.api.functions import RemoteFunction
from zmreg.api.refs import ObjectRef
from zmreg.core.binding import Frame
from zmreg.core.fields import follow
from zmreg.core.graph_run import GraphRun, StepState
from zmreg.core.graphs import Plan
from zmreg.flows.requests.failing import Failure
from zmreg.flows.requests.mending import Mending
from zmreg.flows.requests.options import Options
from zmreg.flows.requests.telling import Teller, previews
from zmreg.model.errors import (
    FunctionNotFoundError,
    NoRouteError,
    ObjectLostError,
    RequestTimeoutError,
    TaskCancelledError,
    ZmregError,
)
from zmreg.model.function_messages import FunctionRow
from zmreg.model.graph_events import RunEvent, StepCancelled, StepFailed, StepQueued
from zmreg.model.graphs import Path

# A host that was there a moment ago and is not: another may come.
_AGAIN_S = 0.05

_part = RemoteFunction(follow, {"num_cpus": 0, "name": "projection"})


class Drive:
    """One request on its way."""

    def __init__(self, plan: Plan, options: Options, local: Local) -> None:
        self.plan = plan
        self.request_id = options.request_id or os.urandom(8).hex()
        self.options = options
        self.run = GraphRun(plan, self.request_id, options.timeout, options.traced)
        self.teller = Teller(plan, self.request_id, options)
        self._local = local
        self._flight = Flight(local)
        self._mending = Mending(plan, self.run.values)
        self._rows: dict[str, FunctionRow] = {}
        """{step: who was called for it last}."""
        self._parts: dict[tuple[str, Path], ObjectRef[Any]] = {}
        self._homeless: dict[str, float] = {}
        """Steps for which nobody is there just now: until when they are tried."""
        self._cancelled = False
        self._ends_at: float | None = None
        self._remaking: str | None = None
        """A step of a run that has ended, whose value is lost and made again."""
        self._unmade: BaseException | None = None
        """Why it could not."""

    def go(self) -> None:
        """Run it to its end, on this thread. Raises what keeps it from beginning; any other end is in `run`."""
        run, now = self.run, self._flight.now
        if self.options.timeout is not None:
            self._ends_at = now() + self.options.timeout
        try:
            self._find_all()
            self._act(run.begin(now()))
            while not run.done:
                self._turn()
        except BaseException:
            if not run.done:
                self._act(run.cancel(now()))
            raise
        finally:
            for step in self._mending.again:
                self._flight.drop(step)
            self.teller.end(self._ends_at, run.outcome in ("done", "failed"))

    def cancel(self) -> None:
        """End it now; from any thread."""
        self._cancelled = True
        self._flight.wake()

    def _find_all(self) -> None:
        """See that each step can be called before the first is: what a step did cannot be taken back."""
        timeout, began, found = self.options.timeout, self._flight.now(), set()
        for name, step in self.plan.steps.items():
            wanted = (step.fun, tuple(step.locs), step.version or "")
            if wanted in found:
                continue
            patience = self.options.patience_s
            if timeout is not None:
                patience = max(0.0, min(patience, began + timeout - self._flight.now()))
            try:
                self._flight.find(*wanted, patience)
            except (ZmregError, ValueError) as error:
                error.__dict__.update(step=name, request_id=self.request_id)
                raise
            found.add(wanted)

    def _turn(self) -> None:
        deadline = self.run.next_deadline() if self._remaking is None else self._ends_at
        if self._homeless:
            soon = self._flight.now() + _AGAIN_S
            deadline = soon if deadline is None else min(deadline, soon)
        for landed in self._flight.take(deadline):
            self._act(self._heard(landed))
        now = self._flight.now()
        if self._cancelled:
            self._act(self.run.cancel(now))
        for step in list(self._homeless):
            self._act(self._start(step))
        self._act(self.run.expire(now))

    def _heard(self, landed: Landed) -> list[RunEvent]:
        run, step, now = self.run, landed.key, self._flight.now()
        if step in self._mending.again:
            return self._heard_again(landed)
        if landed.error is None:
            return run.finished(step, landed.ref, now, landed.node, landed.nbytes, landed.took_s)
        if isinstance(landed.error, ObjectLostError) and self._mend(step):
            return run.lost(step, False, landed.error, now, landed.node)
        began = self._begun(step, now) if self.options.has_levels and not landed.lost else []
        if landed.lost:
            return run.lost(step, landed.may_have_run, landed.error, now, landed.node)
        return began + run.failed(step, landed.error, now, landed.node, landed.took_s)

    def _mend(self, step: str) -> bool:
        """Have the lost inputs of a step made again, if that is allowed and of use."""
        stale = [key for key, ref in self._parts.items() if key[0] in self.plan.deps[step] and ref.failed()]
        again = self._mending.ask(step)
        if again is None or not (stale or self._mending.waits(step)):
            return False
        for key in stale:
            del self._parts[key]
        self._call_again(again)
        return True

    def _call_again(self, steps: Iterable[str]) -> None:
        """With the next turn. Parts of what is made anew are parts of something else."""
        self._parts = {key: ref for key, ref in self._parts.items() if key[0] not in self._mending.again}
        for step in steps:
            self._homeless[step] = self._flight.now() + self.options.patience_s

    def _heard_again(self, landed: Landed) -> list[RunEvent]:
        step = landed.key
        if landed.error is None:
            assert landed.ref is not None
            for other in self._mending.made(step, landed.ref):
                self._homeless[other] = self._flight.now() + self.options.patience_s
            return []
        if isinstance(landed.error, ObjectLostError) and self._mend(step):
            return []
        if landed.lost and (not landed.may_have_run or self._mending.may_repeat(step)):
            self._homeless[step] = self._flight.now() + self.options.patience_s
            return []
        return self._failed(step, landed.error)

    def _failed(self, step: str, error: BaseException) -> list[RunEvent]:
        """`step` did not even begin, or its value could not be made again for others."""
        self._homeless.pop(step, None)
        now = self._flight.now()
        self._unmade = error
        asked = self._mending.failed(step) if step in self._mending.again else [step]
        return [event for each in asked for event in self.run.failed(each, error, now)]

    def _begun(self, failed: str, now: float) -> list[RunEvent]:
        """What runs beside a step that failed is finished, for the past that its error carries; the run has to know."""
        events: list[RunEvent] = []
        for step in self._flight.under_way():
            if step != failed and self.run.state(step) is StepState.QUEUED and self._flight.runs(step):
                events += self.run.started(step, now, node_name(self._rows[step]))
        return events

    def _act(self, events: Iterable[RunEvent]) -> None:
        todo = deque(events)
        tells = self.teller.listens
        while todo:
            event = todo.popleft()
            if tells:
                self.teller.hear(event)
            if isinstance(event, StepQueued):
                todo.extend(self._start(event.step))
            elif isinstance(event, StepCancelled | StepFailed):
                self._homeless.pop(event.step, None)
                self._flight.drop(event.step)

    def _start(self, step: str) -> list[RunEvent]:
        """Call it; nothing when another step that was queued with it has failed meanwhile."""
        again = step in self._mending.again
        if self.run.done and self._remaking is None:
            return []
        if self._mending.waits(step) or not (again or self.run.state(step) is StepState.QUEUED):
            return []
        asked = self.plan.steps[step]
        now = self._flight.now()
        try:
            args, kwargs = self._bound(step)
            row = self._flight.send(step, (asked.fun, tuple(asked.locs), asked.version or ""), args, kwargs)
        except (FunctionNotFoundError, NoRouteError) as error:
            if now > self._homeless.setdefault(step, now + self.options.patience_s):
                return self._failed(step, error)
            return []
        except (ZmregError, TypeError, ValueError) as error:  # what cannot be bound or sent
            return self._failed(step, error)
        self._homeless.pop(step, None)
        self._rows[step] = row
        if self.options.debug_mode:
            self.teller.arg_previews[step] = previews(self.plan, step, self._seen)
        if self.options.traced and not again and self._flight.runs(step):
            return self.run.started(step, now, node_name(row))
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
        ref = self._mending.ref(step)
        if not path:
            return ref
        known = self._parts.get((step, path))
        if known is None:
            assert isinstance(ref, ObjectRef)
            if self._flight.is_inline(ref):
                return follow(ref.get(), path, step)
            known = self._parts[step, path] = _part.remote(ref, path, step)
        return known

    def _seen(self, step: str, path: Path) -> object:
        ref = self._mending.ref(step)
        assert isinstance(ref, ObjectRef)
        return follow(ref.get(), path, step) if self._flight.is_inline(ref) else ref

    # -- the end ------------------------------------------------------------------------------------------------------

    def values(self) -> dict[str, Any]:
        """What the request returns. Raises what it failed with, with the past on it; ObjectLostError."""
        run = self.run
        if run.error is None:
            return {name: self._value_of(name) for name in run.results()}
        assert isinstance(run.error, BaseException)
        raise self._dressed(run.error, run.failed_step)

    def _value_of(self, step: str) -> Any:
        """What was lost since it was made is made again."""
        while True:
            try:
                return self._mending.ref(step).get()
            except ObjectLostError as error:
                self._make_again(step, error)

    def _make_again(self, step: str, lost: ObjectLostError) -> None:
        """Of a run that has ended, with what it takes and nobody has any more. Raises ObjectLostError when one of the
        steps may not run again; what it failed with."""
        again = self._mending.ask(step, itself=True)
        if again is None:
            where = f" on node {node_name(self._rows[step])}" if step in self._rows else ""
            needed = ", ".join(map(repr, self._mending.refused))
            text = f"the value of step {step!r}, made{where}, is lost, and {needed} may not run again: {lost}"
            text += ". Steps with retries= are made again"
            raise self._dressed(type(lost)(text, lost.object_id), step) from lost
        self._remaking, self._unmade = step, None
        self._call_again(again)
        try:
            while step in self._mending.again:
                self._turn()
                if self._cancelled:
                    raise TaskCancelledError(f"request {self.request_id} was cancelled")
                if self._ends_at is not None and self._flight.now() >= self._ends_at:
                    text = f"request {self.request_id} was not done within {self.options.timeout:g} s"
                    raise RequestTimeoutError(f"{text}; the lost value of step {step!r} was being made again")
        finally:
            self._remaking = None
            for each in self._mending.again:
                self._flight.drop(each)
        if self._unmade is not None:
            raise self._dressed(self._unmade, step)

    def _dressed(self, error: BaseException, step: str) -> BaseException:
        """With the past on it. `step`: the one that failed, or ""."""
        run = self.run
        function = self._local.get(self.plan.steps[step].fun) if step else None
        called = function._function if function is not None else self._rows.get(step)
        node = node_name(self._rows[step]) if step in self._rows else ""
        refs = {name: ref for name, ref in run.values.items() if isinstance(ref, ObjectRef)}
        failure = Failure(self.plan, self.request_id, self.teller.trace, self.options.has_levels)
        return failure.dressed(error, step, node, refs, called)
