"""Which node: decided from what all nodes have told of themselves. Pure; what it decides on may be half a second old.

The order is: who can, now, then who can at all; then who has least to do. A node that is wrong about another costs a
queue there for a while, never a wrong result: each node's own lease book has the last word.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Mapping, Sequence

from zmreg.core import labels
from zmreg.core.devices import Devices
from zmreg.model.messages import NodeRecord
from zmreg.model.specs import CPU, GPU, ON, SPREAD, UNIT, Shape, node_named_in


def role(node: NodeRecord) -> str:
    """SERVER, or BALANCER: with nothing of its own (locs) it only passes calls of named functions on."""
    return "SERVER" if node.locs else "BALANCER"


def can(node: NodeRecord, shape: Shape) -> bool:
    """Whether the node could ever serve the shape."""
    return not node.draining and shape.fits(dict(node.total)) and _is_meant(node, shape)


def _is_meant(node: NodeRecord, shape: Shape) -> bool:
    """By its locs and labels."""
    return set(shape.locs).issubset(node.locs) and labels.fit(dict(node.labels), shape)


def room(node: NodeRecord, shape: Shape) -> int:
    """How many leases of this shape the node could give now; 0 when others wait there already."""
    if node.waiting or node.draining or not _is_meant(node, shape):
        return 0
    available = dict(node.available)
    if not shape.resources:
        return max(1, available.get(CPU, 0) // UNIT)
    leases = max(0, min(available.get(name, 0) // amount for name, amount in shape.resources))
    units = shape.amount(GPU)
    return _on_devices(node.devices, units, leases) if units and leases and node.devices else leases


def _on_devices(free: Sequence[int], units: int, most: int) -> int:
    """How many takings of `units` of GPU the devices have room for, up to `most`: the sum of what is free says less."""
    if units <= UNIT:
        return min(most, sum(each // units for each in free))
    devices = Devices.as_told(free)
    for count in range(most):  # at most as often as there are devices
        if not devices.fits(units):
            return count
        devices.take(units)
    return most


def load(node: NodeRecord) -> float:
    """Worker processes and waiting claims a CPU."""
    return (node.workers + node.waiting) / max(1, dict(node.total).get(CPU, 0) / UNIT)


def choose(nodes: Sequence[NodeRecord], shape: Shape, placed: Mapping[bytes, int]) -> bytes | None:
    """The node for one actor of this shape; None when none is able, or the one it has to be on is not.

    With room now, else able at all, and least loaded; with SPREAD fewest of the actors `placed` so far (node -> count).
    Between equals the first of `nodes` is taken.
    """
    able = [node for node in nodes if can(node, shape)]
    named = node_named_in(shape.strategy)
    if named:
        if any(node.node == named for node in able):
            return named
        if shape.strategy.startswith(ON):
            return None
    if not able:
        return None
    if labels.has_wishes(shape):
        most = max(_wishes(node, shape) for node in able)
        able = [node for node in able if _wishes(node, shape) == most]
    if shape.strategy == SPREAD:
        return min(able, key=lambda node: (placed.get(node.node, 0), load(node))).node
    return min(able, key=lambda node: (not room(node, shape), load(node))).node


Waiting = tuple[bytes, bytes, Shape, Container[bytes]]
"""An actor, the node at which it waits for a worker, its shape, and nodes that it is not to go to."""


def moves(
    nodes: Sequence[NodeRecord], filled: Container[bytes], waiting: Iterable[Waiting]
) -> list[tuple[bytes, bytes, bytes]]:
    """Actors that wait for room while another node has some now: (actor, where it waits, where there is room).

    They stay where they were sent by name, and where what they need is free and only a worker has to start. Nothing
    goes to the `filled` nodes. What one takes, the next does not find any more.
    """
    records = {node.node: node for node in nodes}
    nowhere: set[Shape] = set()
    found: list[tuple[bytes, bytes, bytes]] = []
    for actor, place, shape, shunned in waiting:
        here = records.get(place)  # None: it is silent
        settled = here is not None and (not here.waiting or bool(room(here.but(waiting=0), shape)))
        if settled or shape in nowhere or node_named_in(shape.strategy) == place:
            continue
        roomy = [
            each for each in records.values() if each.node not in filled and can(each, shape) and room(each, shape)
        ]
        if not roomy:
            nowhere.add(shape)
        able = [each for each in roomy if each.node != place and each.node not in shunned]
        if here is not None and labels.has_wishes(shape):
            able = [each for each in able if _wishes(each, shape) >= _wishes(here, shape)]
        if able:
            best = min(able, key=load)
            found.append((actor, place, best.node))
            records[best.node] = _less(best, shape)
    return found


def _less(node: NodeRecord, shape: Shape) -> NodeRecord:
    """The record as it will be when the node hosts this as well. Of devices that cannot be told: it is full."""
    if shape.amount(GPU):
        return node.but(waiting=1)
    wanted = dict(shape.resources)
    free = tuple((name, amount - wanted.get(name, 0)) for name, amount in node.available)
    return node.but(available=free, workers=node.workers + 1)


def _wishes(node: NodeRecord, shape: Shape) -> int:
    return labels.wishes_met(dict(node.labels), shape)


def preferred(nodes: Sequence[NodeRecord], shape: Shape) -> tuple[bytes, ...]:
    """The nodes able to serve the shape that meet most of its wishes, most room first.

    () if the first of `nodes`, which asks, is one of them, or none is able.
    """
    able = [node for node in nodes if can(node, shape)]
    most = max((_wishes(node, shape) for node in able), default=0)
    best = [node for node in able if _wishes(node, shape) == most]
    if nodes[0] in best:
        return ()
    return tuple(node.node for node in sorted(best, key=lambda node: -room(node, shape)))


def everywhere(nodes: Iterable[NodeRecord], shape: Shape) -> tuple[bytes, ...]:
    """All nodes that could serve the shape, those with most room first."""
    able = [node for node in nodes if can(node, shape)]
    return tuple(node.node for node in sorted(able, key=lambda node: -room(node, shape)))


def elsewhere(others: Iterable[NodeRecord], shape: Shape, count: int, feasible_here: bool) -> list[tuple[bytes, int]]:
    """Where up to `count` leases that cannot be had here now could be: (node, how many), most room first.

    When the shape is not feasible here, also nodes without room now: it is better to wait there than in vain.
    """
    found = sorted(((room(node, shape), node.node) for node in others if can(node, shape)), reverse=True)
    offers: list[tuple[bytes, int]] = []
    for free, node in found:
        if count > 0 and (free or not feasible_here):
            take = min(count, max(1, free))
            offers.append((node, take))
            count -= take
    return offers


def why_not(nodes: Sequence[NodeRecord], shape: Shape) -> str:
    """Why no node can ever serve the shape: what is asked for beside the node that comes nearest to it."""

    def lacks(node: NodeRecord) -> int:
        total = dict(node.total)
        amounts = sum(total.get(name, 0) < amount for name, amount in shape.resources)
        return amounts + len(set(shape.locs).difference(node.locs)) + (not labels.fit(dict(node.labels), shape))

    best = min(nodes, key=lambda node: (lacks(node), -dict(node.total).get(CPU, 0)))
    has = Shape.of_units(dict(best.total), best.locs)
    whole = "this node has" if len(nodes) == 1 else f"the nearest of {len(nodes)} nodes, {best.name}, has"
    named = ", ".join(f"{name}={value}" for name, value in best.labels)
    missing = ", no locs" if shape.locs and not best.locs else ""
    return f"asked for [{shape}], but {whole} only [{has}{missing}{f', labels {named}' if named else ''}] in total"
