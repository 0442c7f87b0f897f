"""Starting a node of one's own, and finding the directories that sessions live in."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import secrets
import select
import shutil
import subprocess
import sys
import tempfile
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from zmreg.model import errors
from zmreg.model.errors import ClusterError
from zmreg.model.ids import ProcessId
from zmreg.model.settings import Listening, Settings
from zmreg.services.descriptors import prepare as prepare_descriptors
from zmreg.wire import payload

SHARED_MEMORY = Path("/dev/shm")
DISK = Path("/var/tmp")
# Of the machine's memory: what the store may use at most by default, and never more than half of shared memory.
STORE_SHARE = 0.3
# A worker with nothing loaded has about 12 MiB of its own; this leaves as much again for its work.
WORKER_BYTES = 24 << 20
START_TIMEOUT_S = 30.0
NODE_PROGRAM = "from zmreg.services.daemon import main; main()"
# A node that has closed its pipe is as good as gone.
END_TIMEOUT_S = 5.0
LOG_TAIL_BYTES = 4_096


def runtime_root() -> Path:
    """The directory under which every session of this user has its own: `$XDG_RUNTIME_DIR/zmreg`, or in tmp."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and len(base) < 60 and os.path.isdir(base):  # a socket path has 107 characters
        return Path(base) / "zmreg"
    return Path(tempfile.gettempdir()) / f"zmreg-{os.getuid()}"


def new_session() -> Session:
    """Fresh 0700 directories for one cluster, locked while it lives; what dead clusters left is swept first.

    Raises ClusterError when the root is not ours alone, OSError when there is no room for directories.
    """
    root = runtime_root()
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = root.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ClusterError(f"{root} must belong to you and be closed to others (0700); remove it or chmod it")
    sweep(root)
    while True:
        path = root / secrets.token_hex(4)
        locks: list[int] = []
        try:
            locks.append(_make_locked(path))
            (path / "logs").mkdir(mode=0o700)
            for directory in elsewhere(path):
                locks.append(_make_locked(directory))
        except FileNotFoundError:  # another process's sweep was faster than our lock
            _drop(locks, path)
        except BaseException:
            _drop(locks, path)
            raise
        else:
            return Session(path, *elsewhere(path), locks=tuple(locks))


def elsewhere(session: Path) -> tuple[Path, Path]:
    """A session's other directories: in shared memory for objects, and on disk for those that are spilled."""
    name = f"zmreg-{os.getuid()}-{session.name}"
    return SHARED_MEMORY / name, spill_root() / name


def spill_root() -> Path:
    """Where objects are spilled: `$TMPDIR`, or /var/tmp, which is on disk where /tmp may not be."""
    named = os.environ.get("TMPDIR")
    if named:
        return Path(named)
    return DISK if os.access(DISK, os.W_OK | os.X_OK) else Path(tempfile.gettempdir())


def _drop(locks: list[int], session: Path) -> None:
    for lock in locks:
        os.close(lock)
    remove(session)


def remove(session: Path) -> None:
    """Remove what a session has on disk and in shared memory. Harmless when it is gone already."""
    for directory in (*elsewhere(session), session):
        shutil.rmtree(directory, ignore_errors=True)


def _make_locked(path: Path) -> int:
    """Make a directory and lock it: whoever holds a copy of the descriptor keeps it from being swept."""
    path.mkdir(mode=0o700)
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(fd, fcntl.LOCK_EX)
        os.stat(path)  # a sweep between mkdir and lock has removed it
    except BaseException:
        os.close(fd)
        raise
    return fd


def sweep(root: Path) -> list[Path]:
    """Remove what nobody has locked any more (kill -9 of everything leaves it). Returns the paths.

    By lock, never by pid: pids are used again.
    """
    swept = []
    pattern = f"zmreg-{os.getuid()}-*"
    for path in [*root.iterdir(), *SHARED_MEMORY.glob(pattern), *spill_root().glob(pattern)]:
        try:
            fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC)
        except OSError:
            continue  # just removed, or none of ours
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(path, ignore_errors=True)
            swept.append(path)
        except BlockingIOError:
            continue
        finally:
            os.close(fd)
    return swept


