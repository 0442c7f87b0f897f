"""Who is let in on the network: keys, the gatekeeper that checks them, and a watch that notices when they do not fit.

All TCP traffic is CURVE: encrypted, and only with a key of the cluster on both ends. `serve` makes a bound socket's end
of it, `dial` a connecting one's. libzmq then asks a `Gatekeeper` about each client key (RFC 27, ZAP). It is a plain
socket polled by the loop of its owner: there is no thread that could die unnoticed, and while nobody serves it, nobody
gets in.

A sender never hears of any of it: libzmq accepts messages for a peer that will never let it in, and with a wrong server
key it tries again for ever, ten times a second. A `Watch` tells.
"""

from __future__ import annotations

import hashlib
import hmac
import itertools
import struct
from collections import Counter, deque
from typing import Final

import zmq
from zmq.utils import z85

from zmreg.model.errors import AuthenticationError, ClusterError
from zmreg.model.record import Record
from zmreg.net.factory import DOMAIN, INSIDE, Context, Socket, asker, enforce_domain, make

# -- keys --------------------------------------------------------------------------------------------------------------

KEY_CHARACTERS: Final = 40
KEY_BYTES: Final = 32


class KeySet(Record):
    """A server's and a client's key pair, which belong together. Each key is 40 bytes of Z85."""

    number: int
    """Counts the rotations of a cluster's keys."""
    server_public: bytes
    server_secret: bytes
    client_public: bytes
    client_secret: bytes

    @property
    def fingerprint(self) -> str:
        """Of the public halves, for people to compare: four groups of four hex digits."""
        digest = hashlib.sha256(self.server_public + self.client_public).hexdigest()
        return "-".join(digest[place : place + 4] for place in range(0, 16, 4))

    def __repr__(self) -> str:
        return f"<KeySet {self.number} {self.fingerprint}>"


def new_key_set(number: int) -> KeySet:
    """Fresh keys from the system's randomness. Raises AuthenticationError when libzmq was built without CURVE."""
    if not zmq.has("curve"):
        raise AuthenticationError("this libzmq was built without CURVE (libsodium): pip install -U pyzmq")
    return KeySet(number, *zmq.curve_keypair(), *zmq.curve_keypair())


def checked(keys: KeySet) -> KeySet:
    """The same. Raises ValueError, without showing it, for a key that is none or a public one of another secret."""
    for role in ("server", "client"):
        public, secret = (getattr(keys, f"{role}_{half}") for half in ("public", "secret"))
        if len(public) != KEY_CHARACTERS or len(secret) != KEY_CHARACTERS:
            raise ValueError(f"the {role}'s keys do not have {KEY_CHARACTERS} characters")
        try:
            fitting = hmac.compare_digest(zmq.curve_public(secret), public)
        except (zmq.ZMQError, ValueError):
            fitting = False
        if not fitting:
            raise ValueError(f"the {role}'s public key is not that of its secret one")
    return keys


class CurveKeys(Record):
    """What a node serves and dials with. During a rotation there are two sets, and both are accepted."""

    sets: tuple[KeySet, ...]
    """The first is in use; there is at least one."""

    @property
    def server_public(self) -> bytes:
        """Of the set in use, as the other three."""
        return self.sets[0].server_public

    @property
    def server_secret(self) -> bytes:
        """Who has it can pose as any node of the cluster."""
        return self.sets[0].server_secret

    @property
    def client_public(self) -> bytes:
        """What we show at the gates of others."""
        return self.sets[0].client_public

    @property
    def client_secret(self) -> bytes:
        """Who has it is let in everywhere."""
        return self.sets[0].client_secret

    @property
    def accepted(self) -> frozenset[bytes]:
        """The client keys that are let in."""
        return frozenset(keys.client_public for keys in self.sets)

    @property
    def fingerprint(self) -> str:
        """Of the set in use."""
        return self.sets[0].fingerprint

    def __repr__(self) -> str:
        return f"<CurveKeys {', '.join(f'{keys.number}: {keys.fingerprint}' for keys in self.sets)}>"


