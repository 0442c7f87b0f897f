"""`ray.util.queue`."""

from __future__ import annotations

from queue import Empty, Full
from typing import Any

from zmreg.integrations.ray._late import late


def __getattr__(name: str) -> Any:
    if name == "Queue":
        return late(name, "ray.util.queue")
    raise AttributeError(f"zmreg has no counterpart of ray.util.queue.{name}")


__all__ = ["Empty", "Full"]
