"""Actors of the kits themselves: one for a cluster, found by name, made when first needed, living with the head."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from zmreg.api.actors import ActorClass, ActorHandle
from zmreg.api.strategies import NodeAffinitySchedulingStrategy
from zmreg.api.watching import head_node, process_id
from zmreg.model.errors import ActorDiedError

NAMESPACE: Final = "zmreg"
# Everybody who waits for something is a call that is not answered.
MOST_WAITING: Final = 100_000


def system_actor(cls: type, name: str, *args: Any) -> ActorHandle[Any]:
    """The cluster's actor of that name; made now when there is none. It takes no CPU, and is restarted."""
    head = head_node()
    place = NodeAffinitySchedulingStrategy(head, soft=True) if head else None
    options = {
        "name": name, "namespace": NAMESPACE, "get_if_exists": True, "lifetime": "detached", "num_cpus": 0,
        "max_restarts": -1, "max_concurrency": MOST_WAITING, "scheduling_strategy": place,
    }  # fmt: skip
    made: ActorClass[Any] = ActorClass(cls, options)
    return made.remote(*args)


class Way:
    """The way of this process to such an actor, found once."""

    def __init__(self, find: Callable[[], ActorHandle[Any]]) -> None:
        self._find = find
        self._handle: ActorHandle[Any] | None = None
        self._seat = ""

    def call(self, method: str, *args: Any) -> Any:
        """Call it; a ref."""
        if self._handle is None or self._seat != process_id():
            self._seat, self._handle = process_id(), self._find()
        return getattr(self._handle, method).remote(*args)

    def ask(self, method: str, *args: Any, timeout: float | None = None) -> Any:
        """What it answers; another one, if somebody has ended this one. GetTimeoutError."""
        try:
            return self.call(method, *args).get(timeout)
        except ActorDiedError:
            self._handle = None
            return self.call(method, *args).get(timeout)

    async def ask_async(self, method: str, *args: Any, timeout: float | None = None) -> Any:
        """The same in an event loop."""
        try:
            return await awaited(self.call(method, *args), timeout)
        except ActorDiedError:
            self._handle = None
            return await awaited(self.call(method, *args), timeout)


async def awaited(ref: Any, timeout: float | None) -> Any:
    """Its value, in an event loop. GetTimeoutError after `timeout` seconds."""
    if timeout is None:
        return await ref
    import asyncio

    from zmreg.model.errors import GetTimeoutError, ZmregError

    async def whole() -> Any:
        return await ref

    try:
        return await asyncio.wait_for(whole(), timeout)
    except TimeoutError as error:
        if isinstance(error, ZmregError):
            raise
        raise GetTimeoutError(f"no answer within {timeout} s", timeout_s=timeout) from None
