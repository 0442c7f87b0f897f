"""`zmreg timeline`, `zmreg summary` and `zmreg why`: what the processes of a cluster know of calls."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zmreg.tools.cli.common import AS_JSON, asking, say_json, table, which_cluster

if TYPE_CHECKING:
    from zmreg.services.seat.asking import Ask
    from zmreg.services.setup.observer import Observer

# Longer than a node gives its processes to answer (services/node/looks.py).
ANSWER_S = 5.0


def _asker(observer: Observer) -> Ask:
    def ask(node: str, topic: str, key: str) -> list[dict[str, Any]] | None:
        return observer.ask_much([node], topic, f"{node} {key}", ANSWER_S).get(node)

    return ask


@click.command()
@click.option(
    "-o", "--output", type=click.Path(dir_okay=False, path_type=Path), default=Path("timeline.json"), show_default=True,
    help="Where to write it; - is the standard output.",
)  # fmt: skip
@which_cluster
def timeline(output: Path, address: str | None, key: str | None) -> None:
    """Write what the cluster has run lately, for a trace viewer: chrome://tracing, or ui.perfetto.dev.

    Each process is asked for its latest 10,000 calls that are over; what is gone is not there to be asked. When a call
    began is reckoned back from its answer, by its owner's clock.

    Example: zmreg timeline -o t.json
    """
    from zmreg.services.seat.timelines import gather, trace

    with asking(address, key) as observer:
        found = gather(_asker(observer), observer.alive())
    text = json.dumps(trace(found))
    if str(output) == "-":
        click.echo(text)
    else:
        output.write_text(text)
        calls = sum(len(each.facts) for each in found.owned)
        hint = "" if calls else "; a program is asked while it runs, or calls zmreg.timeline() before it ends"
        click.echo(f"{calls} calls of {len(found.owned)} processes: {output}{hint}", err=True)
    _say_silent(found.silent)


@click.command()
@which_cluster
@AS_JSON
def summary(address: str | None, key: str | None, as_json: bool) -> None:
    """Count the calls that are over, by function: the latest 10,000 of each process.

    Example: zmreg summary
    """
    from zmreg.services.seat.timelines import gather
    from zmreg.services.seat.timelines import summary as rows_of

    with asking(address, key) as observer:
        found = gather(_asker(observer), observer.alive())
    rows = rows_of(found)
    if as_json:
        say_json(rows)
    elif rows:
        click.echo(table(rows, tuple(rows[0])))
    else:
        click.echo("no process of this cluster remembers a call that is over; a program is asked while it runs")
    _say_silent(found.silent)


@click.command()
@click.argument("task", metavar="ID")
@which_cluster
@AS_JSON
def why(task: str, address: str | None, key: str | None, as_json: bool) -> None:
    """Say why a call has not ended: what it waits for, what that waits for, and so on; and what happened to it so far.

    ID is a ref's, a task's or a value's id, or its last digits (4 at least) as they are shown.

    Example: zmreg why 0000002a
    """
    if not 4 <= len(task) <= 32 or any(character not in "0123456789abcdef" for character in task):
        raise click.UsageError(f"{task!r} is no id: 32 hex digits, or the last ones of these (4 at least)")
    from zmreg.services.seat.asking import WHY, chain

    with asking(address, key) as observer:
        ask = _asker(observer)
        rows = [row for node in observer.alive() for row in ask(node, WHY, task) or ()]
        made = next((row["Told"]["Made"] for row in rows if row["Told"] and row["Told"]["Made"]), None)
        if made is None:
            raise click.UsageError(f"no process of this cluster knows a call {task!r}")
        lines = chain(ask, observer.ask("nodes"), made["Info"]["TaskID"])
    if as_json:
        say_json({**made, "Why": lines})
        return
    for line in lines:
        click.echo(line)
    click.echo("so far:")
    for age, text in made["Story"]:
        click.echo(f"  {age:10.3f} s ago  {text}")


def _say_silent(silent: list[str]) -> None:
    for each in silent:
        click.echo(f"{each} has not answered", err=True)
