"""What a phase has under way: calls on workers, a request, or a pipeline. The thread that drives the run holds these.

Nothing here waits: whatever ends says so to `report`, from any thread, and the driving thread then calls `land`.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, Protocol

from zmreg.api.cluster import put
from zmreg.api.functions import BoundCall, RemoteFunction
from zmreg.api.refs import ObjectRef
from zmreg.core.live_table import Line
from zmreg.core.phases import RUNNING
from zmreg.flows.requests.lowering import Graph
from zmreg.flows.requests.request import Run, start_request
from zmreg.flows.runs.phase_calls import INHERITED, PhaseContext, listed
from zmreg.model.graphs import Lit, Step
from zmreg.model.policy import pause_s

# Items of one phase that are under way at once, unless it says how many: what is behind them costs nothing meanwhile.
MOST_AT_ONCE: Final = 256
_WHOLE: Final = -1
"""The index under which the list of all results lands."""

Report = Callable[[int, Any], None]
"""`report(index, what)`: a ref that is done, a request that has ended, or a value or an error of a thread."""


class Work(Protocol):
    """`output` is a ref once it is over without `error`. `errors`: {index: error} of items that were left out."""

    over: bool
    output: ObjectRef[Any] | None
    error: BaseException | None

    def start(self) -> None:
        """Begin."""

    def land(self, index: int, what: Any) -> None:
        """What was reported."""

    def lines(self, name: str) -> list[Line]:
        """How far it is, under that name. From any thread."""

    def cancel(self) -> None:
        """Nothing more of it is wanted."""


class Terms:
    """How often and how soon a call is made again, and what happens when it has failed for good."""

    def __init__(self, retries: int, retry_on: tuple[type[BaseException], ...], backoff_s: float, skips: bool) -> None:
        self.retries = retries
        self.retry_on = retry_on
        self.backoff_s = backoff_s
        self.skips = skips

    def again_after(self, error: BaseException, attempts: int) -> float | None:
        """Seconds until it is called again; None when it is not. `attempts`: how often it was called."""
        if attempts > self.retries or (self.retry_on and not isinstance(error, self.retry_on)):
            return None
        return pause_s(self.backoff_s, attempts, random.random())


class Calls:
    """One call, or one for each item."""

    def __init__(
        self, remote: Callable[[PhaseContext], ObjectRef[Any]], contexts: list[PhaseContext], terms: Terms,
        at_once: int | None, hands: tuple[Report, Callable[[float, Callable[[], None]], None], Callable[..., None]],
        done: Mapping[int, ObjectRef[Any]],
    ) -> None:  # fmt: skip
        """`hands`: report; later(seconds, call), which calls on the driving thread; note(index, ref), told of each
        result: what it raises fails all of it. `done`: results that are there by now, {index: ref}."""
        self.over = False
        self.output: ObjectRef[Any] | None = None
        self.error: BaseException | None = None
        self.errors: dict[int, BaseException] = {}
        self.results: dict[int, ObjectRef[Any]] = dict(done)
        self._remote = remote
        self._contexts = contexts
        self._terms = terms
        self._at_once = at_once or MOST_AT_ONCE
        self._report, self._later, self._note = hands
        self._next = 0
        self._attempts: dict[int, int] = {}
        self._under_way: dict[int, ObjectRef[Any]] = {}
        self._pausing: set[int] = set()
        self._whole: ObjectRef[Any] | None = None

    @property
    def _single(self) -> bool:
        return len(self._contexts) == 1 and self._contexts[0].index is None

    def start(self) -> None:
        """Call as many as may be under way."""
        while self._next < len(self._contexts) and len(self._under_way) + len(self._pausing) < self._at_once:
            index, self._next = self._next, self._next + 1
            if index in self.results:
                continue
            self._call(index)
            if self.over:
                return
        if self._next >= len(self._contexts) and not self._under_way and not self._pausing:
            self._finish()

    def _call(self, index: int) -> None:
        self._pausing.discard(index)
        if self.over:
            return
        self._attempts[index] = self._attempts.get(index, 0) + 1
        try:
            ref = self._remote(self._contexts[index])
        except Exception as error:  # noqa: BLE001  what cannot be sent will not be sendable later
            self._fail(error)
            return
        self._under_way[index] = ref
        ref.add_done_callback(lambda done: self._report(index, done))

    def land(self, index: int, what: Any) -> None:
        """A call has ended, or the list of all results is there."""
        if self.over:
            return
        if index == _WHOLE:
            self._ended(what)
            return
        ref = self._under_way.pop(index)
        error = ref.exception() if ref.failed() else None
        if error is None:
            try:
                self._note(self._contexts[index].index, ref)
            except Exception as reason:  # noqa: BLE001  it is no row of the sink, or that is gone: the phase fails
                self._fail(reason)
                return
            self.results[index] = ref
        else:
            pause = self._terms.again_after(error, self._attempts[index])
            if pause is not None:
                self._pausing.add(index)
                self._later(pause, lambda: self._call(index))
            elif self._terms.skips and not self._single:
                self.errors[index] = error
            else:
                self._fail(error)
                return
        self.start()

    def _finish(self) -> None:
        refs = [self.results[index] for index in sorted(self.results)]
        if self._single:
            self._ended(refs[0])
        elif all(ref.meta.state == "inline" for ref in refs):
            self._ended(put([ref.get() for ref in refs]))
        elif self._whole is None:  # large ones are put together where they are, and not here
            self._whole = RemoteFunction(listed, {"num_cpus": 0, "name": "results"}).remote(*refs)
            self._whole.add_done_callback(lambda done: self._report(_WHOLE, done))

    def _ended(self, ref: ObjectRef[Any]) -> None:
        self.over = True
        if ref.failed():
            self.error = ref.exception()
        else:
            self.output = ref

    def _fail(self, error: BaseException) -> None:
        self.error = error
        self.cancel()

    def lines(self, name: str) -> list[Line]:
        """One: of a single call that it runs, of several how many there are and how many are done."""
        if self._single:
            return [Line(name, RUNNING)]
        done, left_out = len(self.results), len(self.errors)
        under_way = len(self._under_way) + len(self._pausing)
        return [Line(name, RUNNING, done + left_out, done, under_way, total=len(self._contexts))]

    def cancel(self) -> None:
        """Cancel what is under way."""
        self.over = True
        for ref in self._under_way.values():
            ref.cancel()
        if self._whole is not None:
            self._whole.cancel()
        self._under_way.clear()
        self._pausing.clear()


class Request:
    """A graph of steps. Dependencies, `config` and `inherited_data` are steps in it, too, for whoever names them; its
    output is {step: value} of its own steps that nobody else takes."""

    def __init__(self, steps: Graph | BoundCall | Iterable[Any], context: PhaseContext, report: Report) -> None:
        self.over = False
        self.output: ObjectRef[Any] | None = None
        self.error: BaseException | None = None
        written = Graph.from_bound(steps) if isinstance(steps, BoundCall) else steps
        functions = written.functions if isinstance(written, Graph) else None
        own = list(written.steps if isinstance(written, Graph) else written)
        self._own = {step.name if isinstance(step, Step) else step[0] for step in own}
        self._graph = Graph([*_inputs(context, self._own), *own], functions)
        self._report = report
        self._run: Run | None = None

    def start(self) -> None:
        """Begin, on a thread of its own."""
        self._run = run = start_request(self._graph)
        run.when_done(lambda: self._report(0, run))

    def land(self, index: int, what: Any) -> None:
        """It has ended."""
        if self.over:
            return
        self.over = True
        try:
            values = {name: value for name, value in what.result(0).items() if name in self._own}
        except Exception as error:  # noqa: BLE001  its outcome, whatever it is
            self.error = error
        else:
            self.output = put(values)

    def lines(self, name: str) -> list[Line]:
        """One: how many of its steps are done."""
        states = list(self._run.states().values()) if self._run is not None else []
        done = states.count("DONE")
        return [Line(name, RUNNING, done, done, states.count("RUNNING"), total=len(states) or None)]

    def cancel(self) -> None:
        """End it."""
        self.over = True
        if self._run is not None:
            self._run.cancel()


def _inputs(context: PhaseContext, taken: set[str]) -> list[Step]:
    """A step for each thing of the context that the steps may name, and do not call one of their own so."""
    given: dict[str, Any] = {phase: context.ref(phase) for phase in context.results()}
    given["config"] = Lit(context.config)
    if INHERITED in context:
        given[INHERITED] = Lit(context[INHERITED])
    return [Step(name, "echo", (Lit(None) if value is None else value,)) for name, value in given.items()
            if name not in taken]  # fmt: skip


class Stream:
    """A pipeline, or whatever has `collect`: it is given the items, or what the phase depends on, item by item."""

    def __init__(self, pipeline: Any, items: list[Any] | None, report: Report) -> None:
        self.over = False
        self.output: ObjectRef[Any] | None = None
        self.error: BaseException | None = None
        self._pipeline = pipeline
        self._items = items
        self._report = report
        self._outputs: Any = None
        self._stopped = threading.Event()

    def start(self) -> None:
        """Begin, on a thread of its own."""
        threading.Thread(target=self._go, name="zmreg-phase", daemon=True).start()

    def _go(self) -> None:
        try:
            made: Any = self._collected()
        except BaseException as error:  # noqa: BLE001  it is the outcome of the phase
            made = error
        self._report(0, made)

    def _collected(self) -> list[Any]:
        given = () if self._items is None else (self._items,)
        stream = getattr(self._pipeline, "stream", None)
        if stream is None:
            return list(self._pipeline.collect(*given))
        found = []
        self._outputs = outputs = stream(*given)
        try:
            for each in outputs:
                found.append(each)
                if self._stopped.is_set():
                    break
        finally:
            close = getattr(outputs, "close", None)
            if close is not None:
                close()
        return found

    def land(self, index: int, what: Any) -> None:
        """It has ended."""
        if self.over:
            return
        self.over = True
        if isinstance(what, BaseException):
            self.error = what
        else:
            self.output = put(what)

    def lines(self, name: str) -> list[Line]:
        """One for each stage, under the phase's own."""
        stages = getattr(self._outputs, "lines", tuple)
        return [Line(name, RUNNING), *(each.but(name=f"{name}/{each.name}") for each in stages())]

    def cancel(self) -> None:
        """It ends at its next item."""
        self.over = True
        self._stopped.set()


def kind_of(fn: Any) -> str:
    """ "stream", "request", "call", or "" for what is no work."""
    if not isinstance(fn, type) and callable(getattr(fn, "collect", None)):
        return "stream"
    if isinstance(fn, Graph | BoundCall) or (isinstance(fn, list | tuple) and fn):
        return "request"
    return "call" if callable(fn) or isinstance(fn, RemoteFunction) else ""


def items_for(context: PhaseContext, items: list[Any] | None, config: Mapping[str, Any]) -> list[Any] | None:
    """What a pipeline is given: the items of `foreach`, else what it inherits, else the output of the one phase that it
    depends on, else `items` of its configuration; None when there is nothing: its source makes them."""
    if items is not None:
        return items
    if INHERITED in context:
        return list(context[INHERITED])
    phases = context.results()
    if len(phases) == 1:
        return list(context.result(phases[0]) or ())
    return list(config["items"]) if "items" in config else None
