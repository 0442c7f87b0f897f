"""What is given as a time or a number, looked at where it is given: the error names it, and nobody waits first."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeGuard


def is_number(value: object) -> TypeGuard[float]:
    """An int or a float of Python's own that is a number; no bool."""
    return isinstance(value, int | float) and not isinstance(value, bool) and value == value


def check_seconds(value: object, name: str = "timeout", *, past: bool = False, needed: bool = False) -> None:
    """TypeError for what is no number of seconds, ValueError for one that makes no sense: not a number, or below 0.

    None is without end, unless one is `needed`. `past`: less than 0 is as good as 0, as for a deadline that is over.
    """
    if value is None and not needed:
        return
    kind = type(value)
    if kind is not float and kind is not int:
        from numbers import Real  # late: most are of the two above

        if kind is bool or not isinstance(value, Real):
            without = "" if needed else ", or None to wait without end" if name == "timeout" else ", or None"
            raise TypeError(f"{name}={value!r:.80}: a number of seconds is needed{without}")
        value = float(value)
    assert isinstance(value, int | float)
    if value != value:
        raise ValueError(f"{name}={value}: a number of seconds is needed, and that is not a number")
    if value < 0 and not past:
        raise ValueError(f"{name}={value} is negative: a non-negative number of seconds is needed")


def check_count(value: object, name: str, least: int = 0) -> int:
    """The whole number that it is, whoever's. TypeError for what is none, ValueError for less than `least`."""
    if type(value) is not int:
        from numbers import Integral  # late, as above

        if isinstance(value, bool) or not isinstance(value, Integral):
            raise TypeError(f"{name}={value!r:.80}: a whole number is needed, from {least} on")
        value = int(value)
    if value < least:
        raise ValueError(f"{name}={value} is out of range: a whole number is needed, at least {least}")
    return value


def check_name(value: object, name: str = "name") -> None:
    """TypeError for what is no text, ValueError for an empty one."""
    if not isinstance(value, str):
        raise TypeError(f"{name}={value!r:.80}: a text is needed")
    if not value:
        raise ValueError(f"{name}='': a text that is not empty is needed")


def check_amounts(value: object, name: str) -> None:
    """TypeError for what is no dictionary of names; what their amounts may be is looked at where they are counted."""
    if not isinstance(value, Mapping) or not all(isinstance(key, str) for key in value):
        raise TypeError(f"{name}={value!r:.80}: a dictionary of names and amounts is needed, as {{'disk': 1}}")
