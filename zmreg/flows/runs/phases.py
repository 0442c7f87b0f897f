"""Runs: named phases that use each other's outputs, each of them a function, a request or a pipeline; kept in a journal
when the run has an id, so that what is done need not be done again.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, TypedDict, Unpack

from zmreg.core.phases import COMPLETED, FAILED, HAS_OUTPUT, SKIPPED, Place
from zmreg.core.phases import distribute as _distribute
from zmreg.model.errors import PhaseError
from zmreg.model.phase_events import PhaseChanged
from zmreg.model.policy import Policy
from zmreg.model.record import Wish

if TYPE_CHECKING:
    from zmreg.api.refs import ObjectRef
    from zmreg.flows.runs.phase_drive import PhaseDrive


class Phase(Wish):
    """One named part of a run.

    `fn`: a function, remote or not, which runs as a task; a `Graph`, a bound call or a list of `Step`s; or a pipeline.
    A function's parameters are called after what they take: a dependency or `{dependency}_results`, a key of `config`
    or of the item, `config`, `inherited_data`, `sink`, `item`, `index`; one of another name takes the item, else the
    context, a mapping with all of these.
    """

    name: str
    fn: Any
    depends_on: Collection[str] = ()
    inherit_from: str | None = None
    """A phase, which it then depends on too: the `output` of its result is `inherited_data`."""
    config: Mapping[str, Any] | None = None
    when: Callable[[Any], object] | Mapping[str, Mapping[str, object]] | None = None
    """Called with the context, here; not true: the phase is skipped. Or bounds: {"signals.sharpe": {">": 1}}."""
    foreach: Any = None
    """It runs once for each: an iterable, the name of a dependency, a function of the context, {"grid": {"a": [...]}},
    {"windows": {"over", "size", "step"}} or {"k_fold": {"over", "k"}}. Its output is the list of results, in order."""
    required: bool = True
    """Whether its failure fails the run and what depends on it; if not, these go on, with None for its result."""
    storage: str = "hybrid"
    """Of a run with an id, where its output is kept: "disk", in a file; "hybrid": in one from 1 MiB, else in the
    journal; "memory": nowhere, so that it runs again on resume."""
    cache: bool = False
    """Whether the output of an equal call (code, configuration, and contents of dependencies) will do, if the cluster
    has one."""
    timeout: float | None = None
    """Seconds from its start until all of it has to be done."""
    retries: int = 0
    """How often a call may be made again after it raised."""
    retry_on: type[BaseException] | tuple[type[BaseException], ...] = ()
    """Only after these; (): after any."""
    backoff: float = 0.0
    """Seconds before the second call, twice as many before each further one, 30 at most; a quarter more or less."""
    on_error: str = "raise"
    """With `foreach`: "raise", or "skip" to leave out items that fail; `RunResult.item_errors` has their errors."""
    concurrency: int | None = None
    """How many items may be under way at once; None: 256."""
    policy: Policy | None = None
    """Those of the above that are its, for all that is not said here."""
    locs: Collection[str] = ()
    num_cpus: float | None = None
    num_gpus: float | None = None
    resources: Mapping[str, float] | None = None
    options: Mapping[str, Any] | None = None
    """Further options of its tasks, as `zmreg.remote` has them."""
    record: bool = True
    """Whether its results, those that are mappings, are rows of the run's sink."""


