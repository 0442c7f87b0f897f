"""What executors and pools run in workers: a function behind its initializer, and many items in one call.

Apart from them, because a worker needs neither concurrent.futures nor multiprocessing for it.
"""

from __future__ import annotations

import functools
import sys
import traceback
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar

T = TypeVar("T")


class InitializerError(Exception):
    """An executor's initializer raised. `args`: the traceback as text."""


class Setup(NamedTuple):
    """What is done once in each worker process that serves an executor. `token` names the executor."""

    token: str
    initializer: Callable[..., object] | None
    initargs: tuple[Any, ...]
    authkey: bytes = b""
    """The driver's, by which what multiprocessing's managers give out (queues, dicts) knows who may use it."""


# What became of each initializer in this process: "" or the traceback.
_outcomes: dict[str, str] = {}
# The globals that each has set, with the name of its module. Functions of a program's main module travel by value, each
# with globals of its own: what the initializer has put into its own, the others would not see.
_left_behind: dict[str, tuple[str, dict[str, Any]]] = {}
_FURNISHED = "__zmreg_furnished__"


class Prepared:
    """A function that finds its executor's initializer done. Raises InitializerError instead when that has failed."""

    def __init__(self, setup: Setup, function: Callable[..., Any]) -> None:
        self.setup = setup
        self.function = function
        self.__name__ = getattr(function, "__name__", "function")

    def __setstate__(self, state: dict[str, Any]) -> None:
        """In the worker, and before the first arguments are unpickled: a manager's proxy asks for the key then."""
        self.__dict__.update(state)
        if self.setup.authkey:
            from multiprocessing.process import current_process

            current_process().authkey = self.setup.authkey

    def __call__(self, /, *args: Any, **kwargs: Any) -> Any:
        outcome = _outcomes.get(self.setup.token)
        if outcome is None:
            outcome = _outcomes[self.setup.token] = _run(self.setup)
        if outcome:  # a traceback
            raise InitializerError(outcome)
        if self.setup.token in _left_behind:
            many = self.function is run_each or self.function is run_each_on
            _furnish(args[0] if many else self.function, self.setup.token)
        return self.function(*args, **kwargs)


def _run(setup: Setup) -> str:
    if setup.initializer is None:
        return ""
    names = _globals_of(setup.initializer)
    before = dict(names)
    try:
        setup.initializer(*setup.initargs)
    except Exception:  # noqa: BLE001  whatever it was, the executor is told
        return traceback.format_exc()
    set_by_it = {name: value for name, value in names.items() if name not in before or before[name] is not value}
    if set_by_it:
        _left_behind[setup.token] = str(names.get("__name__")), set_by_it
    return ""


def _furnish(function: Callable[..., Any], token: str) -> None:
    """Give a function of the initializer's module what that has set, if it has travelled with globals of its own."""
    module, values = _left_behind[token]
    names = _globals_of(function)
    here = getattr(sys.modules.get(module), "__dict__", None)
    if names.get("__name__") == module and names is not here and names.get(_FURNISHED) != token:
        names.update(values)
        names[_FURNISHED] = token


def _globals_of(function: Callable[..., Any]) -> dict[str, Any]:
    while isinstance(function, functools.partial):
        function = function.func
    function = getattr(function, "__func__", function)
    if not hasattr(function, "__globals__"):
        function = type(function).__call__  # an object that can be called
    return getattr(function, "__globals__", {})


def run_each(function: Callable[..., T], items: list[tuple[Any, ...]]) -> list[T]:
    """`function(*item)` for each."""
    return [function(*item) for item in items]


def run_each_on(function: Callable[[Any], T], items: list[Any]) -> list[T]:
    """`function(item)` for each."""
    return [function(item) for item in items]
