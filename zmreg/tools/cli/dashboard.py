"""`zmreg dashboard`: the cluster in a browser."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

import click

from zmreg.tools.cli.common import AS_JSON, say_json, usage_errors, which_cluster

if TYPE_CHECKING:
    from zmreg.tools.dashboard.door import DashboardDoor

PORT = 8265


@click.command()
@click.option("--host", metavar="HOST", default="127.0.0.1", show_default=True, help="Where it listens.")
@click.option("--port", type=click.IntRange(0, 65_535), default=PORT, show_default=True, help="0: any free one.")
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="What those who look have to know; by default it is made up, and in the address. Mode 0600.",
)
@click.option("--runs", metavar="DIR", help="Where the folders of runs are; by default $ZMREG_RUNS, else ./zmreg-runs.")
@which_cluster
@AS_JSON
def dashboard(
    host: str, port: int, token_file: Path | None, runs: str | None, address: str | None, key: str | None, as_json: bool
) -> None:
    """Show the cluster in a browser: nodes, actors, tasks, objects, runs, logs and metrics. Nothing can be changed.

    It is served at the address that is printed, with a token in it, until Ctrl-C. It looks on as `zmreg status` does,
    at a bounded rate however many browsers look; when the cluster goes away it waits for it.

    Example: zmreg dashboard --port 0
    """
    import secrets

    from zmreg.tools.dashboard.copies import Copies
    from zmreg.tools.dashboard.door import DashboardDoor
    from zmreg.tools.dashboard.sources import ALWAYS_S, EVERY_S, Sources
    from zmreg.tools.dashboard.watch import Watch

    copies = Copies(EVERY_S, ALWAYS_S)
    watch = Watch(lambda: _visit(address, key), Sources(copies, runs).table(), copies)
    with usage_errors():
        token = _token(token_file) if token_file is not None else secrets.token_urlsafe(24)
        door = DashboardDoor(host, port, watch, token)
        _serve(door, as_json)


def _visit(address: str | None, key: str | None) -> Any:
    from zmreg.services.setup.observer import observe

    return observe(address, key)


def _token(path: Path) -> str:
    from zmreg.services.setup.metrics_door import read_token

    return read_token(path)


def _serve(door: DashboardDoor, as_json: bool) -> None:
    """Until an interrupt, or a word to end."""
    import signal
    import sys
    import threading

    thread = threading.Thread(target=door.serve_forever, name="zmreg-dashboard", daemon=True)

    def ready() -> None:
        thread.start()
        if as_json:
            say_json({"url": door.url, "port": door.server_port, "token": door.token.decode()})
            return
        click.echo(door.url)
        far = "" if door.is_near else "; what is sent is not encrypted: put a proxy with TLS before it"
        click.echo(f"Ctrl-C ends it{far}", err=True)

    def leave(*_: object) -> NoReturn:
        sys.exit(0)

    signal.signal(signal.SIGTERM, leave)
    try:
        door.watch.run(ready)
    finally:
        if thread.ident is not None:
            door.shutdown()
        door.server_close()
