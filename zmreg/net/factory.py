"""The one place where a zmq socket is made, so that none is without its limits (tests/test_rooms.py looks for others).

libzmq's defaults are unfit for a daemon: 1,000 messages and then silent loss, no limit on a message, 30 s for somebody
who connects and says nothing, a fixed 100 ms between attempts for ever, and sockets open to everybody. What stands here
instead is a `Profile` for each class of sockets. On the network a socket also belongs to a security domain that is
enforced: without a gatekeeper (curve.py) nobody is let in, and what speaks an old or no protocol is hung up on.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import zmq

from zmreg.model.errors import AuthenticationError, ClusterError
from zmreg.model.record import Record

Socket = zmq.Socket[bytes]
Context = zmq.Context[zmq.Socket[bytes]]

# As plain ints: pyzmq's own layer turns each option into an enum first.
_EVENTS: Final = int(zmq.EVENTS)
_POLLIN: Final = int(zmq.POLLIN)

# Before it long topics overflowed the stack and metadata leaked; several options set here are younger, too.
OLDEST_LIBZMQ: Final = (4, 3, 5)
# The name under which gatekeepers are asked about whoever connects.
DOMAIN: Final = b"zmreg"

# A handshake takes four small messages. Whoever has not finished it by then gives the descriptor back.
HANDSHAKE_MS: Final = 3_000
# A link that is silent for 8 s is cut: half-open TCP would stay for hours. A frame of 8 MiB passes a slow line in less.
_HEARTBEAT_MS: Final = 2_000
_SILENCE_MS: Final = 8_000
# A SYN into a partition is sent again by the kernel after up to 32 s; a fresh attempt notices its end within 10 s.
_CONNECT_MS: Final = 5_000
_KEEPALIVE_S: Final = ((zmq.TCP_KEEPALIVE_IDLE, 30), (zmq.TCP_KEEPALIVE_INTVL, 10), (zmq.TCP_KEEPALIVE_CNT, 3))
_UNACKED_MS: Final = 15_000


class Profile(Record):
    """What the sockets of one class have in common. Another limit: `GATE.but(max_message_bytes=...)`."""

    network: bool
    """Reached over TCP: with a domain, a deadline for handshakes, heartbeats and keepalive."""
    max_message_bytes: int
    """Of one frame. Its sender sees a lost connection and no reason, so it has to know the limit beforehand; and who
    has no key yet can make us claim that much memory for the 3 s of a handshake, for each connection."""
    reconnect_first_ms: int
    reconnect_max_ms: int


# The largest batch is 64 MiB (wire/batches.py) and a definition may be 100 MiB pickled.
MAX_IPC_BYTES: Final = 128 << 20
# Bulk data travels in chunks of up to 2 MiB, larger letters in parts.
MAX_GATE_BYTES: Final = 8 << 20
# Batches of a table are cut at 32 KiB.
MAX_SHOUT_BYTES: Final = 1 << 20

# A door comes back at once or never.
IPC: Final = Profile(False, MAX_IPC_BYTES, 20, 1_000)
# The back-off keeps a thousand nodes from storming a head that is down.
GATE: Final = Profile(True, MAX_GATE_BYTES, 100, 5_000)
SHOUT: Final = Profile(True, MAX_SHOUT_BYTES, 100, 5_000)
# Within the process.
INSIDE: Final = Profile(False, -1, 100, 0)


def require_libzmq(version: tuple[int, int, int]) -> None:
    """Raises ImportError for a library with known holes."""
    if version < OLDEST_LIBZMQ:
        have, need = (".".join(map(str, numbers)) for numbers in (version, OLDEST_LIBZMQ))
        raise ImportError(f"libzmq {have} is too old to listen on a network, {need} is needed: pip install -U pyzmq")


require_libzmq(zmq.zmq_version_info())


def make(context: Context, kind: int, profile: Profile, *, name: bytes = b"", mandatory: bool = False) -> Socket:
    """A socket of `kind` (zmq.ROUTER...). `name`: its routing id; `mandatory`: a ROUTER that says whom it cannot reach.

    High-water marks are off, as the bounds are ours, counted where the queues are; close() drops what was not sent.
    """
    socket = context.socket(kind)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.MAXMSGSIZE, profile.max_message_bytes)
    socket.setsockopt(zmq.RECONNECT_IVL, profile.reconnect_first_ms)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, profile.reconnect_max_ms)
    if name:
        socket.setsockopt(zmq.ROUTING_ID, name)
    if mandatory:
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    if profile.network:
        _fit_for_network(socket)
        if kind == zmq.ROUTER:
            # A peer that comes twice under one name is the same node: ids are never used again. It happens when libzmq
            # reconnects by itself before Mesh does (decision 0010). Without this the new connection would look healthy,
            # and nothing it says would ever arrive.
            socket.setsockopt(zmq.ROUTER_HANDOVER, 1)
    return socket


def asker(socket: Socket) -> Callable[[], bool]:
    """What says whether something can be received now: 0.5 us, where a failed `recv` of pyzmq takes ten and more.

    The socket's descriptor is edge-triggered: ask until the answer is False, then poll.
    """
    ask: Callable[[int], Any] = super(zmq.Socket, socket).get
    return lambda: bool(ask(_EVENTS) & _POLLIN)


def _fit_for_network(socket: Socket) -> None:
    enforce_domain(socket)
    socket.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.setsockopt(zmq.HEARTBEAT_IVL, _HEARTBEAT_MS)
    socket.setsockopt(zmq.HEARTBEAT_TIMEOUT, _SILENCE_MS)
    socket.setsockopt(zmq.HEARTBEAT_TTL, _SILENCE_MS)
    socket.setsockopt(zmq.CONNECT_TIMEOUT, _CONNECT_MS)
    socket.setsockopt(zmq.TCP_MAXRT, _UNACKED_MS)
    socket.setsockopt(zmq.TCP_KEEPALIVE, 1)
    for option, value in _KEEPALIVE_S:
        socket.setsockopt(option, value)


def enforce_domain(socket: Socket) -> None:
    """From now on a gatekeeper must let in whoever connects, and its absence is a no."""
    socket.setsockopt(zmq.ZAP_DOMAIN, DOMAIN)
    socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)


def bind(socket: Socket, address: str) -> str:
    """Bind, and say to what: the address with the port that was chosen for `*`.

    Who has connected pings, and a bound end only answers, and hangs up on who has not for `HEARTBEAT_TTL`. An old line
    of a sender that has come anew by the same name is read no more (decision 0010); libzmq 4.3.5 ends the process
    (`!_io_error`) when it would ping such a line after it broke.

    Raises AuthenticationError for TCP without keys, ClusterError when the address is taken or not ours.
    """
    if address.startswith("tcp:") and not socket.getsockopt(zmq.CURVE_SERVER):
        raise AuthenticationError(f"not bound to {address}: nothing listens on a network without the cluster's key")
    _aim(socket, address)
    socket.setsockopt(zmq.HEARTBEAT_IVL, 0)
    try:
        socket.bind(address)
    except zmq.ZMQError as error:
        raise ClusterError(f"cannot bind {address}: {error}") from None
    bound = socket.getsockopt(zmq.LAST_ENDPOINT)
    assert isinstance(bound, bytes)
    return bound.rstrip(b"\0").decode()


def connect(socket: Socket, address: str, name: bytes = b"") -> None:
    """Connect, as a ROUTER under the `name` by which it then sends there.

    A fresh name each time: libzmq ends the process (`!has_out_pipe`) for one whose last connection it has not yet
    cleared away, however long ago that was disconnected.

    Raises AuthenticationError for TCP without keys, ClusterError for an address that is none.
    """
    if address.startswith("tcp:") and socket.getsockopt(zmq.MECHANISM) != zmq.CURVE:
        raise AuthenticationError(f"not connected to {address}: nothing is said to a network without the cluster's key")
    _aim(socket, address)
    try:
        if name:
            socket.setsockopt(zmq.CONNECT_ROUTING_ID, name)
        socket.connect(address)
    except zmq.ZMQError as error:
        raise ClusterError(f"cannot connect to {address}: {error}") from None


def _aim(socket: Socket, address: str) -> None:
    """IPv6 is off by default, and a bound socket with it on would show IPv4 peers by mapped addresses."""
    if address.startswith("tcp:"):
        host = address.removeprefix("tcp://").rpartition(":")[0]
        socket.setsockopt(zmq.IPV6, int(":" in host))
