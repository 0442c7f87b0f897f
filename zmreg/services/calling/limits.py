"""A function that ends its worker after so many calls (`max_calls`): for libraries that leak, and for device memory."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zmreg.model.record import Record


class Limited(Record):
    """What travels in place of the function: the limit is part of the definition, so it has a digest of its own."""

    function: Callable[..., Any]
    max_calls: int


def limited(function: Callable[..., Any], max_calls: int) -> Any:
    """What to ship: the function itself when there is no limit (0)."""
    return Limited(function, max_calls) if max_calls else function
