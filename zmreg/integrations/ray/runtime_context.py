"""`ray.runtime_context`."""

from __future__ import annotations

from zmreg import get_runtime_context

__all__ = ["get_runtime_context"]
