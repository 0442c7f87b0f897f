"""`ray.util.scheduling_strategies`."""

from __future__ import annotations

from typing import Any

from zmreg import NodeAffinitySchedulingStrategy
from zmreg.integrations.ray._late import late

_NAMES = ("PlacementGroupSchedulingStrategy", "NodeLabelSchedulingStrategy")


def In(*values: str) -> str:
    """One of these values of a label."""
    return f"in({', '.join(values)})"


def NotIn(*values: str) -> str:
    """None of these values of a label."""
    return f"!in({', '.join(values)})"


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return late(name, "ray.util.scheduling_strategies")
    if name in ("Exists", "DoesNotExist"):
        raise AttributeError(f"zmreg asks for values of labels, and has no {name}: use In(...) or NotIn(...) with them")
    raise AttributeError(f"zmreg has no counterpart of ray.util.scheduling_strategies.{name}")


__all__ = ["In", "NodeAffinitySchedulingStrategy", "NotIn"]
