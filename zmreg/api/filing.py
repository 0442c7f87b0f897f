"""Values as bytes, for what is built on this room."""

from __future__ import annotations

from zmreg.services.seat.filing import content, from_bytes, to_bytes

__all__ = ["content", "from_bytes", "to_bytes"]
