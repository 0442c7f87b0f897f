"""How the function of a phase is called: what its parameters mean, and the call itself, where it runs."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from zmreg.api.functions import RemoteFunction
from zmreg.api.refs import ObjectRef
from zmreg.model.errors import PhaseError
from zmreg.model.record import Record

RESULTS: Final = "_results"
INHERITED: Final = "inherited_data"
CONTEXT: Final = ("ctx", "context")
# Parameters with a meaning of their own, beside those that are called after a dependency or a key of the configuration.
OWN: Final = (*CONTEXT, "config", "sink", "item", "index", INHERITED)
_ABSENT: Final = object()


class PhaseContext(Mapping[str, Any]):
    """What a phase is given, as a mapping: its configuration, `{dependency}_results`, `inherited_data`; and `item` and
    `index` when it runs for each of some items. Results are fetched when they are read.

    Of a dependency that has no output, since it may fail or was left out, the result is None.
    """

    def __init__(
        self,
        run_id: str,
        phase: str,
        config: Mapping[str, Any],
        results: Mapping[str, ObjectRef[Any] | None],
        inherit_from: str = "",
        sink: Any = None,
    ) -> None:
        self.run_id = run_id
        self.phase = phase
        self.config = dict(config)
        self.sink = sink
        self.item: Any = None
        self.index: int | None = None
        """Which of the items it runs for, from 0; None when it does not run for each of some."""
        self._results = dict(results)
        self._inherit_from = inherit_from
        self._keys = {*self.config, *(f"{name}{RESULTS}" for name in results)}
        if inherit_from:
            self._keys.add(INHERITED)

    def at(self, index: int, item: Any) -> PhaseContext:
        """The same for one item."""
        made = PhaseContext(self.run_id, self.phase, self.config, self._results, self._inherit_from, self.sink)
        made.index, made.item = index, item
        made._keys |= {"item", "index"}
        return made

    def result(self, phase: str) -> Any:
        """The output of a dependency. KeyError when it is none."""
        if phase not in self._results:
            raise KeyError(f"phase {self.phase!r} does not depend on {phase!r}; it depends on "
                           f"{', '.join(map(repr, self._results)) or 'none'}")  # fmt: skip
        ref = self._results[phase]
        return None if ref is None else ref.get()

    def results(self) -> tuple[str, ...]:
        """The phases that it depends on."""
        return tuple(self._results)

    def ref(self, phase: str) -> ObjectRef[Any] | None:
        """A ref to it; None when it has none."""
        return self._results[phase]

    def __getitem__(self, key: str) -> Any:
        if key not in self._keys:
            raise KeyError(f"phase {self.phase!r} is given no {key!r}; it is given {', '.join(sorted(self._keys))}")
        if key in self.config:
            return self.config[key]
        if key == INHERITED:
            return inherited(self.result(self._inherit_from))
        if key in ("item", "index"):
            return getattr(self, key)
        return self.result(key.removesuffix(RESULTS))

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._keys))

    def __len__(self) -> int:
        return len(self._keys)

    def __repr__(self) -> str:
        return f"<PhaseContext {self.run_id}/{self.phase} [{', '.join(self)}]>"


def inherited(result: Any) -> Any:
    """The `output` of a result that is a mapping, {} when it has none; any other result is its own output."""
    if result is None:
        return {}
    return result.get("output", {}) if isinstance(result, Mapping) else result


class Wants(Record):
    """How a function is called: for each parameter, in order, (name, whether by keyword, what it means).

    A meaning is ("dep", phase), ("own", name), ("key", key), ("field", key of the item) or ("subject",
    ""). What has a default and none of these names keeps its default; `*` and `**` take nothing.
    """

    parameters: tuple[tuple[str, bool, tuple[str, str]], ...]

    @property
    def deps(self) -> tuple[str, ...]:
        """Whose outputs go in directly."""
        return tuple(name for _, _, (kind, name) in self.parameters if kind == "dep")

    @property
    def has_sink(self) -> bool:
        """Whether it writes to the sink itself."""
        return any(meaning == ("own", "sink") for _, _, meaning in self.parameters)


def wants_of(function: Callable[..., Any], phase: str, deps: tuple[str, ...], config: Mapping[str, Any],
             fields: frozenset[str] | None) -> Wants:  # fmt: skip
    """What each parameter means. `fields`: keys of the items, if they are mappings; None: it runs once.

    A parameter is called after what it takes: a dependency, `{dependency}_results`, a key of the configuration or of
    the item, or one of `OWN`. One parameter of another name takes the item, else the context. Raises PhaseError when
    there are more of these.
    """
    try:
        given = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):  # a builtin without a signature
        return Wants((("", False, ("subject", "")),))
    found: list[tuple[str, bool, tuple[str, str]]] = []
    unknown: list[str] = []
    for parameter in given:
        if parameter.kind in (parameter.VAR_KEYWORD, parameter.VAR_POSITIONAL):
            continue
        meaning = _meaning(parameter.name, deps, config, fields)
        if meaning is None and parameter.default is not parameter.empty:
            if parameter.kind is parameter.POSITIONAL_ONLY:
                break  # nothing can be given behind it
            continue
        if meaning is None:
            unknown.append(parameter.name)
            meaning = ("subject", "")
        found.append((parameter.name, parameter.kind is not parameter.POSITIONAL_ONLY, meaning))
    if len(unknown) > 1:
        names = [*deps, *(f"{dep}{RESULTS}" for dep in deps), *config, *sorted(fields or ()), *OWN]
        raise PhaseError(
            f"phase {phase!r}: its function has the parameters {', '.join(map(repr, unknown))}, and nothing is called "
            f"so: one may take {'the context' if fields is None else 'the item'}, others take {', '.join(names)}"
        )
    return Wants(tuple(found))


def _meaning(
    name: str, deps: tuple[str, ...], config: Mapping[str, Any], fields: frozenset[str] | None
) -> tuple[str, str] | None:
    if fields and name in fields:
        return ("field", name)
    if name in config:
        return ("key", name)
    if name in deps:
        return ("dep", name)
    if name.endswith(RESULTS) and name.removesuffix(RESULTS) in deps:
        return ("dep", name.removesuffix(RESULTS))
    if name in OWN and (fields is not None or name not in ("item", "index")):
        return ("own", name)
    return None


def run_phase(function: Callable[..., Any], wants: Wants, context: PhaseContext, *direct: Any) -> Any:
    """Call it, as a task. `direct`: the values of `wants.deps`. What a generator yields is a list; a coroutine is run
    to its end."""
    values = iter(direct)
    args: list[Any] = []
    named: dict[str, Any] = {}
    for name, by_keyword, (kind, key) in wants.parameters:
        value = next(values) if kind == "dep" else _value(context, kind, key)
        if by_keyword:
            named[name] = value
        else:
            args.append(value)
    made = function(*args, **named)
    if inspect.isgenerator(made):
        made = list(made)
    elif inspect.iscoroutine(made):
        import asyncio

        made = asyncio.run(made)
    if (drain := getattr(context.sink, "drain", None)) is not None:
        drain()  # whoever has this result, may have the sink flush what belongs to it
    return made


def _value(context: PhaseContext, kind: str, key: str) -> Any:
    if kind == "field":
        return context.item[key]
    if kind == "key":
        return context.config[key]
    if kind == "subject":
        return context if context.index is None else context.item
    if key in CONTEXT or key == "config":
        return context
    if key == INHERITED:
        return context.get(INHERITED, {})
    return getattr(context, key)


def plain_function(function: Any) -> tuple[Callable[..., Any], dict[str, Any]]:
    """(what is called, the options it came with) of a function, remote or not."""
    if isinstance(function, RemoteFunction):
        return function._function, dict(function._options)
    return function, {}


def remote_phase(function: Callable[..., Any], wants: Wants, options: Mapping[str, Any]) -> RemoteFunction[..., Any]:
    """A task that calls it."""
    return RemoteFunction(functools.partial(run_phase, function, wants), dict(options))


def listed(*values: Any) -> list[Any]:
    """The values of all items as one."""
    return list(values)
