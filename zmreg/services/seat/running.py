"""Which call this thread or coroutine runs."""

from __future__ import annotations

import contextvars


class GivenName(str):
    """The name that a caller has given its call; `function` is the function's own."""

    function: str


running: contextvars.ContextVar[tuple[bytes, str, int] | None] = contextvars.ContextVar("zmreg_running", default=None)
"""(task id, function name, attempt from 0); None in a driver and between calls."""
