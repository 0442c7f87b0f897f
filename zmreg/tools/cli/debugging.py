"""`zmreg debug`: pdb on a call that is stopped somewhere in the cluster. A program's seat, for so long."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import click

from zmreg.tools.cli.common import AS_JSON, say_json, table, usage_errors, which_cluster

if TYPE_CHECKING:
    from zmreg.api.debugging import Breakpoint
    from zmreg.services.seat.client import Client
    from zmreg.services.setup.embedding import Attached, Embedded


@click.command()
@click.argument("what", metavar="[ID]", required=False)
@click.option("--wait", metavar="SECONDS", type=click.FloatRange(0), default=0.0, help="Wait for a call to stop.")
@click.option("--list", "only_list", is_flag=True, help="Show which calls are stopped, and no more.")
@which_cluster
@AS_JSON
def debug(
    what: str | None, wait: float, only_list: bool, address: str | None, key: str | None, as_json: bool
) -> None:  # fmt: skip
    """Attach pdb to a call that is stopped at a breakpoint(), or held at its error (post mortem).

    Without ID: to the only one that is stopped; of several, a list to choose from. ID is as the list shows it, or its
    last part. `c` lets the call go on, `q` makes it fail with bdb.BdbQuit; Ctrl-C interrupts a command, and pressed
    once more leaves, as Ctrl-D does: the call stays stopped, for whoever attaches next.

    Example: zmreg debug --wait 60
    """
    from zmreg.api.debugging import attach, awaited, choose

    with _seat(address, key, what) as seat:
        found = awaited(seat, what, wait)
        if as_json:
            say_json([_row(each) for each in found])
            return
        if only_list or (len(found) > 1 and what is None):
            click.echo(table([_row(each) for each in found], _COLUMNS))
            if only_list or not found:
                return
            what = _chosen()
        if not found:
            click.echo("no call is stopped at a breakpoint", err=True)
            sys.exit(1)
        with usage_errors():
            which = choose(found, what)
        _edit_lines()
        try:
            attach(seat, which)
        except RuntimeError as error:  # somebody else has it
            raise click.ClickException(str(error)) from None


_COLUMNS = ("ID", "Name", "Reason", "File", "Line", "Function", "State", "NodeID", "Pid", "Seconds")


def _row(each: Breakpoint) -> dict[str, Any]:
    return {
        "ID": each.id, "Name": each.name, "Reason": each.reason, "File": each.file, "Line": each.line,
        "Function": each.function, "State": each.state, "TaskID": each.task_id, "WorkerID": each.worker_id,
        "NodeID": each.node_id, "Pid": each.pid, "Seconds": round(each.seconds, 1),
    }  # fmt: skip


def _chosen() -> str:
    """Which of the list; UsageError where nobody can be asked."""
    if not sys.stdin.isatty():
        raise click.UsageError("several calls are stopped: say which, `zmreg debug ID`")
    answer: str = click.prompt("which", prompt_suffix="? ")
    return answer.strip()


def _edit_lines() -> None:
    """On a terminal lines can be edited, and called back."""
    if sys.stdin.isatty() and sys.stdout.isatty():
        with contextlib.suppress(ImportError):
            import readline  # noqa: F401


@contextlib.contextmanager
def _seat(address: str | None, key: str | None, what: str | None) -> Iterator[Client]:
    """A program's seat, also at the node of a program of its own; of several clusters here, in that which the id names.
    Raises as `services.setup.observer.observe`."""
    from zmreg.model.settings import Settings
    from zmreg.services.setup import sessions
    from zmreg.services.setup.embedding import attach, embed
    from zmreg.services.setup.finding import find
    from zmreg.services.setup.observer import VISITOR, of_a_program
    from zmreg.services.setup.sessions import Word

    with usage_errors():
        node = (what or "").partition("-")[0]
        is_said = address is None and len(node) > 4  # and not the last part of an id alone
        named = [word for word in sessions.running() if is_said and word.node.startswith(node)]
        found = named[0] if len(named) == 1 else find(address, key) or of_a_program()
        if isinstance(found, Word):
            seat: Attached | Embedded = attach(found, {})
        else:
            seat = embed(Settings(num_cpus=0.0, object_store_bytes=1 << 20), {}, found.listening(VISITOR))
    try:
        yield seat.client
    finally:
        seat.close()
