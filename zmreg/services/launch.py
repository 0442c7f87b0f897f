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

from zmreg.model.errors import ClusterError
from zmreg.model.ids import ProcessId
from zmreg.model.settings import Settings
from zmreg.store.arena import sweep_arenas

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108
# Of the machine's memory: what the store may use at most by default, and never more than half of shared memory.
STORE_SHARE = 0.3
# A worker with nothing loaded has about 12 MiB of its own; this leaves as much again for its work.
WORKER_BYTES = 24 << 20
START_TIMEOUT_S = 30.0


def runtime_root() -> Path:
    """The directory under which every session of this user has its own: `$XDG_RUNTIME_DIR/zmreg`, or in tmp."""
    base = os.environ.get("XDG_RUNTIME_DIR")
    if base and len(base) < 60 and os.path.isdir(base):  # a socket path has 107 characters
        return Path(base) / "zmreg"
    return Path(tempfile.gettempdir()) / f"zmreg-{os.getuid()}"


def new_session() -> Path:
    """A fresh 0700 directory for one cluster; sessions of dead clusters are swept first.

    Raises ClusterError when the root is not ours alone.
    """
    root = runtime_root()
    root.mkdir(mode=0o700, parents=True, exist_ok=True)
    status = root.lstat()
    if status.st_uid != os.getuid() or status.st_mode & 0o077:
        raise ClusterError(f"{root} must belong to you and be closed to others (0700); remove it or chmod it")
    sweep(root)
    session = root / secrets.token_hex(4)
    session.mkdir(mode=0o700)
    (session / "logs").mkdir(mode=0o700)
    return session


def sweep(root: Path) -> list[Path]:
    """Remove sessions whose lock nobody holds any more (kill -9 of everything leaves them). Returns their paths."""
    swept = []
    for session in root.iterdir():
        try:
            fd = os.open(session / "lock", os.O_RDWR | os.O_CLOEXEC)
        except OSError:
            continue  # just being made, or just removed
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            shutil.rmtree(session, ignore_errors=True)
            swept.append(session)
        except BlockingIOError:
            continue
        finally:
            os.close(fd)
    for directory in SHARED_MEMORY.glob(f"zmreg-{os.getuid()}-*"):
        if sweep_arenas(directory):
            shutil.rmtree(directory, ignore_errors=True)
            swept.append(directory)
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


@dataclass(slots=True)
class Launched:
    """A node that this process started."""

    session: Path
    node: ProcessId
    process: subprocess.Popen[bytes]

    def wait_end(self, timeout: float) -> None:
        """Wait until it is gone; kill it when it is not in time (its zygote then cleans up)."""
        try:
            self.process.wait(timeout)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


def launch(settings: Settings) -> Launched:
    """Start a node as a child process and wait until its door is open.

    Raises ClusterError, with the last lines of its log, when it does not come up in time.
    """
    session = new_session()
    lock = os.open(session / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    fcntl.flock(lock, fcntl.LOCK_EX)
    ready, ready_write = os.pipe2(os.O_CLOEXEC)
    arena = SHARED_MEMORY / f"zmreg-{os.getuid()}-{session.name}"
    try:
        arena.mkdir(mode=0o700)
        log = os.open(session / "logs" / "node.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
        config = {
            "settings": asdict(filled(settings)),
            "session": str(session),
            "arena": str(arena / "store.arena"),
            "driver": os.getpid(),
            "ready_fd": ready_write,
            "lock_fd": lock,
            "path": sys.path,
            "argv": sys.argv,
        }
        process = subprocess.Popen(
            [sys.executable, "-c", "from zmreg.services.node import main; main()"],
            stdin=subprocess.PIPE,
            stdout=log,
            stderr=log,
            pass_fds=[ready_write, lock],
            start_new_session=True,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
        )
        os.close(log)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # it died at once: the pipe below tells
            process.stdin.write(json.dumps(config).encode())
            process.stdin.close()
        os.close(ready_write)
        ready_write = -1
        return Launched(session, _await_ready(process, ready, session), process)
    except BaseException:
        shutil.rmtree(session, ignore_errors=True)
        shutil.rmtree(arena, ignore_errors=True)
        raise
    finally:
        for fd in (ready, ready_write, lock):
            if fd >= 0:
                os.close(fd)


def _await_ready(process: subprocess.Popen[bytes], ready: int, session: Path) -> ProcessId:
    readable, _, _ = select.select([ready], [], [], START_TIMEOUT_S)
    word = os.read(ready, 4096) if readable else b""
    if word[:1] == b"R":
        return ProcessId(word[1:9])
    process.kill()
    process.wait()
    log = (session / "logs" / "node.log").read_text(errors="replace")[-2_000:]
    why = word[1:].decode(errors="replace") or ("it ended" if readable else f"not ready in {START_TIMEOUT_S:.0f} s")
    raise ClusterError(f"the node could not start: {why}\nits log ends:\n{log}")
