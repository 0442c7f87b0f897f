"""`ray.experimental`: progress bars."""

from __future__ import annotations

from typing import Any

from zmreg.integrations.ray._absent import absent


def __getattr__(name: str) -> Any:
    raise AttributeError(absent(f"experimental.{name}"))
