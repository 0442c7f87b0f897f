"""`ray.util.actor_pool`."""

from __future__ import annotations

from typing import Any

from zmreg.integrations.ray._late import late


def __getattr__(name: str) -> Any:
    if name == "ActorPool":
        return late(name, "ray.util.actor_pool")
    raise AttributeError(f"zmreg has no counterpart of ray.util.actor_pool.{name}")
