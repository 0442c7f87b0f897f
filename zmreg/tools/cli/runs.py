"""`zmreg runs` and `zmreg watch`: what the journals of runs say. No cluster is asked, and nothing is unpickled."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, Final

import click

from zmreg.tools.cli.common import AS_JSON, say_json, table

if TYPE_CHECKING:
    from zmreg.flows.runs.journal import RunSummary

_FOLDER = click.option(
    "--folder", metavar="DIR", help="Where the folders of runs are; by default $ZMREG_RUNS, else ./zmreg-runs."
)
_OK: Final = 0
_NOT_OK: Final = 1
_UNKNOWN: Final = 2


@click.command()
@_FOLDER
@AS_JSON
def runs(folder: str | None, as_json: bool) -> None:
    """Show the runs that have a name, the last one first.

    Example: zmreg runs
    """
    from zmreg.flows.runs.folders import runs_folder
    from zmreg.flows.runs.journal import summaries

    found = summaries(runs_folder(folder))
    if as_json:
        say_json([_document(each) for each in found])
        return
    rows = [
        {
            "Run": each.run_id, "Status": each.status, "Done": f"{_done(each)}/{each.total}",
            "Started": time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(each.started)),
            "Seconds": round(each.seconds, 1), "Failed": [name for name, row in each.phases.items()
                                                           if row.state == "failed"],
        }
        for each in found
    ]  # fmt: skip
    click.echo(table(rows, ("Run", "Status", "Done", "Started", "Seconds", "Failed")))


@click.command()
@click.argument("run_id", metavar="ID")
@_FOLDER
@click.option("--every", type=click.FloatRange(min=0.01), default=0.5, show_default=True, metavar="SECONDS",
              help="How often to look.")  # fmt: skip
@AS_JSON
def watch(run_id: str, folder: str | None, every: float, as_json: bool) -> int:
    """Follow a run until it ends. Exit code 0: completed; 1: failed, cancelled or interrupted; 2: no such run.

    Example: zmreg watch wf1
    """
    from zmreg.flows.runs.journal import summary_of
    from zmreg.flows.runs.outputs import run_folder

    try:
        path = run_folder(run_id, folder)
    except ValueError as error:
        raise click.UsageError(str(error)) from None
    found = summary_of(path)
    if found is None:
        click.echo(f"zmreg: there is no run {run_id!r} in {path.parent}; zmreg runs has those that there are", err=True)
        return _UNKNOWN
    said: dict[str, str] = {}
    while True:
        if not as_json:
            _say_changes(found, said)
        if found.status != "running":
            break
        time.sleep(every)  # another process writes it: there is nothing to wait on but the file
        found = summary_of(path) or found
    if as_json:
        say_json(_document(found))
    else:
        click.echo(f"{run_id} {found.status}, {_done(found)} of {found.total} phases done in {found.seconds:.1f} s")
    return _OK if found.status == "completed" else _NOT_OK


def _say_changes(found: RunSummary, said: dict[str, str]) -> None:
    for name, row in found.phases.items():
        if said.get(name) != row.state:
            said[name] = row.state
            took = f" in {row.seconds:.2f} s" if row.state == "done" else ""
            click.echo(f"{name} {row.state}{took}{f': {row.reason}' if row.reason else ''}")


def _done(found: RunSummary) -> int:
    return sum(row.state in ("done", "reused") for row in found.phases.values())


def _document(found: RunSummary) -> dict[str, Any]:
    phases = {name: {"state": row.state, "reason": row.reason, "seconds": row.seconds, "nbytes": row.nbytes}
              for name, row in found.phases.items()}  # fmt: skip
    return {
        "run": found.run_id, "status": found.status, "started": found.started, "seconds": found.seconds,
        "total": found.total, "phases": phases,
    }  # fmt: skip
