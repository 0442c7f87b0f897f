"""Functions under a name: served by a process for the whole cluster, called by whoever knows the name."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import Any, TypeVar

from zmreg.services import serving_names
from zmreg.services.seats import client

F = TypeVar("F", bound=Callable[..., Any])


def register(
    name: str, function: Callable[..., Any], *, locs: Collection[str] = (), version: str = "", replace: bool = False
) -> None:
    """Serve `function` as `name` in this process, as long as it lives and does not withdraw it.

    It is called for those who ask for any of `locs` and of what its node has; on a thread, or if it is `async def` in
    an event loop. ValueError when this process serves that name in that version already, unless `replace`.
    """
    serving_names.register(client(), name, function, locs, version, replace)


def withdraw(name: str, version: str | None = None) -> None:
    """Serve `name` no more, in that version or in any. Calls that have come are finished."""
    serving_names.withdraw(client(), name, version)
