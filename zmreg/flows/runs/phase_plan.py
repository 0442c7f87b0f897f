"""A phase, looked over before anything runs: what it waits for, how it is called, and by what it is known again."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

from zmreg.api.caching import remembered
from zmreg.api.functions import BoundCall, RemoteFunction
from zmreg.api.options import check_task_options
from zmreg.api.prints import digest_of, print_of
from zmreg.api.refs import ObjectRef
from zmreg.core.fingerprints import combined
from zmreg.core.iterations import items_of
from zmreg.core.thresholds import check_threshold
from zmreg.flows.pipelines.pipeline import Pipeline
from zmreg.flows.requests.lowering import Graph
from zmreg.flows.runs.outputs import STORAGES
from zmreg.flows.runs.phase_calls import PhaseContext, Wants, plain_function, remote_phase, wants_of
from zmreg.flows.runs.phase_work import kind_of
from zmreg.flows.runs.phases import Phase, RunOptions
from zmreg.model.errors import PhaseError
from zmreg.model.policy import DEAD_LETTER, check

_SERVES: Final = ("timeout", "retries", "backoff", "retry_on", "on_error", "cache", "concurrency")
_DEFAULTS: Final = {field: getattr(Phase("", None), field) for field in _SERVES}
_WISHES: Final = ("num_cpus", "num_gpus", "resources")


class Prepared:
    """A phase that makes sense by itself."""

    def __init__(self, phase: Phase, config: Mapping[str, Any], deps: tuple[str, ...]) -> None:
        self.phase = phase
        self.name = phase.name
        self.config = dict(config)
        self.deps = deps
        self.kind = kind_of(phase.fn)
        self._function, came_with = plain_function(phase.fn)
        wishes = {name: value for name in _WISHES if (value := getattr(phase, name)) is not None}
        self._options = {**came_with, **(phase.options or {}), **wishes, "name": phase.name}
        if phase.locs:
            self._options["locs"] = tuple(phase.locs)
        self._options.pop("cache", None)
        self._items: list[Any] | None = None
        self.writes = not phase.record
        """Whether its results are no rows of the sink: its function writes there itself, or it was told so."""
        if self.kind == "call":
            check_task_options(self._options)

    def look_over(self) -> None:
        """Raises PhaseError for what cannot be called. Items that are known only later are looked at then."""
        each = self.phase.foreach
        later = callable(each) or (isinstance(each, str) and each in self.deps)
        if each is not None and not later:
            self._items = items_of(each, self.name)
        if self.kind == "call" and not later:
            self.writes = not self.phase.record or self._wants(_fields(self._items)).has_sink

    def _wants(self, fields: frozenset[str] | None) -> Wants:
        return wants_of(self._function, self.name, self.deps, self.config, fields)

    def context(self, run_id: str, refs: Mapping[str, ObjectRef[Any] | None], sink: Any) -> PhaseContext:
        """What it is given."""
        inherit = self.phase.inherit_from or ""
        return PhaseContext(run_id, self.name, self.config, refs, inherit, sink)

    def items(self, context: PhaseContext) -> list[Any] | None:
        """What it runs for each of; None: it runs once. Raises PhaseError, and what a function for it raises."""
        each = self.phase.foreach
        if each is None or self._items is not None:
            return self._items
        if isinstance(each, str):
            return items_of(context.result(each), self.name)
        return items_of(each(context), self.name)

    def caller(
        self, refs: Mapping[str, ObjectRef[Any]], items: Sequence[Any] | None
    ) -> Callable[[PhaseContext], ObjectRef[Any]]:
        """How one call is made: by a task that is given what the parameters of the function name."""
        wants = self._wants(_fields(items))
        self.writes = not self.phase.record or wants.has_sink
        remote: RemoteFunction[..., Any] = remote_phase(self._function, wants, self._options)
        direct = [refs.get(dep) for dep in wants.deps]
        if not self.phase.cache:
            return lambda context: remote.remote(context, *direct)
        inputs = {dep: digest_of(refs[dep]) if dep in refs else b"" for dep in self.deps}
        base = {"run": self._own_key(), **{f"input {dep}": digest for dep, digest in inputs.items()}}

        def call(context: PhaseContext) -> ObjectRef[Any]:
            key = combined({**base, "item": print_of((context.index is not None, context.item))})
            return remembered(key, lambda: remote.remote(context, *direct))

        return call

    def _own_key(self) -> bytes:
        fn = self.phase.fn
        graph = Graph.from_bound(fn) if isinstance(fn, BoundCall) else fn
        code = (graph.steps, graph.functions) if isinstance(graph, Graph) else graph
        if isinstance(graph, Pipeline):
            code = graph.written  # beside it there are plans, which are made when it runs
        parts = {"code": code, "config": self.config, "inherit": self.phase.inherit_from or ""}
        return combined({name: print_of(part) for name, part in parts.items()})

    def key(self, keys_of_deps: Mapping[str, str]) -> str:
        """By what it is known again, hex: its code, its configuration, and the keys of what it depends on. Raises
        SerializationError."""
        rules = (self.phase.foreach, self.phase.when, self.phase.on_error)
        deps = {dep: keys_of_deps[dep] for dep in self.deps}
        return combined({"own": self._own_key(), "rules": print_of(rules), "deps": print_of(deps)}).hex()


def prepare(phase: Phase, options: RunOptions) -> Prepared:
    """Raises PhaseError, and TypeError and ValueError for options that no task can have."""
    if not isinstance(phase, Phase):
        raise PhaseError(f"{phase!r:.80} is no phase: write zmreg.Phase('name', function)")
    if not isinstance(phase.name, str) or not phase.name:
        raise PhaseError(f"a phase has a name, a string that is not empty, and not {phase.name!r}")
    if phase.policy is not None:
        # What a phase says itself goes before: a field that is not as it is by default.
        said = phase.policy.said(f"phase {phase.name!r}", _SERVES)
        phase = phase.but(policy=None, **{f: v for f, v in said.items() if getattr(phase, f) == _DEFAULTS[f]})
    if isinstance(phase.depends_on, str):
        raise PhaseError(f"phase {phase.name!r}: depends_on={phase.depends_on!r}: write a list, [{phase.depends_on!r}]")
    deps = tuple(dict.fromkeys((*phase.depends_on, *([phase.inherit_from] if phase.inherit_from else []))))
    prepared = Prepared(phase, {**(options.get("config") or {}), **(phase.config or {})}, deps)
    _check(prepared, options)
    prepared.look_over()
    return prepared


def _check(prepared: Prepared, options: RunOptions) -> None:
    phase = prepared.phase
    where = f"phase {phase.name!r}"
    if not prepared.kind:
        raise PhaseError(f"{where}: fn={phase.fn!r:.80} is no function, no request and no pipeline")
    if phase.storage not in STORAGES:
        raise PhaseError(f"{where}: storage={phase.storage!r}: write one of {', '.join(map(repr, STORAGES))}")
    if phase.storage == "disk" and options.get("id") is None:
        raise PhaseError(f"{where}: storage='disk' needs a run with a name: zmreg.run(..., id=...)")
    check(phase, where, PhaseError)
    if phase.on_error == DEAD_LETTER:
        raise PhaseError(f"{where}: on_error={phase.on_error!r}: write 'raise' or 'skip'")
    if prepared.kind == "request" and phase.foreach is not None:
        raise PhaseError(f"{where}: foreach is for functions and pipelines; a request runs once")
    if prepared.kind != "call" and (phase.cache or phase.retries):
        raise PhaseError(f"{where}: cache and retries are for functions; steps and stages have their own")
    if isinstance(phase.when, Mapping):
        check_threshold(phase.when, phase.name, prepared.deps)
    elif phase.when is not None and not callable(phase.when):
        raise PhaseError(f"{where}: when={phase.when!r:.80}: write a function of the context, or bounds as in "
                         "{'signals.sharpe': {'>': 1}}; text is not evaluated")  # fmt: skip


def _fields(items: Sequence[Any] | None) -> frozenset[str] | None:
    """Keys of items that are mappings; None: it runs once."""
    if items is None:
        return None
    first = items[0] if items else None
    return frozenset(key for key in first if isinstance(key, str)) if isinstance(first, Mapping) else frozenset()
