"""`zmreg clusters`, `stop` and `health`: the nodes of this user on this machine."""

from __future__ import annotations

import sys
import time
from typing import TYPE_CHECKING, Any

import click

from zmreg.tools.cli.common import AS_JSON, asking, say_json, table, usage_errors, which_cluster

if TYPE_CHECKING:
    from collections.abc import Sequence

    from zmreg.services.setup.sessions import Word


@click.command()
@AS_JSON
def clusters(as_json: bool) -> None:
    """Show which nodes of yours run on this machine, and which clusters you have keys of.

    A node of a program of its own (`zmreg.init()` without a cluster) ends with that program.

    Example: zmreg clusters
    """
    from zmreg.services.setup import keys, sessions

    rows = [_row(word) for word in sessions.running()]
    known = keys.known_clusters()
    if as_json:
        say_json({"nodes": rows, "keys": known, "directory": str(keys.home() / "clusters")})
        return
    shown = ("node", "name", "role", "address", "cluster", "pid")
    click.echo(
        table([{**row, "node": row["node"][:8]} for row in rows], shown) if rows else "no node of yours runs here"
    )
    if known:
        click.echo(f"\nkeys under {keys.home() / 'clusters'}: {', '.join(known)}")


def _row(word: Word) -> dict[str, Any]:
    role = "head" if word.is_head else "worker"
    return {
        "node": word.node, "name": word.name, "role": role if word.attachable else "of a program",
        "address": word.address, "cluster": word.cluster, "pid": word.pid, "session": word.session,
        "key_file": word.key_file,
    }  # fmt: skip


@click.command()
@click.argument("nodes", nargs=-1, metavar="[NODE]...")
@click.option("--grace", type=click.FloatRange(min=0), default=30.0, show_default=True, metavar="SECONDS",
              help="How long nodes may take to end in order; then they are killed.")  # fmt: skip
@click.option("--force", is_flag=True, help="Kill at once, without a word to anybody.")
@AS_JSON
def stop(nodes: tuple[str, ...], grace: float, force: bool, as_json: bool) -> None:
    """End the nodes that you have started on this machine with `zmreg start`, or those that are named.

    What others still need of them goes to nodes that stay, if there are any (see `zmreg drain`). NODE is a node's id
    (or how it begins), name or address. Nodes on other machines, other users' and those of programs
    of their own go on.

    Example: zmreg stop
    """
    from zmreg.services.setup import sessions

    words = [word for word in sessions.running() if word.attachable]
    if nodes:
        with usage_errors():
            words = [_named(words, node) for node in nodes]
    words.sort(key=lambda word: word.is_head)
    # All at once: none of them takes over what the others have. Those that stay do.
    fates = sessions.end(words, 0.0 if force else grace) if words else {}
    rows = [{**_row(word), "fate": fates.get(word.node, "still there")} for word in words]
    if as_json:
        say_json({"stopped": rows})
    elif rows:
        click.echo("\n".join(f"{row['fate']}: {row['role']} {row['name']} ({row['node'][:8]})" for row in rows))
    else:
        click.echo("no node of yours runs here", err=True)
    if any(row["fate"] == "still there" for row in rows):
        sys.exit(1)


def _named(words: Sequence[Word], name: str) -> Word:
    found = [word for word in words if name in (word.name, word.address) or word.node.startswith(name)]
    if len(found) != 1:
        there = ", ".join(word.title() for word in words) or "none"
        raise ValueError(f"{'no node' if not found else 'more than one node'} here is {name!r}; there are {there}")
    return found[0]


@click.command()
@click.option("--timeout", type=click.FloatRange(min=0.1), default=3.0, show_default=True, metavar="SECONDS",
              help="How long the node may take to answer.")  # fmt: skip
@which_cluster
@AS_JSON
def health(timeout: float, address: str | None, key: str | None, as_json: bool) -> None:
    """Ask a node whether it is well: exit code 0 if it answers in time, else 1. For probes.

    Example: zmreg health --timeout 3
    """
    from zmreg.model.errors import ZmregError

    began = time.monotonic()
    try:
        with asking(address, key) as observer:
            facts = observer.ask("health", timeout=timeout)
    except (ZmregError, OSError) as error:
        if as_json:
            say_json({"healthy": False, "reason": str(error)})
        else:
            click.echo(f"not healthy: {error}", err=True)
        sys.exit(1)
    answered_ms = round((time.monotonic() - began) * 1e3, 1)
    if as_json:
        say_json({"healthy": True, "answered_ms": answered_ms, **facts})
    else:
        head = ", and misses the head" if facts["HeadLost"] else ""
        click.echo(f"healthy: node {facts['NodeID'][:8]} answered in {answered_ms:g} ms{head}")
