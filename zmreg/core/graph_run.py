"""One run of a plan: which steps are ready, what a failure means for the others, when a level is whole.

A pure machine. What happened goes in; events come out, which are also what is to be done: `StepQueued` says bind and
call it, `StepCancelled` says drop its call. Time is an argument, in seconds of a clock that does not go back.

Promises:
- A step is queued once all steps whose values it takes are done, and waits for nothing else: there is no barrier.
- `LevelDone(k)` comes in order, once every step of depth k or less is done; a branch that runs ahead changes nothing.
- After a failure nothing new is begun: steps that have not started are cancelled. Those that run are let finish, so
  that their values are kept, and then the run is done. After a timeout, or `cancel`, nobody is waited for.
- A value that no step needs any more, and that is not to be returned, is dropped: `values` holds the others only.
- News of a step that was cancelled, and all news after the end, change nothing: they may have been under way.
- Events are to be heeded in their order. Who queues several at once, and has one of them fail while it is sent, finds
  the others cancelled: `state` tells whether a step that was to be called is still `QUEUED`.
"""

from __future__ import annotations

import enum
import heapq
from collections import Counter, deque
from collections.abc import Iterable, Mapping
from typing import Final

from zmreg.core.graphs import Plan
from zmreg.core.lifecycle import IllegalMove
from zmreg.model.errors import RequestTimeoutError, TaskCancelledError
from zmreg.model.graph_events import (
    LevelDone,
    Outcome,
    RunDone,
    RunEvent,
    StepCancelled,
    StepFailed,
    StepFinished,
    StepQueued,
    StepStarted,
)


class StepState(enum.StrEnum):
    """Where a step stands."""

    WAITING = "WAITING"
    QUEUED = "QUEUED"
    RUNNING = "RUNNING"
    DONE = "DONE"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class StepTurn(enum.StrEnum):
    """What may happen to a step."""

    QUEUE = "inputs exist"
    START = "started"
    FINISH = "finished"
    FAIL = "failed"
    LOSE = "lost with its node"
    CANCEL = "cancelled"


_S, _T = StepState, StepTurn
MOVES: Final[Mapping[tuple[StepState, StepTurn], StepState]] = {
    (_S.WAITING, _T.QUEUE): _S.QUEUED,
    (_S.QUEUED, _T.START): _S.RUNNING,
    (_S.QUEUED, _T.FINISH): _S.DONE,
    (_S.RUNNING, _T.FINISH): _S.DONE,
    (_S.QUEUED, _T.FAIL): _S.FAILED,
    (_S.RUNNING, _T.FAIL): _S.FAILED,
    (_S.QUEUED, _T.LOSE): _S.QUEUED,
    (_S.RUNNING, _T.LOSE): _S.QUEUED,
    (_S.WAITING, _T.CANCEL): _S.CANCELLED,
    (_S.QUEUED, _T.CANCEL): _S.CANCELLED,
    (_S.RUNNING, _T.CANCEL): _S.CANCELLED,
    # News that were under way when it was cancelled.
    (_S.CANCELLED, _T.START): _S.CANCELLED,
    (_S.CANCELLED, _T.FINISH): _S.CANCELLED,
    (_S.CANCELLED, _T.FAIL): _S.CANCELLED,
    (_S.CANCELLED, _T.LOSE): _S.CANCELLED,
}

# Of the whole run, for the story of an illegal move: some three for each of the last thousand steps.
_STORY_MOVES: Final = 3000


