"""Functions that run as tasks of a request, when values go inside of their arguments' containers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zmreg.core.binding import Template, filled


def is_template(args: tuple[Any, ...]) -> bool:
    """Whether these arguments have to be filled before they are the function's."""
    return bool(args) and type(args[0]) is Template


class Filling:
    """A function that gets its arguments as a template and, behind it, the values that go inside of it."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self.__name__ = getattr(function, "__name__", "function")

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        args, kwargs = filled(args, kwargs)  # type: ignore[assignment]
        return self._function(*args, **kwargs)
