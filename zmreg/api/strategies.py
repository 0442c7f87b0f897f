"""Where tasks and actors may run, under Ray's names."""

from __future__ import annotations

from dataclasses import dataclass

from zmreg.model.ids import PROCESS_ID_BYTES
from zmreg.model.specs import ON, SPREAD, TRY


@dataclass(frozen=True, slots=True)
class NodeAffinitySchedulingStrategy:
    """On the node with this id (hex, as in `zmreg.nodes()`), also if that means to wait for room there.

    `soft`: elsewhere, but only when that node is gone or can never serve the request; not when it is merely busy.
    Otherwise UnschedulableError then.
    """

    node_id: str
    soft: bool = False

    def __post_init__(self) -> None:
        try:
            wrong = len(bytes.fromhex(self.node_id)) != PROCESS_ID_BYTES
        except (TypeError, ValueError):
            wrong = True
        if wrong:
            raise ValueError(f"node_id={self.node_id!r} is no id of a node; zmreg.nodes() has them as 'NodeID'")


def strategy_of(given: object) -> str:
    """What `scheduling_strategy=` says, as `Shape.strategy` has it. ValueError for anything but what exists."""
    if given in (None, "DEFAULT"):
        return ""
    if given == "SPREAD":
        return SPREAD
    if isinstance(given, NodeAffinitySchedulingStrategy):
        return (TRY if given.soft else ON) + given.node_id
    raise ValueError(
        f"scheduling_strategy={given!r}: use None, 'DEFAULT', 'SPREAD' or zmreg.NodeAffinitySchedulingStrategy(...)"
    )