class RunOptions(TypedDict, total=False):
    """What `zmreg.run` takes beside the phases."""

    id: str | None
    """Its name, and its folder's. None: a random one, and nothing is kept on the disk."""
    resume: bool
    """Whether phases are left as they are that an earlier run with this id has done with the same code, configuration
    and inputs."""
    folder: str | os.PathLike[str] | None
    """Where the folders of runs are; None: $ZMREG_RUNS, else `zmreg-runs` in the working directory."""
    keep: bool
    """Whether outputs and journal are still there after the run; True unless given."""
    config: Mapping[str, Any] | None
    """For all phases; what a phase has in its own comes first."""
    sink: Any
    """A `zmreg.Sink`: results that are mappings are written to it as they come. It is closed with the run."""
    on_result: Callable[[dict[str, Any]], object] | None
    """Called here with {"phase", "index", "result"} of each result. What it raises is logged."""
    on_phase: Callable[[PhaseChanged], object] | None
    """Called here with each change of a phase. What it raises is logged."""
    watch: bool
    """Whether a table of the phases is shown meanwhile: on stderr, or below the cell."""
    concurrency: int | None
    """How many phases may run at once; None: all that are ready."""
    timeout: float | None
    """Seconds for all of it; then it is cancelled."""
    functions: Mapping[str, Callable[..., Any]] | None
    """Names that a declaration may use for functions, beside "package.module:function"."""


class Outputs(Mapping[str, Any]):
    """{phase: output} of those that have one. A value is fetched when it is read; `ref` gives where it is."""

    def __init__(self, refs: Mapping[str, ObjectRef[Any]]) -> None:
        self._refs = dict(refs)

    def __getitem__(self, phase: str) -> Any:
        return self._refs[phase].get()

    def ref(self, phase: str) -> ObjectRef[Any]:
        """A ref to it; nothing is fetched. KeyError when there is none."""
        return self._refs[phase]

    def __iter__(self) -> Iterator[str]:
        return iter(self._refs)

    def __len__(self) -> int:
        return len(self._refs)

    def __repr__(self) -> str:
        return f"<Outputs {', '.join(self._refs) or 'none'}>"


class RunResult:
    """How a run went. `result["phase"]` is that phase's output, or raises what it failed with."""

    def __init__(self, drive: PhaseDrive) -> None:
        machine = drive.machine
        self.id: str = drive.run_id
        self.status: str = machine.status
        """"completed", "failed" (a required phase did) or "cancelled" (time ran out)."""
        self.states: dict[str, str] = dict(machine.states)
        """{phase: "done", "reused", "failed", "skipped" or "cancelled"}."""
        self.reasons: dict[str, str] = dict(machine.reasons)
        """Why each phase that did not get to its end did not."""
        self.errors: dict[str, BaseException] = dict(drive.errors)
        """{phase: what it failed with}."""
        self.item_errors: dict[str, dict[int, BaseException]] = dict(drive.item_errors)
        """{phase: {index: error}} of items that were left out."""
        self.outputs = Outputs({name: drive.refs[name] for name in machine.plan.order if name in drive.refs})
        self.partial: dict[str, dict[int, ObjectRef[Any]]] = dict(drive.partial)
        """{phase: {index: ref}} of phases that failed after some of their items were done."""
        self.seconds: dict[str, float] = dict(drive.seconds)
        """{phase: how long it took} of those that ran."""
        self.aggregated_results: Any = drive.aggregated
        """What the sink makes of all that was written to it; None without one."""

    @property
    def ok(self) -> bool:
        """Whether it is completed."""
        return self.status == COMPLETED

    @property
    def skipped(self) -> dict[str, str]:
        """{phase: why} of those that were skipped."""
        return {name: self.reasons.get(name, "") for name, state in self.states.items() if state == SKIPPED}

    @property
    def failed(self) -> dict[str, str]:
        """{phase: why} of those that failed."""
        return {name: self.reasons.get(name, "") for name, state in self.states.items() if state == FAILED}

    @property
    def reused(self) -> tuple[str, ...]:
        """Phases that an earlier run had done."""
        return tuple(name for name, state in self.states.items() if state == "reused")

    def __getitem__(self, phase: str) -> Any:
        if phase not in self.states:
            raise KeyError(f"run {self.id!r} has no phase {phase!r}; it has {', '.join(self.states)}")
        if self.states[phase] in HAS_OUTPUT:
            return self.outputs[phase]
        raise self._error(phase)

    def raise_for_status(self) -> RunResult:
        """Itself when it is completed; else PhaseError of the first phase that stands in the way."""
        if self.ok:
            return self
        bad = next((name for name, state in self.states.items() if state == FAILED and name in self.errors), "")
        raise self._error(bad or next(iter(self.reasons), next(iter(self.states))))

    def _error(self, phase: str) -> PhaseError:
        why = self.reasons.get(phase, "")
        error = PhaseError(f"phase {phase!r} of run {self.id!r} {_said(self.states[phase])}{f': {why}' if why else ''}")
        error.phase = phase
        error.__cause__ = self.errors.get(phase)
        return error

    def __repr__(self) -> str:
        counts = [f"{list(self.states.values()).count(state)} {state}" for state in dict.fromkeys(self.states.values())]
        return f"<RunResult {self.id} {self.status} [{', '.join(counts)}]>"


