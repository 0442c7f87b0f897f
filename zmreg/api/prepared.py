"""What executors and pools run in workers: a function behind its initializer, and many items in one call.

Apart from them, because a worker needs neither concurrent.futures nor multiprocessing for it.
"""

from __future__ import annotations

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
        return self.function(*args, **kwargs)


def _run(setup: Setup) -> str:
    if setup.initializer is None:
        return ""
    try:
        setup.initializer(*setup.initargs)
    except Exception:  # noqa: BLE001  whatever it was, the executor is told
        return traceback.format_exc()
    return ""


def run_each(function: Callable[..., T], items: list[tuple[Any, ...]]) -> list[T]:
    """`function(*item)` for each."""
    return [function(*item) for item in items]


def run_each_on(function: Callable[[Any], T], items: list[Any]) -> list[T]:
    """`function(item)` for each."""
    return [function(item) for item in items]
