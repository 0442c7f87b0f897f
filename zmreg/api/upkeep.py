"""What is done to a cluster as a whole: wait until it is complete or well again, make it as new."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any, Final

from zmreg.api.actors import ActorHandle
from zmreg.api.cluster import nodes
from zmreg.model.arguments import check_count, check_name, check_seconds
from zmreg.model.errors import ClusterError, GetTimeoutError
from zmreg.services.seat.client import Waiter
from zmreg.services.seat.seats import client

# A node is seen by all within milliseconds; who waits for minutes need not ask a hundred times a second.
_ASK_S: Final = 0.01
_ASK_MOST_S: Final = 0.25


def wait_for_nodes(count: int, timeout: float | None = None) -> None:
    """Wait until at least `count` living nodes are in the cluster, this machine's included.

    Raises GetTimeoutError when there are fewer after `timeout` seconds (0 looks once); ValueError for a count below 1.
    """
    count = check_count(count, "count", 1)
    check_seconds(timeout, past=True)
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


def wait_for_actors(handles: Iterable[ActorHandle[Any]] | None = None, timeout: float | None = None) -> None:
    """Wait until these actors live: those that crashed have restarted, those that are just made have been constructed.

    Without `handles`: all actors that this program has made, except those whose end was wanted (`zmreg.kill`,
    `zmreg.exit_actor`). A crash is waited for once it is known: a call has raised ActorUnavailableError, or the head
    has noticed, which takes milliseconds. Calls need not wait for this: they are sent as soon as the actor is there.
    Raises ActorDiedError for one that does not come back; GetTimeoutError after `timeout` seconds (0 looks once);
    HeadUnavailableError when nobody can say.
    """
    from zmreg.services.calling.reviving import Given, Own  # late, as below
    from zmreg.services.calling.reviving import wait_for_actors as wait

    check_seconds(timeout, past=True)
    if handles is not None:
        handles = list(handles) if isinstance(handles, Iterable) else [handles]
        for each in handles:
            if not isinstance(each, ActorHandle):
                raise TypeError(f"zmreg.wait_for_actors takes actor handles, not {type(each).__name__}: {each!r:.80}")
    seat = client()
    actors = Own(seat) if handles is None else Given(seat, [each._facts[:3] for each in handles])
    wait(seat, actors, timeout)


def drain_node(node_id: str, timeout: float | None = None, *, grace: float | None = None) -> None:
    """Have a node leave in peace; returns when it is gone.

    It takes no more work. What runs there has `grace` seconds to finish (by default what the node was started with, 10)
    and is tried again elsewhere after that, at no charge. Actors that may be restarted go elsewhere; the others end.
    Values that only it has are copied to other nodes first. Programs that use it as their node lose their seat.
    `node_id` is as in `nodes()`. Raises ClusterError when there is no such node, it is the head, or dies meanwhile;
    HeadUnavailableError when it is silent and there is no head that could say whether it is dead; ValueError for this
    program's own node; GetTimeoutError after `timeout` seconds, and the drain goes on.
    """
    check_name(node_id, "node_id")
    check_seconds(timeout, past=True)
    check_seconds(grace, "grace")
    seat = client()
    if node_id == seat.node.hex():
        raise ValueError(
            f"node {node_id} is where this program has its seat; drain it from elsewhere, or `zmreg drain`"
        )
    if grace == float("inf"):
        raise ValueError(f"grace={grace}: seconds are needed, from 0")
    deadline = None if timeout is None else time.monotonic() + timeout
    if node_id not in {row["NodeID"] for row in nodes()}:
        raise ClusterError(f"no node {node_id} is in the cluster; zmreg.nodes() lists them")
    answer = seat.ask("drain", f"{node_id} {'' if grace is None else grace}")
    if answer is None or answer["refused"]:
        raise ClusterError(f"node {node_id}: {answer['refused'] if answer else 'it has gone already'}")
    while (row := next((row for row in nodes() if row["NodeID"] == node_id), None)) is not None and row["Alive"]:
        if row["State"] == "SUSPECTED":  # only a head could say that it is dead
            seat.questions.require_head()
        left = _ASK_MOST_S if deadline is None else deadline - time.monotonic()
        if left <= 0:
            raise GetTimeoutError(f"node {node_id} is still leaving after {timeout} s", timeout_s=timeout)
        with seat.shield():
            seat.wait(Waiter(), min(_ASK_MOST_S, left))
    if row is not None and row["State"] == "DEAD":
        raise ClusterError(f"node {node_id} died while it was drained: {row['Reason']}")


def interrupt(grace: float | None = None) -> int:
    """Ctrl-C for all that this program has under way: every call of it is cancelled as by `zmreg.cancel`, wherever it
    runs; how many there were.

    What is queued never runs. Running tasks get KeyboardInterrupt; with `grace` seconds they have half of them to see
    `zmreg.cancelled()` first, and at their end their processes are killed. Running calls of actors are told by
    `zmreg.cancelled()`, and async ones are cancelled. Refs raise TaskCancelledError, unless the call returned all the
    same. Workers, actors and values stay: see `restart` for a clean cluster. ValueError for a grace below 0.
    """
    from zmreg.services.calling.endings import check_grace  # late, as below

    check_grace(False, grace)
    seat = client()
    with seat.shield(), seat.lock:
        seat.check()
        return seat.tasks.cancel_all(grace)


def restart(timeout: float = 30.0) -> None:
    """Have a clean cluster: every worker and every actor ends, detached ones, too; new workers start.

    What this program has under way is cancelled: its refs raise TaskCancelledError. Values that are there already stay,
    unless a worker owned them. For other programs it is as if all workers had died at once: their tasks are tried
    again as their options allow. Returns when the last old process is gone.
    Raises ClusterError when that takes longer than `timeout` seconds, RuntimeError inside a task or an actor.
    """
    from zmreg.services.calling.starting_over import restart as start_over  # late: most programs never do this

    check_seconds(timeout, needed=True)
    start_over(client(), timeout)