def filled(settings: Settings) -> Settings:
    """The settings with every automatic value decided for this machine."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    store = settings.object_store_bytes
    if not store:
        free = shutil.disk_usage(SHARED_MEMORY).free
        store = int(min(memory * STORE_SHARE, free * 0.5))
    workers = settings.max_workers or max(32, memory // WORKER_BYTES)
    return replace(settings, object_store_bytes=store, max_workers=int(workers))


@dataclass(frozen=True, slots=True)
class Session:
    """The directories of one cluster: sockets and logs, shared memory, spilled objects; and what keeps them locked."""

    path: Path
    arena: Path
    spill: Path
    locks: tuple[int, ...]

    def let_go(self) -> None:
        """Close our copies of the locks: whoever inherited them goes on holding."""
        for lock in self.locks:
            os.close(lock)


@dataclass(slots=True)
class Launched:
    """A node that this process started."""

    session: Path
    node: ProcessId
    process: subprocess.Popen[bytes]

    def wait_end(self, timeout: float) -> None:
        """Wait until it is gone; kill it when it is not in time. Nothing of the session is left afterwards."""
        end(self.process, timeout)
        remove(self.session)  # the node does that itself, unless it was killed together with its zygote


def end(process: subprocess.Popen[bytes], timeout: float) -> None:
    """Wait until a node is gone; kill it when it is not in time (its zygote then ends the workers)."""
    try:
        process.wait(timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def launch(settings: Settings, listening: Listening | None = None, founder: bool = True) -> Launched:
    """Start a node as a child process and wait until its doors are open and, with `listening`, it has joined.

    A node ends with us unless it is `detached`; `founder`: also when our driver leaves. Raises ClusterError, with the
    last lines of its log, when it does not come up in time, and what kept it from joining; nothing is left then.
    """
    prepare_descriptors(stacklevel=4)  # the line that called init
    settings = filled(settings)
    try:
        session = new_session()
    except OSError as error:
        raise ClusterError(f"no directory for a cluster could be made: {error}") from error
    with contextlib.ExitStack() as cleanup:
        cleanup.callback(session.let_go)
        try:
            return Launched(session.path, *_spawn(settings, session, cleanup, listening, founder))
        except BaseException as error:
            cleanup.close()  # first: removing a directory takes descriptors, and they may be what is missing
            remove(session.path)
            if isinstance(error, OSError) and not isinstance(error, ClusterError):
                raise ClusterError(f"the node's process could not be started: {error}") from error
            raise


def _spawn(
    settings: Settings, session: Session, cleanup: contextlib.ExitStack, listening: Listening | None, founder: bool
) -> tuple[ProcessId, subprocess.Popen[bytes]]:
    def ours(fd: int) -> int:
        cleanup.callback(os.close, fd)
        return fd

    ready, ready_write = os.pipe2(os.O_CLOEXEC)
    ours(ready)
    driver = -1
    if listening is None or not listening.detached:
        driver = ours(os.pidfd_open(os.getpid()))  # our own: no pid can be mistaken for ours when we are gone
    log = ours(os.open(session.path / "logs" / "node.log", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
    config = {
        "settings": asdict(settings),
        "session": str(session.path),
        "arena": str(session.arena / "store.arena"),
        "spill": str(session.spill),
        "listening": None if listening is None else asdict(listening),
        "founder": os.getpid() if founder else 0,
        "driver_fd": driver,
        "ready_fd": ready_write,
        "lock_fds": session.locks,
        "path": sys.path,
        "argv": sys.argv,
    }
    # -P: with -c the working directory would come first on sys.path, and a file there could pass for a module of ours.
    command = [sys.executable, "-P", "-c", NODE_PROGRAM]
    try:
        process = subprocess.Popen(
            [*command, str(session.path), str(session.arena), str(session.spill)],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=[fd for fd in (ready_write, driver, *session.locks) if fd >= 0],
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
    finally:
        os.close(ready_write)
    try:
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died at once: the pipe below tells
            process.stdin.write(json.dumps(config).encode())
            process.stdin.close()
        payload.warm()  # while the node starts
        return _await_ready(process, ready, log), process
    except BaseException:  # also Ctrl-C: a node without a driver must not stay
        process.kill()
        process.wait()
        raise


def _await_ready(process: subprocess.Popen[bytes], ready: int, log: int) -> ProcessId:
    poller = select.poll()
    poller.register(ready, select.POLLIN)
    readable = bool(poller.poll(START_TIMEOUT_S * 1e3))
    word = os.read(ready, 4096) if readable else b""
    if word[:1] == b"R":
        return ProcessId(word[1:9])
    why = word[1:].decode(errors="replace")
    kind, _, text = why.partition(": ")
    told = getattr(errors, kind, None)
    if isinstance(told, type) and issubclass(told, ClusterError) and told is not ClusterError:
        raise told(text)
    if not readable:
        why = f"it was not ready in {START_TIMEOUT_S:.0f} s"
    elif not why:
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(END_TIMEOUT_S)
        why = f"it ended with code {process.returncode}"
    size = os.fstat(log).st_size
    tail = os.pread(log, LOG_TAIL_BYTES, max(0, size - LOG_TAIL_BYTES)).decode(errors="replace")
    raise ClusterError(f"the node could not start: {why}\nits log ends:\n{tail or '(empty)'}")
