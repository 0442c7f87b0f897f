"""`ray.actor`."""

from __future__ import annotations

from zmreg import ActorClass, ActorHandle, exit_actor, method

__all__ = ["ActorClass", "ActorHandle", "exit_actor", "method"]
