"""A cluster of one's own: a node as a child process, and the driver's seat in it."""

from __future__ import annotations

import contextlib
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from zmreg.model.errors import ClusterError, ZmregError
from zmreg.model.ids import ProcessId, new_driver_id, node_of
from zmreg.model.settings import Listening, Settings
from zmreg.net.waiting import HandlerSwap
from zmreg.services.seat.bequest import bequeath_as_driver
from zmreg.services.seat.client import Client, set_current
from zmreg.services.setup.launch import Launched, launch
from zmreg.services.setup.sessions import Word
from zmreg.services.worker.environments import of_job
from zmreg.wire import payload

CONNECT_TIMEOUT_S = 15.0
END_TIMEOUT_S = 5.0
# A node answers in milliseconds; one that stands still, or is cut off and not yet dead, holds up the end so long.
OUTPUT_TIMEOUT_S = 3.0
# A call that was made in a task may have run anywhere: in a cluster of so many nodes all are asked, at once.
ASKED_NODES = 100
# A node that has joined a cluster gives away what it has before it ends; the others may have to fetch it.
LEAVE_TIMEOUT_S = 60.0


@dataclass(slots=True)
class Embedded:
    """The driver's client and the node it started. `wanted`: the arguments of the init that made it."""

    client: Client
    launched: Launched
    wanted: dict[str, Any]
    pidfd: int
    is_one_of_many: bool = False
    """The node has joined a cluster, which goes on."""

    def close(self) -> None:
        """Shut down: the client leaves, the node ends its workers and removes everything."""
        _show_last_output(self.client)
        if self.is_one_of_many:
            _bequeath(self.client)
        self.client.close(None)
        self.launched.wait_end(LEAVE_TIMEOUT_S if self.is_one_of_many else END_TIMEOUT_S)
        os.close(self.pidfd)


def _show_last_output(client: Client) -> None:
    """What was printed last is shown before we leave."""
    screen = client.screen
    if screen is None:
        return
    if client.closed is None:
        deadline = time.monotonic() + OUTPUT_TIMEOUT_S
        with contextlib.suppress(ZmregError):
            nodes = {client.node} | {node_of(worker) for worker in client.tasks.lanes}
            rows = client.ask("nodes", timeout=OUTPUT_TIMEOUT_S)
            nodes |= {bytes.fromhex(row["NodeID"]) for row in rows[:ASKED_NODES] if row["Alive"]}
            client.questions.ask_each("output", [each.hex() for each in nodes], deadline)
    screen.close()


def _bequeath(client: Client) -> None:
    """What others have of ours goes to the node."""
    if client.closed is None:
        with contextlib.suppress(ZmregError):  # the node ends as well, or stands still: then it is lost
            bequeath_as_driver(client)


def embed(settings: Settings, wanted: dict[str, Any], listening: Listening | None = None) -> Embedded:
    """Start a node, which with `listening` joins a cluster, and take a seat.

    ClusterError when that fails; nothing is left behind then.
    """
    launched = launch(settings, listening, meanwhile=payload.warm)
    client = None
    pidfd = os.pidfd_open(launched.process.pid)
    try:
        client = Client(launched.session, new_driver_id(launched.node), launched.node, HandlerSwap())
        _watch(client, launched, pidfd)
        client.connect("driver", CONNECT_TIMEOUT_S)
        if listening is not None:
            client.environment = of_job(client.me)
    except BaseException:
        if client is not None:
            client.close(None, clean=False)
        launched.process.terminate()
        launched.wait_end(END_TIMEOUT_S)
        os.close(pidfd)
        raise
    set_current(client)
    return Embedded(client, launched, wanted, pidfd, listening is not None)


@dataclass(slots=True)
class Attached:
    """A driver's client at a node that somebody else has started."""

    client: Client
    wanted: dict[str, Any]
    pidfd: int

    def close(self) -> None:
        """Leave. The node and its cluster go on."""
        _show_last_output(self.client)
        _bequeath(self.client)
        self.client.close(None)
        os.close(self.pidfd)


def attach(word: Word, wanted: dict[str, Any]) -> Attached:
    """Take a seat at a running node of this machine. ClusterError when it does not answer."""
    try:
        pidfd = os.pidfd_open(word.pid)
    except ProcessLookupError:
        raise ClusterError(f"the node {word.title()} is gone; `zmreg start` starts another") from None
    session, node, pid = Path(word.session), ProcessId(word.node_id), word.pid
    client = None
    try:
        client = Client(session, new_driver_id(node), node, HandlerSwap())
        client.pump.watch(pidfd, lambda: client.node_gone(f"pid {pid} ended") if client is not None else None)
        client.connect("driver", CONNECT_TIMEOUT_S)
        client.environment = of_job(client.me)
    except BaseException:
        if client is not None:
            client.close(None, clean=False)
        os.close(pidfd)
        raise
    set_current(client)
    return Attached(client, wanted, pidfd)


def _watch(client: Client, launched: Launched, pidfd: int) -> None:
    process = launched.process

    def gone() -> None:
        with contextlib.suppress(ChildProcessError):
            process.poll()
        client.node_gone(f"pid {process.pid} ended with code {process.returncode}")

    client.pump.watch(pidfd, gone)
