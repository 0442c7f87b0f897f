"""`ray.runtime_env`."""

from __future__ import annotations

from typing import Any


class RuntimeEnv(dict[str, Any]):
    """A dictionary for `runtime_env=`, written with keywords: `RuntimeEnv(env_vars={"A": "1"}, working_dir=".")`.

    What zmreg does not have (pip, conda, containers) is refused by whoever takes it, with ValueError.
    """

    def __init__(self, **given: Any) -> None:
        super().__init__({name: value for name, value in given.items() if value is not None})


__all__ = ["RuntimeEnv"]
