"""Which call this thread or coroutine runs."""

from __future__ import annotations

import contextvars

running: contextvars.ContextVar[tuple[bytes, str, int] | None] = contextvars.ContextVar("zmreg_running", default=None)
"""(task id, function name, attempt from 0); None in a driver and between calls."""