def new_keys() -> CurveKeys:
    """The keys of a new cluster."""
    return CurveKeys((new_key_set(1),))


def serve(socket: Socket, keys: CurveKeys) -> None:
    """Before bind: whoever connects must know our public key and have one that the gatekeeper lets in."""
    enforce_domain(socket)
    socket.setsockopt(zmq.CURVE_PUBLICKEY, keys.server_public)
    socket.setsockopt(zmq.CURVE_SECRETKEY, keys.server_secret)
    socket.setsockopt(zmq.CURVE_SERVER, 1)


def dial(socket: Socket, keys: CurveKeys, attempt: int = 0) -> None:
    """Before connect, and for connections from then on: be a client of a server with the same keys.

    During a rotation the other end may serve the other set: after a `wrong_key` disconnect, and dial with `attempt` 1.
    """
    chosen = keys.sets[attempt % len(keys.sets)]
    socket.setsockopt(zmq.CURVE_SERVERKEY, chosen.server_public)
    socket.setsockopt(zmq.CURVE_PUBLICKEY, chosen.client_public)
    socket.setsockopt(zmq.CURVE_SECRETKEY, chosen.client_secret)


# -- the gatekeeper ----------------------------------------------------------------------------------------------------

_ZAP_ADDRESS: Final = "inproc://zeromq.zap.01"
_ZAP_VERSION: Final = b"1.0"
# [routing id, "", version, request id, domain, address, peer's routing id, mechanism, credentials...]
_ZAP_FRAMES: Final = 8
_REMEMBERED: Final = 16


class GateStatistics(Record):
    """What a gatekeeper has decided since it began."""

    accepted: int
    rejected: int
    last_rejected: tuple[tuple[str, str], ...]
    """(address without port, reason), the newest last."""


class Gatekeeper:
    """Decides who gets in at all serving sockets of its context. Its owner polls `fd` and calls `serve()`.

    It is asked about those who know the server's public key; others fail before, which only a `Watch` sees.
    """

    def __init__(self, context: Context, keys: CurveKeys) -> None:
        """Raises ClusterError when the context has a gatekeeper already."""
        self._socket = make(context, zmq.ROUTER, INSIDE)
        try:
            self._socket.bind(_ZAP_ADDRESS)
        except zmq.ZMQError as error:
            self._socket.close(0)
            raise ClusterError(f"cannot guard the gate: {error}; is there another gatekeeper?") from None
        self.fd = int(self._socket.getsockopt(zmq.FD))
        self._asked = asker(self._socket)
        self._allowed: tuple[bytes, ...] = ()
        self.use(keys)
        self.accepted = 0
        self.rejected = 0
        self._last_rejected: deque[tuple[str, str]] = deque(maxlen=_REMEMBERED)

    def use(self, keys: CurveKeys) -> None:
        """Let in these from now on. Who is in already stays."""
        self._allowed = tuple(z85.decode(key) for key in keys.accepted)

    def serve(self) -> int:
        """Answer all questions that have come; how many. `fd` is silent until the next one."""
        answered = 0
        while self._asked():
            frames = self._socket.recv_multipart(zmq.NOBLOCK)
            if len(frames) < _ZAP_FRAMES or frames[2] != _ZAP_VERSION:
                continue  # libzmq itself asks, in one version only: without an answer the handshake fails
            self._answer(frames)
            answered += 1
        return answered

    def _answer(self, frames: list[bytes]) -> None:
        asker, number, address = frames[0], frames[3], frames[5]
        complaint = self._complaint(frames[4], frames[7], frames[8:])
        if complaint:
            self.rejected += 1
            self._last_rejected.append((address.decode(errors="replace"), complaint))
            verdict, user = (b"400", b"not a key of this cluster"), b""
        else:
            self.accepted += 1
            verdict, user = (b"200", b""), z85.encode(frames[8])
        self._socket.send_multipart([asker, b"", _ZAP_VERSION, number, *verdict, user, b""], zmq.NOBLOCK)

    def _complaint(self, domain: bytes, mechanism: bytes, credentials: list[bytes]) -> str:
        """Why not; "" = let in."""
        if domain != DOMAIN:
            return "asked for another domain"
        if mechanism != b"CURVE":
            return f"came without a key ({mechanism.decode(errors='replace')})"
        if len(credentials) != 1 or len(credentials[0]) != KEY_BYTES:
            return "showed something that is no key"
        known = False
        for key in self._allowed:  # all of them, each in constant time: how long it takes tells nothing
            known |= hmac.compare_digest(key, credentials[0])
        return "" if known else f"showed a key that is not listed ({hashlib.sha256(credentials[0]).hexdigest()[:8]})"

    def statistics(self) -> GateStatistics:
        """What was decided so far."""
        return GateStatistics(self.accepted, self.rejected, tuple(self._last_rejected))

    def close(self) -> None:
        """From now on nobody is let in."""
        self._socket.close(0)


