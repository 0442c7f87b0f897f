"""A cluster of several real nodes on this machine, for tests: processes with stores, ports and workers of their own."""

from __future__ import annotations

import logging
import os
import shutil
import signal
import tempfile
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any

import zmreg
from zmreg.model.errors import ClusterError
from zmreg.model.settings import Listening, Settings
from zmreg.services.setup import keys
from zmreg.services.setup.launch import Launched, launch
from zmreg.services.setup.loads import Loads
from zmreg.services.setup.sessions import read_word
from zmreg.testing.wires import Link, Wires

log = logging.getLogger("zmreg.testing")

# Several stores share this machine's memory.
STORE_BYTES = 256 << 20
END_TIMEOUT_S = 10.0
LEAVE_TIMEOUT_S = 60.0
LOAD_TIMEOUT_S = 60.0
# What no two nodes can have alike.
_ONES_OWN = frozenset({"name", "port", "pub_port", "state_dir"})


@dataclass(frozen=True, slots=True)
class TestNode:
    """One node of a `LocalCluster`."""

    __test__ = False  # for pytest, which would collect it by its name

    node_id: str
    """As in `zmreg.nodes()`."""
    pid: int
    """Of the node's daemon."""
    address: str
    """HOST:PORT of its gate."""
    session: Path
    """Its directory of sockets and logs."""


