"""The life of a node's process: what it is told, what it opens, in which order, and what it leaves behind: nothing."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from zmreg.model.ids import ProcessId, new_node_id
from zmreg.model.settings import Listening, Settings
from zmreg.net.sockets import Ends
from zmreg.services.machine import stacks
from zmreg.services.machine.descriptors import raise_limit
from zmreg.services.machine.memory import DAEMON_SCORE, prefer
from zmreg.services.node.node import Node
from zmreg.services.node.zygote import adopt_orphans, fork_zygote, remove_session
from zmreg.services.setup.sessions import Word, leave_word, start_time


def settings_of(config: dict[str, Any]) -> Settings:
    """The settings that the launching process sent."""
    values = dict(config["settings"])
    values["locs"] = tuple(values["locs"])
    return Settings(**values)


def main() -> None:
    """The life of a node process: configuration on stdin, a byte on `ready_fd` when the door is open.

    What to remove at the end is in argv as well: the driver may be killed before it has written the configuration.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        config = json.loads(sys.stdin.buffer.read())
    except ValueError:
        remove_session({"remove": sys.argv[1:]})
        sys.exit("the driver ended before it had said what to start")
    config["remove"] = sys.argv[1:]
    config["node"] = new_node_id().hex()
    told: list[bytes] = []

    def tell(word: bytes) -> None:
        if not told:
            told.append(word)
            with contextlib.suppress(BrokenPipeError):  # the driver is dead: its descriptor says so too
                os.write(config["ready_fd"], word[:4_000])
            os.close(config["ready_fd"])

    node = None
    try:
        node = start(config)
        node.ready = partial(_open, node, tell)
        signal.signal(signal.SIGTERM, lambda *_: node.departure.asked.append(node.settings.drain_grace_s))
        node.run(config["driver_fd"])
    except BaseException as error:
        tell(f"E{type(error).__name__}: {error}".encode())
        raise
    finally:
        if node is not None:
            node.shut_down()
        else:
            remove_session(config)
    sys.exit(node.exit_code)


def _open(node: Node, tell: Callable[[bytes], None]) -> None:
    """Programs and commands may come: those who look in the session directories first, then whoever started us."""
    me = os.getpid()
    listening = node.config["listening"] or {}
    record = node.neighbours.view()[0] if node.neighbours is not None else None
    leave_word(
        Word(
            session=node.config["session"], node=node.me.hex(), pid=me, started=start_time(me) or 0,
            name=record.name if record is not None else socket.gethostname(),
            is_head=node.neighbours is None or node.neighbours.is_head, attachable=not node.config["founder"],
            cluster=node.cluster, address=f"{record.host}:{record.port}" if record is not None else "",
            port=record.port if record is not None else 0, pub_port=record.pub_port if record is not None else 0,
            contact=listening.get("contact", ""), key_file=listening.get("key_file", ""),
        )
    )  # fmt: skip
    if node.settings.metrics_port:
        from zmreg.services.node.metrics_port import open_port  # late: few have one

        open_port(node)
    tell(b"R" + node.me)


def start(config: dict[str, Any]) -> Node:
    """Zygote first, while there is no thread, context or socket; then the doors. Raises OSError, ClusterError."""
    adopt_orphans()
    stacks.listen(config["session"])
    prefer(DAEMON_SCORE)
    inherited = [fd for fd in (config["driver_fd"], config["ready_fd"]) if fd >= 0]
    nursery = fork_zygote({**config, "close": inherited})
    raise_limit()
    settings = settings_of(config)
    ends = Ends(Path(config["session"]), ProcessId(bytes.fromhex(config["node"])))
    node = Node(config, settings, ends, nursery)
    if config["listening"] is not None:
        # Late: a cluster of one node has no use for any of it.
        from zmreg.services.machine.heap import keep_freed
        from zmreg.services.network.joining import listen

        keep_freed()
        listen(node, Listening(**config["listening"]))
    return node
