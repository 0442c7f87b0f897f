"""Where tasks and actors may run, under Ray's names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from zmreg.model.ids import PROCESS_ID_BYTES, node_of
from zmreg.model.record import Wish
from zmreg.model.specs import LABEL, ON, SPREAD, TRY, WISH

if TYPE_CHECKING:
    from zmreg.api.groups import PlacementGroup


class NodeAffinitySchedulingStrategy(Wish):
    """On the node with this id (hex, as in `zmreg.nodes()`), also if that means to wait for room there.

    `soft`: elsewhere, but only when that node is gone or can never serve the request; not when it is merely busy.
    Otherwise UnschedulableError then.
    """

    node_id: str
    soft: bool = False

    def __post_init__(self) -> None:
        try:
            node = bytes.fromhex(self.node_id)
            wrong = len(node) != PROCESS_ID_BYTES or node_of(node) != node
        except (TypeError, ValueError):
            wrong = True
        if wrong:
            raise ValueError(f"node_id={self.node_id!r} is no id of a node; zmreg.nodes() has them as 'NodeID'")


class NodeLabelSchedulingStrategy(Wish):
    """On nodes whose labels are as `hard` says; on those that meet most of `soft` where such nodes could serve it.

    Each is {name: wanted} with `x`, `!x`, `in(a, b)` or `!in(a, b)`. UnschedulableError when no node is as `hard` says.
    """

    hard: Mapping[str, str] | None = None
    soft: Mapping[str, str] | None = None

    def __post_init__(self) -> None:
        selected(self.hard or {}, LABEL, "hard")
        selected(self.soft or {}, WISH, "soft")


class PlacementGroupSchedulingStrategy(Wish):
    """In a placement group: in the bundle of that index, or in any (-1). None: in no group, also where the caller is in
    one that captures.

    `placement_group_capture_child_tasks`: what the task or actor calls and creates is in the group, too, unless it says
    otherwise.
    """

    placement_group: PlacementGroup | None
    placement_group_bundle_index: int = -1
    placement_group_capture_child_tasks: bool = False

    def __post_init__(self) -> None:
        index = self.placement_group_bundle_index
        if self.placement_group is None:
            return
        if not hasattr(self.placement_group, "bundle_specs"):
            raise TypeError(f"placement_group={self.placement_group!r} is none; zmreg.placement_group(...) makes one")
        if not isinstance(index, int) or not -1 <= index < len(self.placement_group.bundle_specs):
            raise ValueError(
                f"placement_group_bundle_index={index!r}: -1 is any, and the group has bundles 0 to "
                f"{len(self.placement_group.bundle_specs) - 1}"
            )


def selected(given: Mapping[str, str], kind: str, what: str) -> dict[str, str]:
    """Terms of a shape for {label: wanted}. TypeError, ValueError for what can be no label or wish for one."""
    if not isinstance(given, Mapping):
        raise TypeError(f"{what} is a dictionary {{label: value}}, not {given!r}")
    for name, wanted in given.items():
        if not isinstance(name, str) or not isinstance(wanted, str):
            raise TypeError(f"{what}={{{name!r}: {wanted!r}}}: names and values of labels are strings")
        text = wanted.removeprefix("!")
        among = text.startswith("in(")
        if not name or not text or (among and (not text.endswith(")") or not text[3:-1].strip())):
            raise ValueError(f"{what}={{{name!r}: {wanted!r}}}: say 'x', '!x', 'in(a, b)' or '!in(a, b)'")
    return {kind + name: wanted for name, wanted in given.items()}


def labels_of(strategy: object) -> dict[str, str]:
    """Terms of a shape that `scheduling_strategy=` stands for."""
    if not isinstance(strategy, NodeLabelSchedulingStrategy):
        return {}
    return selected(strategy.hard or {}, LABEL, "hard") | selected(strategy.soft or {}, WISH, "soft")


def strategy_of(given: object) -> str:
    """What `scheduling_strategy=` says, as `Shape.strategy` has it. ValueError for anything but what exists."""
    if isinstance(given, (NodeLabelSchedulingStrategy, PlacementGroupSchedulingStrategy)):
        return ""
    if given in (None, "DEFAULT"):
        return ""
    if given == "SPREAD":
        return SPREAD
    if isinstance(given, NodeAffinitySchedulingStrategy):
        return (TRY if given.soft else ON) + given.node_id
    raise ValueError(
        f"scheduling_strategy={given!r}: use None, 'DEFAULT', 'SPREAD' or one of "
        "zmreg.NodeAffinitySchedulingStrategy, NodeLabelSchedulingStrategy, PlacementGroupSchedulingStrategy"
    )
