"""The shape of a pipeline: stages, the edges between them, and which stretches of stages can share a process.

Pure: a stage is a name here. What runs under it, and where, is `flows`' business.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from typing import Final

from zmreg.model.errors import CycleError, DuplicateStepError, GraphError
from zmreg.model.record import Record

LINEAR: Final = "linear"
GRAPH: Final = "graph"


class Edge(Record):
    """Items go from one stage to another. `number`: its place among all edges, as they were listed."""

    source: str
    target: str
    number: int


class Segment(Record):
    """A stretch of stages that run in one process, one after the other, with nothing between them."""

    name: str
    """Of its first stage."""
    stages: tuple[str, ...]
    inputs: tuple[Edge, ...]
    """The edges into its first stage, in the order in which they were listed; () for a source."""
    outputs: tuple[Edge, ...]
    """The edges out of its last stage; () for a sink."""


class PipelineInfo(Record):
    """What a pipeline looks like before it runs. `strategy`: "linear" for one chain, else "graph"."""

    nodes: int
    sources: tuple[str, ...]
    sinks: tuple[str, ...]
    execution_order: tuple[str, ...]
    strategy: str


class Topology(Record):
    """A pipeline that makes sense. Made by `topology`."""

    stages: tuple[str, ...]
    """In an order in which each comes after all it gets items from; else as listed."""
    inputs: dict[str, tuple[Edge, ...]]
    outputs: dict[str, tuple[Edge, ...]]

    @property
    def sources(self) -> tuple[str, ...]:
        """Stages that nothing flows into: each gets every input of the run, or makes the items itself."""
        return tuple(name for name in self.stages if not self.inputs[name])

    @property
    def sinks(self) -> tuple[str, ...]:
        """Stages whose items are the outputs of the run."""
        return tuple(name for name in self.stages if not self.outputs[name])

    @property
    def is_linear(self) -> bool:
        """Whether it is one chain. Two chains beside each other are not, though no stage branches."""
        narrow = all(len(self.inputs[name]) < 2 and len(self.outputs[name]) < 2 for name in self.stages)
        return narrow and len(self.sources) == 1

    def info(self) -> PipelineInfo:
        """Counts and order."""
        strategy = LINEAR if self.is_linear else GRAPH
        return PipelineInfo(len(self.stages), self.sources, self.sinks, self.stages, strategy)

    def segments(self, homes: Mapping[str, Hashable]) -> tuple[Segment, ...]:
        """The pipeline cut into stretches, sources first. `homes[stage]`: stages that follow each other, with nothing
        else between them, share a process when these are equal; None shares with nobody."""
        heads: dict[str, list[str]] = {}
        head_of: dict[str, str] = {}
        for name in self.stages:
            before = self.inputs[name][0].source if len(self.inputs[name]) == 1 else ""
            joins = (
                before and len(self.outputs[before]) == 1 and homes[name] is not None and homes[before] == homes[name]
            )
            head = head_of[name] = head_of[before] if joins else name
            heads.setdefault(head, []).append(name)
        return tuple(
            Segment(head, tuple(stages), self.inputs[head], self.outputs[stages[-1]]) for head, stages in heads.items()
        )


def topology(stages: Iterable[str], edges: Iterable[tuple[str, str]]) -> Topology:
    """Raises GraphError for no stage at all, an edge to a stage there is none of or listed twice; DuplicateStepError;
    CycleError with the path."""
    names = list(stages)
    if not names:
        raise GraphError("a pipeline without stages: add one, as in Pipeline() | parse")
    for name in names:
        if names.count(name) > 1:
            raise DuplicateStepError(f"two stages are called {name!r}: give one another name, stage(f, name=...)")
    listed = [Edge(source, target, number) for number, (source, target) in enumerate(edges)]
    seen = set()
    for edge in listed:
        for end in (edge.source, edge.target):
            if end not in names:
                raise GraphError(f"the edge {edge.source!r} -> {edge.target!r}: there is no stage {end!r}; there are "
                                 f"{', '.join(map(repr, names))}")  # fmt: skip
        if (edge.source, edge.target) in seen:
            raise GraphError(f"the edge {edge.source!r} -> {edge.target!r} is listed twice")
        seen.add((edge.source, edge.target))
    inputs = {name: tuple(edge for edge in listed if edge.target == name) for name in names}
    outputs = {name: tuple(edge for edge in listed if edge.source == name) for name in names}
    return Topology(_ordered(names, inputs, outputs), inputs, outputs)


def _ordered(
    names: list[str], inputs: Mapping[str, tuple[Edge, ...]], outputs: Mapping[str, tuple[Edge, ...]]
) -> tuple[str, ...]:
    """Kahn's algorithm, those that are ready in the order in which they were listed."""
    waits = {name: len(inputs[name]) for name in names}
    order: list[str] = []
    ready = [name for name in names if not waits[name]]
    while ready:
        name = ready.pop(0)
        order.append(name)
        freed = []
        for edge in outputs[name]:
            waits[edge.target] -= 1
            if not waits[edge.target]:
                freed.append(edge.target)
        ready = sorted(ready + freed, key=names.index)
    if len(order) < len(names):
        _complain_of_cycle([name for name in names if name not in order], inputs)
    return tuple(order)


def _complain_of_cycle(rest: list[str], inputs: Mapping[str, tuple[Edge, ...]]) -> None:
    """Each of the rest has an input among the rest: going back from any of them, one comes twice."""
    path = [rest[0]]
    while True:
        before = next(edge.source for edge in inputs[path[-1]] if edge.source in rest)
        if before in path:
            circle = [before, *reversed(path[path.index(before) :])]
            raise CycleError(f"stages wait for each other: {' -> '.join(circle)}", tuple(circle))
        path.append(before)