class LocalCluster:
    """Starts nodes on loopback, the first one as the head; a context manager that ends them all.

    >>> with LocalCluster(nodes=[{"num_cpus": 2}, {"num_cpus": 1, "locs": {"gpu-box"}}]) as cluster:
    ...     zmreg.init(address=cluster.address)
    """

    def __init__(
        self, nodes: Iterable[Mapping[str, Any]] = ({},), *, state_dir: str = "", wired: bool = False, seed: int = 0
    ) -> None:
        """Each of `nodes` has fields of `Settings` (`num_cpus`, `resources`, `locs`, `object_store_bytes`, ...) and of
        `Listening` (`name`, `port`, ...), and may have `load`: "module:setup", or a list of such; each is loaded by a
        process that serves next to the node, as with `zmreg start --load`.
        `state_dir`: where the head keeps what survives its restart.
        `wired`: nodes reach each other through proxies, so that `link` can do harm; `seed` decides about chance there.

        Raises ClusterError when a node does not come up, or what it loads does not; those that did are ended then.
        """
        self._directory = Path(tempfile.mkdtemp(prefix="zmreg-test-"))
        self._state_dir = state_dir
        self._nodes: dict[str, tuple[TestNode, Launched]] = {}
        self._wired = wired
        self._seed = seed
        self._wires: dict[str, Wires] = {}
        self._loads: dict[str, Loads] = {}
        self._attached = False
        self._last_spec: dict[str, Any] = {}
        self.address = ""
        try:
            keys.create(self._directory / "key")
            self.key_file = str(self._directory / "key" / keys.KEY_FILE)
            for spec in nodes:
                self.add_node(**spec)
        except BaseException:
            self.close()
            raise

    def add_node(self, **spec: Any) -> TestNode:
        """Start one more node; returns when it has joined, and what it loads serves."""
        self._last_spec = dict(spec)
        load = spec.pop("load", ())
        targets = (load,) if isinstance(load, str) else tuple(load)
        listens = {name: spec.pop(name) for name in list(spec) if name in Listening.__dataclass_fields__}
        if not self.address:
            listens.setdefault("state_dir", self._state_dir)
        spec = {"num_cpus": 1.0, "object_store_bytes": STORE_BYTES, **spec}
        spec["num_cpus"] = float(spec["num_cpus"])
        spec["locs"] = tuple(spec.get("locs", ()))
        spec["resources"] = dict(spec.get("resources", {}))
        listens = {"key_file": self.key_file, "contact": self.address, "name": f"n{len(self._nodes) + 1}", **listens}
        wires = Wires(self._seed + len(self._wires)) if self._wired else None
        if wires is not None:
            listens = {**wires.listening(), **listens}
        try:
            launched = launch(Settings(**spec), Listening(**listens), founder=False)
        except BaseException:
            if wires is not None:
                wires.close()
            raise
        word = read_word(launched.session)
        node = TestNode(launched.node.hex(), launched.process.pid, word.address, launched.session)
        self._nodes[node.node_id] = (node, launched)
        if wires is not None:
            wires.let_go()
            self._wires[node.node_id] = wires
        self.address = self.address or node.address
        if targets:
            loads = self._loads[node.node_id] = Loads(targets, word, log.info)
            loads.await_up(LOAD_TIMEOUT_S)
        return node

    def scale(self, count: int, **spec: Any) -> list[TestNode]:
        """Have `count` nodes, the head among them: more are started, by default like the last one, or the newest leave
        in peace, and what they have goes to others. Returns them when all have joined, or left. ValueError below 1."""
        if count < 1:
            raise ValueError(f"scale({count}): the head is one node; close() ends it")
        while len(self._nodes) > count:
            self.end_node(next(reversed(self._nodes)))
        spec = spec or {name: value for name, value in self._last_spec.items() if name not in _ONES_OWN}
        while len(self._nodes) < count:
            self.add_node(**spec)
        return self.nodes

    @property
    def nodes(self) -> list[TestNode]:
        """Those that were started and not ended, the head first."""
        return [node for node, _ in self._nodes.values()]

    def node(self, node_id: str) -> TestNode:
        """One of them. ClusterError when there is none of that id."""
        return self._find(node_id)[0]

    def link(self, a: str, b: str, ports: str = "") -> Link:
        """What lies between two nodes, to do harm to. `ports`: "gate" or "shout" for what goes to one of them only.

        ClusterError when a node is not here, or the cluster is not wired.
        """
        if not self._wired:
            raise ClusterError("its nodes reach each other directly; make it with LocalCluster(..., wired=True)")
        ends = [(self._find(node_id)[0].pid, self._wires[node_id]) for node_id in (a, b)]
        return Link(ends[0], ends[1], ports)

    def attach(self, node_id: str = "") -> None:
        """`zmreg.init` at one of the nodes, by default the first. `close` leaves again."""
        zmreg.init(address=self._find(node_id)[0].address if node_id else self.address, log_to_driver=False)
        self._attached = True

    def kill_node(self, node_id: str) -> None:
        """kill -9 of the node's daemon. Returns when it is gone; its workers end by themselves."""
        self.signal_node(node_id, signal.SIGKILL)
        self._stop_loads(node_id)
        if node_id in self._wires:  # its ports refuse from now on
            self._wires.pop(node_id).close()
        _, launched = self._nodes.pop(node_id)
        launched.wait_end(END_TIMEOUT_S)

    def signal_node(self, node_id: str, number: int) -> None:
        """Send a signal (SIGSTOP, SIGCONT, ...) to the node's daemon alone."""
        os.kill(self._find(node_id)[0].pid, number)

    def await_end(self, node_id: str, timeout: float = END_TIMEOUT_S) -> int:
        """Wait for a node that ends by itself (fenced); its exit code. TimeoutExpired when it does not in time."""
        code = self._find(node_id)[1].process.wait(timeout)
        self._stop_loads(node_id)
        _, launched = self._nodes.pop(node_id)
        launched.wait_end(END_TIMEOUT_S)
        if node_id in self._wires:
            self._wires.pop(node_id).close()
        return code

    def end_node(self, node_id: str) -> None:
        """Have the node leave in peace: what it has goes to others. Returns when it is gone, within a minute."""
        node, launched = self._find(node_id)
        self._stop_loads(node_id)
        del self._nodes[node.node_id]
        launched.process.terminate()
        launched.wait_end(LEAVE_TIMEOUT_S)

    def _stop_loads(self, node_id: str) -> None:
        loads = self._loads.pop(node_id, None)
        if loads is not None:
            loads.stop()

    def _find(self, node_id: str) -> tuple[TestNode, Launched]:
        found = self._nodes.get(node_id)
        if found is None:
            raise ClusterError(f"no node {node_id} here; there are {', '.join(self._nodes) or 'none'}")
        return found

    def close(self) -> None:
        """End every node, the head last, and remove what was written. Idempotent."""
        if self._attached:
            zmreg.shutdown()
            self._attached = False
        for node_id in list(self._loads):
            self._stop_loads(node_id)
        for node, launched in self._nodes.values():  # all at once: nobody takes over anything from the others
            if launched.process.poll() is None:
                os.kill(node.pid, signal.SIGCONT)  # a stopped one cannot end
                launched.process.terminate()
        for node_id in reversed(list(self._nodes)):
            self._nodes.pop(node_id)[1].wait_end(END_TIMEOUT_S)
        for wires in self._wires.values():
            wires.close()
        self._wires.clear()
        shutil.rmtree(self._directory, ignore_errors=True)

    def __enter__(self) -> LocalCluster:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<LocalCluster {self.address} [{len(self._nodes)} nodes]>"
