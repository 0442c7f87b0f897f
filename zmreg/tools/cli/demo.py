"""`zmreg demo`: search the standard library's own source."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from zmreg.tools.demo.report import Asked

DEFAULT_QUERY = "context manager"


@click.command()
@click.option("-q", "--query", "queries", multiple=True, metavar="WORDS", help="What to look for; may be repeated.")
@click.option("--files", type=click.IntRange(min=1), metavar="N", help="Index only the first N files.")
@click.option("--workers", type=click.IntRange(min=1), metavar="N", help="Worker processes; by default one per CPU.")
@click.option("--top", type=click.IntRange(min=1), default=5, show_default=True, help="Hits to show for each query.")
@click.option(
    "--root",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Search this folder's Python files instead of the standard library.",
)
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout and nothing else.")
def demo(
    queries: tuple[str, ...], files: int | None, workers: int | None, top: int, root: Path | None, as_json: bool
) -> None:
    """Index and search the source of Python's own standard library.

    Tasks parse and tokenise the files, actors hold the shards of the index, partial indexes stay where they were made.
    On a terminal and without --query it asks for queries; an empty line ends.

    Example: zmreg demo --query "context manager"
    """
    # Late: these import the engine, which `zmreg --help` should not wait for.
    from zmreg.tools.demo.files import standard_library
    from zmreg.tools.demo.report import answer_text, table_text
    from zmreg.tools.demo.run import Options, run

    options = Options(root or standard_library(), workers or len(os.sched_getaffinity(0)), files, top)
    interactive = not queries and not as_json and sys.stdin.isatty() and sys.stdout.isatty()
    colour = sys.stdout.isatty() and not os.environ.get("NO_COLOR")

    def show(asked: Asked) -> None:
        if not as_json:
            click.echo("\n" + answer_text(asked, colour))

    click.echo(f"Searching the Python source under {options.root} with {options.workers} workers", err=True)
    report = run(options, typed_queries() if interactive else queries or (DEFAULT_QUERY,), show)
    if as_json:
        click.echo(json.dumps(report.as_dict()))
    else:
        click.echo("\n" + table_text(report))


def typed_queries() -> Iterator[str]:
    """Queries typed by the user, until an empty line or the end of input. Ctrl-C raises KeyboardInterrupt."""
    while True:
        try:
            line = input("\nsearch for (empty line ends): ").strip()
        except EOFError:
            click.echo()
            return
        if not line:
            return
        yield line
