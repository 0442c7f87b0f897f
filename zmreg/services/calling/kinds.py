"""What kind of actor a class makes, seen from both sides: who calls it, and the worker that hosts it."""

from __future__ import annotations

import inspect
from typing import Any, Final

OPTIONS: Final = "__zmreg_method__"
"""The attribute of a method that has its options (`@zmreg.method`)."""


RELEASE: Final = "\0~"
"""Behind a method's name in a call: it lets go of its actor while it waits (services/worker/releasing.py)."""

CARRIES: Final = "\0^"
"""Directly behind it: in front of its arguments stands what somebody has it carry (services/calling/carrying.py)."""


def lets_go(target: bytes | str) -> bool:
    """Whether calls of it may end in another order than they began in."""
    return type(target) is str and RELEASE in target


def options_of(method: object) -> dict[str, Any]:
    """What `@zmreg.method` was given for this one."""
    found: dict[str, Any] = getattr(method, OPTIONS, {})
    return found


def is_async_class(cls: type) -> bool:
    """Any method is `async def`."""
    return any(
        inspect.iscoroutinefunction(member) or inspect.isasyncgenfunction(member)
        for base in cls.__mro__
        for member in vars(base).values()
    )
