"""`ray.util.placement_group`."""

from __future__ import annotations

from typing import Any

from zmreg.integrations.ray._late import late

_NAMES = (
    "PlacementGroup", "get_current_placement_group", "get_placement_group", "placement_group_table",
    "remove_placement_group",
)  # fmt: skip


def placement_group(*args: Any, **keywords: Any) -> Any:
    """`zmreg.placement_group`."""
    return late("placement_group", "ray.util")(*args, **keywords)


def __getattr__(name: str) -> Any:
    if name in _NAMES:
        return late(name, "ray.util.placement_group")
    raise AttributeError(f"zmreg has no counterpart of ray.util.placement_group.{name}")
