"""What `zmreg start` does: decides what is to start, watches over it, and starts it anew when it was fenced.

A head's state directory is `~/.zmreg/clusters/<id>/` unless another is given. The first `start --head` makes it, with
a key; every later one finds it there and is the same cluster again, so that a key file copied to other machines stays
good. A mark says of which clusters this machine had the head: keys of other people's clusters may lie there, too.
"""

from __future__ import annotations

import contextlib
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType
from typing import Any, Final

from zmreg.model.errors import AuthenticationError, ClusterError, StateLockedError
from zmreg.model.record import Record
from zmreg.model.settings import DEFAULT_PORT, Listening, Settings
from zmreg.services.machine import accelerators
from zmreg.services.machine.directories import remove
from zmreg.services.network.verdicts import EXIT_FENCED
from zmreg.services.setup import keys, sessions
from zmreg.services.setup.addresses import host_for, split_address
from zmreg.services.setup.finding import key_file
from zmreg.services.setup.launch import LOG_TAIL_BYTES, Launched, launch
from zmreg.services.setup.loads import Loads
from zmreg.services.setup.sessions import Word

HEAD_MARK: Final = "head"
# A node that ends in peace gives its workers 0.15 s, its letters 0.2 s, and may have much to unmap.
END_S: Final = 10.0
# One that leaves others behind has the grace for what runs, and then gives away what it owns and keeps (leaving.py).
LEAVE_S: Final = 50.0
_AGAIN_S: Final = 1.0
_AGAIN_MOST_S: Final = 30.0
# Whoever has lived so long was not fenced for a reason that is still there.
_SOUND_S: Final = 60.0
_FILE_S: Final = 0.2
_SIGNALS: Final = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


class Wish(Record):
    """What was asked for on the command line; empty or 0: not said."""

    head: bool
    address: str = ""
    key: str = ""
    state_dir: str = ""
    host: str = ""
    port: int = 0
    pub_port: int = 0
    advertise: str = ""
    name: str = ""
    loads: tuple[str, ...] = ()


class Plan(Record):
    """What is to start. The first two together are all that a node is told."""

    settings: Settings
    listening: Listening
    loads: tuple[str, ...] = ()
    """What its serving processes load, as "module:setup"."""


def plan(wish: Wish, given: Mapping[str, Any], known: Mapping[str, Any]) -> Plan:
    """What is to start: `given` settings before `known` ones (config.values()).

    Raises AuthenticationError, StateLockedError, ClusterError; ValueError for an address that is none, and for more
    GPUs than CUDA_VISIBLE_DEVICES names.
    """
    fields = Settings.__dataclass_fields__
    values: dict[str, Any] = {"num_cpus": float(os.cpu_count() or 1), "num_gpus": float(accelerators.count())}
    values |= {name: known[name] for name in known if name in fields}
    values |= given
    accelerators.device_ids(values["num_gpus"])
    wish = wish.but(**{name: known[name] for name in _OF_FILES if name in known and not getattr(wish, name)})
    listening = _as_head(wish) if wish.head else _as_worker(wish)
    return Plan(Settings(**values), listening, wish.loads or known.get("load", ()))


_OF_FILES: Final = ("address", "key", "state_dir", "host", "port", "pub_port", "advertise", "name")


def _as_head(wish: Wish) -> Listening:
    directory, path = _state(wish)
    cluster = keys.load(path).cluster_id
    for word in sessions.running():
        if word.is_head and word.cluster == cluster:
            raise StateLockedError(
                f"the head of cluster {cluster} runs already: {word.title()}, pid {word.pid}; `zmreg stop` ends it, "
                "--state-dir DIR starts another cluster"
            )
    (directory / HEAD_MARK).touch(mode=0o600)
    return Listening(
        str(path), host=wish.host or "127.0.0.1", port=wish.port or DEFAULT_PORT, pub_port=wish.pub_port,
        advertise=wish.advertise, state_dir=str(directory), name=wish.name,
    )  # fmt: skip


def _state(wish: Wish) -> tuple[Path, Path]:
    """(the head's state directory, the cluster's key file); both are made when they are not there."""
    if wish.key:
        path = key_file(wish.key)
        cluster = keys.load(path).cluster_id
        directory = Path(wish.state_dir).absolute() if wish.state_dir else keys.cluster_directory(cluster)
        keys.make_private(directory)
        return directory, path
    directory = Path(wish.state_dir).absolute() if wish.state_dir else _own_directory()
    if not (directory / keys.KEY_FILE).exists():
        keys.create(directory, directory.name if not wish.state_dir else "")
    return directory, directory / keys.KEY_FILE


