"""The file that makes a machine a member: where it lies, who may read it, how it is replaced.

A cluster's keys are one file, `cluster.key`, of mode 0600 in a directory of mode 0700: `~/.zmreg/clusters/<id>/`, or a
directory of the user's choice. Joining a cluster is having a copy. The keys themselves never go into logs, arguments,
environments or reprs; what people compare is a fingerprint of the public halves.

A rotation goes machine by machine, without a moment in which two of them do not understand each other:

1. `rotate` makes a second set. The old one stays in use, both are accepted. Copy the file, restart the nodes.
2. `switch` uses the new set, both are accepted. Copy the file, restart the nodes.
3. `finish` forgets the old set. Copy the file, restart the nodes.

After a theft step 2 is left out, and all nodes are stopped before the file is copied.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from zmreg.model.errors import AuthenticationError
from zmreg.model.record import Record
from zmreg.net.curve import CurveKeys, KeySet, checked, new_key_set

KEY_FILE: Final = "cluster.key"
CLUSTER_ID_BYTES: Final = 8
# Two sets are 600 bytes.
_MAX_FILE_BYTES: Final = 16 * 1024
_FORMAT: Final = 1
_OTHERS: Final = 0o077
_HALVES: Final = ("server_public", "server_secret", "client_public", "client_secret")


class UnsafeKeyFileError(AuthenticationError):
    """A key file or its directory is open to others; the text has the command that closes it."""


class ClusterKey(Record):
    """What a key file says: the cluster's id, as hex digits, and its keys."""

    cluster_id: str
    keys: CurveKeys

    @property
    def stage(self) -> str:
        """Of a rotation: `settled`, `rotated` (the old set is in use, both count) or `switched` (the new one is)."""
        if len(self.keys.sets) == 1:
            return "settled"
        return "rotated" if self.keys.sets[0].number < self.keys.sets[1].number else "switched"


# -- where -------------------------------------------------------------------------------------------------------------


def home() -> Path:
    """What zmreg keeps for this user between runs: `$ZMREG_HOME`, or `~/.zmreg`."""
    chosen = os.environ.get("ZMREG_HOME")
    return Path(chosen).expanduser() if chosen else Path.home() / ".zmreg"


def cluster_directory(cluster_id: str) -> Path:
    """Where the keys of a cluster belong when no other directory is given. Raises ValueError for a path in disguise."""
    if not cluster_id or not set(cluster_id) <= set("0123456789abcdef"):
        raise ValueError(f"{cluster_id!r} is no cluster id: hex digits are")
    return home() / "clusters" / cluster_id


def known_clusters() -> list[str]:
    """Ids of the clusters this user has keys of, sorted."""
    return sorted(path.parent.name for path in (home() / "clusters").glob(f"*/{KEY_FILE}"))


def new_cluster_id() -> str:
    """Sixteen hex digits."""
    return secrets.token_hex(CLUSTER_ID_BYTES)


# -- making, reading, replacing ----------------------------------------------------------------------------------------


def create(directory: Path, cluster_id: str = "") -> ClusterKey:
    """Make the keys of a new cluster; `cluster_id` defaults to a fresh one.

    Raises AuthenticationError when there are keys already, UnsafeKeyFileError when the directory is open to others.
    """
    make_private(directory)
    _require_private(directory)
    made = ClusterKey(cluster_id or new_cluster_id(), CurveKeys((new_key_set(1),)))
    _write_new(directory / KEY_FILE, _text(made))
    return made


def load(path: Path) -> ClusterKey:
    """The keys in a file, or in `cluster.key` of a directory.

    Raises UnsafeKeyFileError when others may read it or it is another user's, AuthenticationError when it is missing
    or damaged. No error shows what is in it.
    """
    path = path / KEY_FILE if path.is_dir() else path
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except FileNotFoundError:
        where = f"{path} is missing; `zmreg key export FILE` on a machine that has it makes a copy to bring here"
        raise AuthenticationError(f"no cluster key: {where}") from None
    except OSError as error:
        raise AuthenticationError(f"cannot read the cluster key {path}: {error.strerror}") from None
    with open(fd, "rb") as file:
        _require_ours(path, os.fstat(file.fileno()), "600")
        text = file.read(_MAX_FILE_BYTES + 1)
    problem = "it is too large"
    if len(text) <= _MAX_FILE_BYTES:
        try:
            return _parsed(text)
        except (ValueError, KeyError, TypeError) as error:
            problem = f"{error} is missing" if isinstance(error, KeyError) else str(error)
    # Here, where no error is handled any more: one that was may hold the whole text (json's does) and would be shown.
    raise AuthenticationError(f"{path} is no cluster key ({problem}); copy it again from a machine that has it")


def rotate(directory: Path) -> ClusterKey:
    """Step 1: a second set of keys. Raises AuthenticationError while another rotation is under way."""
    with _locked(directory):
        old = _settled(directory)
        return _replace(directory, old, (*old.keys.sets, new_key_set(old.keys.sets[0].number + 1)))


