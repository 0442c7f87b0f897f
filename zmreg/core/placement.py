"""Which node: decided from what all nodes have told of themselves. Pure; what it decides on may be half a second old.

The order is: who can, now, then who can at all; then who has least to do. A node that is wrong about another costs a
queue there for a while, never a wrong result: each node's own lease book has the last word.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from zmreg.model.messages import NodeRecord
from zmreg.model.specs import CPU, UNIT, Shape


def can(node: NodeRecord, shape: Shape) -> bool:
    """Whether the node could ever serve the shape."""
    return shape.fits(dict(node.total)) and set(shape.locs).issubset(node.locs)


def room(node: NodeRecord, shape: Shape) -> int:
    """How many leases of this shape the node could give now; 0 when others wait there already."""
    if node.waiting or not set(shape.locs).issubset(node.locs):
        return 0
    available = dict(node.available)
    if not shape.resources:
        return max(1, available.get(CPU, 0) // UNIT)
    return max(0, min(available.get(name, 0) // amount for name, amount in shape.resources))


def load(node: NodeRecord) -> float:
    """Worker processes and waiting claims a CPU."""
    return (node.workers + node.waiting) / max(1, dict(node.total).get(CPU, 0) / UNIT)


def choose(nodes: Sequence[NodeRecord], shape: Shape, default: bytes) -> bytes:
    """The node for one actor of this shape: with room now, else able at all, least loaded; `default` when none is able.

    Between equals the first of `nodes` is taken.
    """
    able = [node for node in nodes if can(node, shape)]
    if not able:
        return default
    return min(able, key=lambda node: (not room(node, shape), load(node))).node


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
