"""What user code runs in beside zmreg: variables, a working directory, modules (`runtime_env=`).

It travels inside the definition of the function or class, in front of it: whoever unpickles that is in the environment
before the first byte of the user's is looked at. A worker comes into one environment, with its first definition, and
stays in it for good; that it is never sent another's calls the lease book sees to (core/seats.py), by the key.

Directories travel as zip files, which are objects like any other, and are unpacked once on each node, in its session.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any

from zmreg.model.errors import RuntimeEnvSetupError, ZmregError
from zmreg.model.record import Record, Resources

if TYPE_CHECKING:
    from zmreg.services.seat.client import Client

DIRECTORY = "packages"
"""Of the session, where they are unpacked."""
_entering = threading.Lock()


class Package(Record):
    """A directory or a module, packed."""

    digest: str
    """Of its names and contents, hex: what is the same is packed, sent and unpacked once."""
    source: str
    """Where it was packed from, for messages."""
    ref: Any
    """An ObjectRef to the zip file."""


class Membership(Record):
    """The placement group that a worker runs in."""

    group_id: bytes
    bundles: tuple[Resources, ...]
    name: str
    captures: bool
    """Calls from there run in it, too."""


class Environment(Record):
    """Ready to travel. `key` says all of it, by content, behind its job; it is empty for the plain one."""

    key: str
    variables: tuple[tuple[str, str], ...] = ()
    working_dir: Package | None = None
    modules: tuple[Package, ...] = ()
    group: Membership | None = None
    job: str = ""
    """The program, by its process id in hex, that shares its cluster with others: what its calls leave behind in a
    worker (variables, directory, path, modules) is found by none of theirs. Empty for who has started the cluster."""
    process: str = ""
    """The name of the one process on its node where everything of that name runs (core/houses.py)."""


PLAIN = Environment("")


def of_job(process: bytes) -> Environment:
    """The plain environment of a program that has come to a cluster of others'."""
    return Environment(process.hex(), job=process.hex())


class Equipped:
    """What travels in place of a function or class: the environment first, then that."""

    def __init__(self, function: Any, environment: Environment) -> None:
        self._function = function
        self._environment = environment
        self.__qualname__ = getattr(function, "__qualname__", repr(function))

    def __reduce__(self) -> tuple[Any, ...]:
        # The first argument is made whole, and with it the environment, before the second one is read.
        return _second, (_Arrival(self._environment), self._function)


class _Arrival:
    """Unpickling this puts the process into the environment."""

    def __init__(self, environment: Environment) -> None:
        self._environment = environment

    def __reduce__(self) -> tuple[Any, ...]:
        return enter, (self._environment,)


def _second(_: object, function: Any) -> Any:
    return function


def enter(environment: Environment) -> None:
    """Put this worker into the environment; nothing when it is in it, or is no worker.

    Raises RuntimeEnvSetupError; whoever tries again begins anew.
    """
    from zmreg.services.seat.client import current  # late: it is there when this is called, and imports us

    seat = current()
    if seat is None or seat.on_wait is None or seat.environment.key == environment.key:
        return
    with _entering:
        _enter(seat, environment)


def _enter(seat: Client, environment: Environment) -> None:
    home = seat.house or seat
    if seat.environment.key or home.environment.key not in ("", environment.key):
        raise RuntimeEnvSetupError(
            f"worker pid {os.getpid()} is in the environment {home.environment.key} for good, and was sent a call in "
            f"{environment.key}; please report this"
        )
    if home.environment.key:  # another one in this process has been the first
        seat.environment = environment
        return
    try:
        packages = [each for each in (environment.working_dir, *environment.modules) if each is not None]
        if seat.shares_process and (packages or environment.variables):
            raise ValueError("a cluster within one process (zmreg.testing.InProcess) has no environment for it alone")
        places = [_unpacked(seat.session, package) for package in packages]
        if environment.working_dir is not None:
            os.chdir(places[0])
    except (OSError, ValueError, ZmregError) as error:
        raise RuntimeEnvSetupError(f"runtime_env could not be set up (pid {os.getpid()}): {error}") from error
    sys.path[:0] = [str(place) for place in places]
    os.environ.update(environment.variables)
    home.environment = seat.environment = environment


def _unpacked(session: Path, package: Package) -> Path:
    """Where the package is on this node: unpacked by whoever comes first."""
    place = session / DIRECTORY / package.digest
    if place.is_dir():
        return place
    from zmreg.services.machine.packages import unpack  # late: zipfile is for those who have packages

    try:
        data = package.ref.get()
    except ZmregError as error:
        raise RuntimeEnvSetupError(f"the package of {package.source} cannot be had: {error}") from error
    unpack(data, place)
    return place