def switch(directory: Path) -> ClusterKey:
    """Step 2: use the new set. Raises AuthenticationError when nothing was rotated; once more is no harm."""
    with _locked(directory):
        old = _rotating(directory)
        return _replace(directory, old, tuple(sorted(old.keys.sets, key=lambda keys: -keys.number)))


def finish(directory: Path) -> ClusterKey:
    """Step 3: forget the old set. Raises AuthenticationError when nothing was rotated."""
    with _locked(directory):
        old = _rotating(directory)
        return _replace(directory, old, (max(old.keys.sets, key=lambda keys: keys.number),))


def export(source: Path, target: Path) -> ClusterKey:
    """Copy the keys to a new file of mode 0600, to be brought to another machine. Raises as `load` and `create` do."""
    key = load(source)
    _write_new(target, _text(key))
    return key


# -- files -------------------------------------------------------------------------------------------------------------


def make_private(directory: Path) -> None:
    """A directory of mode 0700, and its parents as well: mkdir leaves their mode to the umask."""
    if not directory.exists():
        make_private(directory.parent)
        directory.mkdir(mode=0o700, exist_ok=True)


def _require_private(directory: Path) -> None:
    _require_ours(directory, directory.stat(), "700")


def _require_ours(path: Path, status: os.stat_result, mode: str) -> None:
    if status.st_uid != os.geteuid():
        owner = f"user {status.st_uid}, and you are {os.geteuid()}"
        raise UnsafeKeyFileError(f"{path} belongs to {owner}: chown it, or bring a copy of your own")
    if status.st_mode & _OTHERS:
        now = f"{status.st_mode & 0o777:o}"
        raise UnsafeKeyFileError(f"{path} is open to other users (mode {now}): chmod {mode} {path}")


def _settled(directory: Path) -> ClusterKey:
    key = load(directory)
    if key.stage != "settled":
        raise AuthenticationError(f"a rotation of the keys in {directory} is under way: finish it first")
    return key


def _rotating(directory: Path) -> ClusterKey:
    key = load(directory)
    if key.stage == "settled":
        raise AuthenticationError(f"no rotation of the keys in {directory} is under way: rotate first")
    return key


def _replace(directory: Path, old: ClusterKey, sets: tuple[KeySet, ...]) -> ClusterKey:
    fresh = ClusterKey(old.cluster_id, CurveKeys(sets))
    with _temporary(directory, _text(fresh)) as temporary:
        os.replace(temporary, directory / KEY_FILE)
    return fresh


def _write_new(path: Path, text: bytes) -> None:
    """Whole or not at all, and never over another one. Raises AuthenticationError when there is one."""
    with _temporary(path.parent, text) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            raise AuthenticationError(f"{path} exists already, and keys are not overwritten") from None


@contextlib.contextmanager
def _temporary(directory: Path, text: bytes) -> Iterator[Path]:
    """A complete file of mode 0600 beside the one that it will become. What becomes of it is on disk afterwards."""
    path = directory / f".{KEY_FILE}.{secrets.token_hex(8)}"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with open(fd, "wb") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        yield path
    finally:
        path.unlink(missing_ok=True)
    _sync(directory)


def _sync(directory: Path) -> None:
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


@contextlib.contextmanager
def _locked(directory: Path) -> Iterator[None]:
    """Two rotations at once would forget one of the new keys. Raises as `load` does."""
    load(directory)
    _require_private(directory)
    fd = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def _text(key: ClusterKey) -> bytes:
    sets = [
        {"number": keys.number, **{half: getattr(keys, half).decode("ascii") for half in _HALVES}}
        for keys in key.keys.sets
    ]
    return json.dumps({"format": _FORMAT, "cluster": key.cluster_id, "sets": sets}, indent=1).encode() + b"\n"


def _parsed(text: bytes) -> ClusterKey:
    """Raises KeyError, TypeError or ValueError, none of which shows a key."""
    read: dict[str, Any] = json.loads(text)
    if not isinstance(read, dict):
        raise TypeError("it is not an object")
    if read["format"] != _FORMAT:
        raise ValueError("it was written by another version of zmreg")
    if not isinstance(read["cluster"], str) or not isinstance(read["sets"], list) or not 1 <= len(read["sets"]) <= 2:
        raise ValueError("it does not have a cluster and one or two sets of keys")
    sets = tuple(_parsed_set(keys) for keys in read["sets"])
    if len({keys.number for keys in sets}) < len(sets):
        raise ValueError("its two sets of keys are one")
    return ClusterKey(read["cluster"], CurveKeys(sets))


def _parsed_set(read: dict[str, Any]) -> KeySet:
    if not isinstance(read, dict) or not isinstance(read["number"], int):
        raise TypeError("a set of keys is not an object with a number")
    halves = [read[half] for half in _HALVES]
    if not all(isinstance(half, str) and half.isascii() for half in halves):
        raise ValueError("a key is not text")
    return checked(KeySet(read["number"], *(half.encode("ascii") for half in halves)))
