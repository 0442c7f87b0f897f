"""Requests: many named calls that use each other's values, written down once and run wherever what they need is."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from typing import Any, TypeVar, Unpack

from zmreg.api.functions import BoundCall
from zmreg.api.refs import notified
from zmreg.core.graphs import Plan
from zmreg.flows.requests import drawing
from zmreg.flows.requests.driving import Drive
from zmreg.flows.requests.lowering import Graph, lowered
from zmreg.flows.requests.options import Options, RequestOptions, options_of
from zmreg.flows.requests.trace import NOTHING, ExecutionSummary, LevelRecord, Trace
from zmreg.model.arguments import check_seconds
from zmreg.model.errors import GetTimeoutError
from zmreg.model.graphs import StepLike

R = TypeVar("R")
Steps = Iterable[StepLike] | Graph | BoundCall


def request(steps: Steps, **options: Unpack[RequestOptions]) -> GraphResult:
    """Run steps, and return {name: value} of those whose values no other step takes.

    `steps`: `Step`s or tuples of their first fields, in any order; a `Graph`, or a call that was bound. A text among
    their arguments that is another step's name stands for that step's value. `options`: see `RequestOptions`.
    Nothing runs before all of it makes sense and somebody serves each function. Raises GraphError, CycleError,
    DuplicateStepError, FunctionNotFoundError, NoRouteError; what a step failed with, as TaskError, with `.step`,
    `.node`, `.arg_previews`, `.reproduce()` and, when intermediate results are kept, those; TimeoutError.
    """
    drive = _drive(steps, options_of(options))
    drive.go()
    return GraphResult(drive.values(), drive)


async def arequest(steps: Steps, **options: Unpack[RequestOptions]) -> GraphResult:
    """`request` for coroutines. Cancelling whoever awaits it cancels the request."""
    run = Run(_drive(steps, options_of(options)))
    try:
        await notified(run.when_done)
    except BaseException:
        run.cancel()
        raise
    return run.result()


def start_request(steps: Steps, **options: Unpack[RequestOptions]) -> Run:
    """Have a request run on a thread of its own. It is traced, so that it can be looked at while it runs, and keeps
    all values as long as somebody has the `Run`. Raises what is wrong with the steps; the rest comes from `result`."""
    return Run(_drive(steps, options_of(options, kept=True)))


def _drive(steps: Steps, options: Options) -> Drive:
    plan, local = lowered(steps, options.keep)
    return Drive(plan, options, local)


class Views:
    """What can be told of a request, while it runs and afterwards. Empty when it was not traced."""

    trace: Trace | None
    _plan: Plan

    def report(self) -> str:
        """Each level that is whole, with its time and its values, cut at 50 characters."""
        return self.trace.report() if self.trace is not None else NOTHING

    def bottlenecks(self) -> dict[str, Any]:
        """The slowest level and steps, and the chain of steps that decided when the run ended."""
        return self.trace.bottlenecks() if self.trace is not None else {}

    def dependency_trace(self) -> list[dict[str, Any]]:
        """Of each level that is whole: which steps it added and from what, how many there are, who could go on."""
        return self.trace.dependency_trace() if self.trace is not None else []

    def timeline(self) -> list[dict[str, Any]]:
        """One row for each step that was queued: when, when it started and ended, and where. Seconds since the run
        began."""
        return self.trace.timeline() if self.trace is not None else []

    def chrome_trace(self) -> list[dict[str, Any]]:
        """Events for chrome://tracing and Perfetto: `json.dump(run.chrome_trace(), file)`."""
        return self.trace.chrome_trace() if self.trace is not None else []

    def states(self) -> dict[str, str]:
        """{step: WAITING, QUEUED, RUNNING, DONE, FAILED or CANCELLED}."""
        return self.trace.states() if self.trace is not None else {}

    def to_mermaid(self) -> str:
        """The graph, coloured by state."""
        return drawing.to_mermaid(self._plan, self.states())

    def to_dot(self) -> str:
        """The graph for Graphviz, coloured by state."""
        return drawing.to_dot(self._plan, self.states())

    def _repr_html_(self) -> str:
        import html  # late: for notebooks alone

        picture = drawing.to_svg(self._plan, self.states())
        return f"<div><code>{html.escape(repr(self))}</code><br>{picture}</div>"

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self._repr_html_(), "text/vnd.mermaid": self.to_mermaid()}


