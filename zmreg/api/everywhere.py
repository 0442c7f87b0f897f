"""Running something on every worker at once."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from zmreg.api.cluster import nodes as list_nodes
from zmreg.model.arguments import check_seconds
from zmreg.model.errors import ClusterError
from zmreg.services.seat.seats import client

T = TypeVar("T")


def run_on_all(
    fn: Callable[..., T],
    *args: Any,
    nodes: Iterable[str] | None = None,
    timeout: float | None = None,
    return_exceptions: bool = False,
    **kwargs: Any,
) -> dict[str, T]:
    """Run `fn(*args, **kwargs)` now, in every worker process that there is, actors' included: {worker id: result}.

    It waits for no task: it runs beside what the worker does, on a thread of its own (an `async def` in a loop of its
    own). `nodes`: ids as in `zmreg.nodes()`, for the workers of these alone. Arguments and each result have 100 MiB at
    most; a ref among them keeps nothing alive. The first error is raised, with a note that names the worker, or with
    `return_exceptions` stands among the results: the function's own, WorkerDiedError, GetTimeoutError after `timeout`
    seconds (it runs on). Raises ClusterError for a node that is not there.
    """
    from zmreg.services.worker.running_here import Failed, run_everywhere  # late: few programs do this

    check_seconds(timeout, past=True)
    if not callable(fn := getattr(fn, "_function", fn)):
        raise TypeError(f"fn={fn!r:.80}: zmreg.run_on_all calls it, so give a function")
    alive = [row["NodeID"] for row in list_nodes() if row["Alive"]]
    wanted = alive if nodes is None else [nodes] if isinstance(nodes, str) else list(nodes)
    for node in wanted:
        if node not in alive:
            raise ClusterError(f"no living node {node} is in the cluster; zmreg.nodes() lists them")
    found = run_everywhere(client(), (fn, args, kwargs), wanted, timeout)
    if not return_exceptions:
        for worker, value in found.items():
            if isinstance(value, Failed):
                value.error.add_note(f"on worker {worker}, by zmreg.run_on_all")
                raise value.error
    results: dict[str, Any] = {
        worker: value.error if isinstance(value, Failed) else value for worker, value in found.items()
    }
    return results
