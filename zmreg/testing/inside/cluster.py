"""`InProcess`: a whole cluster in this process, for unit tests that take milliseconds."""

from __future__ import annotations

import os
import sys
import threading
import types
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from zmreg.api import cluster
from zmreg.api.cluster import ClusterInfo
from zmreg.model.ids import ProcessId, new_driver_id, new_node_id
from zmreg.model.settings import Settings
from zmreg.net.waiting import HandlerSwap
from zmreg.services.machine.directories import new_session, remove
from zmreg.services.seat.client import Client, seat_by_thread, set_current
from zmreg.services.setup.sessions import Word, leave_word
from zmreg.testing.inside import threads
from zmreg.testing.inside.apart import classes_apart
from zmreg.testing.inside.ends import MemoryEnds
from zmreg.testing.inside.nursery import Bell, ThreadNode
from zmreg.wire import payload

STORE_BYTES = 256 << 20
MAX_WORKERS = 64
CONNECT_S = 15.0
END_S = 10.0


class ThreadClient(Client):
    """The driver's seat."""

    ends_kind = MemoryEnds


@dataclass(slots=True)
class Within:
    """The driver's client and the node's thread. `wanted`: as with a node that is a process."""

    client: Client
    wanted: dict[str, Any]
    node: threading.Thread
    session: Path
    let_go: Callable[[], None]

    def close(self) -> None:
        """Shut down: the client leaves, the node ends its workers and removes everything."""
        self.client.close(None)
        self.node.join(END_S)
        _part(self.client)
        remove(self.session)
        self.let_go()


def _part(client: Client | None) -> None:
    threads.take_over(False)
    classes_apart(None)
    seat_by_thread(None)
    set_current(client)


class InProcess:
    """A cluster of one node whose workers are threads of this process: the protocol, the scheduling, the pickling and
    the errors of a real one, and neither children nor sockets. A context manager; it takes the place of `zmreg.init`.

    >>> with zmreg.testing.InProcess(num_cpus=2):
    ...     assert zmreg.get(add.remote(1, 2)) == 3
    """

    def __init__(self, num_cpus: float = 2, *, by_value: Iterable[types.ModuleType] = (), **settings: Any) -> None:
        """`settings`: further fields of `Settings` (`num_gpus`, `resources`, `locs`, `object_store_bytes`, ...).

        `by_value`: modules whose functions and classes travel as code, so that workers do not share their globals with
        the program; all others are imported once. TypeError for an unknown setting, ValueError for a bad value.
        """
        unknown = settings.keys() - Settings.__dataclass_fields__.keys()
        if unknown:
            raise TypeError(f"InProcess() got an unexpected keyword argument {sorted(unknown)[0]!r}")
        settings["locs"] = tuple(settings.get("locs", ()))
        given = Settings(num_cpus=float(num_cpus), **settings)
        if min(given.num_cpus, given.num_gpus, given.object_store_bytes) < 0:
            raise ValueError(f"num_cpus={num_cpus}, num_gpus={given.num_gpus}: there is no less than none")
        self._settings = replace(
            given,
            object_store_bytes=given.object_store_bytes or STORE_BYTES,
            max_workers=given.max_workers or MAX_WORKERS,
            memory_threshold=0.0,  # it would end threads of the program whose memory it is
            log_to_driver=False,  # what tasks print is printed here
        )
        self._by_value = list(by_value)
        self._client: Client | None = None

    def start(self) -> ClusterInfo:
        """Take a seat. RuntimeError when this process has one already."""
        info, self._client = _take_seat(self._embed)
        for module in self._by_value:
            payload.by_value(module, True)
        return info

    def close(self) -> None:
        """As `zmreg.shutdown()`. Idempotent."""
        client, self._client = self._client, None
        if client is None:
            return
        for module in self._by_value:
            payload.by_value(module, False)
        if cluster._embedded is not None and cluster._embedded.client is client:
            cluster.shutdown()

    def __enter__(self) -> ClusterInfo:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _embed(self) -> Within:
        payload.warm()
        directories = new_session()
        session, node = directories.path, new_node_id()
        config = {
            "session": str(session), "arena": str(directories.arena / "store.arena"), "spill": str(directories.spill),
            "settings": asdict(self._settings), "listening": None, "founder": os.getpid(), "lock_fds": (),
            "path": sys.path, "argv": sys.argv, "node": node.hex(),
            "remove": [str(session), str(directories.arena), str(directories.spill)],
        }  # fmt: skip
        leave_word(_word(session, node))
        client: Client | None = None
        threads.take_over(True)
        try:
            classes_apart(threads.worker_here)
            daemon = ThreadNode(config, self._settings, MemoryEnds(session, node), (Bell(), os.getpid()))
            thread = threading.Thread(target=_serve, args=(daemon,), name="zmreg-node", daemon=True)
            client = ThreadClient(session, new_driver_id(node), node, HandlerSwap())
            seat_by_thread(lambda: threads.worker_here() or client)
            thread.start()
            client.connect("driver", CONNECT_S)
        except BaseException:
            if client is not None:
                client.close(None, clean=False)
            _part(None)
            remove(session)
            directories.let_go()
            raise
        return Within(client, {"address": "in-process"}, thread, session, directories.let_go)


def _take_seat(come: Callable[[], Within]) -> tuple[ClusterInfo, Client]:
    """As `zmreg.init`, but that there must be none yet."""
    with cluster._guard:
        if cluster.is_initialized():
            raise RuntimeError("this process has a seat in a cluster already; call zmreg.shutdown() first")
        if cluster._embedded is not None and cluster._embedded.client.pid == os.getpid():
            cluster._embedded.close()  # its node is gone: threads and sockets are still there
            cluster._embedded = None
        within = come()
        cluster._embedded = within  # type: ignore[assignment]  # it ends as the others do
        return cluster._info(within.client), within.client


def _serve(node: ThreadNode) -> None:
    try:
        node.run(-1)
    finally:
        node.shut_down()


def _word(session: Path, node: ProcessId) -> Word:
    """For this process alone: nobody else can join, and whoever stops nodes must not stop the program."""
    return Word(
        session=str(session), node=node.hex(), pid=os.getpid(), started=0, name="in-process", is_head=True,
        attachable=False, cluster="", address="", port=0, pub_port=0, contact="", key_file="",
    )  # fmt: skip