class GraphResult(dict[str, Any], Views):
    """{step: value} of what a request returns, and what can be told of how it went."""

    def __init__(self, values: Mapping[str, Any], drive: Drive) -> None:
        super().__init__(values)
        self.request_id = drive.request_id
        self.trace = drive.teller.trace
        self.arg_previews = drive.teller.arg_previews
        """{step: {"args[0]": what it was called with}}, in debug mode."""
        self._plan = drive.plan
        self._options = drive.options

    @property
    def r(self) -> GraphResult:
        """Itself."""
        return self

    @property
    def intermediate_results(self) -> tuple[LevelRecord, ...]:
        """One record a level; empty when they were not asked for."""
        return tuple(self.trace.records) if self.trace is not None and self._options.has_levels else ()

    @property
    def execution_summary(self) -> ExecutionSummary | None:
        """Where the time went; None when that was not asked for."""
        return self.trace.summary() if self.trace is not None and self._options.has_summary else None

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (dict(self),)  # what goes to others is the values


class Run(Views):
    """A request that runs on a thread of its own, or has run."""

    def __init__(self, drive: Drive) -> None:
        self.request_id = drive.request_id
        self.trace = drive.teller.trace
        self._plan = drive.plan
        self._drive = drive
        self._outcome: GraphResult | BaseException | None = None
        self._over = threading.Event()
        self._guard = threading.Lock()
        self._waiting: list[Callable[[], None]] = []
        context = contextvars.copy_context()  # its calls are made for who has started it: traces lead there
        name = f"zmreg-request-{self.request_id}"
        threading.Thread(target=context.run, args=(self._go,), name=name, daemon=True).start()

    def _go(self) -> None:
        try:
            self._drive.go()
            self._outcome = GraphResult(self._drive.values(), self._drive)
        except BaseException as error:  # noqa: BLE001  it is raised where the result is asked for
            self._outcome = error
        with self._guard:
            self._over.set()
        for wake in self._waiting:
            wake()

    def when_done(self, wake: Callable[[], None]) -> None:
        """Call `wake`, from any thread, once it has ended in whatever way."""
        with self._guard:
            if not self._over.is_set():
                self._waiting.append(wake)
                return
        wake()

    def done(self) -> bool:
        """Whether it has ended, in whatever way."""
        return self._over.is_set()

    def result(self, timeout: float | None = None) -> GraphResult:
        """As `request` returns or raises; waits for it, at most `timeout` seconds, then GetTimeoutError."""
        check_seconds(timeout, past=True)
        if not self._over.wait(timeout and min(timeout, threading.TIMEOUT_MAX)):
            raise GetTimeoutError(f"request {self.request_id} was not done within {timeout} s; it goes on", timeout)
        if isinstance(self._outcome, GraphResult):
            return self._outcome
        assert self._outcome is not None
        raise self._outcome

    def cancel(self) -> None:
        """End it: calls that run are cancelled, and `result` raises TaskCancelledError. Nothing if it has ended."""
        self._drive.cancel()

    def levels(self) -> Levels:
        """The records of its levels as they come, for `for` and `async for`. They end with the run; whether it failed,
        `result` tells."""
        return Levels(self._drive)

    def summary(self) -> ExecutionSummary | None:
        """Where the time went up to now; None when it is not traced."""
        return self.trace.summary() if self.trace is not None else None

    def __await__(self) -> Iterator[Any]:
        return self._awaited().__await__()

    async def _awaited(self) -> GraphResult:
        await notified(self.when_done)
        return self.result()

    def __repr__(self) -> str:
        return f"<Run {self._drive.run!r}>"


class Levels:
    """See `Run.levels`."""

    def __init__(self, drive: Drive) -> None:
        self._teller = drive.teller

    def __iter__(self) -> Iterator[LevelRecord]:
        index = 0
        while True:
            there = threading.Event()
            self._teller.when_level(index, there.set)
            there.wait()
            record = self._teller.level(index)
            if record is None:
                return
            yield record
            index += 1

    async def __aiter__(self) -> AsyncIterator[LevelRecord]:
        index = 0
        while True:
            await notified(lambda wake: self._teller.when_level(index, wake))  # noqa: B023  it is over when that goes on
            record = self._teller.level(index)
            if record is None:
                return
            yield record
            index += 1
