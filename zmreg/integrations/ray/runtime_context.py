"""`ray.runtime_context`."""

from __future__ import annotations

from typing import Any

import zmreg


class _Id(str):
    """An id as Ray's older properties have it."""

    __slots__ = ()

    def hex(self) -> str:
        """The text itself."""
        return str(self)

    def binary(self) -> bytes:
        """The bytes."""
        return bytes.fromhex(self)


class RuntimeContext:
    """`zmreg.get_runtime_context()` with Ray's older names beside."""

    def __init__(self) -> None:
        self._context = zmreg.get_runtime_context()

    @property
    def node_id(self) -> str:
        """`get_node_id()`; it has a `.hex()`, too, as those below."""
        return _Id(self._context.get_node_id())

    @property
    def job_id(self) -> str:
        """`get_job_id()`."""
        return _Id(self._context.get_job_id())

    @property
    def task_id(self) -> str | None:
        """`get_task_id()`."""
        found = self._context.get_task_id()
        return None if found is None else _Id(found)

    @property
    def actor_id(self) -> str | None:
        """`get_actor_id()`."""
        found = self._context.get_actor_id()
        return None if found is None else _Id(found)

    @property
    def current_placement_group_id(self) -> str | None:
        """`get_placement_group_id()`."""
        found = self.get_placement_group_id()
        return None if found is None else _Id(found)

    def get_placement_group_id(self) -> str | None:
        """The group that this task or actor runs in, hex; None outside of any."""
        group = zmreg.get_current_placement_group()
        return None if group is None else group.id

    def get_node_labels(self) -> dict[str, str]:
        """This machine's node's."""
        own = self._context.get_node_id()
        return next((dict(row["Labels"]) for row in zmreg.nodes() if row["NodeID"] == own), {})

    def get_session_name(self) -> str:
        """The same as `get_job_id()`."""
        return self._context.get_job_id()

    def get_resource_ids(self) -> dict[str, list[str]]:
        """`get_accelerator_ids()`."""
        return self._context.get_accelerator_ids()

    def get(self) -> dict[str, Any]:
        """Ids by name, those that there are."""
        found = {"job_id": self.job_id, "node_id": self.node_id, "namespace": self._context.namespace}
        more = {"task_id": self.task_id, "actor_id": self.actor_id}
        return {**found, **{name: value for name, value in more.items() if value is not None}}

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # pickle and copy ask for some before there is a `_context`
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._context, name)


def get_runtime_context() -> RuntimeContext:
    """The context of the code that asks."""
    return RuntimeContext()


__all__ = ["RuntimeContext", "get_runtime_context"]
