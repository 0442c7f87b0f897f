"""The node's worker processes: forked by the zygote, known by id, watched until they are gone."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zmreg.model.ids import worker_id
from zmreg.model.lodging_messages import Evict, Lodge, LodgerGone
from zmreg.services.node import zygote as zygotes
from zmreg.services.node.printed import Output, Printed
from zmreg.store.board import LastWords, read_board

# How long a worker that was asked to end may take before it is killed.
END_GRACE_S = 1.0
ZYGOTE_PAUSE_S = 1.0
BARREN_ZYGOTES = 3


@dataclass(slots=True)
class Child:
    """One worker process."""

    worker: bytes
    pid: int = 0
    ready: bool = False
    kill_at: float = float("inf")
    killed: str = ""
    """Why we killed it ourselves; empty when we did not."""
    memory_bytes: int = 0
    """What it had of its own when we killed it for want of memory."""
    name: str = "worker"
    is_actor: bool = False
    restarts: bool = False
    """It is an actor that may be restarted."""
    house: bytes = b""
    """The worker in whose process it is a lodger (core/houses.py)."""
    evicted_at: float = 0.0
    """A lodger's house was told then to end it."""

    def label(self) -> str:
        """How it is called in front of what it prints."""
        return f"{self.name} pid={self.pid}"


@dataclass(frozen=True, slots=True)
class Death:
    """How a worker ended."""

    worker: bytes
    was_ready: bool
    exit_code: int | None
    signal: int | None
    words: LastWords
    reason: str
    log_tail: str
    output: list[Output]
    name: str
    pid: int
    memory_bytes: int = 0
    """As in Child."""
    house: bytes = b""


