"""`zmreg version`."""

from __future__ import annotations

import json
import platform
from importlib.metadata import PackageNotFoundError
from importlib.metadata import version as installed_version

import click


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def version(as_json: bool) -> None:
    """Show the versions of zmreg and what it stands on.

    Example: zmreg version --json
    """
    found = versions()
    if as_json:
        click.echo(json.dumps(found))
    else:
        click.echo("\n".join(f"{name:<12} {number}" for name, number in found.items()))


def versions() -> dict[str, str]:
    """Of Python and of what zmreg stands on."""
    packages = ("zmreg", "pyzmq", "msgpack", "cloudpickle", "psutil", "click", "tblib")
    return {"python": platform.python_version(), **{name: _version_of(name) for name in packages}}


def _version_of(package: str) -> str:
    try:
        return installed_version(package)
    except PackageNotFoundError:
        return "not installed (run from source?)"
