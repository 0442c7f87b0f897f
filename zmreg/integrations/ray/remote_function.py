"""`ray.remote_function`."""

from __future__ import annotations

from zmreg import RemoteFunction

__all__ = ["RemoteFunction"]
