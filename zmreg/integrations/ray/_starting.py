"""`ray.init` with Ray's keywords, and what it returns."""

from __future__ import annotations

import platform
import warnings
from types import TracebackType
from typing import Any, Final

import zmreg

# What zmreg's init calls otherwise.
_RENAMED: Final = {"object_store_memory": "object_store_bytes", "_metrics_export_port": "metrics_port"}
# What speaks of things that zmreg does not have, and that no result depends on: a dashboard, a log of Ray's own.
_WITHOUT: Final = frozenset({
    "include_dashboard", "dashboard_host", "dashboard_port", "configure_logging", "logging_level", "logging_format",
    "logging_config", "_node_name",
})  # fmt: skip
# What a program may count on: it is told.
_UNUSED: Final = {
    "_temp_dir": "sessions are below $XDG_RUNTIME_DIR",
    "_system_config": "zmreg's settings are in docs/settings.md",
    "_plasma_directory": "values lie in /dev/shm",
    "_memory": "give memory= to tasks and actors",
    "_redis_username": "there is no Redis",
    "_redis_password": "there is no Redis",
    "_redis_max_memory": "there is no Redis",
    "_node_ip_address": "`zmreg start --host` says by which address others know a node",
    "_driver_object_store_memory": "there is one store a node",
    "_enable_object_reconstruction": "lost results are always made again",
    "job_config": "give runtime_env= and namespace= to init()",
    "enable_resource_isolation": "amounts are counted and not enforced",
    "cgroup_path": "amounts are counted and not enforced",
    "system_reserved_cpu": "give num_cpus= less",
    "system_reserved_memory": "memory_threshold= says how full a machine may be",
}


class RayContext:
    """What `ray.init` gives: `zmreg.init`'s answer with Ray's names beside. A context manager that ends it all."""

    dashboard_url: str = ""
    """`zmreg status` shows what there is."""

    def __init__(self, info: Any) -> None:
        self._info = info
        self.python_version = platform.python_version()
        self.ray_version = zmreg.__version__
        self.ray_commit = ""

    @property
    def address_info(self) -> dict[str, Any]:
        """Where the cluster is."""
        info = self._info
        return {
            "node_ip_address": info.address.rpartition(":")[0] or "127.0.0.1", "address": info.address,
            "gcs_address": info.address, "session_dir": info.session, "node_id": info.node_id, "webui_url": "",
        }  # fmt: skip

    def __getitem__(self, name: str) -> Any:
        return self.address_info[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Of `address_info`."""
        return self.address_info.get(name, default)

    def keys(self) -> list[str]:
        """Of `address_info`."""
        return list(self.address_info)

    def disconnect(self) -> None:
        """`ray.shutdown`."""
        zmreg.shutdown()

    def __enter__(self) -> RayContext:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        zmreg.shutdown()

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_"):  # pickle and copy ask for some before there is an `_info`
            raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
        return getattr(self._info, name)

    def __repr__(self) -> str:
        return f"RayContext({self.address_info})"


def init(address: str | None = None, **keywords: Any) -> RayContext:
    """`zmreg.init` with Ray's keywords. Those about dashboard and logging are not used; of others that are not used a
    UserWarning says what is instead. ValueError for local_mode, and for an address that begins with ray://."""
    if keywords.pop("local_mode", False):
        raise ValueError(
            "local_mode=True: zmreg always uses processes; call the functions themselves, f.__wrapped__(...), or test "
            "with zmreg.testing.InProcess"
        )
    if address is not None and address.startswith("ray://"):
        raise ValueError(
            f"{address}: there is no Ray Client here; say init('HOST:PORT', key=...) with any node's address and the "
            "cluster's key file (docs/guides/clusters.md)"
        )
    if keywords.get("log_to_driver", True) is None:
        del keywords["log_to_driver"]
    for name in [name for name in keywords if name in _UNUSED]:
        if keywords.pop(name) is not None:
            warnings.warn(f"init({name}=...) is not used: {_UNUSED[name]}", UserWarning, stacklevel=2)
    if hook := keywords.pop("_tracing_startup_hook", None):
        from zmreg.integrations import opentelemetry as tracing  # late: few programs are traced

        tracing.function_of(hook)()
        tracing.uninstrument()
        tracing.instrument(hook)
    given = {_RENAMED.get(name, name): value for name, value in keywords.items() if name not in _WITHOUT}
    if isinstance(store := given.get("object_store_bytes"), float) and store.is_integer():
        given["object_store_bytes"] = int(store)  # 1e9
    return RayContext(zmreg.init(address, **given))
