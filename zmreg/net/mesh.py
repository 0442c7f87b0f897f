"""The TCP side of a node: two bound ports and the connections to the ports of others. All of it CURVE, see curve.py.

- `gate`, a ROUTER bound at the node's port: what other nodes say to this one arrives here;
- `shout`, a PUB bound at a second port: this node's parts of the replicated tables leave here;
- `reach`, a ROUTER that connects to the others' gates and numbers its connections;
- `hear`, a SUB that connects to the others' PUBs.

As with door and link (sockets.py), nothing is received on `reach` and nothing sent by `gate`. Nodes are known by their
8-byte ids; one that is not known yet, the first contact, by a name of our own making. What a gate is shown has the
connection's number behind that id: no connection is taken for another (decision 0010). All calls are the node's loop's.
"""

from __future__ import annotations

import itertools
import random
import socket as sockets
from collections import deque
from collections.abc import Callable, Sequence
from errno import ENOENT
from typing import Any, Final

import zmq

from zmreg.model.errors import ClusterError
from zmreg.model.ids import PROCESS_ID_BYTES
from zmreg.net.curve import DENIED, LOST, OPEN, WRONG_KEY, CurveKeys, Gatekeeper, Happening, Watch, dial, serve
from zmreg.net.factory import GATE, SHOUT, Socket, asker, bind, connect, make
from zmreg.wire.chunks import is_chunk

# Plain ints and the methods of the C socket, as in sockets.py.
_MORE = int(zmq.RCVMORE)
_NOBLOCK = int(zmq.NOBLOCK)
_SEND_MORE = int(zmq.SNDMORE | zmq.NOBLOCK)
_SEND_FLAGS = (_SEND_MORE, _NOBLOCK)

# A letter has two frames behind the sender's id and a chunk two; who sends more does not speak our language.
_MAX_FRAMES = 3
# Larger frames go without a copy, and the thread that gives them back wakes up for each: a MiB less to copy, and to
# fault in, is 0.2 ms (measured); 64 KiB are not worth it.
_LEND_FROM_BYTES = 256 * 1024
# Connections to gates are made anew by us, under another name, and not by libzmq, which would show the old one
# (decision 0010): at once when one is lost, else after a pause, and in any case when nothing was heard of an attempt.
_PAUSE_S: Final = 0.1
_MOST_PAUSE_S: Final = 5.0
_SILENT_S: Final = 10.0
_NEVER: Final = float("inf")
REACH: Final = GATE.but(reconnect_first_ms=60_000, reconnect_max_ms=0)
# Encryption is done by libzmq's own threads: one for what leaves and one for what comes.
_IO_THREADS = 2


def advertised(host: str, towards: str) -> str:
    """The address others reach this machine by: `host`, or for one that means "all", our end of a route `towards`.

    No packet is sent: connecting a datagram socket only looks up the route.
    """
    if host not in ("0.0.0.0", "::", "*"):
        return host
    family = sockets.AF_INET6 if ":" in towards else sockets.AF_INET
    with sockets.socket(family, sockets.SOCK_DGRAM) as probe:
        try:
            probe.connect((towards, 9))
        except OSError as error:
            text = f"no route to {towards}: {error}; name this machine's own address with --advertise"
            raise ClusterError(text) from None
        return str(probe.getsockname()[0])


def endpoint(host: str, port: int) -> str:
    """The ZeroMQ endpoint of a TCP address; IPv6 hosts in brackets, port 0 as "any"."""
    return f"tcp://{f'[{host}]' if ':' in host else host}:{port or '*'}"


def _port_of(bound: str) -> int:
    return int(bound.rpartition(":")[2])


def _disconnect(socket: Socket, where: str) -> None:
    """Unless it is not connected there any more."""
    try:
        socket.disconnect(where)
    except zmq.ZMQError as error:
        if error.errno not in (ENOENT, zmq.ENOTSOCK):
            raise


