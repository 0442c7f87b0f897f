"""Which call this thread or coroutine runs."""

from __future__ import annotations

import contextvars

running: contextvars.ContextVar[tuple[bytes, str] | None] = contextvars.ContextVar("zmreg_running", default=None)
"""(task id, function name); None in a driver and between calls."""
