"""From steps to a plan: who waits for whom, at which depth, and what comes back. Nothing runs before a plan is whole.

The rules of reference are those of `binding`: a text that equals another step's name is that step's value, and so is a
`Ref`. A text that names no step is a text; a `Ref` that names none is an error.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import NoReturn

from zmreg.core.binding import Names, Reader, Template
from zmreg.model.arguments import is_number
from zmreg.model.errors import CycleError, DuplicateStepError, GraphError
from zmreg.model.graphs import Path, Step, StepLike
from zmreg.model.record import Record

Edges = dict[str, tuple[str, ...]]
"""{step: other steps}."""


class Plan(Record):
    """A request that makes sense. Dicts and tuples are in the order of the request."""

    steps: dict[str, Step]
    templates: dict[str, Template]
    deps: Edges
    """{step: those whose values it takes}, in the order in which it mentions them."""
    dependants: Edges
    depth: dict[str, int]
    """0 without inputs, else one more than the deepest input."""
    levels: tuple[tuple[str, ...], ...]
    """The steps of depth 0, of depth 1, ..."""
    sinks: tuple[str, ...]
    """The steps whose values no other step takes."""
    outputs: tuple[str, ...]
    """What the request returns: the sinks, and what was to be kept."""

    def bind(self, step: str, value_of: Callable[[str, Path], object]) -> tuple[tuple[object, ...], dict[str, object]]:
        """(args, kwargs) of `step`, with `value_of(other step, path)` for each reference, asked once for each.

        What it returns is put in and not looked into. Raises GraphError for a value in a set that cannot be in one.
        """
        template = self.templates[step]
        return template.fill([value_of(use.step, use.path) for use in template.uses])

    def places(self, step: str) -> dict[str, str]:
        """{place: reference} of `step`, as {"args[0]": "load", "kwargs.k[2]": "clean.rows"}."""
        return self.templates[step].places()

    def __repr__(self) -> str:
        return f"<Plan [{len(self.steps)} steps, {len(self.levels)} levels -> {', '.join(self.outputs)}]>"


def plan(steps: Iterable[StepLike], keep: Iterable[str] | str = ()) -> Plan:
    """The plan of `steps`, in any order. `keep`: steps to return beside the sinks, or "all".

    Raises DuplicateStepError, CycleError with the path, and GraphError for what is no step, has no name, or refers by
    `Ref` to no step of this request.
    """
    named = _named(steps)
    names = Names(named)
    templates = {name: _template(step, names) for name, step in named.items()}
    deps = {name: tuple(dict.fromkeys(use.step for use in each.uses)) for name, each in templates.items()}
    _check(deps, named)
    dependants = _turned(deps)
    depth = _depths(deps, dependants)
    if len(depth) < len(deps):
        _complain_of_cycle(deps, depth)
    levels: list[list[str]] = [[] for _ in range(max(depth.values(), default=-1) + 1)]
    for name in named:
        levels[depth[name]].append(name)
    sinks = tuple(name for name in named if not dependants[name])
    kept = _kept(keep, named)
    outputs = tuple(name for name in named if not dependants[name] or name in kept)
    return Plan(
        named, templates, deps, dependants, {name: depth[name] for name in named}, tuple(map(tuple, levels)),
        sinks, outputs,
    )  # fmt: skip


def _named(steps: Iterable[StepLike]) -> dict[str, Step]:
    named: dict[str, Step] = {}
    for number, given in enumerate(steps):
        step = _step(given, number)
        if step.name in named:
            first = list(named).index(step.name)
            raise DuplicateStepError(f"two steps are called {step.name!r}: steps[{first}] and steps[{number}]")
        named[step.name] = step
    return named


def _step(given: StepLike, number: int) -> Step:
    where = f"steps[{number}]"
    step = given if isinstance(given, Step) else _from_tuple(given, where)
    for what, text in (("name", step.name), ("fun", step.fun)):
        if not isinstance(text, str) or not text:
            raise GraphError(f"{where} has {text!r} as its {what}: it has to be a text that is not empty")
    where = f"step {step.name!r} ({where})"
    if not isinstance(step.args, tuple | list):
        raise GraphError(f"{where} has args={step.args!r}: write a tuple, as args=({step.args!r},)")
    if step.kwargs is not None and not isinstance(step.kwargs, Mapping):
        raise GraphError(f"{where} has kwargs={step.kwargs!r}: write a dict, {{name: value}}")
    if step.kwargs and not all(isinstance(name, str) for name in step.kwargs):
        raise GraphError(f"{where} has kwargs with the names {list(step.kwargs)!r}: they have to be texts")
    locs = step.locs
    many = isinstance(locs, Collection) and not isinstance(locs, str)
    if locs and not (many and all(isinstance(loc, str) for loc in locs)):
        raise GraphError(f"{where} has locs={locs!r}: write a set of names")
    if step.timeout is not None and not (is_number(step.timeout) and step.timeout >= 0):
        raise GraphError(f"{where} has timeout={step.timeout!r}: write seconds, or None for no limit")
    if not isinstance(step.retries, int) or isinstance(step.retries, bool) or step.retries < 0:
        raise GraphError(f"{where} has retries={step.retries!r}: write 0 or more")
    if step.policy is not None:
        said = step.policy.said(where, ("timeout", "retries"))
        step = step.but(policy=None, timeout=step.timeout or said.get("timeout"),
                        retries=step.retries or said.get("retries", 0))  # fmt: skip
    return step


def _from_tuple(given: object, where: str) -> Step:
    """`(name, fun, args, locs)` or the first fields of a Step, so that the fourth is one or the other by its type."""
    if not isinstance(given, tuple) or not 2 <= len(given) <= 5:
        raise GraphError(f"{where} is {given!r}: write Step(name, fun, args, kwargs, locs), or a tuple of these")
    name, fun, args, fourth, *locs = (*given, (), None)[:4] if len(given) < 4 else given
    if locs or fourth is None or isinstance(fourth, Mapping):
        return Step(name, fun, args, fourth, *locs)
    return Step(name, fun, args, locs=fourth)


def _template(step: Step, names: Names) -> Template:
    try:
        return Reader(step.name, names).read(step)
    except RecursionError:
        raise GraphError(f"the arguments of step {step.name!r} are nested too deep to look for references") from None


def _check(deps: Edges, named: Mapping[str, Step]) -> None:
    """Texts name other steps or nothing; what is wrong here was a `Ref`."""
    for name, others in deps.items():
        for other in others:
            if other not in named:
                raise GraphError(f"step {name!r} refers to {other!r}, and no step is called so{_near(other, named)}")
            if other == name:
                raise CycleError(f"step {name!r} takes its own value: {name} -> {name}", (name, name))


def _near(name: object, named: Iterable[str]) -> str:
    import difflib  # late: only a misspelt name needs it

    near = difflib.get_close_matches(str(name), named, 3)
    return f"; did you mean {' or '.join(map(repr, near))}?" if near else ""


def _turned(deps: Edges) -> Edges:
    dependants: dict[str, list[str]] = {name: [] for name in deps}
    for name, others in deps.items():
        for other in others:
            dependants[other].append(name)
    return {name: tuple(others) for name, others in dependants.items()}


def _depths(deps: Edges, dependants: Edges) -> dict[str, int]:
    """Of all steps that no circle keeps from ever being ready."""
    missing = {name: len(others) for name, others in deps.items()}
    ready = deque(name for name, count in missing.items() if not count)
    depth: dict[str, int] = {}
    while ready:
        name = ready.popleft()
        depth[name] = 1 + max((depth[other] for other in deps[name]), default=-1)
        for dependant in dependants[name]:
            missing[dependant] -= 1
            if not missing[dependant]:
                ready.append(dependant)
    return depth


def _complain_of_cycle(deps: Edges, depth: Mapping[str, int]) -> NoReturn:
    # Each step without a depth waits for another such step, so that following these comes around.
    walked: dict[str, None] = {}
    name = next(each for each in deps if each not in depth)
    while name not in walked:
        walked[name] = None
        name = next(other for other in deps[name] if other not in depth)
    circle = list(walked)[list(walked).index(name) :]
    first = min(circle, key=list(deps).index)
    start = circle.index(first)
    path = (*circle[start:], *circle[:start], first)
    raise CycleError(f"steps wait for each other: {' -> '.join(path)} (each takes the value of the next)", path)


def _kept(keep: Iterable[str] | str, named: Mapping[str, Step]) -> frozenset[str]:
    if isinstance(keep, str):
        if keep != "all":
            raise GraphError(f'keep={keep!r}: write "all", or a list of names, as [{keep!r}]')
        return frozenset(named)
    kept = frozenset(keep)
    for name in kept:
        if name not in named:
            raise GraphError(f"keep names {name!r}, and no step is called so{_near(name, named)}")
    return kept
