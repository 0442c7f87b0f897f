"""`zmreg status`, `nodes` and `list`: what there is and what it is at, asked of every node at the moment."""

from __future__ import annotations

import sys
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from zmreg.tools.cli.common import AS_JSON, amounts, asking, nbytes, say_json, table, which_cluster
from zmreg.tools.gathering import nodes_of

if TYPE_CHECKING:
    from zmreg.services.setup.observer import Observer

WATCH_S = 2.0
COLUMNS = {
    "nodes": ("NodeID", "NodeName", "State", "IsHead", "Address", "Resources", "Available", "Locs", "Reason"),
    "workers": ("WorkerID", "NodeID", "Pid", "State", "Name", "Assigned"),
    "tasks": ("TaskID", "State", "Type", "Name", "NodeID", "Pid", "OwnerID"),
    "actors": ("ActorID", "State", "ClassName", "Name", "Namespace", "NodeID", "NumRestarts"),
    "objects": ("ObjectID", "Bytes", "State", "Pins", "NodeID", "OwnerID"),
}
# Ids are long: in a table they are cut to what tells neighbours apart (model.ids). --json has them whole.
_FIRST, _LAST = ("NodeID",), ("WorkerID", "TaskID", "ActorID", "ObjectID", "OwnerID")
LIMIT = 100


# -- status ------------------------------------------------------------------------------------------------------------


@click.command()
@click.option("-w", "--watch", is_flag=True, help="Show it again every two seconds, until Ctrl-C.")
@which_cluster
@AS_JSON
def status(watch: bool, address: str | None, key: str | None, as_json: bool) -> None:
    """Show the cluster: its nodes, what they have and what is free, and what waits.

    Example: zmreg status -w
    """
    if watch and as_json:
        raise click.UsageError("--json is one document; leave --watch out")
    with asking(address, key) as observer:
        while True:
            found = _status(observer)
            if as_json:
                say_json(found)
            else:
                if watch and sys.stdout.isatty():
                    click.clear()
                click.echo(_status_text(found))
                sys.stdout.flush()
            if not watch:
                return
            time.sleep(WATCH_S)
            click.echo()


def _status(observer: Observer) -> dict[str, Any]:
    rows = nodes_of(observer)
    alive = [row for row in rows if row["Alive"]]
    health = observer.ask("health")
    return {
        "cluster": observer.word.cluster, "asked": observer.word.node, "head_lost": health["HeadLost"],
        "nodes": rows, "alive": len(alive), "total": _sum(alive, "Resources"), "available": _sum(alive, "Available"),
        "store_bytes": sum(row["ObjectStoreBytes"] for row in alive),
        "store_used_bytes": sum(row["ObjectStoreUsedBytes"] for row in alive),
        "workers": sum(row["Workers"] for row in alive), "waiting": sum(row["Waiting"] for row in alive),
    }  # fmt: skip


def _sum(rows: Sequence[Mapping[str, Any]], name: str) -> dict[str, float]:
    total: dict[str, float] = {}
    for row in rows:
        for resource, amount in row[name].items():
            total[resource] = total.get(resource, 0.0) + amount
    return total


def _status_text(found: Mapping[str, Any]) -> str:
    gone = [row for row in found["nodes"] if not row["Alive"]]
    total, free = found["total"], found["available"]
    used = ", ".join(
        f"{total[name] - free.get(name, 0.0):g} of {total[name]:g} {name}" for name in sorted(total) if name != "memory"
    )
    lines = [
        f"cluster  {found['cluster'] or '(of a program)'}" + ("  the head is silent" if found["head_lost"] else ""),
        f"nodes    {found['alive']} alive, {len(gone)} gone",
        f"in use   {used or 'nothing to hand out'}",
        f"store    {nbytes(found['store_used_bytes'])} of {nbytes(found['store_bytes'])}",
        f"workers  {found['workers']}, waiting for one: {found['waiting']}",
        "",
        table(_cut(found["nodes"]), ("NodeID", "NodeName", "State", "IsHead", "Address", "Workers", "Waiting", "Free")),
    ]
    lines += [f"{row['NodeName']} ({row['NodeID'][:8]}) is gone: {row['Reason']}" for row in gone if row["Reason"]]
    return "\n".join(lines)


@click.command()
@which_cluster
@AS_JSON
def nodes(address: str | None, key: str | None, as_json: bool) -> None:
    """Show the nodes of the cluster, those that are gone included.

    Example: zmreg nodes --json
    """
    with asking(address, key) as observer:
        _show(nodes_of(observer), "nodes", as_json)


# -- list --------------------------------------------------------------------------------------------------------------


@click.command("list")
@click.argument("kind", type=click.Choice(sorted(COLUMNS)))
@click.option("-f", "--filter", "filters", multiple=True, metavar="NAME=VALUE", help="Only rows where it is so.")
@click.option("--limit", type=click.IntRange(min=1), default=LIMIT, show_default=True, help="Rows at most.")
@which_cluster
@AS_JSON
def list_(kind: str, filters: tuple[str, ...], limit: int, address: str | None, key: str | None, as_json: bool) -> None:
    """List what there is of one kind: actors, nodes, objects (the largest), tasks (those that run), workers.

    It is what each node knows at this moment, and old news when you read it. Of an actor the LATEST call is shown,
    which it is in or has finished.

    Example: zmreg list workers -f State=idle
    """
    wanted = dict(_pair(each) for each in filters)
    with asking(address, key) as observer:
        from zmreg.services.setup.listing import listed  # late: it loads what a visit needs

        rows = listed(observer, kind, limit)
    for name in wanted:
        if rows and not any(name.lower() == column.lower() for column in rows[0]):
            raise click.UsageError(f"{kind} have no {name!r}; they have {', '.join(rows[0])}")
    _show([row for row in rows if _fits(row, wanted)][:limit], kind, as_json)


def _pair(text: str) -> tuple[str, str]:
    name, equals, value = text.partition("=")
    if not name or not equals:
        raise click.UsageError(f"-f {text}: write NAME=VALUE, e.g. -f State=ALIVE")
    return name, value


def _fits(row: Mapping[str, Any], wanted: Mapping[str, str]) -> bool:
    """Ids are given as tables show them, or as they begin."""
    found = {name.lower(): value for name, value in row.items()}
    for name, value in wanted.items():
        text = str(found[name.lower()])
        is_id = name.lower().endswith("id") and name.lower() != "pid"
        if text.lower() != value.lower() and not (is_id and (text.startswith(value) or text.endswith(value))):
            return False
    return True


def _show(rows: list[dict[str, Any]], kind: str, as_json: bool) -> None:
    if as_json:
        say_json(rows)
    elif rows:
        click.echo(table(_cut(rows), COLUMNS[kind]))
    else:
        click.echo(f"no {kind}", err=True)


def _cut(rows: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """For a table: short ids, and what is free as amounts."""
    cut = []
    for row in rows:
        short = {**row, **{name: row[name][:8] for name in _FIRST if name in row}}
        short |= {name: row[name][-8:] for name in _LAST if name in row}
        short["Free"] = amounts(row.get("Available", {}))
        cut.append(short)
    return cut
