"""Values under names for the whole cluster: variables, which change, and datasets, which stay when their maker ends."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from zmreg.api.refs import ObjectRef
from zmreg.flows.kit.system import Way
from zmreg.model.arguments import check_name, check_seconds
from zmreg.model.errors import GetTimeoutError

if TYPE_CHECKING:
    from zmreg.api.actors import ActorHandle
    from zmreg.flows.kit.cabinet import Cabinet


def _find() -> ActorHandle[Cabinet]:
    from zmreg.flows.kit.cabinet import find  # late: it brings asyncio

    return find()


_way = Way(_find)


class Variable:
    """A value that anybody may set and read. It belongs to the cluster, and outlives whoever has set it.

    What is set is a copy, as with `zmreg.put`; a ref that is set directly is read as its value. Forgotten when the
    process that keeps it dies, which is on the head's machine.
    """

    def __init__(self, name: str) -> None:
        if not isinstance(name, str) or not name:
            raise ValueError(f"a Variable has a name, a string that is not empty, and not {name!r}")
        self.name = name

    def set(self, value: Any) -> None:
        """From now on it is this, for everybody."""
        _way.ask("set", self.name, value)

    async def set_async(self, value: Any) -> None:
        """`set` in an event loop."""
        await _way.ask_async("set", self.name, value)

    def get(self, timeout: float | None = None) -> Any:
        """What it is; waits until somebody has set it. GetTimeoutError after `timeout` seconds (0 does not wait)."""
        check_seconds(timeout, past=True)
        ref = _way.call("get", self.name, timeout != 0)
        try:
            return self._found(ref.get(timeout or None)).get()
        except GetTimeoutError:
            ref.cancel()
            raise self._late(timeout) from None

    async def get_async(self, timeout: float | None = None) -> Any:
        """`get` in an event loop."""
        check_seconds(timeout, past=True)
        try:
            return await self._found(await _way.ask_async("get", self.name, timeout != 0, timeout=timeout or None))
        except GetTimeoutError:
            raise self._late(timeout) from None

    def _found(self, refs: list[ObjectRef[Any]]) -> ObjectRef[Any]:
        if not refs:
            raise GetTimeoutError("", timeout_s=0)
        return refs[0]

    def _late(self, timeout: float | None) -> GetTimeoutError:
        return GetTimeoutError(f"nobody has set the variable {self.name!r} within {timeout} s", timeout_s=timeout)

    def delete(self) -> None:
        """Nobody has set it."""
        _way.ask("delete", self.name)

    def __reduce__(self) -> tuple[Any, ...]:
        return Variable, (self.name,)

    def __repr__(self) -> str:
        return f"<Variable {self.name}>"


def publish_dataset(name: str, value: Any, *, replace: bool = False) -> None:
    """Keep `value`, or what a ref stands for, under a name for the whole cluster, also when this program has ended.

    It is copied once, and belongs to a process on the head's machine; refs inside it are not. It is there until
    `unpublish_dataset`, or until that process dies. ValueError when the name is taken, unless `replace`.
    """
    if not isinstance(name, str) or not name:
        raise ValueError(f"a dataset has a name, a string that is not empty, and not {name!r}")
    if not _way.ask("publish", name, value, replace):
        raise ValueError(f"there is a dataset {name!r}; replace=True puts this one in its place")


def get_dataset(name: str) -> ObjectRef[Any]:
    """A ref to a published value: it stays good as long as it is held. KeyError when there is none of that name."""
    check_name(name)
    refs: list[ObjectRef[Any]] = _way.ask("dataset", name)
    if not refs:
        known = ", ".join(list_datasets()) or "none at all"
        raise KeyError(f"there is no dataset {name!r}; there are: {known}")
    return refs[0]


def list_datasets() -> list[str]:
    """The names of what was published, sorted."""
    names: list[str] = _way.ask("datasets")
    return names


def unpublish_dataset(name: str) -> None:
    """Keep it no more. KeyError when there is none of that name."""
    check_name(name)
    if not _way.ask("unpublish", name):
        raise KeyError(f"there is no dataset {name!r} to forget; zmreg.list_datasets() has those that there are")
