"""`zmreg metrics`: what the cluster and its programs have counted, as Prometheus reads it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from zmreg.tools.cli.common import AS_JSON, asking, say_json, usage_errors, which_cluster

if TYPE_CHECKING:
    from zmreg.services.setup.observer import Observer


@click.command()
@click.option("--node", metavar="ID", help="Of this node alone: its name, its id, or the id's beginning.")
@click.option("--serve", metavar="HOST:PORT", help="Go on, and answer GET /metrics there; 127.0.0.1:9750, say.")
@click.option(
    "--token-file",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="FILE",
    help="With --serve: what those who ask have to send, needed where other machines reach HOST. Mode 0600.",
)
@click.option("--rules", "file", flag_value="rules", help="Print alert rules, a file for Prometheus' rule_files.")
@click.option("--grafana", "file", flag_value="board", help="Print a dashboard, a file for Grafana to import.")
@which_cluster
@AS_JSON
def metrics(
    node: str | None, serve: str | None, token_file: Path | None, file: str | None, address: str | None,
    key: str | None, as_json: bool,
) -> None:  # fmt: skip
    """Print counters and gauges of all nodes, and what programs count by zmreg.metrics, in Prometheus' text format.

    With --serve they are served over HTTP until Ctrl-C or until this machine's node ends, by this process alone. With
    --rules or --grafana nobody is asked: these are files that go with them.

    Example: zmreg metrics --serve 127.0.0.1:9750
    """
    if file is not None:
        if node or serve or as_json:
            raise click.UsageError(f"--{'grafana' if file == 'board' else file} asks no node: leave the others out")
        from zmreg.tools import monitoring

        click.echo(getattr(monitoring, file)(), nl=False)
        return
    if token_file is not None and serve is None:
        raise click.UsageError("--token-file is for --serve")
    if serve is not None and as_json:
        raise click.UsageError("--serve speaks Prometheus' text format; --json prints once")
    with asking(address, key) as observer:
        from zmreg.services.setup import scraping

        with usage_errors():
            only = scraping.find_node(observer, node) if node is not None else ""
        if serve is not None:
            _serve(observer, only, serve, token_file)
            return
        found = scraping.families(observer, only)
        if as_json:
            say_json(scraping.as_plain(found))
        else:
            click.echo(scraping.as_text(found), nl=False)


def _serve(observer: Observer, only: str, where: str, token_file: Path | None) -> None:
    from zmreg.services.setup import metrics_door, scraping
    from zmreg.services.setup.addresses import split_address

    with usage_errors():
        host, port = split_address(where)
        token = metrics_door.read_token(token_file) if token_file is not None else ""
        door = metrics_door.MetricsDoor(host, port, lambda: scraping.as_text(scraping.families(observer, only)), token)
    click.echo(f"serves {door.url}; Ctrl-C ends it", err=True)
    metrics_door.serve(door, observer.word.pid)
