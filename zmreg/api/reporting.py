"""What ran in a block, as one file for whoever asks: calls, failures, nodes, and where the time went."""

from __future__ import annotations

import errno
import os
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from zmreg.model.arguments import check_seconds
from zmreg.model.errors import ZmregError
from zmreg.services.seat.seats import client

DEFAULT_S: Final = 0.01


@contextmanager
def performance_report(
    filename: str | os.PathLike[str] = "zmreg-report.html", *, profile: bool = False, interval: float | None = None
) -> Iterator[None]:
    """Write what ran in this block to a file: one page of HTML that loads nothing, for any browser.

    The calls of the whole cluster as a task stream, by function, and those that failed; nodes and versions. With
    `profile=True` all workers and this program are sampled meanwhile, every `interval` seconds (0.01), and the page has
    a flame graph of where their time went.

    The file is written at the end of the block, also when that raises, and takes the place of another at once or not at
    all. FileNotFoundError, IsADirectoryError or PermissionError at the beginning when it cannot be written.
    """
    from zmreg.services.seat.reporting import Reporting  # late, as all of this: few programs do it

    path = Path(filename).absolute()
    _check_file(path)
    every_s = _checked(DEFAULT_S if interval is None else interval) if profile or interval is not None else None
    reporting = Reporting(client(), every_s)
    try:
        yield
    except BaseException as error:
        try:
            _write(path, reporting.finish(path.name, traceback.format_exception_only(error)[-1].strip()))
        except (OSError, ZmregError) as other:  # the block's own error is the one to be seen
            error.add_note(f"zmreg.performance_report could not write {path}: {other!r}")
        raise
    _write(path, reporting.finish(path.name, ""))


def profile(seconds: float = 10.0, *, interval: float = DEFAULT_S) -> list[dict[str, Any]]:
    """Sample all workers and this program for so long: a tree of calls as dicts (Name, File, Line, SelfSeconds,
    TotalSeconds, Calls), the longest first. Times are elapsed time of all threads together, waiting included."""
    from zmreg.services.seat.reporting import profiled

    check_seconds(seconds, "seconds", needed=True)
    return profiled(client(), _checked(interval), seconds)


def _checked(interval: float) -> float:
    from zmreg.services.machine.sampling import LEAST_S, MOST_S

    check_seconds(interval, "interval", needed=True)
    if not LEAST_S <= interval <= MOST_S:
        raise ValueError(f"interval={interval} is out of range: seconds from {LEAST_S} to {MOST_S:g} are possible")
    return float(interval)


def _check_file(path: Path) -> None:
    """Whether a file can be written there: at the end of the block it is too late to say so."""
    if path.is_dir():
        raise IsADirectoryError(errno.EISDIR, "the report is to be a file, and this is a directory", str(path))
    if not path.parent.is_dir():
        text = "there is no such directory for the report; make it, or write the report elsewhere"
        raise FileNotFoundError(errno.ENOENT, text, str(path.parent))
    if not os.access(path.parent, os.W_OK | os.X_OK):
        raise PermissionError(errno.EACCES, "no file can be made in the directory of the report", str(path.parent))


def _write(path: Path, page: bytes) -> None:
    """All of it, or nothing."""
    beside = path.with_name(f".{path.name[:100]}.{os.getpid()}-{os.urandom(4).hex()}")
    try:
        beside.write_bytes(page)
        os.replace(beside, path)
    except BaseException:
        with suppress(OSError):
            beside.unlink()
        raise