class _Line:
    """The connections to one other node. `name` is what the gate's is called here, new with each connection."""

    __slots__ = ("again_at", "attempt", "gate", "name", "open_since", "pause", "pub")

    def __init__(self, gate: str) -> None:
        self.name = b""
        self.gate = gate
        self.pub = ""
        self.attempt = 0
        """Which set of keys it is dialled with; only during a rotation there is more than one."""
        self.open_since: float | None = None
        self.again_at: float | None = None
        """When to make it anew; None: it was dialled a moment ago."""
        self.pause = _PAUSE_S

    def heard(self, event: str, now: float) -> None:
        """What befell it decides when it is made anew."""
        if event == OPEN:
            self.open_since, self.again_at = now, _NEVER
        elif event == LOST:
            lasted = self.open_since is not None and now - self.open_since > _PAUSE_S
            self.open_since = None
            self._again(now, 0.0 if lasted else self.pause)
        elif self.open_since is None:  # else it is told of an attempt before this one
            self._again(now, self.pause)

    def _again(self, now: float, pause: float) -> None:
        self.again_at = now + pause * random.uniform(0.7, 1.3)
        self.pause = min(2 * self.pause, _MOST_PAUSE_S) if pause else _PAUSE_S


class Mesh:
    """Sockets to the other nodes. `send` never blocks; True proves nothing about delivery (core/courier.py does)."""

    def __init__(self, me: bytes, keys: CurveKeys, host: str, port: int, pub_port: int) -> None:
        """Binds both ports (0 = any free one). ClusterError when one is taken."""
        self.host = host
        self._me = me
        self._keys = keys
        self._context = zmq.Context(_IO_THREADS)
        self.gatekeeper = Gatekeeper(self._context, keys)
        self._gate = make(self._context, zmq.ROUTER, GATE, name=me)
        self._shout = make(self._context, zmq.PUB, SHOUT)
        self._reach = make(self._context, zmq.ROUTER, REACH, mandatory=True)
        self._hear = make(self._context, zmq.SUB, SHOUT)
        for socket in (self._gate, self._shout):
            serve(socket, keys)
        for socket in (self._reach, self._hear):
            dial(socket, keys)
        self._hear.setsockopt(zmq.SUBSCRIBE, b"")
        self._watch = Watch(self._context, self._reach)
        self._lines: dict[bytes, _Line] = {}
        self._names = itertools.count()
        try:
            self.port = _port_of(bind(self._gate, endpoint(host, port)))
            self.pub_port = _port_of(bind(self._shout, endpoint(host, pub_port)))
        except BaseException:
            self.close()
            raise
        self.fds = (
            int(self._gate.getsockopt(zmq.FD)), int(self._hear.getsockopt(zmq.FD)), self.gatekeeper.fd, self._watch.fd
        )  # fmt: skip
        """Edge-triggered: after any, `receive`, `overhear`, `happenings` and `gatekeeper.serve` until all are dry."""
        self.malformed = 0
        """Messages that had more frames than ours have."""
        self._arrived = asker(self._gate)
        self._more: Callable[[int], Any] = super(zmq.Socket, self._gate).get
        self._recv: Callable[..., Any] = super(zmq.Socket, self._gate).recv
        self._put: Callable[..., object] = super(zmq.Socket, self._reach).send
        self._published = asker(self._hear)

    # -- who is there -----------------------------------------------------------------------------------------------

    def connect(self, node: bytes, host: str, port: int, pub_port: int = 0) -> None:
        """Be able to send to a node, and hear its PUB when the port is given. Idempotent.

        There is one connection to a gate, whatever the node behind it is called: a gate takes two of one sender for the
        same, and the newer would end the older, in turns.
        """
        gate, pub = endpoint(host, port), endpoint(host, pub_port) if pub_port else ""
        line = self._lines.get(node) or next((each for each in self._lines.values() if each.gate == gate), None)
        if line is None:
            line = _Line(gate)
            self._dial(line)
        self._lines[node] = line
        if pub and pub != line.pub:
            if line.pub:  # of the node that had this gate before
                self._hear.disconnect(line.pub)
            line.pub = pub
            connect(self._hear, pub)

    def disconnect(self, node: bytes) -> None:
        """Drop the connections to a node and what was queued for it."""
        line = self._lines.pop(node, None)
        if line is not None and line not in self._lines.values():
            self._hang_up(line)
            self._watch.forget(line.gate)

    def _dial(self, line: _Line) -> None:
        line.name = b"%d" % next(self._names)
        line.open_since = line.again_at = None
        self._reach.setsockopt(zmq.ROUTING_ID, self._me + line.name)
        connect(self._reach, line.gate, line.name)

    def _hang_up(self, line: _Line) -> None:
        for socket, where in ((self._reach, line.gate), (self._hear, line.pub)):
            if where:
                _disconnect(socket, where)

    def _redial(self, line: _Line) -> bool:
        """During a rotation the other end may use the other set of keys; False when each was tried."""
        if line.attempt + 1 >= len(self._keys.sets):
            return False
        line.attempt += 1
        self._renew(line)
        return True

    def redial(self, node: bytes) -> None:
        """Connect anew at once: where nobody listened is otherwise tried again after a pause, of up to 5 s."""
        if node in self._lines:
            self._renew(self._lines[node])

    def _renew(self, line: _Line) -> None:
        self._hang_up(line)
        for socket in (self._reach, self._hear):
            dial(socket, self._keys, line.attempt)
        self._dial(line)
        if line.pub:
            connect(self._hear, line.pub)
        for socket in (self._reach, self._hear):
            dial(socket, self._keys)

    def _replace(self, line: _Line) -> None:
        _disconnect(self._reach, line.gate)
        dial(self._reach, self._keys, line.attempt)
        self._dial(line)
        dial(self._reach, self._keys)

    def knows(self, node: bytes) -> bool:
        """Whether there is a connection to that node, up or coming up."""
        return node in self._lines

    def happenings(self, now: float) -> list[tuple[bytes, Happening]]:
        """What befell our connections to other gates since the last time: (node, happening). Makes anew what is due:
        call it twenty times a second, too."""
        told = []
        for each in self._watch.read(now):
            nodes = [node for node, line in self._lines.items() if line.gate == each.endpoint]
            if nodes:
                line = self._lines[nodes[0]]
                if each.event in (WRONG_KEY, DENIED) and self._redial(line):
                    continue
                line.heard(each.event, now)
            told += [(node, each) for node in nodes]
        for line in self._lines.values():
            if line.again_at is None:
                line.again_at = now + _SILENT_S
            elif now >= line.again_at:
                self._replace(line)
        return told

    def link_counts(self) -> dict[str, int]:
        """How often each of curve.py's words was told of our connections to gates."""
        return dict(self._watch.counts)

    # -- sending ----------------------------------------------------------------------------------------------------

    def send(self, node: bytes, frames: Sequence[bytes | memoryview]) -> bool:
        """Hand frames to the connection to `node`; False when there is none.

        The bytes under a large memoryview are read later: nobody may change them while anything refers to it.
        """
        line = self._lines.get(node)
        if line is None:
            return False
        last = len(frames) - 1
        try:
            if not last and len(frames[0]) < _LEND_FROM_BYTES:
                deque(map(self._put, (line.name, frames[0]), _SEND_FLAGS), 0)
                return True
            self._put(line.name, _SEND_MORE)
            for place, frame in enumerate(frames):
                self._put(frame, _NOBLOCK if place == last else _SEND_MORE, len(frame) < _LEND_FROM_BYTES)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno in (zmq.EHOSTUNREACH, zmq.ENOTSOCK, zmq.ETERM):
                return False
            raise
        return True

    def publish(self, frame: bytes) -> None:
        """To every node that listens. May get lost: what must not is repaired by core/replicas.py."""
        self._shout.send(frame, _NOBLOCK)

    # -- receiving --------------------------------------------------------------------------------------------------

    def receive(self) -> tuple[bytes, list[Any]] | None:
        """(sender, frames) of the next message at the gate; None when there is none.

        What a chunk carries is a `zmq.Frame`, so that it is copied once, into the arena. The rest are bytes.
        """
        if not self._arrived():
            return None
        more, recv = self._more, self._recv
        sender = recv(_NOBLOCK)[:PROCESS_ID_BYTES]
        frames: list[Any] = []
        copied = True
        while more(_MORE):
            frame = recv(_NOBLOCK, copied)
            frames.append(frame)
            copied = not (copied and is_chunk(frame))
        if not 0 < len(frames) <= _MAX_FRAMES:
            self.malformed += 1
            return sender, []
        return sender, frames

    def overhear(self) -> bytes | None:
        """The next frame that a node published; None when there is none."""
        if not self._published():
            return None
        frame = self._hear.recv(_NOBLOCK)
        while self._hear.getsockopt(zmq.RCVMORE):
            self._hear.recv(_NOBLOCK)
            frame = b""
        return frame

    def close(self, linger_ms: int = 0) -> None:
        """Close everything; what was sent may leave for `linger_ms`."""
        self._watch.close()
        for socket in (self._gate, self._shout, self._reach, self._hear):
            socket.close(linger_ms)
        self.gatekeeper.close()
        self._context.destroy(linger=linger_ms)
