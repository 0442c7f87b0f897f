"""Pipelines: stages put together with `|`, and a stream of items that goes through them."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable, Mapping, Sequence
from typing import Any, Final

from zmreg.core.pipelines import PipelineInfo, Topology, topology
from zmreg.flows.pipelines.channel import Channel
from zmreg.flows.pipelines.pipeline_run import PipelineRun, PipelineSession, Plan, start
from zmreg.flows.pipelines.stages import SOURCE, Stage, StageSpec, stage
from zmreg.model.arguments import check_count
from zmreg.model.errors import DuplicateStepError, GraphError

_BUFFER: Final = 16


class Pipeline:
    """Stages and the way of items through them; a value, that `|` makes others of.

    `Pipeline() | parse | [short, long] | store`: a list is a branch, each member gets every item, and the stage after
    it reads what all of them make. A member may be a Pipeline. `Pipeline(source)` makes its items itself.
    """

    __slots__ = ("_edges", "_ends", "_plans", "_specs")

    def __init__(self, source: Any = None) -> None:
        """`source`: an iterable, or a generator function without parameters, `async` or not; or any first stage."""
        self._specs: dict[str, StageSpec] = {}
        self._edges: list[tuple[str, str]] = []
        self._ends: tuple[str, ...] = ()
        self._plans: dict[tuple[int, bool], Plan] = {}
        if source is not None:
            self._ends = (self._add(_as_stage(source), ()),)

    @classmethod
    def graph(cls, stages: Mapping[str, Any] | Iterable[Any], edges: Iterable[tuple[str, str]]) -> Pipeline:
        """Any shape: {name: callable or stage}, or stages with names of their own, and (from, to) for each edge.

        Raises GraphError for an edge to a stage there is none of or listed twice, and for no stage at all;
        DuplicateStepError, CycleError.
        """
        made = cls()
        pairs = stages.items() if isinstance(stages, Mapping) else [(None, each) for each in stages]
        named = [(name, _as_stage(each)) for name, each in pairs]
        names = [name or each.name for name, each in named]
        made._edges = list(edges)
        shape = topology(names, made._edges)
        made._specs = {name: each.spec(name) for name, (_, each) in zip(names, named, strict=True)}
        made._ends = shape.sinks
        made._check(shape)
        return made

    def __or__(self, after: Any) -> Pipeline:
        made = Pipeline()
        made._specs, made._edges, made._ends = dict(self._specs), list(self._edges), self._ends
        branches = after if isinstance(after, list) else [after]
        if not branches:
            raise GraphError("an empty list is no branch: name the stages that get the items")
        ends: list[str] = []
        for branch in branches:
            ends += made._splice(branch, self._ends) if isinstance(branch, Pipeline) else [
                made._add(_as_stage(branch), self._ends)
            ]  # fmt: skip
        made._ends = tuple(ends)
        return made

    def _add(self, made: Stage, before: tuple[str, ...]) -> str:
        if made.kind == SOURCE and before:
            raise GraphError(f"stage {made.name!r} makes its items itself: it cannot come after {before[0]!r}")
        name, number = made.name, 1
        if made.named and name in self._specs:
            raise DuplicateStepError(f"two stages are called {name!r}: give one another name, stage(f, name=...)")
        while name in self._specs:
            number += 1
            name = f"{made.name}_{number}"
        self._specs[name] = made.spec(name)
        self._edges += [(end, name) for end in before]
        return name

    def _splice(self, other: Pipeline, before: tuple[str, ...]) -> list[str]:
        """All of another pipeline, its sources behind `before`."""
        if not other._specs:
            raise GraphError("a pipeline without stages is no branch: add one, as in Pipeline() | parse")
        names: dict[str, str] = {}
        fed = {target for _, target in other._edges}
        for name, spec in other._specs.items():
            again = Stage(spec.target, spec.kind, name, False, spec.terms)
            names[name] = self._add(again, () if name in fed else before)
        self._edges += [(names[source], names[target]) for source, target in other._edges]
        return [names[end] for end in other._ends]

    # -- what it is ---------------------------------------------------------------------------------------------------

    @property
    def info(self) -> PipelineInfo:
        """Counts, sources, sinks, order of the stages, "linear" or "graph". Raises GraphError for an empty one."""
        return topology(self._specs, self._edges).info()

    def plan(self, buffer: int = _BUFFER, fuse: bool = True) -> Plan:
        """How it would be run: what shares a process, and whether it is this one. Raises GraphError."""
        buffer = check_count(buffer, "buffer", 1)
        plan = self._plans.get((buffer, fuse))
        if plan is None:
            shape = topology(self._specs, self._edges)
            self._check(shape)
            homes = {name: spec.home if fuse else None for name, spec in self._specs.items()}
            segments = shape.segments(homes)
            here = len(segments) == 1 and all(home == () for home in homes.values())
            plan = self._plans[buffer, fuse] = Plan(dict(self._specs), shape, segments, buffer, here)
        return plan

    def _check(self, shape: Topology) -> None:
        for name in shape.stages:
            if self._specs[name].kind == SOURCE and shape.inputs[name]:
                raise GraphError(f"stage {name!r} makes its items itself: no edge can lead to it")

    def _fed(self, items: Any) -> Any:
        """The items, seen to be there exactly where some stage takes them."""
        made = [name for name in topology(self._specs, self._edges).sources if self._specs[name].kind == SOURCE]
        if items is None and len(made) < len(self.info.sources):
            needy = next(name for name in self.info.sources if name not in made)
            raise TypeError(f"stage {needy!r} takes items: give them, as in collect(items)")
        if items is not None and len(made) == len(self.info.sources):
            raise TypeError(f"stage {made[0]!r} makes its items itself: give none")
        if items is not None and not any(hasattr(items, way) for way in ("__iter__", "__aiter__", "__getitem__")):
            raise TypeError(f"items={items!r:.80} cannot be iterated over: give a list or another iterable of items")
        return items

    @property
    def written(self) -> tuple[Mapping[str, StageSpec], Sequence[tuple[str, str]], tuple[str, ...]]:
        """(stages by name, edges, names of the last ones): all that was said about it."""
        return self._specs, self._edges, self._ends

    # -- running it ---------------------------------------------------------------------------------------------------

    def collect(
        self, items: Iterable[Any] | None = None, *, buffer: int = _BUFFER, fuse: bool = True, watch: bool = False
    ) -> list[Any]:
        """All outputs, of several sinks one after the other. `buffer`: items that may wait before each stage; `watch`:
        show meanwhile how it goes, as `PipelineRun.watch`.

        Raises PipelineError when a stage fails, what the iterable raises, GraphError, TypeError.
        """
        plan = self.plan(buffer, fuse)
        items = self._fed(items)
        if watch or not plan.here:
            run = start(plan, items)
            made = (run.watch() if watch else run).outputs
            return [item for sink in plan.topology.sinks for item in made[sink]]
        from zmreg.flows.pipelines.local_flow import (
            collected,  # late: what runs stages is not needed to write them down
        )

        return collected(plan, items)

    def run(
        self, items: Iterable[Any] | None = None, *, buffer: int = _BUFFER, fuse: bool = True, watch: bool = False
    ) -> PipelineRun:
        """Run it to its end: `.outputs` of each sink, `.metrics()`, `.dead_letters`. Raises as `collect`."""
        made = self.stream(items, buffer=buffer, fuse=fuse)
        _ = (made.watch() if watch else made).outputs
        return made

    def stream(self, items: Iterable[Any] | None = None, *, buffer: int = _BUFFER, fuse: bool = True) -> PipelineRun:
        """Outputs as they are made, `for y in ...`; starts at once, and waits when `buffer` of them are not taken."""
        return start(self.plan(buffer, fuse), self._fed(items))

    def astream(
        self, items: Iterable[Any] | AsyncIterable[Any] | None = None, *, buffer: int = _BUFFER, fuse: bool = True
    ) -> PipelineRun:
        """The same where an event loop runs, `async for y in ...`; the items may be asynchronous, too."""
        plan = self.plan(buffer, fuse)
        self._fed(items)
        if isinstance(items, AsyncIterable):
            from zmreg.flows.pipelines.pipeline_run import fed_by

            items = fed_by(items, buffer)
        return start(plan, items)

    def open(self, *, buffer: int = _BUFFER, fuse: bool = True) -> PipelineSession:
        """A session: `send` items and `recv` outputs one by one; to be awaited where an event loop runs."""
        inputs: Channel[Any] = Channel(buffer)
        return PipelineSession(self.stream(inputs, buffer=buffer, fuse=fuse), inputs)

    def __repr__(self) -> str:
        return f"<Pipeline {', '.join(self._specs) or 'empty'}>"


def _as_stage(target: Any) -> Stage:
    return target if isinstance(target, Stage) else stage(target)
