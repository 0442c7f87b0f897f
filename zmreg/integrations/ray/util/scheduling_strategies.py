"""`ray.util.scheduling_strategies`."""

from __future__ import annotations

from typing import Any

from zmreg import NodeAffinitySchedulingStrategy
from zmreg.integrations.ray._late import late

_NAMES = ("PlacementGroupSchedulingStrategy", "NodeLabelSchedulingStrategy", "In", "NotIn", "Exists", "DoesNotExist")


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return late(name, "ray.util.scheduling_strategies")
    raise AttributeError(f"zmreg has no counterpart of ray.util.scheduling_strategies.{name}")


__all__ = ["NodeAffinitySchedulingStrategy"]
