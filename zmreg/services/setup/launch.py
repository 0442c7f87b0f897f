"""Starting a node as a child process. Loads nothing that unpickles: the command line starts nodes, too."""

from __future__ import annotations

import contextlib
import json
import os
import select
import shutil
import subprocess
import sys
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from zmreg.model import errors
from zmreg.model.errors import ClusterError
from zmreg.model.ids import ProcessId
from zmreg.model.settings import Listening, Settings
from zmreg.services.machine.accelerators import device_ids
from zmreg.services.machine.descriptors import prepare as prepare_descriptors
from zmreg.services.machine.directories import SHARED_MEMORY, Session, new_session, remove

# Of the machine's memory: what the store may use at most by default, and never more than half of shared memory.
STORE_SHARE = 0.3
# A worker with nothing loaded has about 12 MiB of its own; this leaves as much again for its work.
WORKER_BYTES = 24 << 20
START_TIMEOUT_S = 30.0
NODE_PROGRAM = "from zmreg.services.node.daemon import main; main()"
# A node that has closed its pipe is as good as gone.
END_TIMEOUT_S = 5.0
LOG_TAIL_BYTES = 4_096


def filled(settings: Settings) -> Settings:
    """The settings with every automatic value decided for this machine. ValueError: more GPUs than it may use, a
    threshold that is no share, a port that is none."""
    if not (0 <= settings.memory_threshold <= 1 and settings.memory_check_s >= 0):
        raise ValueError(
            f"memory_threshold={settings.memory_threshold:g}, memory_check_s={settings.memory_check_s:g}: the first is "
            "a share from 0 (never) to 1, the second seconds from 0 (never)"
        )
    if not 0 <= settings.metrics_port < 65_536:
        raise ValueError(f"metrics_port={settings.metrics_port} is no port: 0 is none, others go up to 65535")
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    store = settings.object_store_bytes
    if not store:
        free = shutil.disk_usage(SHARED_MEMORY).free
        store = int(min(memory * STORE_SHARE, free * 0.5))
    device_ids(settings.num_gpus)  # ValueError here, and not in the log of a node that did not start
    workers = settings.max_workers or max(32, memory // WORKER_BYTES)
    return replace(settings, object_store_bytes=store, max_workers=int(workers))


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


def launch(
    settings: Settings,
    listening: Listening | None = None,
    founder: bool = True,
    meanwhile: Callable[[], object] = bool,
) -> Launched:
    """Start a node as a child process and wait until its doors are open and, with `listening`, it has joined.

    A node ends with us unless it is `detached`; `founder`: also when our driver leaves. `meanwhile()` is called while
    it starts. Raises ClusterError, with the last lines of its log, when it does not come up in time, and what kept it
    from joining; nothing is left then.
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
            config = _config(settings, session, listening, founder)
            return Launched(session.path, *_spawn(config, session, cleanup, meanwhile))
        except BaseException as error:
            cleanup.close()  # first: removing a directory takes descriptors, and they may be what is missing
            remove(session.path)
            if isinstance(error, OSError) and not isinstance(error, ClusterError):
                raise ClusterError(f"the node's process could not be started: {error}") from error
            raise


def _config(settings: Settings, session: Session, listening: Listening | None, founder: bool) -> dict[str, Any]:
    """What the node is told; `_spawn` adds the descriptors."""
    return {
        "settings": asdict(settings),
        "session": str(session.path),
        "arena": str(session.arena / "store.arena"),
        "spill": str(session.spill),
        "listening": None if listening is None else asdict(listening),
        "founder": os.getpid() if founder else 0,
        "lock_fds": session.locks,
        "path": sys.path,
        "argv": sys.argv,
    }


def _spawn(
    config: dict[str, Any], session: Session, cleanup: contextlib.ExitStack, meanwhile: Callable[[], object]
) -> tuple[ProcessId, subprocess.Popen[bytes]]:
    def ours(fd: int) -> int:
        cleanup.callback(os.close, fd)
        return fd

    ready, ready_write = os.pipe2(os.O_CLOEXEC)
    ours(ready)
    driver = -1
    if config["listening"] is None or not config["listening"]["detached"]:
        driver = ours(os.pidfd_open(os.getpid()))  # our own: no pid can be mistaken for ours when we are gone
    log = ours(os.open(session.path / "logs" / "node.log", os.O_RDWR | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600))
    config = {**config, "driver_fd": driver, "ready_fd": ready_write}
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
        meanwhile()
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
    if isinstance(told, type) and issubclass(told, ClusterError):  # said on purpose: the log has nothing to add
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
