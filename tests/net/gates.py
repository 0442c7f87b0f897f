"""A gate as a node has one, served by a loop that polls descriptors, and ways to come to it."""

from __future__ import annotations

import os
import select
import socket as sockets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import zmq

from zmreg.net.curve import CurveKeys, Gatekeeper, Happening, Watch, dial, new_keys, serve
from zmreg.net.factory import GATE, SHOUT, Profile, bind, connect, make

WAIT_S = 20.0


def greeting(mechanism: bytes) -> bytes:
    """The 64 bytes with which a client of ZMTP 3.0 begins."""
    return b"\xff" + b"\0" * 8 + b"\x7f\x03\x00" + mechanism.ljust(20, b"\0") + b"\0" * 32


def servers_greeting(name: bytes) -> bytes:
    """What our gates say to everybody. The ninth byte is one more than the length of the socket's routing id."""
    return b"\xff" + b"\0" * 7 + bytes([len(name) + 1]) + b"\x7f\x03\x01" + b"CURVE".ljust(20, b"\0") + b"\0" * 32


class Caller:
    """A connecting socket with a watch."""

    def __init__(self, context: zmq.Context, kind: int = zmq.DEALER) -> None:
        self.socket = make(context, kind, GATE if kind != zmq.SUB else SHOUT)
        self.watch = Watch(context, self.socket)
        self.happenings: list[Happening] = []
        self.received: list[list[bytes]] = []

    def words(self) -> list[str]:
        return [happening.event for happening in self.happenings]


class Gate:
    """A gate and a shout with one gatekeeper. Everything is edge-triggered, as in the node's own loop."""

    def __init__(self, keys: CurveKeys, profile: Profile = GATE, host: str = "127.0.0.1") -> None:
        self.keys = keys
        self.context = zmq.Context()
        self.gatekeeper = Gatekeeper(self.context, keys)
        self.served = True
        self.socket = make(self.context, zmq.ROUTER, profile, name=b"gate")
        self.shout = make(self.context, zmq.XPUB, SHOUT)
        serve(self.socket, keys)
        serve(self.shout, keys)
        self.watch = Watch(self.context, self.socket)
        self.happenings: list[Happening] = []
        self.address = bind(self.socket, f"tcp://{host}:*")
        self.shout_address = bind(self.shout, f"tcp://{host}:*")
        self.port = int(self.address.rpartition(":")[2])
        self.shout_port = int(self.shout_address.rpartition(":")[2])
        self.delivered: list[list[bytes]] = []
        self.subscriptions: list[list[bytes]] = []
        self.callers: list[Caller] = []

    def call(self, keys: CurveKeys | None, kind: int = zmq.DEALER, attempt: int = 0, address: str = "") -> Caller:
        """Connect with `keys` and say "hello" (a SUB subscribes). None: as somebody without any."""
        caller = Caller(self.context, kind)
        self.callers.append(caller)
        address = address or (self.shout_address if kind == zmq.SUB else self.address)
        if keys is None:
            caller.socket.connect(address)
        else:
            dial(caller.socket, keys, attempt)
            connect(caller.socket, address)
        if kind == zmq.SUB:
            caller.socket.setsockopt(zmq.SUBSCRIBE, b"")
        else:
            caller.socket.send(b"hello")
        return caller

    def turn(self) -> None:
        """Drain everything."""
        now = time.monotonic()
        if self.served:
            self.gatekeeper.serve()
        drain(self.socket, self.delivered)
        drain(self.shout, self.subscriptions)
        self.happenings += self.watch.read(now)
        for caller in self.callers:
            drain(caller.socket, caller.received)
            caller.happenings += caller.watch.read(now)

    def until(self, done: Callable[[], bool], timeout_s: float = WAIT_S) -> bool:
        """Serve until `done()`, or not: False when the time went by."""
        poller = select.poll()
        fds = [self.socket.FD, self.shout.FD, self.watch.fd, self.gatekeeper.fd]
        for caller in self.callers:
            fds += [caller.socket.FD, caller.watch.fd]
        for fd in fds:
            poller.register(fd, select.POLLIN)
        if not self.served:
            poller.unregister(self.gatekeeper.fd)
        deadline = time.monotonic() + timeout_s
        while True:
            self.turn()
            if done():
                return True
            left = deadline - time.monotonic()
            if left <= 0:
                return False
            # 50 ms: `done` may look at something that has no descriptor here.
            poller.poll(min(left, 0.05) * 1e3)

    def close(self) -> None:
        for caller in self.callers:
            caller.watch.close()
            caller.socket.close(0)
        self.watch.close()
        self.gatekeeper.close()
        self.socket.close(0)
        self.shout.close(0)
        self.context.destroy(linger=0)


def drain(socket: zmq.Socket[bytes], into: list[list[bytes]]) -> None:
    while True:
        try:
            into.append(socket.recv_multipart(zmq.NOBLOCK))
        except zmq.Again:
            return


@contextmanager
def open_gate(keys: CurveKeys | None = None, profile: Profile = GATE, host: str = "127.0.0.1") -> Iterator[Gate]:
    gate = Gate(keys or new_keys(), profile, host)
    try:
        yield gate
    finally:
        gate.close()


class Raw:
    """A bare TCP connection: what it was told, and whether it was hung up on."""

    def __init__(self, port: int, said: bytes) -> None:
        self.socket = sockets.create_connection(("127.0.0.1", port))
        self.socket.setblocking(False)
        self.heard = b""
        self.ended = False
        self._left = said
        self.look()

    def look(self) -> bool:
        """Send and receive what goes; True when the other end has hung up."""
        try:
            while self._left and not self.ended:
                self._left = self._left[self.socket.send(self._left) :]
        except BlockingIOError:
            pass
        except OSError:
            self._left = b""
        try:
            while not self.ended:
                got = self.socket.recv(1 << 16)
                self.heard += got
                self.ended = not got
        except BlockingIOError:
            pass
        except OSError:
            self.ended = True
        return self.ended

    def close(self) -> None:
        self.socket.close()


def all_ended(raws: list[Raw]) -> bool:
    """Each of them was hung up on."""
    return sum(raw.look() for raw in raws) == len(raws)


def descriptors() -> int:
    return len(os.listdir("/proc/self/fd"))


def virtual_bytes() -> int:
    with open("/proc/self/statm", encoding="ascii") as file:
        return int(file.read().split()[0]) * os.sysconf("SC_PAGE_SIZE")
