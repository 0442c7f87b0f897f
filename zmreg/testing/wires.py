"""What lies between the nodes of a `LocalCluster`: proxies before their ports, and faults between any two of them.

All connect from one address, so a proxy tells its callers apart by the process that has the other end of the connection
(from /proc, hence on Linux only). A node is called by its daemon's pid here.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

from zmreg.testing.proxy import ChaosProxy, Way, bound

HOST: Final = "127.0.0.1"
# Fields of a line of /proc/net/tcp.
_LOCAL, _REMOTE, _INODE = 1, 2, 9
_LOOKS: Final = 8


class Wires:
    """The ports of one node as others reach them."""

    def __init__(self, seed: int) -> None:
        """Two free ports for the node itself, held until `let_go`, and two that lead there."""
        self._held = [bound(0), bound(0)]
        self.port, self.pub_port = (held.getsockname()[1] for held in self._held)
        self.proxies: list[ChaosProxy] = []
        for place, port in enumerate((self.port, self.pub_port)):
            proxy = ChaosProxy(HOST, port, seed=2 * seed + place)
            proxy.name_of = partial(_caller, proxy)
            self.proxies.append(proxy.start())

    def listening(self) -> dict[str, int]:
        """Fields of `Listening`."""
        gate, shout = self.proxies
        return {
            "port": self.port,
            "pub_port": self.pub_port,
            "advertise_port": gate.port,
            "advertise_pub_port": shout.port,
        }

    def let_go(self) -> None:
        """The node listens there now."""
        for held in self._held:
            held.close()

    def close(self) -> None:
        """End the proxies."""
        self.let_go()
        for proxy in self.proxies:
            proxy.close()


class Link:
    """All that connects two nodes, a and b, whichever of them has dialled. Faults as in proxy.py.

    `towards` is "b" for what a says to b, "a" for the way back, "" for both. Faults add up until `heal`.
    """

    def __init__(self, a: tuple[int, Wires], b: tuple[int, Wires], ports: str = "") -> None:
        """`ports`: "gate" or "shout" for one of the two, "" for both."""
        self._ends = {"a": a, "b": b}
        self._ports = {"": slice(2), "gate": slice(1), "shout": slice(1, 2)}[ports]

    def delay(self, delay_s: float, jitter_s: float = 0.0, towards: str = "") -> None:
        """Everything arrives later."""
        self._each(towards, lambda proxy, way, of: proxy.delay(delay_s, jitter_s, way, of))

    def throttle(self, bytes_per_s: int, towards: str = "") -> None:
        """No more than so many bytes a second in each connection."""
        self._each(towards, lambda proxy, way, of: proxy.throttle(bytes_per_s, way, of))

    def corrupt(self, every_bytes: int, towards: str = "") -> None:
        """Flip one bit in so many bytes."""
        self._each(towards, lambda proxy, way, of: proxy.corrupt(every_bytes, way, of))

    def mute(self, towards: str = "") -> None:
        """Half-open: bytes vanish, and nobody is told."""
        self._each(towards, lambda proxy, way, of: proxy.mute(way, of))

    def stall(self, towards: str = "") -> None:
        """A partition as TCP sees it: all arrives after `heal`, on connections that lived so long."""
        self._each(towards, lambda proxy, way, of: proxy.stall(way, of))

    def cut(self) -> None:
        """Reset the connections, now."""
        self._each("", lambda proxy, way, of: proxy.cut(of))

    def heal(self) -> None:
        """No fault any more."""
        self._each("", lambda proxy, way, of: proxy.heal(of))

    def _each(self, towards: str, step: Callable[[ChaosProxy, Way, str], None]) -> None:
        for here, there in (("a", "b"), ("b", "a")):
            pid, _ = self._ends[here]
            _, wires = self._ends[there]
            ways: dict[str, Way] = {"": "both", there: "up", here: "down"}
            for proxy in wires.proxies[self._ports]:
                step(proxy, ways[towards], str(pid))


def _caller(proxy: ChaosProxy, port: int) -> str:
    """The pid of our child that has the other end of a connection to `proxy`, from `port`; "" when it is gone.

    The kernel's lists may leave out an entry while others come and go, so one look proves nothing.
    """
    return next((found for _ in range(_LOOKS) if (found := _seen_at(proxy, port))), "")


def _seen_at(proxy: ChaosProxy, port: int) -> str:
    inode = _inode(port, proxy.port)
    wanted = f"socket:[{inode}]"
    for pid in _children() if inode else ():
        try:
            with os.scandir(f"/proc/{pid}/fd") as fds:
                for fd in fds:
                    if os.readlink(fd.path) == wanted:
                        return str(pid)
        except OSError:
            continue  # it, or one of its descriptors, is gone meanwhile
    return ""


def _inode(local_port: int, remote_port: int) -> str:
    for line in Path("/proc/net/tcp").read_text().splitlines()[1:]:
        fields = line.split()
        ports = [int(fields[place].rpartition(":")[2], 16) for place in (_LOCAL, _REMOTE)]
        if ports == [local_port, remote_port]:
            return fields[_INODE]
    return ""


def _children() -> list[int]:
    found: list[int] = []
    for path in Path("/proc/self/task").glob("*/children"):
        with contextlib.suppress(OSError):  # a thread that has ended meanwhile
            found += [int(pid) for pid in path.read_text().split()]
    return found