# -- the watch ---------------------------------------------------------------------------------------------------------

OPEN: Final = "open"
"""The handshake is done, both ends know each other."""
DENIED: Final = "denied"
"""We were told no, or at a bound socket told somebody. On a connecting one libzmq does not try again: disconnect it."""
WRONG_KEY: Final = "wrong_key"
"""Three handshakes in a row were cut at once and without a word: the way of a server that has other keys. libzmq goes
on trying, ten times a second: disconnect it. A relay with nothing behind it looks the same."""
FAILED: Final = "failed"
"""A handshake came to nothing: silence, something that is no ZeroMQ, or a crash. libzmq tries again."""
LOST: Final = "lost"
"""A connection that was open has ended. libzmq tries again."""
UNREACHABLE: Final = "unreachable"
"""Nobody listens there, or no route. libzmq tries again."""

CHANGED: Final = "a frame was changed on the way"
"""The detail of a LOST connection that libzmq still keeps, without reading it: disconnect it at once. When it is reset
first, the next ping ends the process (factory.py, `bind`)."""

CAME: Final = "came"
"""Counted only, at a bound socket: somebody connected. Those who were not let in came and did not become OPEN."""

_BOTH_EVENTS: Final = (
    zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL | zmq.EVENT_HANDSHAKE_FAILED_AUTH
)
# Without FAILED_PROTOCOL, which is also said of a frame that was changed on the way: saying it loses libzmq 4.3.5 the
# error's number (curve_mechanism_base.cpp), and instead of hanging up it stops reading, until the heartbeat ends it.
_BOUND_EVENTS: Final = _BOTH_EVENTS | zmq.EVENT_ACCEPTED
_CONNECTING_EVENTS: Final = (
    _BOTH_EVENTS | zmq.EVENT_CONNECTED | zmq.EVENT_CLOSED | zmq.EVENT_DISCONNECTED | zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL
)
_EVENT: Final = struct.Struct("=Hi")
_MECHANISMS_DIFFER: Final = 0x11000002  # ZMQ_PROTOCOL_ERROR_ZMTP_MECHANISM_MISMATCH
_STRIKES: Final = 3
# A server that is too busy to answer lets the whole HANDSHAKE_IVL go by; one that has other keys hangs up at once.
_AT_ONCE_S: Final = 1.0
_numbers = itertools.count()


class Happening(Record):
    """Something that befell a connection: one of the words above, the endpoint's address, and what is known of it."""

    event: str
    endpoint: str
    detail: str = ""


class _Line:
    """What is known of one endpoint that a socket connects to."""

    __slots__ = ("connected_at", "is_open", "strikes", "struck_at")

    def __init__(self) -> None:
        self.is_open = False
        self.strikes = 0
        self.connected_at = self.struck_at = float("-inf")


