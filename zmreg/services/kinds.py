"""What kind of actor a class makes, seen from both sides: who calls it, and the worker that hosts it."""

from __future__ import annotations

import inspect


def is_async_class(cls: type) -> bool:
    """Any method is `async def`."""
    return any(
        inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member)
        for base in cls.__mro__
        for member in vars(base).values()
    )
