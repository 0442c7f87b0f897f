"""`ray.actor`."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, Union

from zmreg import ActorClass, ActorHandle, exit_actor, method

if TYPE_CHECKING:
    T = TypeVar("T")
    ActorProxy = Union[ActorHandle[T], T]  # noqa: UP007  mypy takes no other for an alias
    """A handle with the methods that have `@ray.method`, to be written in annotations; see `zmreg.typed`."""
else:
    ActorProxy = ActorHandle

__all__ = ["ActorClass", "ActorHandle", "ActorProxy", "exit_actor", "method"]
