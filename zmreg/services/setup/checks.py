"""What `zmreg doctor` looks at: one finding each, with what to do about it."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

from zmreg.model.errors import ZmregError
from zmreg.model.record import Record
from zmreg.model.version import VERSION
from zmreg.services.machine.descriptors import FEW
from zmreg.services.machine.directories import SHARED_MEMORY, runtime_root, spill_root
from zmreg.services.setup import config, keys, loads, sessions
from zmreg.services.setup.addresses import probe
from zmreg.services.setup.observer import Observer

OK, WARNING, WRONG = "ok", "warning", "wrong"
_FEW_PROCESSES: Final = 256
_SMALL_MEMORY: Final = 64 << 20
_SMALL_DISK: Final = 1 << 30
# Nothing here depends on clocks being equal; logs and timelines of several machines do.
_SKEW_S: Final = 0.5
_PROBE_S: Final = 2.0


class Finding(Record):
    """`verdict` is "ok", "warning" or "wrong"."""

    check: str
    verdict: str
    text: str


def of_machine() -> Iterator[Finding]:
    """This machine and this user."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    few = hard != resource.RLIM_INFINITY and hard < FEW
    yield Finding(
        "open files", WARNING if few else OK,
        f"{soft} (at most {hard})" + (f"; a cluster takes one for each process: raise it to {FEW}" if few else ""),
    )  # fmt: skip
    processes = resource.getrlimit(resource.RLIMIT_NPROC)[0]
    tight = processes != resource.RLIM_INFINITY and processes < _FEW_PROCESSES
    yield Finding("processes", WARNING if tight else OK, "no limit" if processes < 0 else f"{processes}")
    yield _room("shared memory", str(SHARED_MEMORY), _SMALL_MEMORY, "objects live there: docker run --shm-size=1g")
    yield _room("spill disk", str(spill_root()), _SMALL_DISK, "objects go there when memory is full; TMPDIR moves it")
    yield from _files()
    left = sessions.leftovers()
    text = f"{len(left)} sessions of killed processes; the next start removes them" if left else "none"
    yield Finding("leftovers", OK, text)


def _room(check: str, path: str, least: int, hint: str) -> Finding:
    try:
        usage = shutil.disk_usage(path)
    except OSError as error:
        return Finding(check, WRONG, f"{path}: {error.strerror}")
    small = usage.free < least
    free = f"{path}: {usage.free >> 20} MiB of {usage.total >> 20} MiB free"
    return Finding(check, WARNING if small else OK, f"{free}; {hint}" if small else free)


def _files() -> Iterator[Finding]:
    root = runtime_root()
    if root.exists():
        closed = root.lstat().st_uid == os.getuid() and not root.lstat().st_mode & 0o077
        text = f"{root}" if closed else f"{root} must be yours and closed to others: chmod 700 {root}"
        yield Finding("sessions", OK if closed else WRONG, text)
    try:
        set_where = sorted({where for _, where in config.load().values()})
        yield Finding("configuration", OK, ", ".join(set_where) or "no file and no variable sets anything")
    except config.ConfigError as error:
        yield Finding("configuration", WRONG, str(error))
    known = keys.known_clusters()
    if not known:
        yield Finding("keys", OK, f"none under {keys.home() / 'clusters'}")
    for cluster in known:
        path = keys.cluster_directory(cluster) / keys.KEY_FILE
        try:
            key = keys.load(path)
            yield Finding("key", OK, f"{path}: {key.keys.fingerprint}, {key.stage}")
        except ZmregError as error:
            yield Finding("key", WRONG, str(error))


def of_cluster(observer: Observer) -> Iterator[Finding]:
    """The nodes, as seen from the one that is asked, which is on this machine."""
    rows = [row for row in observer.ask("nodes") if row["Alive"]]
    health = observer.ask("health")
    if health["HeadLost"]:
        yield Finding("head", WRONG, "it is silent: nobody joins, and no actor is made, before it is back")
    else:
        head = next((row for row in rows if row["IsHead"]), None)
        yield Finding("head", OK, f"{head['NodeName']} at {head['Address'] or 'this machine'}" if head else "none")
    for row in rows:
        yield from _of_node(observer, row)
    for word in sessions.running():
        if word.node in {row["NodeID"] for row in rows}:
            yield from _of_loads(word)


def _of_loads(word: sessions.Word) -> Iterator[Finding]:
    """Serving processes of a node of this machine."""
    for number, state in enumerate(loads.states(Path(word.session))):
        who, why = f"{word.name}: {state['target']}", state["text"].rpartition("\n")[2]
        if why:
            yield Finding("load", WRONG, f"{who} does not serve: {why}; `zmreg logs load-{number}` has more")
        else:
            yield Finding("load", OK, f"{who} {state['state']}, pid {state['pid']}")


def _of_node(observer: Observer, row: dict[str, Any]) -> Iterator[Finding]:
    who = f"{row['NodeName']} ({row['NodeID'][:8]})"
    yield _versions(who, row)
    if row["State"] != "ALIVE":
        yield Finding("beats", WARNING, f"{who} has been silent for seconds: {row['State']}")
    if row["Address"]:
        host = row["NodeManagerAddress"]
        for what, port in (("port", row["NodeManagerPort"]), ("pub port", row["PubPort"])):
            try:
                probe(f"{host}:{port}", _PROBE_S)
                yield Finding(what, OK, f"{who}: {host}:{port} is reachable from here")
            except ZmregError as error:
                yield Finding(what, WRONG, f"{who}: {error}")
    asked = time.time()
    answer = observer.ask_all([row["NodeID"]], "health").get(row["NodeID"])
    answered = time.time()
    if answer is None:
        yield Finding("answers", WRONG, f"{who} does not answer: it reaches us, or we it, one way at most")
        return
    # What came back has gone both ways, over its port and over ours.
    yield Finding("answers", OK, f"{who} in {(answered - asked) * 1e3:.1f} ms, there and back")
    skew = answer["Time"] - (asked + answered) / 2
    far = abs(skew) > _SKEW_S + (answered - asked) / 2
    text = f"{who} is {abs(skew):.3f} s {'ahead' if skew > 0 else 'behind'}"
    yield Finding("clock", WARNING if far else OK, f"{text}; logs will not fit together: use NTP" if far else text)


def _versions(who: str, row: dict[str, Any]) -> Finding:
    mine = platform.python_version().rpartition(".")[0]
    same = row["Version"] == VERSION and row["Python"].rpartition(".")[0] == mine
    text = f"{who}: zmreg {row['Version']}, Python {row['Python']}"
    wants = f"; this command is of zmreg {VERSION}, Python {mine}: use the same everywhere"
    return Finding("versions", OK if same else WRONG, text if same else text + wants)
