"""`ray.util.multiprocessing`."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from multiprocessing import TimeoutError
from typing import Any

import zmreg


class Pool(zmreg.Pool):
    """`zmreg.Pool` with Ray's keywords."""

    def __init__(  # Ray's signature
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: object = None,
        ray_address: str | None = None,
        ray_remote_args: dict[str, Any] | None = None,
    ) -> None:
        if ray_address is not None and not zmreg.is_initialized():
            zmreg.init(ray_address)
        super().__init__(processes, initializer, initargs, maxtasksperchild, context, **(ray_remote_args or {}))


__all__ = ["Pool", "TimeoutError"]
