"""`ray.types`."""

from __future__ import annotations

from zmreg import ObjectRef

__all__ = ["ObjectRef"]