class GraphRun:
    """See the module. `timeout`: seconds for all of it, from `begin`. `traced`: starts say which value went where."""

    def __init__(self, plan: Plan, request_id: str, timeout: float | None = None, traced: bool = False) -> None:
        self.plan = plan
        self.request_id = request_id
        self.values: dict[str, object] = {}
        """{step: handle} of what is done and still needed."""
        self.outcome: Outcome | None = None
        self.error: object = None
        self._timeout = timeout
        self._traced = traced
        self._state = dict.fromkeys(plan.steps, StepState.WAITING)
        self._missing = {name: len(others) for name, others in plan.deps.items()}
        self._readers = {name: len(others) for name, others in plan.dependants.items()}
        self._to_do = Counter(plan.depth.values())  # by depth
        self._in_state = Counter({StepState.WAITING: len(plan.steps)})
        self._levels_done = 0
        self._returned = frozenset(plan.outputs)
        self._attempts: dict[str, int] = {}
        self._deadlines: list[tuple[float, str]] = []  # a heap; "" is the whole request's. Old ones are skipped.
        self._failed_step = ""
        self._story: deque[tuple[str, StepState, StepTurn]] = deque(maxlen=_STORY_MOVES)

    def __repr__(self) -> str:
        states = ", ".join(f"{count} {state.lower()}" for state, count in self._in_state.items() if count)
        return f"<GraphRun {self.request_id} [{states or 'no steps'} | {self.outcome or 'under way'}]>"

    def state(self, step: str) -> StepState:
        return self._state[step]

    @property
    def done(self) -> bool:
        return self.outcome is not None

    @property
    def levels_done(self) -> int:
        """How many levels are whole: those of depth 0 to one less."""
        return self._levels_done

    @property
    def failed_step(self) -> str:
        """The step that failed first; empty when none did."""
        return self._failed_step

    def results(self) -> dict[str, object]:
        """{step: handle} of what the request returns, in its order, as far as it is done."""
        return {name: self.values[name] for name in self.plan.outputs if name in self.values}

    # -- what happens -------------------------------------------------------------------------------------------------

    def begin(self, now: float) -> list[RunEvent]:
        """To be called once, first."""
        if self._timeout is not None:
            heapq.heappush(self._deadlines, (now + self._timeout, ""))
        events: list[RunEvent] = []
        for name, missing in self._missing.items():
            if not missing:
                events.append(self._queue(name, now))
        return events if events else self._end("done", now)

    def started(self, step: str, now: float, node: str = "") -> list[RunEvent]:
        """`step` runs on `node`. Need not be said when `finished` or `failed` can be said at once."""
        if not self._move(step, StepTurn.START):
            return []
        inputs = tuple(self.plan.places(step).items()) if self._traced else ()
        return [StepStarted(self.request_id, step, now, node, inputs)]

    def finished(
        self, step: str, value: object, now: float, node: str = "", nbytes: int = 0, took_s: float | None = None
    ) -> list[RunEvent]:
        """`step` is done; `value` is a handle. With `took_s`, a start that was not reported is told from it."""
        events = self._late_start(step, now, node, took_s)
        if not self._move(step, StepTurn.FINISH):
            return []
        self.values[step] = value
        events.append(StepFinished(self.request_id, step, now, node, value, nbytes))
        self._to_do[self.plan.depth[step]] -= 1
        while self._levels_done < len(self.plan.levels) and not self._to_do[self._levels_done]:
            events.append(LevelDone(self.request_id, self._levels_done, now))
            self._levels_done += 1
        if not self._failed_step:
            for dependant in self.plan.dependants[step]:
                self._missing[dependant] -= 1
                if not self._missing[dependant]:
                    events.append(self._queue(dependant, now))
        self._release(step)
        return events + self._end_if_quiet(now)

    def failed(
        self, step: str, error: object, now: float, node: str = "", took_s: float | None = None
    ) -> list[RunEvent]:
        """`step` failed and is not to be tried again. `error`: an exception or a handle to one."""
        events = self._late_start(step, now, node, took_s)
        if not self._move(step, StepTurn.FAIL):
            return []
        events.append(StepFailed(self.request_id, step, now, node, error))
        if not self._failed_step:
            self._failed_step, self.error = step, error
            events += self._cancel_all((StepState.WAITING, StepState.QUEUED), now, step)
        return events + self._end_if_quiet(now)

    def lost(self, step: str, may_have_run: bool, error: object, now: float, node: str = "") -> list[RunEvent]:
        """The node that had `step` is gone. What has not run is called elsewhere; what may have run only if its
        `retries` allow it, and else it failed with `error`."""
        attempt = self._attempts.get(step, 0)
        if may_have_run and attempt >= self.plan.steps[step].retries:
            return self.failed(step, error, now, node)
        if self._failed_step and self._state[step] is not StepState.CANCELLED:
            return self.failed(step, error, now, node)  # nothing new is begun
        if not self._move(step, StepTurn.LOSE):
            return []
        self._attempts[step] = attempt + may_have_run
        return [StepQueued(self.request_id, step, now, self._attempts[step])]

    def cancel(self, now: float) -> list[RunEvent]:
        """End it now, whatever runs."""
        if self.done:
            return []
        self.error = self.error or TaskCancelledError(f"request {self.request_id} was cancelled")
        return self._cancel_all(_OPEN, now) + self._end("cancelled", now)

    # -- time ---------------------------------------------------------------------------------------------------------

    def next_deadline(self) -> float | None:
        """When `expire` has something to do; None: never, as things are."""
        while self._deadlines:
            at, step = self._deadlines[0]
            if not self.done and (not step or self._state[step] in _OPEN):
                return at
            heapq.heappop(self._deadlines)
        return None

    def expire(self, now: float) -> list[RunEvent]:
        """What has not been done in time ends the whole request with RequestTimeoutError, whatever runs."""
        at = self.next_deadline()
        if at is None or at > now:
            return []
        step = self._deadlines[0][1]
        events: list[RunEvent] = []
        if step:
            limit = self.plan.steps[step].timeout
            text = f"step {step!r} of request {self.request_id} was not done within {limit:g} s"
        else:
            limit = self._timeout
            open_steps = [name for name, state in self._state.items() if state in _UNDER_WAY]
            text = f"request {self.request_id} was not done within {limit:g} s; under way: {', '.join(open_steps)}"
        error = RequestTimeoutError(text)
        error.timeout_s, error.step = limit, step
        if step:
            self._move(step, StepTurn.FAIL)
            events.append(StepFailed(self.request_id, step, now, "", error))
        if not self._failed_step:
            self._failed_step, self.error = step, error
        return events + self._cancel_all(_OPEN, now, step) + self._end("timeout", now)

    # -- parts --------------------------------------------------------------------------------------------------------

    def _move(self, step: str, turn: StepTurn) -> bool:
        """Take the row of the table. False for news of what was cancelled, and after the end. Raises IllegalMove
        without a row."""
        if self.done:
            return False
        before = self._state[step]
        after = MOVES.get((before, turn))
        if after is None:
            story = "\n".join(f"  {state} -> {turn.value}" for name, state, turn in self._story if name == step)
            text = f"step {step!r} of request {self.request_id} is {before}, cannot take {turn.value!r}"
            raise IllegalMove(text, story)
        self._story.append((step, before, turn))
        if after is before:
            return before is not StepState.CANCELLED
        self._state[step] = after
        self._in_state[before] -= 1
        self._in_state[after] += 1
        return True

    def _queue(self, step: str, now: float) -> RunEvent:
        self._move(step, StepTurn.QUEUE)
        limit = self.plan.steps[step].timeout
        if limit is not None:
            heapq.heappush(self._deadlines, (now + limit, step))
        return StepQueued(self.request_id, step, now)

    def _late_start(self, step: str, now: float, node: str, took_s: float | None) -> list[RunEvent]:
        if took_s is None or self._state[step] is not StepState.QUEUED:
            return []
        return self.started(step, now - took_s, node)

    def _release(self, step: str) -> None:
        """Drop the values that `step` was the last to need."""
        for name in self.plan.deps[step]:
            self._readers[name] -= 1
            if not self._readers[name] and name not in self._returned:
                self.values.pop(name, None)

    def _cancel_all(self, states: Iterable[StepState], now: float, cause: str = "") -> list[RunEvent]:
        ended = [name for name, state in self._state.items() if state in states]
        for name in ended:
            self._move(name, StepTurn.CANCEL)
        return [StepCancelled(self.request_id, name, now, cause) for name in ended]

    def _end_if_quiet(self, now: float) -> list[RunEvent]:
        if any(self._in_state[state] for state in _OPEN):
            return []
        return self._end("failed" if self._failed_step else "done", now)

    def _end(self, outcome: Outcome, now: float) -> list[RunEvent]:
        if self.done:
            return []
        self.outcome = outcome
        return [RunDone(self.request_id, now, outcome, self._failed_step, self.error)]


_UNDER_WAY: Final = frozenset({StepState.QUEUED, StepState.RUNNING})
_OPEN: Final = _UNDER_WAY | {StepState.WAITING}