def _said(state: str) -> str:
    return "failed" if state == FAILED else f"was {state}"


def run(
    phases: Iterable[Phase] | Mapping[str, Any] | str | os.PathLike[str], **options: Unpack[RunOptions]
) -> RunResult:
    """Run phases, each as soon as all that it depends on is done, and say how it went.

    `phases`: `Phase`s in any order; or a declaration, as a mapping or a .toml, .yaml or .json file. `options`: see
    `RunOptions`. A phase that fails fails the run, `result.status`, and those that depend on it are skipped; the others
    go on. `result.raise_for_status()` raises instead.

    Raises PhaseError, before anything runs, for phases that make no sense, a run of this id that goes on, and slips in
    a declaration, with the path to each; TypeError and ValueError for options there are none of.
    """
    return _driven(_drive(phases, options))


async def arun(
    phases: Iterable[Phase] | Mapping[str, Any] | str | os.PathLike[str], **options: Unpack[RunOptions]
) -> RunResult:
    """`run` for coroutines: the event loop goes on meanwhile, and so do other runs that it waits for.

    Cancelling whoever awaits it cancels the run, and goes on when that has ended; cancelling once more does not wait.
    The run is driven by a thread of its own, which calls conditions, `on_result` and `on_phase`. Raises as `run`.
    """
    from zmreg.flows.runs.awaiting import driven_aside

    return await driven_aside(_drive(phases, options), _driven)


def _drive(phases: Iterable[Phase] | Mapping[str, Any] | str | os.PathLike[str], options: RunOptions) -> PhaseDrive:
    from zmreg.flows.runs.phase_drive import PhaseDrive

    known = RunOptions.__annotations__
    if options.keys() - known:
        from zmreg.model.hints import no_argument

        raise no_argument("zmreg.run", options, known)
    if isinstance(phases, Mapping | str | os.PathLike):
        from zmreg.flows.runs.declared import declared

        phases, options = declared(phases, options)
    if isinstance(phases, Phase):
        raise TypeError(f"zmreg.run takes a list of phases, not one: write [Phase({phases.name!r}, ...)]")
    return PhaseDrive(list(phases), options)


def _driven(drive: PhaseDrive) -> RunResult:
    if drive.options.get("watch"):
        from zmreg.flows.live.view import LiveView  # late: most are not watched

        with LiveView(drive.lines):
            drive.go()
    else:
        drive.go()
    return RunResult(drive)


def distribute_phases(
    phases: Iterable[Phase | str], workers: Iterable[str | Mapping[str, Any]]
) -> dict[str, list[str]]:
    """{worker: phases}: each phase, in order, goes to the least loaded worker that has all its locs.

    `workers`: names, or mappings with `name` (or `NodeID`, as `zmreg.nodes()` has it), `locs` and `load`. Raises
    PhaseError for a phase that nobody has the locs for.
    """
    wishes = [
        (each, frozenset[str]()) if isinstance(each, str) else (each.name, frozenset(each.locs)) for each in phases
    ]
    return _distribute(wishes, [_place(each) for each in workers])


def _place(worker: str | Mapping[str, Any]) -> Place:
    if isinstance(worker, str):
        return Place(worker)
    locs = worker.get("locs", worker.get("Locs", ()))
    return Place(str(worker.get("name") or worker.get("NodeID")), frozenset(locs), float(worker.get("load", 0.0)))
