"""concurrent.futures' interface. A module of its own, loaded when it is used: their package brings logging with it."""

from __future__ import annotations

import concurrent.futures
from collections.abc import Callable
from typing import Any, TypeVar

from zmreg.api.functions import RemoteFunction
from zmreg.api.refs import ObjectRef
from zmreg.services.seats import client

T = TypeVar("T")


class Executor(concurrent.futures.Executor):
    """concurrent.futures on a zmreg cluster: `submit`, `map`, `shutdown`, as a context manager too."""

    def __init__(self, max_workers: int | None = None) -> None:
        """`max_workers` is how many calls this executor has under way at most; None: as the cluster allows."""
        if max_workers is not None and max_workers <= 0:
            raise ValueError("max_workers must be greater than 0")
        self._max_workers = max_workers or int(_cpus())
        self._functions: dict[Any, RemoteFunction[..., Any]] = {}
        self._refs: dict[concurrent.futures.Future[Any], ObjectRef[Any]] = {}
        self._shut = False

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> concurrent.futures.Future[T]:
        """Call `fn` on a worker. RuntimeError after shutdown."""
        if self._shut:
            raise RuntimeError("cannot schedule new futures after shutdown")
        remote = self._functions.get(fn)
        if remote is None:
            remote = self._functions[fn] = RemoteFunction(fn, {})
        ref: ObjectRef[T] = remote.remote(*args, **kwargs)
        future = ref.future()
        self._refs[future] = ref
        future.add_done_callback(lambda done: self._refs.pop(done, None) and None)
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Take no more calls; wait for those under way unless `wait` is False."""
        self._shut = True
        pending = dict(self._refs)
        if cancel_futures:
            for ref in pending.values():
                ref.cancel()
        if wait:
            concurrent.futures.wait(list(pending))
        self._functions.clear()


def _cpus() -> float:
    welcome = client().welcome
    return welcome.num_cpus if welcome is not None else 1
