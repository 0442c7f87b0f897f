"""What is done to a cluster as a whole: wait until it is complete, make it as new."""

from __future__ import annotations

import time
from typing import Final

from zmreg.api.cluster import nodes
from zmreg.model.errors import GetTimeoutError
from zmreg.services.client import Waiter
from zmreg.services.seats import client

# A node is seen by all within milliseconds; who waits for minutes need not ask a hundred times a second.
_ASK_S: Final = 0.01
_ASK_MOST_S: Final = 0.25


def wait_for_nodes(count: int, timeout: float | None = None) -> None:
    """Wait until at least `count` living nodes are in the cluster, this machine's included.

    Raises GetTimeoutError when there are fewer after `timeout` seconds (0 looks once); ValueError for a count below 1.
    """
    if count < 1:
        raise ValueError(f"count={count}: a cluster has at least one node")
    deadline = None if timeout is None else time.monotonic() + timeout
    seat, pause = client(), _ASK_S
    while (alive := sum(node["Alive"] for node in nodes())) < count:
        left = pause if deadline is None else deadline - time.monotonic()
        if left <= 0:
            raise GetTimeoutError(
                f"{alive} of {count} nodes were in the cluster after {timeout} s; `zmreg status` on the others says "
                "what keeps them",
                timeout_s=timeout,
            )
        with seat.shield():
            seat.wait(Waiter(), min(pause, left))
        pause = min(_ASK_MOST_S, 2 * pause)


def restart(timeout: float = 30.0) -> None:
    """Have a clean cluster: every worker and every actor ends, detached ones, too; new workers start.

    What this program has under way is cancelled: its refs raise TaskCancelledError. Values that are there already stay,
    unless a worker owned them. For other programs it is as if all workers had died at once: their tasks are tried
    again as their options allow. Returns when the last old process is gone.
    Raises ClusterError when that takes longer than `timeout` seconds, RuntimeError inside a task or an actor.
    """
    from zmreg.services.starting_over import restart as start_over  # late: most programs never do this

    start_over(client(), timeout)
