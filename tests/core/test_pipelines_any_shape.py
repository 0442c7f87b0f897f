"""Any pipeline over any items equals the plain evaluation, whoever is quick and however little room there is.

The machines are driven in a random order, one small step at a time; a state in which no step can be made, and not all
has come out, is a deadlock. P4, P5, P11 and P12 of streams.md.
"""

from __future__ import annotations

import copy
import random
from collections import deque
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from tests.effort import examples
from zmreg.core.merging import CONCAT, INTERLEAVE, ZIP, Merge
from zmreg.core.pipelines import Topology, topology
from zmreg.core.reorder import Reorder

KINDS = ("same", "some", "twice")


def done(stage: str, kind: str, item: Any) -> list[Any]:
    """What a stage makes of an item: as many as its kind says, each with the way it came."""
    made = (stage, item)
    return [made] * {"same": 1, "some": sum(map(ord, repr(made))) % 2, "twice": 2}[kind]


class Node:
    """A stage: an inbox, what it works on in some order, and what waits for room at each of those after it."""

    def __init__(self, name: str, kind: str, mode: str, shape: Topology, buffer: int, lanes: int) -> None:
        self.name, self.kind = name, kind
        self.edges = {edge.source: number for number, edge in enumerate(shape.inputs[name])}
        self.inbox: Merge[Any] = Merge(mode, max(1, len(self.edges)), buffer)
        self.after = [edge.target for edge in shape.outputs[name]]
        self.waiting: dict[str, deque[Any]] = {target: deque() for target in self.after}
        self.told = dict.fromkeys(self.after, False)
        self.out: list[Any] = []
        self.lanes: Reorder[list[Any]] = Reorder(lanes)
        self.busy: list[tuple[int, Any]] = []

    def emit(self, made: list[Any]) -> None:
        for queue in self.waiting.values():
            queue.extend(made)
        if not self.after:
            self.out += made

    @property
    def is_over(self) -> bool:
        return self.inbox.is_over and not self.busy and not any(self.waiting.values())


class World:
    def __init__(self, shape: Topology, kinds: dict[str, str], modes: dict[str, str], buffer: int, lanes: int) -> None:
        self.nodes = {name: Node(name, kinds[name], modes[name], shape, buffer, lanes) for name in shape.stages}
        self.buffer = buffer

    def steps(self, node: Node, items: dict[str, deque[Any]], sure: bool = False) -> list[Any]:
        """All that could happen next at a node. `sure`: not taking up from an inbox that has nothing to give yet."""
        able: list[Any] = []
        feed = items.get(node.name)
        if feed is not None:
            if feed and node.inbox.room(0):
                able.append(lambda: node.inbox.take(0, [feed.popleft()]))
            elif not feed:
                able.append(lambda: (node.inbox.end(0), items.pop(node.name)))
        # It takes nothing up while what it has made finds no room: else that would grow.
        gives = len(node.inbox) and not (sure and copy.deepcopy(node.inbox).next() is None)
        if gives and node.lanes.room and not any(node.waiting.values()):
            able.append(lambda: self.begin(node))
        able += [lambda piece=piece: self.finish(node, piece) for piece in node.busy]
        for target in node.after:
            other = self.nodes[target]
            edge = other.edges[node.name]
            if node.waiting[target] and other.inbox.room(edge):
                able.append(lambda other=other, edge=edge, queue=node.waiting[target]:
                            other.inbox.take(edge, [queue.popleft()]))  # fmt: skip
            elif not node.told[target] and node.is_over:
                able.append(lambda target=target, other=other, edge=edge:
                            (other.inbox.end(edge), node.told.update({target: True})))  # fmt: skip
        return able

    def begin(self, node: Node) -> None:
        came = node.inbox.next()
        if came is not None:
            node.busy.append((node.lanes.begin(), came if node.inbox.mode == ZIP else came[0]))

    def finish(self, node: Node, piece: tuple[int, Any]) -> None:
        node.busy.remove(piece)
        for made in node.lanes.finish(piece[0], done(node.name, node.kind, piece[1])):
            node.emit(made)

    def run(self, sources: tuple[str, ...], items: list[Any], chance: random.Random) -> dict[str, list[Any]]:
        left = {name: deque(items) for name in sources}
        speed = {name: chance.random() ** 3 + 0.01 for name in self.nodes}
        idle = 0
        while not all(node.is_over for node in self.nodes.values()) or left:
            (name,) = chance.choices(list(speed), list(speed.values()))
            able = self.steps(self.nodes[name], left)
            before = self.state(left)
            if able:
                chance.choice(able)()
            idle = 0 if able and self.state(left) != before else idle + 1
            if idle > 200 and not any(self.can_go_on(node, left) for node in self.nodes.values()):
                raise AssertionError(f"nothing can go on: {[node.inbox for node in self.nodes.values()]}")
            for node in self.nodes.values():
                if node.inbox.mode == INTERLEAVE:
                    assert len(node.inbox) <= self.buffer * max(1, len(node.edges))
        return {name: node.out for name, node in self.nodes.items() if not node.after}

    def can_go_on(self, node: Node, left: dict[str, deque[Any]]) -> bool:
        return bool(self.steps(node, left, sure=True))

    def state(self, left: dict[str, deque[Any]]) -> Any:
        return [
            (len(node.inbox), len(node.busy), node.is_over, *map(len, node.waiting.values()), *node.told.values())
            for node in self.nodes.values()
        ] + [len(queue) for queue in left.values()]


def plainly(shape: Topology, kinds: dict[str, str], modes: dict[str, str], items: list[Any]) -> dict[str, list[Any]]:
    made: dict[str, list[Any]] = {}
    for name in shape.stages:
        streams = [made[edge.source] for edge in shape.inputs[name]] or [items]
        if modes[name] == ZIP:
            came: list[Any] = list(zip(*streams, strict=False))
        else:
            came = [item for stream in streams for item in stream]
        made[name] = [out for item in came for out in done(name, kinds[name], item)]
    return {name: made[name] for name in shape.sinks}


@st.composite
def shapes(draw: st.DrawFn) -> tuple[list[str], list[tuple[str, str]]]:
    names = list("abcdefg"[: draw(st.integers(1, 7))])
    pairs = [(one, other) for at, one in enumerate(names) for other in names[at + 1 :]]
    return names, draw(st.lists(st.sampled_from(pairs), unique=True, max_size=9)) if pairs else []


@settings(max_examples=examples(50), deadline=None)
@given(
    shapes(), st.data(), st.lists(st.integers(0, 99), max_size=8), st.integers(1, 3), st.integers(1, 3), st.randoms()
)
def test_P4_P5_P11_any_shape_equals_the_plain_evaluation(
    shape: Any, data: st.DataObject, items: list[int], buffer: int, lanes: int, chance: random.Random
) -> None:
    names, edges = shape
    built = topology(names, edges)
    kinds = {name: data.draw(st.sampled_from(KINDS)) for name in names}
    exact = data.draw(st.booleans())  # what is interleaved comes in any order: then only what came is compared
    modes = {name: data.draw(st.sampled_from((CONCAT, ZIP))) if exact else INTERLEAVE for name in names}
    got = World(built, kinds, modes, buffer, lanes).run(built.sources, items, chance)
    wanted = plainly(built, kinds, modes, items)
    assert got == wanted if exact else {key: sorted(map(repr, got[key])) for key in got} == {
        key: sorted(map(repr, wanted[key])) for key in wanted
    }  # fmt: skip
