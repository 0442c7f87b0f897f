"""What several commands share: which cluster is meant, JSON or a table, and how amounts are shown."""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from zmreg.services.setup.observer import Observer

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout and nothing else.")


def which_cluster(command: Callable[..., Any]) -> Callable[..., Any]:
    """The options that say which cluster is meant."""
    for option in (
        click.option("--key", metavar="FILE", help="The cluster's key file; needed where no node of it runs."),
        click.option(
            "--address", metavar="HOST:PORT", help="Any node of the cluster; by default the one of this machine."
        ),
    ):
        command = option(command)
    return command


@contextlib.contextmanager
def asking(address: str | None, key: str | None) -> Iterator[Observer]:
    """A visit to the cluster that is meant. Raises as `services.setup.observer.observe`; UsageError for what is no
    address or a configuration with a slip."""
    from zmreg.services.setup.observer import observe

    with usage_errors():
        visit = observe(address, key)
        observer = visit.__enter__()
    with contextlib.ExitStack() as leaving:
        leaving.push(visit)
        yield observer


@contextlib.contextmanager
def usage_errors() -> Iterator[None]:
    """A ValueError about an address, an option or the configuration is the user's: exit code 2."""
    try:
        yield
    except ValueError as error:
        raise click.UsageError(str(error)) from None


def say_json(document: Any) -> None:
    """One document, a line."""
    click.echo(json.dumps(document))


def table(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """Aligned columns under a heading; numbers to the right."""
    cells = [[cell(row.get(name)) for name in columns] for row in rows]
    widths = [max(len(text) for text in column) for column in zip(columns, *cells, strict=True)]
    right = [
        all(isinstance(row.get(name), int | float) and not isinstance(row.get(name), bool) for row in rows)
        and bool(rows)
        for name in columns
    ]
    lines = [list(columns), *cells]
    return "\n".join(
        "  ".join(
            text.rjust(width) if number else text.ljust(width)
            for text, width, number in zip(line, widths, right, strict=True)
        ).rstrip()
        for line in lines
    )


def cell(value: Any) -> str:
    """A value in a table."""
    if value is None or value == "" or value == [] or value == {}:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        return amounts(value)
    if isinstance(value, list | tuple):
        return ",".join(map(str, value))
    return str(value)


def amounts(resources: Mapping[str, float]) -> str:
    """`CPU=2,licence=1`; memory in bytes would be noise here."""
    return ",".join(f"{name}={amount:g}" for name, amount in sorted(resources.items()) if name != "memory") or "-"


def nbytes(count: float) -> str:
    """`1.5 GiB`."""
    units = ("B", "KiB", "MiB", "GiB", "TiB")
    place = 0
    while count >= 1024 and place < len(units) - 1:
        count, place = count / 1024, place + 1
    return f"{count:.0f} {units[place]}" if place == 0 else f"{count:.1f} {units[place]}"


def colour(text: str, name: str) -> str:
    """In colour on a terminal, unless NO_COLOR says otherwise."""
    return text if os.environ.get("NO_COLOR") else click.style(text, fg=name)
