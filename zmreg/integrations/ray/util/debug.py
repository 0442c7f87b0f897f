"""`ray.util.debug`: saying a thing once."""

from __future__ import annotations

import time

_PERIOD_S = 60.0
_said: dict[str, float] = {}
_silent = False
_again = False


def log_once(key: str) -> bool:
    """Whether this is the first time in this process that it is asked about `key`."""
    now = time.monotonic()
    if _silent or (key in _said and not (_again and now - _said[key] > _PERIOD_S)):
        return False
    _said[key] = now
    return True


def disable_log_once_globally() -> None:
    """From now on `log_once` is False."""
    global _silent
    _silent = True


def enable_periodic_logging() -> None:
    """From now on `log_once` is True again after a minute."""
    global _again
    _again = True


__all__ = ["disable_log_once_globally", "enable_periodic_logging", "log_once"]
