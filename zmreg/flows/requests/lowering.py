"""Other ways to write a request down: functions whose parameters are named after each other, and bound calls.

Both become steps. Their functions are not looked up by name: they run as tasks.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from zmreg.api.flight import Local
from zmreg.api.functions import BoundCall, RemoteFunction
from zmreg.core.graphs import Plan, plan
from zmreg.flows.requests import drawing
from zmreg.model.errors import DuplicateStepError, GraphError
from zmreg.model.graphs import Lit, Ref, Step, StepLike


class Graph:
    """Steps, and the functions among them that run as tasks. `zmreg.request(graph)` runs it, as often as wanted."""

    def __init__(self, steps: Iterable[StepLike], functions: Local | None = None) -> None:
        """`functions`: {name: function} for steps whose `fun` nobody has to serve. Raises GraphError and its like."""
        self.functions: Local = dict(functions or {})
        self.steps = tuple(steps)
        self._plan = plan(self.steps)

    @classmethod
    def from_functions(cls, functions: Iterable[Callable[..., Any] | RemoteFunction[..., Any]], **inputs: Any) -> Graph:
        """One step for each function, with its name. A parameter that is called as another of the functions takes its
        value; others take that of `inputs`, or their default. Raises GraphError for one that has none of these."""
        named: dict[str, RemoteFunction[..., Any]] = {}
        for function in functions:
            remote = _remote(function)
            if remote._name in named:
                raise DuplicateStepError(f"two functions are called {remote._name!r}: give one of them another name")
            named[remote._name] = remote
        taken: set[str] = set()
        steps = [_step_of(name, remote, named, inputs, taken) for name, remote in named.items()]
        if unused := sorted(inputs.keys() - taken):
            raise GraphError(f"no function has a parameter {', '.join(map(repr, unused))}")
        return cls(steps, named)

    @classmethod
    def from_bound(cls, call: BoundCall) -> Graph:
        """A step for each bound call that `call` depends on, and for itself: called as the functions, with "#2" and so
        on for further calls of one."""
        names: dict[int, str] = {}
        steps: list[Step] = []
        local: dict[str, RemoteFunction[..., Any]] = {}
        for each in _inputs_first(call):
            remote = each._function
            if not isinstance(remote, RemoteFunction):
                raise GraphError(f"{remote._name} is bound to an actor: call .remote() or .execute() on it instead")
            if remote._options.get("num_returns") not in (None, 1):
                raise GraphError(f"{remote._name} returns several values: a step has one")
            own = _free(remote._name, local)
            names[id(each)] = own
            local[own] = remote
            kwargs = {name: _written(arg, names) for name, arg in each._kwargs.items()}
            steps.append(Step(own, own, tuple(_written(arg, names) for arg in each._args), kwargs))
        return cls(steps, local)

    def to_mermaid(self) -> str:
        """The graph for Mermaid."""
        return drawing.to_mermaid(self._plan)

    def to_dot(self) -> str:
        """The graph for Graphviz."""
        return drawing.to_dot(self._plan)

    def _repr_html_(self) -> str:
        import html  # late: for notebooks alone

        return f"<div><code>{html.escape(repr(self))}</code><br>{drawing.to_svg(self._plan)}</div>"

    def _repr_mimebundle_(self, **_: object) -> dict[str, str]:
        return {"text/plain": repr(self), "text/html": self._repr_html_(), "text/vnd.mermaid": self.to_mermaid()}

    def __repr__(self) -> str:
        return f"<Graph [{len(self._plan.steps)} steps, {len(self._plan.levels)} levels]>"


def lowered(steps: Iterable[StepLike] | Graph | BoundCall, keep: Iterable[str] | str) -> tuple[Plan, Local]:
    """The plan, and the functions in it that run as tasks."""
    graph = Graph.from_bound(steps) if isinstance(steps, BoundCall) else steps
    if isinstance(graph, Graph):
        return plan(graph.steps, keep), graph.functions
    return plan(graph, keep), {}


def _remote(function: Callable[..., Any] | RemoteFunction[..., Any]) -> RemoteFunction[..., Any]:
    if isinstance(function, RemoteFunction):
        return function
    name = getattr(function, "__name__", "")
    if not name or name == "<lambda>":
        raise GraphError(f"{function!r:.80} cannot be a step by itself: it wants to be a function with a name")
    return RemoteFunction(function, {})


def _step_of(
    name: str, remote: RemoteFunction[..., Any], named: Mapping[str, Any], inputs: Mapping[str, Any], taken: set[str]
) -> Step:
    args: list[object] = []
    kwargs: dict[str, object] = {}
    for parameter in inspect.signature(remote._function).parameters.values():
        if parameter.kind in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD):
            continue
        if parameter.name in named and parameter.name != name:
            value: object = Ref(parameter.name)
        elif parameter.name in inputs:
            value = Lit(inputs[parameter.name])
            taken.add(parameter.name)
        elif parameter.default is not parameter.empty:
            value = Lit(parameter.default)
        else:
            raise GraphError(
                f"{name}() has a parameter {parameter.name!r}, and no function is called so: give its value, as "
                f"Graph.from_functions([...], {parameter.name}=...)"
            )
        if parameter.kind is parameter.KEYWORD_ONLY:
            kwargs[parameter.name] = value
        else:
            args.append(value)
    return Step(name, name, tuple(args), kwargs)


def _inputs_first(call: BoundCall) -> Iterator[BoundCall]:
    """Every bound call once, after those it depends on. Not by recursion: chains are longer than the stack is deep."""
    known: set[int] = set()
    stack = [call]
    while stack:
        missing = [each for each in _bound_in((*stack[-1]._args, *stack[-1]._kwargs.values())) if id(each) not in known]
        stack += missing
        if not missing:
            each = stack.pop()
            if id(each) not in known:
                known.add(id(each))
                yield each


def _bound_in(values: Iterable[object]) -> Iterator[BoundCall]:
    for value in values:
        if isinstance(value, BoundCall):
            yield value
        elif type(value) in (list, tuple):
            yield from _bound_in(value)  # type: ignore[arg-type]
        elif type(value) is dict:
            yield from _bound_in(value.values())


def _written(value: object, names: Mapping[int, str]) -> object:
    """As steps have it: a bound call is a `Ref`, and text is text, whoever is called so."""
    if isinstance(value, BoundCall):
        return Ref(names[id(value)])
    if type(value) in (list, tuple, dict) and any(_bound_in((value,))):
        if isinstance(value, dict):
            return {key: _written(each, names) for key, each in value.items()}
        assert isinstance(value, list | tuple)
        return type(value)(_written(each, names) for each in value)
    return Lit(value)


def _free(name: str, taken: Mapping[str, object]) -> str:
    if name not in taken:
        return name
    number = 2
    while f"{name}#{number}" in taken:
        number += 1
    return f"{name}#{number}"
