"""`zmreg key`: show, rotate and hand out the keys of a cluster. No command prints a secret."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

if TYPE_CHECKING:
    from zmreg.services.setup.keys import ClusterKey

STAGES = {
    "settled": "one set of keys, in use",
    "rotated": "a second set is accepted; when every machine has this file: zmreg key rotate --switch",
    "switched": "the new set is in use; when every machine has this file: zmreg key rotate --finish",
}


def which_key(command: Callable[..., None]) -> Callable[..., None]:
    """The options that say which key file is meant, and --json."""
    directory = click.Path(file_okay=False, path_type=Path)
    for option in (
        click.option("--json", "as_json", is_flag=True, help="Print one JSON document on stdout and nothing else."),
        click.option("--state-dir", type=directory, metavar="DIR", help="The directory with the key file."),
        click.option("--cluster", metavar="ID", help="The cluster, if you have keys of several."),
    ):
        command = option(command)
    return command


@click.group()
def key() -> None:
    """Show, rotate and export the keys of a cluster.

    Who has the key file is a member of the cluster: it may run code on every machine of it.

    Example: zmreg key show
    """


@key.command()
@which_key
def show(cluster: str | None, state_dir: Path | None, as_json: bool) -> None:
    """Show where the key file is and its fingerprint, which two machines can compare.

    Example: zmreg key show --json
    """
    from zmreg.services.setup import keys

    directory = find(cluster, state_dir)
    say(directory, guarded(keys.load, directory), as_json)


@key.command()
@click.option("--switch", is_flag=True, help="Use the new keys; the old ones are still accepted.")
@click.option("--finish", is_flag=True, help="Accept the new keys only.")
@which_key
def rotate(switch: bool, finish: bool, cluster: str | None, state_dir: Path | None, as_json: bool) -> None:
    """Replace the keys, machine by machine: rotate, then rotate --switch, then rotate --finish.

    After each step copy the file to every machine and restart the nodes one after the other. If a key was stolen, stop
    all nodes, rotate and rotate --finish, copy the file, and start them.

    Example: zmreg key rotate
    """
    from zmreg.services.setup import keys

    if switch and finish:
        raise click.UsageError("--switch and --finish are two steps: copy the file in between")
    directory = find(cluster, state_dir)
    step = keys.switch if switch else keys.finish if finish else keys.rotate
    say(directory, guarded(step, directory), as_json)


@key.command()
@click.argument("target", type=click.Path(dir_okay=False, path_type=Path), metavar="FILE")
@which_key
def export(target: Path, cluster: str | None, state_dir: Path | None, as_json: bool) -> None:
    """Copy the key file to FILE (mode 0600), to be brought to a machine that joins.

    Example: zmreg key export /media/stick/cluster.key
    """
    from zmreg.services.setup import keys

    if target.exists():
        raise click.UsageError(f"{target} exists already, and keys are not overwritten")
    say(target, guarded(keys.export, find(cluster, state_dir), target), as_json)


def find(cluster: str | None, state_dir: Path | None) -> Path:
    """The directory that is meant; UsageError when that is not clear, AuthenticationError when there is none."""
    from zmreg.model.errors import AuthenticationError
    from zmreg.services.setup import keys

    if cluster and state_dir:
        raise click.UsageError("--cluster and --state-dir both say which directory: give one")
    if state_dir:
        return state_dir
    if cluster:
        try:
            return keys.cluster_directory(cluster)
        except ValueError as error:
            raise click.UsageError(str(error)) from None
    known = keys.known_clusters()
    if len(known) > 1:
        raise click.UsageError(f"there are keys of several clusters, say which with --cluster: {', '.join(known)}")
    if not known:
        where = keys.home() / "clusters"
        raise AuthenticationError(f"no cluster key under {where}: starting a head makes one, or use --state-dir")
    return keys.cluster_directory(known[0])


def guarded(step: Callable[..., ClusterKey], *paths: Path) -> ClusterKey:
    """`step(*paths)`; a key that is open to others is unsafe configuration, exit code 2."""
    from zmreg.services.setup.keys import UnsafeKeyFileError

    try:
        return step(*paths)
    except UnsafeKeyFileError as error:
        raise click.UsageError(str(error)) from None


def say(where: Path, found: ClusterKey, as_json: bool) -> None:
    """What may be known of a key file by whoever reads a terminal's scrollback."""
    from zmreg.services.setup.keys import KEY_FILE

    path = where / KEY_FILE if where.is_dir() else where
    fingerprints = [{"number": keys.number, "fingerprint": keys.fingerprint} for keys in found.keys.sets]
    if as_json:
        document: dict[str, Any] = {"cluster": found.cluster_id, "file": str(path), "stage": found.stage}
        click.echo(json.dumps({**document, "sets": fingerprints}))
        return
    click.echo(f"cluster  {found.cluster_id}\nfile     {path}\nstage    {found.stage}: {STAGES[found.stage]}")
    for place, keys in enumerate(fingerprints):
        click.echo(f"keys {keys['number']:<3} {keys['fingerprint']}  {'accepted' if place else 'in use'}")
