"""The zygote: a small process that forks ready-made workers (5 ms) instead of starting interpreters (100 ms).

It has imported what a worker needs and owns nothing else: no socket, thread or context, so that forking is safe.
The node forks it right after its own imports; if it dies, the node starts another as a fresh interpreter. It talks to
the node over a SOCK_SEQPACKET pair, one JSON object a packet:

node -> zygote   {"fork": worker id hex}   {"kill": pid}
zygote -> node   {"forked": id, "pid": n}  {"failed": id, "why": text}  {"exited": id, "pid": n, "status": wait status}

When the node is gone (end of file), it kills every worker and removes what the session left on disk and in shared
memory. When the zygote is gone, the kernel kills its workers (PR_SET_PDEATHSIG).
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import importlib
import json
import os
import select
import shutil
import signal
import socket
import sys
import time
from pathlib import Path
from typing import Any

from zmreg.services.machine import accelerators, memory, stacks
from zmreg.services.machine.memory import children_of

_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
# How long killed processes may take to be gone; one in an uninterruptible wait is left to the kernel.
_END_S = 2.0
PACKET_BYTES = 64 * 1024
# What pickled functions and refs ask for. By name: services know nothing of the api, they only fetch it beforehand.
USERS_SIDE = ("zmreg.api.refs", "zmreg.api.actors", "zmreg.api.decorator", "zmreg.api.context")


def die_with_parent(parent: int) -> None:
    """Have the kernel kill this process when its parent ends; at once if that has happened already."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(1)


def adopt_orphans() -> None:
    """From now on processes whose parents die below us become our children: what user code has started included."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)


def end_descendants() -> None:
    """Kill every process below us and wait until they are gone; those that lose their parents come to us."""
    deadline = time.monotonic() + _END_S
    while (below := children_of(os.getpid())) and time.monotonic() < deadline:
        for pid in below:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        for pid in below:
            _await_end(pid, deadline)


def _await_end(pid: int, deadline: float) -> None:
    with contextlib.suppress(OSError):
        fd = os.pidfd_open(pid)
        try:
            poller = select.poll()
            poller.register(fd, select.POLLIN)
            poller.poll(max(0.0, deadline - time.monotonic()) * 1e3)
            os.waitpid(pid, os.WNOHANG)
        finally:
            os.close(fd)


class Zygote:
    """The forking loop. `config` has the session directory, the node's id, sys.path, and what to remove at the end."""

    def __init__(self, channel: socket.socket, config: dict[str, Any]) -> None:
        self._channel = channel
        self._config = config
        self._children: dict[int, str] = {}
        adopt_orphans()
        read, write = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
        self._signal_pipe = read
        signal.set_wakeup_fd(write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def run(self) -> None:
        """Serve until the node is gone."""
        poller = select.poll()
        poller.register(self._channel, select.POLLIN)
        poller.register(self._signal_pipe, select.POLLIN)
        while True:
            for fd, _ in poller.poll():
                if fd == self._signal_pipe:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._signal_pipe, 4096)
                    self._reap()
                elif not self._hear():
                    self._end()
                    return

    def _hear(self) -> bool:
        try:
            packet = self._channel.recv(PACKET_BYTES)
        except ConnectionError:
            return False
        if not packet:
            return False
        request = json.loads(packet)
        if "fork" in request:
            self._fork(request["fork"])
        elif request["kill"] in self._children:
            self._kill(request["kill"])
        return True

    def _fork(self, worker: str) -> None:
        parent = os.getpid()
        try:
            pid = os.fork()
        except OSError as error:
            self._tell({"failed": worker, "why": f"fork: {error}"})
            return
        if pid == 0:
            self._become_worker(worker, parent)
        self._children[pid] = worker
        self._tell({"forked": worker, "pid": pid})

    def _become_worker(self, worker: str, parent: int) -> None:
        try:
            die_with_parent(parent)
            os.setpgid(0, 0)
            memory.prefer(memory.WORKER_SCORE)
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self._channel.close()
            os.close(self._signal_pipe)
            close_locks(self._config)
            session = self._config["session"]
            log = os.open(
                Path(session) / "logs" / f"{worker}.log", os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600
            )
            os.dup2(log, 1)
            os.dup2(log, 2)
            os.close(log)
            sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
            from zmreg.services.worker import worker as worker_module

            worker_module.main(session, bytes.fromhex(worker), bytes.fromhex(self._config["node"]))
        except BaseException:  # noqa: BLE001  the top of a process: say it in the log, end
            sys.excepthook(*sys.exc_info())
            sys.stderr.flush()
        finally:
            os._exit(1)

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            worker = self._children.pop(pid, None)
            if worker is not None:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(pid, signal.SIGKILL)  # what it forked itself
                self._tell({"exited": worker, "pid": pid, "status": status})

    def _tell(self, fact: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the node is gone: the next recv says so
            self._channel.send(json.dumps(fact).encode())

    @staticmethod
    def _kill(pid: int) -> None:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.killpg(pid, signal.SIGKILL)
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)

    def _end(self) -> None:
        for pid in list(self._children):
            self._kill(pid)
        end_descendants()
        remove_session(self._config)


def remove_session(config: dict[str, Any]) -> None:
    """Remove what a session has on disk and in shared memory. Harmless when it is gone already."""
    for path in config["remove"]:
        shutil.rmtree(path, ignore_errors=True)


def close_locks(config: dict[str, Any]) -> None:
    """A worker must not keep the session's locks alive."""
    for fd in config["lock_fds"]:
        os.close(fd)


def fork_zygote(config: dict[str, Any]) -> tuple[socket.socket, int]:
    """Fork a zygote from this process, which must not have threads or a context yet. (channel, pid)."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid:
        theirs.close()
        return ours, pid
    try:
        ours.close()
        for fd in config.get("close", ()):
            os.close(fd)
        be_zygote(theirs, config)
    finally:
        os._exit(0)


def _preload() -> None:
    """Load what every worker needs, once for all, in memory they share."""
    import zmreg.services.worker.worker  # noqa: F401
    from zmreg.model import messages
    from zmreg.wire import codec, payload

    payload.warm()
    codec.warm(messages.Hello, messages.Welcome, messages.Definition, messages.Construct, messages.Constructed)
    for module in USERS_SIDE:
        importlib.import_module(module)


def be_zygote(channel: socket.socket, config: dict[str, Any]) -> None:
    """Prepare and serve; returns when the node is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    sys.path[:] = config["path"]
    sys.argv = config["argv"]
    if config["settings"]["num_gpus"]:
        accelerators.expose(())  # before anything of theirs is imported; those who get GPUs are told which
    _preload()
    gc.collect()
    gc.freeze()
    zygote = Zygote(channel, config)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    zygote.run()


def main() -> None:
    """A zygote as a fresh interpreter: channel and configuration come by file descriptor and stdin."""
    config = json.loads(sys.stdin.read())
    stacks.listen(config["session"])
    be_zygote(socket.socket(fileno=config["channel_fd"]), config)