def _own_directory() -> Path:
    """Of the one cluster whose head this machine has had, or a new one."""
    ours = [each for each in keys.known_clusters() if (keys.cluster_directory(each) / HEAD_MARK).exists()]
    if len(ours) > 1:
        raise ClusterError(
            f"this machine has had the heads of {len(ours)} clusters: {', '.join(ours)}; say which is to start with "
            f"--state-dir {keys.home() / 'clusters'}/ID"
        )
    return keys.cluster_directory(ours[0] if ours else keys.new_cluster_id())


def _as_worker(wish: Wish) -> Listening:
    split_address(wish.address)
    path = key_file(wish.key)
    return Listening(
        str(path), host=wish.host or host_for(wish.address), port=wish.port, pub_port=wish.pub_port,
        advertise=wish.advertise, contact=wish.address, name=wish.name,
    )  # fmt: skip


def await_address(path: Path, timeout_s: float) -> str:
    """The address that a head leaves in a file, as soon as it is there. ClusterError when it does not come."""
    deadline = time.monotonic() + timeout_s
    while True:
        with contextlib.suppress(OSError, ValueError):
            address = path.read_text().strip()
            split_address(address)
            return address
        if time.monotonic() > deadline:
            raise ClusterError(f"no head has left its address in {path} within {timeout_s:g} s; is it up?")
        time.sleep(_FILE_S)  # it may be on a network's file system, where nothing tells of changes


def leave_address(path: Path, address: str) -> None:
    """Whole or not at all: workers may be waiting for it."""
    fresh = path.with_name(f".{path.name}.{os.getpid()}")
    fresh.write_text(f"{address}\n")
    fresh.rename(path)


# -- watching over it --------------------------------------------------------------------------------------------------


class Asked(BaseException):
    """A signal asks us to end. Not an Exception: nothing on the way may take it for one of its own."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _ask(number: int, _: FrameType | None) -> None:
    raise Asked(number)


class Supervisor:
    """Runs one node after the other until one ends for a reason that another start would not mend."""

    def __init__(self, plan: Plan, ready: Callable[[Word], None], tell: Callable[[str], None]) -> None:
        """`ready(word)` is called each time a node is up, `tell(text)` when something went wrong."""
        self._plan = plan
        self._ready = ready
        self._tell = tell
        self._failures = 0
        self._launched: Launched | None = None
        self._loads: Loads | None = None

    def run(self) -> int:
        """The exit code: the node's own; 130 after SIGINT. Raises what keeps the first node from starting."""
        for number in _SIGNALS:
            signal.signal(number, _ask)
        try:
            code = self._watch()
        except Asked as asked:
            code = self._end()
            return 130 if asked.number == signal.SIGINT else code
        return code

    def _watch(self) -> int:
        code = self._live()
        while code == EXIT_FENCED:
            pause = min(_AGAIN_MOST_S, _AGAIN_S * 2 ** min(self._failures, 10)) if self._failures else 0.0
            self._failures += 1
            self._tell(f"the node was declared dead by the head: another is started in {pause:g} s, under a new id")
            time.sleep(pause)
            try:
                code = self._live()
            except AuthenticationError:
                raise
            except ClusterError as error:  # the head is not there just now
                self._tell(str(error))
        return code

    def _live(self) -> int:
        """One node's life."""
        began = time.monotonic()
        launched = self._launched = launch(self._plan.settings, self._plan.listening, founder=False)
        with (launched.session / "logs" / "node.log").open("rb") as log:
            word = sessions.read_word(launched.session)
            self._ready(word)
            if self._plan.loads:
                self._loads = Loads(self._plan.loads, word, self._tell)
            code = launched.process.wait()
            self._stop_loads()
            if code not in (0, EXIT_FENCED):
                log.seek(max(0, os.fstat(log.fileno()).st_size - LOG_TAIL_BYTES))
                how = f"code {code}" if code > 0 else f"signal {-code}"
                self._tell(f"the node ended with {how}; its log ends:\n{log.read().decode(errors='replace')}")
        self._launched = None
        remove(launched.session)  # the node does that itself, unless it was killed together with its zygote
        if time.monotonic() - began > _SOUND_S:
            self._failures = 0
        return code if code >= 0 else 128 - code

    def _stop_loads(self) -> None:
        if self._loads is not None:
            self._loads.stop()
            self._loads = None

    def _end(self) -> int:
        """End the node that runs, if one does; a second signal kills it."""
        launched = self._launched
        if launched is None:
            return 0
        try:
            self._stop_loads()
            launched.process.terminate()
            launched.wait_end(self._plan.settings.drain_grace_s + LEAVE_S)
        except Asked:
            for number in _SIGNALS:
                signal.signal(number, signal.SIG_IGN)
            launched.process.kill()
            launched.wait_end(END_S)
        code = launched.process.returncode
        return code if code >= 0 else 128 - code
