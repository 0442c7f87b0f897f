"""`ray._raylet`, as far as Ray's own guides import from it."""

from __future__ import annotations

from zmreg import ObjectRef, ObjectRefGenerator

__all__ = ["ObjectRef", "ObjectRefGenerator"]
