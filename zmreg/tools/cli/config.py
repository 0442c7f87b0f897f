"""`zmreg config`: which settings there are, what they are here, and where each comes from."""

from __future__ import annotations

import click

from zmreg.tools.cli.common import AS_JSON, say_json, table, usage_errors


@click.group()
def config() -> None:
    """Show the settings: of variables, files and this machine.

    Example: zmreg config show --origin
    """


@config.command()
@click.option("--origin", is_flag=True, help="Say of each where it comes from: a variable, a file, this machine.")
@AS_JSON
def show(origin: bool, as_json: bool) -> None:
    """Show every setting as a node or a program that starts here, in this directory, would have it.

    What arguments say comes before all of it. A file with a setting that does not exist is an error, exit code 2;
    a variable that looks like a slip is told on stderr.

    Example: zmreg config show --origin
    """
    from zmreg.services.setup import origins

    with usage_errors():
        rows = origins.settings()
    slips = list(origins.slips())
    if as_json:
        say_json(
            {
                "settings": [{"name": row.name, "value": row.value, "origin": row.origin} for row in rows],
                "ignored": [{"variable": variable, "meant": meant} for variable, meant in slips],
            }
        )
    else:
        named = [{"setting": row.name, "value": _text(row.value), "origin": row.origin} for row in rows]
        click.echo(table(named, ("setting", "value", "origin") if origin else ("setting", "value")))
    for variable, meant in slips:
        click.echo(f"zmreg: {variable} is set and means nothing; did you mean {meant}?", err=True)


def _text(value: object) -> object:
    """Amounts and names as a variable takes them."""
    if isinstance(value, dict):
        return ",".join(f"{name}={amount:g}" for name, amount in value.items())
    return ",".join(value) if isinstance(value, tuple) else value
