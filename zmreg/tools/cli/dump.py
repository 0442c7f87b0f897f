"""`zmreg dump`: what there is to say of a cluster, in one file to be sent with a report."""

from __future__ import annotations

import contextlib
import json
import os
import time
import zipfile
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from zmreg.tools.cli.common import asking, usage_errors, which_cluster

if TYPE_CHECKING:
    from zmreg.services.setup.observer import Observer

# Of each list: who reads a report reads no more.
_MOST_ROWS: Final = 10_000
_LOG_BYTES: Final = 256 << 10
_STACKS_S: Final = 5.0
Part = Callable[[], Any]
"""Text, or what is written as JSON."""


@click.command()
@click.argument("file", required=False, type=click.Path(dir_okay=False, path_type=Path))
@click.option("--no-logs", is_flag=True, help="Leave out the nodes' logs.")
@which_cluster
def dump(file: Path | None, no_logs: bool, address: str | None, key: str | None) -> None:
    """Write versions, settings, findings, lists of all kinds, stacks, metrics and the nodes' logs into one zip FILE.

    Keys, values of environment variables and what programs have printed are not in it; names of functions and files,
    and texts of errors are: look into it before you send it. What does not answer is left out, and said.

    Example: zmreg dump report.zip
    """
    path = file or Path(time.strftime("zmreg-%Y%m%d-%H%M%S.zip"))
    missing = []
    with _begun(path) as archive, asking(address, key) as observer, usage_errors():
        for name, part in _parts(observer, not no_logs):
            try:
                found = part()
            except Exception as error:  # noqa: BLE001  whatever is wrong there is a reason for the report
                found = f"{type(error).__name__}: {error}\n"
                missing.append(name)
            text = found if isinstance(found, str) else json.dumps(found, indent=1, default=repr) + "\n"
            archive.writestr(name, text)
    click.echo(f"{path}: {path.stat().st_size} bytes" + (f"; without {', '.join(missing)}" if missing else ""))


@contextlib.contextmanager
def _begun(path: Path) -> Iterator[zipfile.ZipFile]:
    """A new file for its owner's eyes, as the logs are that go into it; half a one does not stay. OSError."""
    with open(path, "xb", opener=partial(os.open, mode=0o600)) as file:
        try:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
                yield archive
        except BaseException:  # Ctrl-C, no cluster, a full disk
            path.unlink(missing_ok=True)
            raise


def _parts(observer: Observer, logs: bool) -> Iterator[tuple[str, Part]]:
    from zmreg.services.setup import checks, listing, origins, scraping
    from zmreg.tools.cli.about import versions

    yield "versions.json", versions
    yield "settings.json", lambda: [[each.name, each.value, each.origin] for each in origins.settings()]
    yield "environment.json", lambda: sorted(name for name in os.environ if name.startswith("ZMREG_"))
    yield "health.json", lambda: observer.ask("health")
    for kind in listing.KINDS:
        yield f"{kind}.json", partial(_listed, observer, kind)
    yield "groups.json", lambda: observer.ask("groups")
    yield (
        "findings.json",
        lambda: [
            [each.check, each.verdict, each.text] for each in (*checks.of_machine(), *checks.of_cluster(observer))
        ],
    )
    yield "stacks.json", lambda: observer.ask_much(observer.alive(), "stacks", "", _STACKS_S)
    yield "metrics.txt", lambda: scraping.as_text(scraping.families(observer))
    with contextlib.suppress(Exception):  # who does not say which nodes there are has been told of above
        for node in observer.alive() if logs else ():
            yield f"logs/{node}.log", partial(_log, observer, node)


def _listed(observer: Observer, kind: str) -> list[dict[str, Any]]:
    from zmreg.services.setup.listing import listed

    return listed(observer, kind, _MOST_ROWS)[:_MOST_ROWS]


def _log(observer: Observer, node: str) -> str:
    page = observer.ask_all([node], "log", f"node -{_LOG_BYTES}").get(node)
    if page is None:
        raise ValueError(f"node {node} has shown no log")
    return bytes(page["data"]).decode(errors="replace")
