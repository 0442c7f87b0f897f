"""`zmreg drain`: have a node leave its cluster in peace."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from zmreg.tools.cli.common import AS_JSON, asking, say_json, usage_errors, which_cluster

if TYPE_CHECKING:
    from zmreg.services.setup.observer import Observer

ASK_S = 0.1


@click.command()
@click.argument("node", metavar="NODE")
@click.option("--grace", type=click.FloatRange(min=0), metavar="SECONDS",
              help="What runs there may take so long to finish; by default as the node was started (10).")  # fmt: skip
@click.option("--timeout", type=click.FloatRange(min=0), default=120.0, show_default=True, metavar="SECONDS",
              help="How long to wait until it is gone; the drain goes on after that.")  # fmt: skip
@which_cluster
@AS_JSON
def drain(node: str, grace: float | None, timeout: float, address: str | None, key: str | None, as_json: bool) -> None:
    """Have a node leave: it takes no more work, what only it has is copied to others, and then it ends.

    NODE is a node's id (or how it begins) or name, on any machine. What does not finish there within the grace is tried
    again elsewhere. Actors go elsewhere if they may be restarted.

    Example: zmreg drain 1f3a2b4c --grace 60
    """
    began = time.monotonic()
    with asking(address, key) as observer:
        with usage_errors():
            row = _named(observer, node)
        _order(observer, row["NodeID"], grace)
        fate = _await_gone(observer, row["NodeID"], began + timeout)
    took_s = round(time.monotonic() - began, 2)
    if as_json:
        say_json({"node": row["NodeID"], "name": row["NodeName"], "fate": fate, "seconds": took_s})
    else:
        click.echo(f"{fate}: {row['NodeName']} ({row['NodeID'][:8]}), after {took_s:g} s")
    if fate != "left":
        raise SystemExit(1)


def _named(observer: Observer, name: str) -> dict[str, Any]:
    rows: list[dict[str, Any]] = [row for row in observer.ask("nodes") if row["Alive"]]
    found = [row for row in rows if name == row["NodeName"] or row["NodeID"].startswith(name)]
    if len(found) != 1:
        there = ", ".join(f"{row['NodeName']} ({row['NodeID'][:8]})" for row in rows)
        raise ValueError(f"{'no node' if not found else 'more than one node'} is {name!r}; there are {there}")
    return found[0]


def _order(observer: Observer, node_id: str, grace: float | None) -> None:
    from zmreg.model.errors import ClusterError

    answer = observer.ask("drain", f"{node_id} {'' if grace is None else grace}")
    if answer is None or answer["refused"]:
        raise ClusterError(answer["refused"] if answer else f"node {node_id} is not in the cluster any more")


def _await_gone(observer: Observer, node_id: str, deadline: float) -> str:
    from zmreg.model.errors import ClusterError

    own = observer.word.node == node_id
    while time.monotonic() < deadline:
        try:
            state = next((row["State"] for row in observer.ask("nodes") if row["NodeID"] == node_id), "LEFT")
        except ClusterError:
            if own:  # the node that we ask is the one that leaves
                return "left"
            raise
        if state in ("LEFT", "DEAD"):
            return "left" if state == "LEFT" else "died meanwhile"
        time.sleep(ASK_S)
    return "still there"
