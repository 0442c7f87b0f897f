"""`zmreg logs`: what a node's daemon and its workers have printed, on this machine or another."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from zmreg.tools.cli.common import asking, which_cluster

if TYPE_CHECKING:
    from zmreg.services.setup.observer import Observer

FOLLOW_S = 0.5
TAIL_BYTES = 16 * 1024


@click.command()
@click.argument("what", metavar="ID")
@click.option("-f", "--follow", is_flag=True, help="Go on with what is printed later, until Ctrl-C.")
@click.option("--all", "whole", is_flag=True, help="From the beginning, not the last 16 KiB.")
@which_cluster
def logs(what: str, follow: bool, whole: bool, address: str | None, key: str | None) -> None:
    """Print a log. ID is a worker's id or pid, an actor's id or name, a node's id or name, or `node`.

    `node` is the daemon of this machine's node, `load-0` the first process of its `--load`. Ids may be cut, as
    `zmreg list` shows them. A log is kept as long as its node runs; of dead workers the last twenty are.

    Example: zmreg logs node -f
    """
    with asking(address, key) as observer:
        node, name = _find(observer, what)
        offset = 0 if whole else -TAIL_BYTES
        first = not whole
        while True:
            page = observer.ask_all([node], "log", f"{name} {offset}").get(node)
            if page is None:
                raise click.UsageError(f"there is no log of {what!r} any more")
            data: bytes = page["data"]
            if first and page["start"] > 0:
                data = data[data.find(b"\n") + 1 :]  # the page begins in the midst of a line
            first = False
            sys.stdout.write(data.decode(errors="replace"))
            sys.stdout.flush()
            offset = page["next"]
            if offset >= page["size"]:
                if not follow:
                    return
                time.sleep(FOLLOW_S)


def _find(observer: Observer, what: str) -> tuple[str, str]:
    """(node, name of the log). UsageError when it is nobody's, or more than one's."""
    if what == "node" or what.startswith("load-"):
        return observer.word.node, what
    found: dict[tuple[str, str], None] = {}
    for row in observer.ask("nodes"):
        if row["Alive"] and (row["NodeName"] == what or _is(row["NodeID"], what)):
            found[row["NodeID"], "node"] = None
    if not found:
        for rows in observer.ask_all(observer.alive(), "workers").values():
            for row in rows or ():
                if str(row["Pid"]) == what or _is(row["WorkerID"], what):
                    found[row["NodeID"], row["WorkerID"]] = None
    if not found:
        for row in observer.ask("actors") or ():
            if row["WorkerID"] and (row["Name"] == what or _is(row["ActorID"], what)):
                found[row["NodeID"], row["WorkerID"]] = None
    if len(found) != 1:
        many = "more than one log is" if found else "no node, worker or actor of this cluster is"
        raise click.UsageError(f"{many} {what!r}; `zmreg list workers` and `zmreg list actors` show the ids")
    return next(iter(found))


def _is(full: Any, what: str) -> bool:
    return len(what) >= 4 and (full.startswith(what) or full.endswith(what))
