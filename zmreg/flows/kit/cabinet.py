"""The actor that keeps values under names for a cluster: variables and datasets. They are its own."""

from __future__ import annotations

import asyncio
from typing import Any

from zmreg.api.actors import ActorHandle
from zmreg.api.cluster import put
from zmreg.api.refs import ObjectRef
from zmreg.flows.kit.system import system_actor


class Cabinet:
    """{name: ref} in two drawers. Whoever asks for a variable that is not there waits for it."""

    def __init__(self) -> None:
        self._variables: dict[str, ObjectRef[Any]] = {}
        self._waiting: dict[str, set[asyncio.Future[ObjectRef[Any]]]] = {}
        self._datasets: dict[str, ObjectRef[Any]] = {}

    async def set(self, name: str, value: Any) -> None:
        """The variable is this from now on."""
        ref = self._variables[name] = put(value)
        for future in self._waiting.pop(name, ()):
            if not future.done():
                future.set_result(ref)

    async def get(self, name: str, wait: bool) -> list[ObjectRef[Any]]:
        """A ref to its value, in a list; an empty one when there is none and nobody waits."""
        ref = self._variables.get(name)
        if ref is not None:
            return [ref]
        if not wait:
            return []
        future: asyncio.Future[ObjectRef[Any]] = asyncio.get_running_loop().create_future()
        waiting = self._waiting.setdefault(name, set())
        waiting.add(future)
        try:
            return [await future]
        finally:
            waiting.discard(future)
            if not waiting and self._waiting.get(name) is waiting:
                del self._waiting[name]

    async def delete(self, name: str) -> bool:
        """Forget the variable; whether there was one."""
        return self._variables.pop(name, None) is not None

    async def publish(self, name: str, value: Any, replace: bool) -> bool:
        """Keep a dataset; False when there is one of that name, and it is not to be replaced."""
        if name in self._datasets and not replace:
            return False
        self._datasets[name] = put(value)
        return True

    async def dataset(self, name: str) -> list[ObjectRef[Any]]:
        """A ref to it, in a list; an empty one when there is none."""
        return [self._datasets[name]] if name in self._datasets else []

    async def datasets(self) -> list[str]:
        """Their names, sorted."""
        return sorted(self._datasets)

    async def unpublish(self, name: str) -> bool:
        """Forget it; whether there was one."""
        return self._datasets.pop(name, None) is not None


def find() -> ActorHandle[Cabinet]:
    """The cluster's; made now when there is none."""
    return system_actor(Cabinet, "cabinet")
