"""joblib, and with it scikit-learn, on a cluster.

import zmreg.integrations.joblib
zmreg.integrations.joblib.register()
with joblib.parallel_config("zmreg"):
    search.fit(X, y)
"""

from __future__ import annotations

import copy
import multiprocessing
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

import joblib
from joblib._parallel_backends import AutoBatchingMixin, FallbackToBackend, ParallelBackendBase, SequentialBackend

import zmreg

# Arrays from here on are put into the store once for each call of Parallel; joblib's own size for sharing them.
SHARED_BYTES = 1_000_000


class _Shared:
    """Stands in a batch for an array that comes as an argument of its own. `place`: which one."""

    __slots__ = ("place",)

    def __init__(self, place: int) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return _Shared, (self.place,)


def _run_batch(batch: Any, *arrays: Any) -> Any:
    register()  # so that the name means something in a task as well
    if arrays:
        batch.items = [
            (function, [_filled(arg, arrays) for arg in args], {name: _filled(arg, arrays) for name, arg in kw.items()})
            for function, args, kw in batch.items
        ]
    return batch()


def _filled(arg: Any, arrays: tuple[Any, ...]) -> Any:
    return arrays[arg.place] if type(arg) is _Shared else arg


class ZmregBackend(AutoBatchingMixin, ParallelBackendBase):  # type: ignore[misc]
    """joblib's batches as tasks. Large arrays among the arguments are sent once, and read in place (read-only).

    Keywords of `parallel_config("zmreg", ...)` are options of the tasks, as `@zmreg.remote` takes them.
    """

    supports_retrieve_callback = True
    default_n_jobs = -1

    _workers: zmreg.Executor | None = None
    """Under the name by which joblib's own back ends keep theirs."""

    def configure(
        self, n_jobs: int = 1, parallel: Any = None, prefer: Any = None, require: Any = None, **more: Any
    ) -> int:
        """Called once for each Parallel, or each `with Parallel`. Returns how many jobs run at once."""
        n_jobs = self.effective_n_jobs(n_jobs)
        if n_jobs == 1:
            raise FallbackToBackend(SequentialBackend(nesting_level=self.nesting_level))
        self.parallel = parallel
        self._shared_bytes = joblib.parallel.memstr_to_bytes(limit) if isinstance(
            limit := more.get("max_nbytes", SHARED_BYTES), str
        ) else limit  # fmt: skip
        given = {name: more[name] for name in ("initializer", "initargs") if name in more}
        self._workers = zmreg.Executor(n_jobs, **{**self.backend_kwargs, **given})
        self.start_call()
        return n_jobs

    def effective_n_jobs(self, n_jobs: int | None) -> int:
        """As joblib counts them; -1 is all CPUs of the cluster. In a task 1: joblib's wait does not free its CPU."""
        if n_jobs == 0:
            raise ValueError("n_jobs == 0 in Parallel has no meaning")
        if n_jobs is None or (zmreg.is_initialized() and zmreg.get_runtime_context().get_task_id() is not None):
            return 1
        if multiprocessing.current_process().daemon:  # forked by another back end: the cluster is its parent's
            return 1
        if n_jobs > 0:
            return n_jobs
        return max(1, int(zmreg.cluster_resources().get("CPU", 1)) + 1 + n_jobs)

    def start_call(self) -> None:
        """An array is known by its identity while one call of Parallel lasts: who changes it later sends it anew."""
        self._refs: dict[int, tuple[Any, zmreg.ObjectRef[Any]]] = {}
        self._guard = threading.Lock()

    def stop_call(self) -> None:
        """Arrays that were sent may go."""
        self._refs = {}

    def submit(self, func: Any, callback: Callable[[Future[Any]], object] | None = None) -> Future[Any]:
        """Send a batch."""
        assert self._workers is not None
        refs: list[zmreg.ObjectRef[Any]] = []
        if self._shared_bytes is not None:
            func = self._without_arrays(func, refs)
        future = self._workers.submit(_run_batch, func, *refs)
        if callback is not None:
            future.add_done_callback(callback)
        return future

    def _without_arrays(self, batch: Any, refs: list[zmreg.ObjectRef[Any]]) -> Any:
        places: dict[int, _Shared] = {}

        def stand_in(arg: Any) -> Any:
            if (
                not isinstance(nbytes := getattr(arg, "nbytes", 0), int)
                or nbytes < (self._shared_bytes or 0)
                or not nbytes
            ):
                return arg
            if id(arg) not in places:
                places[id(arg)] = _Shared(len(refs))
                refs.append(self._put(arg))
            return places[id(arg)]

        items = [
            (function, tuple(map(stand_in, args)), {name: stand_in(arg) for name, arg in kwargs.items()})
            for function, args, kwargs in batch.items
        ]
        if refs:
            batch = copy.copy(batch)
            batch.items = items
        return batch

    def _put(self, array: Any) -> zmreg.ObjectRef[Any]:
        with self._guard:
            known = self._refs.get(id(array))
            if known is None:
                known = self._refs[id(array)] = (array, zmreg.put(array))  # held: its id stays its own
            return known[1]

    def retrieve_result_callback(self, out: Future[Any]) -> Any:
        """What the batch returned; raises what it raised."""
        return out.result()

    def terminate(self) -> None:
        """The end of a Parallel."""
        if self._workers is not None:
            self._workers.shutdown(wait=False)
            self._workers = None
        self.reset_batch_stats()

    def abort_everything(self, ensure_ready: bool = True) -> None:
        """A job has failed: end the others."""
        if self._workers is not None:
            self._workers.kill_workers()
            self._workers = None
        if ensure_ready:
            self.configure(n_jobs=self.parallel.n_jobs, parallel=self.parallel, **self.parallel._backend_kwargs)


def register(make_default: bool = False) -> None:
    """Make the backend known to joblib as "zmreg"."""
    joblib.register_parallel_backend("zmreg", ZmregBackend, make_default=make_default)