class Nursery:
    """Starts and ends workers. `on_death` and `on_failed_start` are called from `hear`."""

    def __init__(self, channel: socket.socket, pid: int, config: dict[str, Any], died: Callable[[Death], None]) -> None:
        self.channel = channel
        self.zygote_pid = pid
        self.children: dict[bytes, Child] = {}
        self._config = config
        self._session = Path(config["session"])
        self._node = bytes.fromhex(config["node"])
        self._born = 0
        self.printed = Printed(self._session / "logs")
        self._died = died
        self._spawned: subprocess.Popen[bytes] | None = None
        self._unborn: socket.socket | None = None
        """The other end of the channel while no zygote could be started."""
        self._retry_at = 0.0
        self._barren = 0
        """Zygotes that died one after the other without having forked."""
        self._unsent: deque[bytes] = deque()
        """Requests the channel has no room for now. Never wait for that room: the zygote may be waiting for us."""
        self.post: Callable[[bytes, Lodge | Evict], object] = lambda worker, message: None
        """Say something to a worker."""

    def start(self) -> None:
        """Ask for one more worker."""
        self._born += 1
        worker = worker_id(self._node, self._born)
        self.children[worker] = Child(worker)
        self.printed.begin(worker)
        self._tell({"fork": worker.hex()})

    def lodge(self, worker: bytes, house: bytes) -> None:
        """Have one more worker made, in the process of another."""
        home = self.children.get(house)
        self.children[worker] = Child(worker, home.pid if home is not None else 0, house=house)
        self.post(house, Lodge(worker))

    def lodger_gone(self, house: bytes, message: LodgerGone) -> None:
        """It has ended, and its house has not."""
        child = self.children.get(message.worker)
        if child is not None and child.house == house:
            self._gone(message.worker, message.status, message.reason)

    def _tell(self, request: dict[str, Any]) -> None:
        self._unsent.append(json.dumps(request).encode())
        self._send()

    def _send(self) -> None:
        with contextlib.suppress(OSError):  # no room: the next packet or tick; gone: `hear` finds out, starts another
            while self._unsent:
                self.channel.send(self._unsent[0], socket.MSG_DONTWAIT)
                self._unsent.popleft()

    def hear(self) -> bool:
        """Take one packet from the zygote; False when it is gone."""
        try:
            packet = self.channel.recv(zygotes.PACKET_BYTES)
        except ConnectionError:
            return False
        if not packet:
            return False
        self._send()
        fact = json.loads(packet)
        if "forked" in fact:
            self._barren = 0
            child = self.children.get(bytes.fromhex(fact["forked"]))
            if child is not None:
                child.pid = fact["pid"]
                if child.kill_at == 0:
                    self._tell({"kill": child.pid})
        elif "failed" in fact:
            self._gone(bytes.fromhex(fact["failed"]), None, fact["why"])
        else:
            self._gone(bytes.fromhex(fact["exited"]), fact["status"], "")
        return True

    def replace_zygote(self) -> None:
        """The zygote died, and with it every worker. Start another, as a fresh interpreter.

        When that fails (a pids limit, no memory), `tick` has it tried again: until then starts come to nothing.
        """
        self.channel.close()
        self._unsent.clear()
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.zygote_pid, signal.SIGKILL)
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.zygote_pid, 0)
        self._barren += 1
        why = "its zygote was killed"
        try:
            if self._barren > BARREN_ZYGOTES:
                raise OSError(f"{self._barren - 1} zygotes in a row died before they had forked anything")
            self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._spawn_zygote(theirs)
            theirs.close()
        except OSError as error:
            why = f"there is no zygote to fork it: {error}"
            self.channel, self._unborn = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._retry_at = time.monotonic() + ZYGOTE_PAUSE_S
        # Actors last: one that restarts must not be given a worker that is about to be declared dead as well.
        houses = {child.house for child in self.children.values()}
        for worker, child in sorted(self.children.items(), key=lambda item: item[1].is_actor or item[0] in houses):
            if child.house:  # gone with that
                continue
            if child.pid:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(child.pid, signal.SIGKILL)  # what it forked itself: the kernel ends only the worker
            if child.ready or self._unborn is not None:
                self._gone(worker, int(signal.SIGKILL), why)
            else:
                self._start_again(worker)

    def _start_again(self, worker: bytes) -> None:
        """Its start was cut short by the zygote's death: no sign that workers can't be started here."""
        del self.children[worker]
        self.printed.end(worker)
        read_board(self._session / f"{worker.hex()}.now")
        (self._session / worker.hex()).unlink(missing_ok=True)
        self.start()

    def _spawn_zygote(self, theirs: socket.socket) -> None:
        config = {**self._config, "channel_fd": theirs.fileno(), "close": [], "lock_fds": []}
        self._spawned = subprocess.Popen(
            [sys.executable, "-P", "-c", "from zmreg.services.node.zygote import main; main()"],  # -P: see launch.py
            stdin=subprocess.PIPE,
            pass_fds=[theirs.fileno()],
            env={**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))},
        )
        assert self._spawned.stdin is not None
        with contextlib.suppress(BrokenPipeError):  # dead already: its end of the channel tells
            self._spawned.stdin.write(json.dumps(config).encode())
            self._spawned.stdin.close()
        self.zygote_pid = self._spawned.pid

    def _gone(self, worker: bytes, status: int | None, why: str) -> None:
        child = self.children.pop(worker, None)
        if child is None:
            return
        exit_code = sig = None
        if status is not None and os.WIFSIGNALED(status):
            sig = os.WTERMSIG(status)
            with contextlib.suppress(ValueError):
                why = why or f"killed by signal {sig} ({signal.Signals(sig).name})"
        elif status is not None:
            exit_code = os.waitstatus_to_exitcode(status)
            why = why or f"exited with code {exit_code}"
        words = read_board(self._session / f"{worker.hex()}.now")
        tail = self.printed.tail(child.house or worker)
        output = self.printed.end(worker) if not child.house else []
        (self._session / worker.hex()).unlink(missing_ok=True)
        self._died(
            Death(
                worker, child.ready, exit_code, sig, words, child.killed or why, tail, output, child.name,
                child.pid, child.memory_bytes, child.house,
            )
        )  # fmt: skip
        for lodger in [each.worker for each in self.children.values() if each.house == worker]:
            self._gone(lodger, status, why)

    def end(self, worker: bytes, now: float, tell: Callable[[bytes], None]) -> None:
        """Ask a worker to end; kill it when it has not within END_GRACE_S."""
        child = self.children.get(worker)
        if child is not None and child.kill_at > now + END_GRACE_S:
            child.kill_at = now + END_GRACE_S
            tell(worker)

    def spare(self, worker: bytes) -> None:
        """It ends, and may take its time."""
        child = self.children.get(worker)
        if child is not None:
            child.kill_at = float("inf")

    def kill(self, worker: bytes, why: str) -> None:
        """Kill -9, with everything it forked; a lodger is ended by its house."""
        child = self.children.get(worker)
        if child is not None:
            child.killed = child.killed or why
            child.kill_at = 0
            if child.house:
                child.evicted_at = child.evicted_at or time.monotonic()
                self.post(child.house, Evict(worker))
            elif child.pid:
                self._tell({"kill": child.pid})

    def tick(self, now: float) -> None:
        """Kill those that were asked to end and did not; try again to have a zygote, or to tell it something."""
        self._send()
        if self._unborn is not None and now >= self._retry_at:
            self._unborn.close()  # `hear` finds the channel at its end, and the zygote is replaced once more
            self._unborn = None
        for child in list(self.children.values()):
            if 0 < child.kill_at <= now:
                self.kill(child.worker, "it was asked to end and did not in time")
            late = child.evicted_at and now >= child.evicted_at + END_GRACE_S
            if child.house and (late or child.house not in self.children):
                self._gone(child.worker, int(signal.SIGKILL), "")

    def close(self) -> None:
        """Let the zygote end (it kills what is left) and wait for it; then for whatever is below us."""
        with contextlib.suppress(OSError):
            self.channel.shutdown(socket.SHUT_RDWR)
        self.channel.close()
        with contextlib.suppress(ChildProcessError):
            os.waitpid(self.zygote_pid, 0)
        zygotes.end_descendants()
