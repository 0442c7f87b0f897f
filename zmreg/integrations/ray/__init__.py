"""Ray Core's names and module paths on zmreg, for programs written for Ray: `import zmreg.integrations.ray as ray`.

`import zmreg as ray` is enough for a program that uses top-level names alone. docs/guides/coming-from-ray.md has every
public name, and what is different.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

import zmreg
from zmreg import (
    ObjectRef,
    ObjectRefGenerator,
    available_resources,
    cancel,
    cluster_resources,
    get_actor,
    get_gpu_ids,
    is_initialized,
    kill,
    method,
    nodes,
    remote,
    wait,
)
from zmreg.integrations.ray import (
    actor,
    exceptions,
    experimental,
    remote_function,
    runtime_context,
    runtime_env,
    types,
    util,
)
from zmreg.integrations.ray._absent import absent, tell
from zmreg.integrations.ray._late import late
from zmreg.integrations.ray._starting import RayContext, init
from zmreg.integrations.ray.runtime_context import get_runtime_context

__version__ = zmreg.__version__

tell()


class LoggingConfig:
    """Taken and not used: workers log as the program does, and `zmreg.JsonLines` writes a log in JSON."""

    def __init__(
        self, encoding: str = "TEXT", log_level: str = "INFO", additional_log_standard_attrs: list[str] | None = None
    ) -> None:
        self.encoding = encoding
        self.log_level = log_level
        self.additional_log_standard_attrs = additional_log_standard_attrs or []


def get(object_refs: Any, *, timeout: float | None = None, _use_object_store: bool = False) -> Any:
    """`zmreg.get`. A StopIteration of a method is one here, too, as in Ray: `except StopIteration` ends the loop."""
    try:
        return zmreg.get(object_refs, timeout=timeout)
    except zmreg.errors.TaskError as error:
        if isinstance(error.cause, StopIteration):
            raise exceptions.Stopped(error.message, error.origin, error.cause) from error
        raise


def put(value: Any, *, _owner: Any = None, _tensor_transport: str | None = None) -> ObjectRef[Any]:
    """`zmreg.put`. ValueError for another owner than this process."""
    if _owner is not None:
        raise ValueError(
            "put(..., _owner=...): what this process puts is its own. What others still hold when it ends in order, "
            "its node keeps; to have it made by the actor, let a method of it return it"
        )
    return zmreg.put(value)


def shutdown(*, wait_for_processes: bool = False, _exiting_interpreter: bool = False) -> None:
    """`zmreg.shutdown`, which always waits for its processes."""
    zmreg.shutdown()


def __getattr__(name: str) -> Any:
    if name == "timeline":
        return late(name, "ray")
    if name == "job_submission":
        return import_module(f"{__name__}.{name}")
    if name == "cloudpickle":  # Ray has a copy of its own; for programs that pickle by themselves
        return import_module(name)
    raise AttributeError(absent(name))


__all__ = [
    "LoggingConfig",
    "ObjectRef",
    "ObjectRefGenerator",
    "RayContext",
    "actor",
    "available_resources",
    "cancel",
    "cluster_resources",
    "exceptions",
    "experimental",
    "get",
    "get_actor",
    "get_gpu_ids",
    "get_runtime_context",
    "init",
    "is_initialized",
    "kill",
    "method",
    "nodes",
    "put",
    "remote",
    "remote_function",
    "runtime_context",
    "runtime_env",
    "shutdown",
    "types",
    "util",
    "wait",
]
