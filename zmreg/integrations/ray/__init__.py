"""Ray Core's names and module paths on zmreg, for programs written for Ray: `import zmreg.integrations.ray as ray`.

`import zmreg as ray` is enough for a program that uses top-level names alone. docs/guides/coming-from-ray.md has every
public name, and what is different.
"""

from __future__ import annotations

from typing import Any

import zmreg
from zmreg import (
    ObjectRef,
    available_resources,
    cancel,
    cluster_resources,
    get_actor,
    get_gpu_ids,
    get_runtime_context,
    is_initialized,
    kill,
    method,
    nodes,
    put,
    remote,
    wait,
)
from zmreg.integrations.ray import actor, exceptions, remote_function, runtime_context, util
from zmreg.integrations.ray._late import late

__version__ = zmreg.__version__

# What zmreg's init calls otherwise, and what speaks of things it does not have: a dashboard, and a log of Ray's own.
_RENAMED = {"object_store_memory": "object_store_bytes"}
_WITHOUT = {
    "include_dashboard", "dashboard_host", "dashboard_port", "configure_logging", "logging_level", "logging_format",
    "logging_config",
}  # fmt: skip


def init(address: str | None = None, **keywords: Any) -> Any:
    """`zmreg.init` with Ray's keywords; those about dashboard and logging are not used. ValueError for local_mode."""
    if keywords.pop("local_mode", False):
        raise ValueError(
            "local_mode=True: zmreg always uses processes; call the functions themselves, f.__wrapped__(...)"
        )
    if keywords.get("log_to_driver", True) is None:
        del keywords["log_to_driver"]
    given = {_RENAMED.get(name, name): value for name, value in keywords.items() if name not in _WITHOUT}
    return zmreg.init(address, **given)


def get(object_refs: Any, *, timeout: float | None = None) -> Any:
    """`zmreg.get`."""
    return zmreg.get(object_refs, timeout=timeout)


def shutdown(*, wait_for_processes: bool = False) -> None:
    """`zmreg.shutdown`, which always waits for its processes."""
    zmreg.shutdown()


def __getattr__(name: str) -> Any:
    if name in ("ObjectRefGenerator", "timeline"):
        return late(name, "ray")
    raise AttributeError(f"zmreg has no counterpart of ray.{name}; docs/guides/coming-from-ray.md says what there is")


__all__ = [
    "ObjectRef",
    "actor",
    "available_resources",
    "cancel",
    "cluster_resources",
    "exceptions",
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
    "shutdown",
    "util",
    "wait",
]