class Watch:
    """Tells what happens to a socket's connections. Its owner polls `fd` and calls `read()`.

    At a bound socket all peers share one endpoint: it tells OPEN, DENIED and FAILED, counts who CAME, and does not tell
    who was LOST.
    """

    def __init__(self, context: Context, socket: Socket) -> None:
        """After `serve` or `dial`, before the socket binds or connects. Takes two descriptors."""
        self._watched = socket
        self._bound = bool(socket.getsockopt(zmq.CURVE_SERVER))
        self._lines: dict[str, _Line] = {}
        self.counts: Counter[str] = Counter()
        """How often each word was told, and who CAME."""
        address = f"inproc://zmreg-watch-{next(_numbers)}"
        socket.monitor(address, _BOUND_EVENTS if self._bound else _CONNECTING_EVENTS)
        # No high-water mark on our end: when it is full, libzmq's I/O thread would wait for us.
        self._socket = make(context, zmq.PAIR, INSIDE)
        self._socket.connect(address)
        self.fd = int(self._socket.getsockopt(zmq.FD))
        self._news = asker(self._socket)

    def read(self, now: float) -> list[Happening]:
        """What has happened since the last time. `now`: monotonic seconds. `fd` is silent until the next event."""
        found: list[Happening] = []
        while self._news():
            head, endpoint = self._socket.recv_multipart(zmq.NOBLOCK)
            event, value = _EVENT.unpack(head)
            told = self._tell(event, value, endpoint.decode(errors="replace"), now)
            if told is not None:
                found.append(told)
        if found:
            self.counts.update(happening.event for happening in found)
        return found

    def _tell(self, event: int, value: int, endpoint: str, now: float) -> Happening | None:
        if event == zmq.EVENT_ACCEPTED:
            self.counts[CAME] += 1
            return None
        line = self._lines.setdefault(endpoint, _Line())
        if event == zmq.EVENT_CONNECTED:
            line.connected_at = now
        elif event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            line.is_open, line.strikes = True, 0
            return Happening(OPEN, endpoint)
        elif event == zmq.EVENT_HANDSHAKE_FAILED_AUTH:
            line.is_open = False
            return Happening(DENIED, endpoint, f"the key is not accepted (ZAP status {value})")
        elif event == zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL:
            was_open, line.is_open = line.is_open, False
            if was_open:
                return Happening(LOST, endpoint, CHANGED)
            reason = "no key, another mechanism" if value == _MECHANISMS_DIFFER else f"protocol error {value:#x}"
            return Happening(DENIED, endpoint, reason)
        elif event == zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL:
            line.is_open = False
            return self._cut(line, endpoint, now)
        else:
            return self._ended(event, line, endpoint)
        return None

    def _cut(self, line: _Line, endpoint: str, now: float) -> Happening:
        # One strike in each reading: after a pause of our own, a slow handshake looks like a quick one.
        if not self._bound and now - line.connected_at < _AT_ONCE_S and now != line.struck_at:
            line.strikes += 1
            line.struck_at = now
        if line.strikes < _STRIKES:
            return Happening(FAILED, endpoint, "the handshake was cut or took too long")
        line.strikes = 0
        return Happening(WRONG_KEY, endpoint, f"{_STRIKES} handshakes were cut at once: it has another server key")

    def _ended(self, event: int, line: _Line, endpoint: str) -> Happening | None:
        if event == zmq.EVENT_CLOSED:
            return Happening(UNREACHABLE, endpoint)
        if event != zmq.EVENT_DISCONNECTED or not line.is_open:
            return None
        line.is_open = False
        return Happening(LOST, endpoint)

    def forget(self, endpoint: str) -> None:
        """It was disconnected for good."""
        self._lines.pop(endpoint, None)

    def close(self) -> None:
        """Stop watching, before the watched socket is closed: a closed one ends for a while, libzmq tells of that, and
        with nobody to tell its I/O thread waits, so that nothing in this context is sent or received any more."""
        assert not self._watched.closed, "close the watch first, then its socket: libzmq may stand still for ever"
        self._watched.disable_monitor()
        self._socket.close(0)
