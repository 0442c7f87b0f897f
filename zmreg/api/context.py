"""Where am I: ids and standing of the process, the task and the actor that runs this code."""

from __future__ import annotations

import os
from collections.abc import Awaitable
from typing import Any, TypeVar

from zmreg.api.actors import ActorHandle
from zmreg.model.specs import GPU
from zmreg.services.seat.context import devices, end_actor, hosted, is_cancelled, running_task, without_place
from zmreg.services.seat.seats import client

T = TypeVar("T")


class RuntimeContext:
    """Answers for the code that asks: per thread and per coroutine."""

    def get_node_id(self) -> str:
        """This machine's node, hex."""
        return client().node.hex()

    def get_worker_id(self) -> str:
        """This process, hex."""
        return client().me.hex()

    def get_job_id(self) -> str:
        """The session this process belongs to."""
        return client().session.name

    def get_task_id(self) -> str | None:
        """The running task or call, hex; None in a driver."""
        task = running_task()
        return task[0].hex() if task else None

    def get_task_name(self) -> str | None:
        """How the running call is named: as its caller says, else as its function; None in a driver."""
        task = running_task()
        return task[1] if task else None

    def get_task_function_name(self) -> str | None:
        """The running function or method, with its class; None in a driver."""
        task = running_task()
        return getattr(task[1], "function", task[1]) if task else None

    def get_attempt_number(self) -> int:
        """How often the running task or call was begun before: 0 the first time, and in a driver."""
        task = running_task()
        return task[2] if task else 0

    def get_actor_id(self) -> str | None:
        """The actor this process is, hex; None elsewhere."""
        host = hosted()
        return host.actor_id.hex() if host is not None else None

    def get_assigned_resources(self) -> dict[str, float]:
        """What the running task or actor holds, by name: {"CPU": 1.0}. Empty in a driver."""
        seat = client()
        return dict(seat.ask("assigned", seat.me.hex()))

    def get_accelerator_ids(self) -> dict[str, list[str]]:
        """{"GPU": ids}: of the running task or actor; in a driver those that CUDA_VISIBLE_DEVICES names, if it does."""
        return {GPU: devices()}

    def get_actor_name(self) -> str | None:
        """The actor's name; None elsewhere and for an anonymous one."""
        host = hosted()
        return host.name or None if host is not None else None

    @property
    def actor_restarts(self) -> int:
        """How often this actor was restarted; 0 elsewhere."""
        host = hosted()
        return host.incarnation - 1 if host is not None else 0

    @property
    def was_current_actor_reconstructed(self) -> bool:
        """Whether this actor was restarted at least once."""
        host = hosted()
        return host is not None and host.incarnation > 1

    @property
    def current_actor(self) -> ActorHandle[Any]:
        """A weak handle to this actor. RuntimeError elsewhere."""
        host = hosted()
        if host is None:
            raise RuntimeError("current_actor is known only inside an actor")
        return ActorHandle(host.facts(), None)

    def is_canceled(self) -> bool:
        """See `zmreg.cancelled`."""
        return cancelled()

    @property
    def gcs_address(self) -> str:
        """Ray's name for it: what `init(address=...)` takes to get to this cluster."""
        from zmreg.services.setup.sessions import read_word  # late: asked for once in a while

        word = read_word(client().session)
        return (word.address if word.attachable else word.contact) or "local"

    @property
    def namespace(self) -> str:
        """Where this process's actor names are."""
        return client().namespace

    def get_pid(self) -> int:
        """This process's pid."""
        return os.getpid()


def get_runtime_context() -> RuntimeContext:
    """The context of the code that asks."""
    return RuntimeContext()


def get_gpu_ids() -> list[str]:
    """Ids of the GPUs that belong to the running task or actor, as in CUDA_VISIBLE_DEVICES; see there for a driver."""
    return devices()


def cancelled() -> bool:
    """Whether the task or call that runs this code has been cancelled: for long loops that want to stop in order.

    RuntimeError in a driver, which nobody can cancel, and in an async actor, whose calls get CancelledError.
    """
    return is_cancelled()


def exit_actor() -> None:
    """End this actor in peace: the running call fails, atexit handlers run, no restart. RuntimeError elsewhere."""
    end_actor()


async def released(awaitable: Awaitable[T]) -> T:
    """Await something while the actor runs other calls in this one's place, and return what it gives.

    For `async` actors with a `max_concurrency` or groups: a call that awaits keeps its place among those that run at
    once, and two actors that await each other can wait for ever. Here it does not. What the other calls change has
    changed when this one goes on. Elsewhere the same as `await awaitable`. A plain actor has `release=True` for it
    (`zmreg.method`).
    """
    return await without_place(awaitable)
