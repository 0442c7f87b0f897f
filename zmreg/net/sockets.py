"""Every socket of a process is made here: a *door* to receive by and a *link* to send by.

The door is a bound ROUTER: whatever is meant for this process arrives there, in order per sender. The link is one
ROUTER that connects out to the doors of others and names each connection itself, so that one socket reaches a
thousand actors with one file descriptor each. Nothing is ever received on the link and nothing sent by the door:
a sender never contends with a receiver, and a waiting thread polls one descriptor.

What is for a process of another node goes to our own node as a *letter*: [header with destination and origin, frame],
or, up to 16 KiB, all of it as one frame. Nodes pass letters on as they are, by TCP (mesh.py), and the last one puts
them into the destination's door.

High-water marks are off: the default of 1,000 messages drops silently on a ROUTER. Bounds are counted by the
owners of the queues, in calls and bytes (services/calling/calls.py).
"""

from __future__ import annotations

import os
import threading
from collections import deque
from collections.abc import Callable
from errno import ENOENT
from pathlib import Path
from typing import Any, NoReturn

import zmq

from zmreg.model.errors import ClusterError, ForkedContextError
from zmreg.model.ids import NODE_BYTES, PROCESS_ID_BYTES, ProcessId, node_of
from zmreg.net.factory import IPC, make

# 1,000 actors and their callers in one process; zmq allocates slots, not sockets, so a high bound costs 100 KiB.
_MAX_SOCKETS = 4_096
_LINGER_CLEAN_MS = 1_000

# Plain ints and the methods of the C socket: pyzmq's own layer turns each option into an enum first (1 us a time).
_POLLIN = int(zmq.POLLIN)
_EVENTS = int(zmq.EVENTS)
_MORE = int(zmq.RCVMORE)
_NOBLOCK = int(zmq.NOBLOCK)
_SEND_MORE = int(zmq.SNDMORE | zmq.NOBLOCK)
# Of the parts of a message: a peer's id, perhaps a letter's header, the frame.
_SEND_FLAGS = (_SEND_MORE, _NOBLOCK)
_LETTER_FLAGS = (_SEND_MORE, _SEND_MORE, _NOBLOCK)
_MAGIC = b"ZR"
_LETTER = b"ZL\x01\x00"
# A node takes 57 us of a core for a letter of two frames and 42 for one of one (measured); copying 16 KiB takes 1.
_WHOLE = b"ZW\x01\x00"
WHOLE_BYTES = 16 * 1024
_DESTINATION = slice(4, 12)
_ORIGIN = slice(12, 20)
_CONTENT = 20
# Context, two sockets and what a poller takes are 12 (measured); the rest is for the first connections.
_NEEDED_DESCRIPTORS = 20


def door_path(session: Path, process: bytes) -> Path:
    """Where the door of `process` is, in a session's directory: its address follows from its id."""
    return session / process.hex()


def _refuse(*_: object) -> NoReturn:
    raise ForkedContextError("this process was forked from one with a cluster, whose sockets it cannot use")


def _require_descriptors(count: int) -> None:
    """libzmq ends the process with abort() when it finds no descriptor; so it is asked only when there are enough."""
    held: list[int] = []
    try:
        for _ in range(count):
            held.append(os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC))
    except OSError as error:
        have = f"{len(held)} are there: {error.strerror}"
        raise ClusterError(f"{count} free file descriptors are needed, {have}") from None
    finally:
        for fd in held:
            os.close(fd)


class Ends:
    """The door and the link of one process."""

    def __init__(self, session: Path, me: ProcessId) -> None:
        """Binds the door. `session` is a 0700 directory; ClusterError when it is gone or its path is too long."""
        self.me = me
        self._prefix = me[:NODE_BYTES]
        self._node = node_of(me)
        self._session = session
        self.far: Callable[[bytes, bytes, bytes], bool] = self._by_our_node
        """Send to a process of another node: (destination, origin, frame). The node's own goes over TCP."""
        self.pass_on: Callable[[bytes], object] = self._pass_on
        """The node's: send on the letter of a process of ours. It is one piece: destination, origin, content."""
        self._far_peers: set[bytes] = set()
        _require_descriptors(_NEEDED_DESCRIPTORS)
        self._context = zmq.Context()
        self._context.max_sockets = _MAX_SOCKETS
        self._known: set[bytes] = set()
        self._link_lock = threading.Lock()
        self.door = make(self._context, zmq.ROUTER, IPC, name=me)
        self._link = make(self._context, zmq.ROUTER, IPC, name=me, mandatory=True)
        path = door_path(session, me)
        try:
            self.door.bind(f"ipc://{path}")
            os.chmod(path, 0o600)
        except (zmq.ZMQError, OSError) as error:
            self.close(clean=False)
            raise ClusterError(f"cannot bind {path}: {error}; is the session directory still there?") from None
        self.door_fd = int(self.door.getsockopt(zmq.FD))
        self._ask: Callable[[int], Any] = super(zmq.Socket, self.door).get
        self._recv: Callable[[int], bytes] = super(zmq.Socket, self.door).recv
        self._raw_send: Callable[[bytes, int], object] = super(zmq.Socket, self._link).send

    def send(self, peer: bytes, frame: bytes) -> bool:
        """Hands one frame to the connection to `peer`, made on first use. False when it, or the peer's door, is gone.

        True proves nothing about delivery: a dead peer is reported by the node, never by the socket.
        """
        if peer[:NODE_BYTES] != self._prefix:
            return self.far(peer, self.me, frame)
        with self._link_lock:
            return self._send(peer, frame)

    def hand_in(self, peer: bytes, origin: bytes, frame: bytes) -> bool:
        """The node's: put a letter of `origin` into the door of `peer`, a process of ours. False when that is gone."""
        with self._link_lock:
            return self._send(peer, frame, _LETTER + peer + origin)

    def hand_in_whole(self, peer: bytes, letter: bytes) -> bool:
        """As `hand_in`, of a letter in one piece."""
        with self._link_lock:
            return self._send(peer, _WHOLE + letter)

    def _by_our_node(self, peer: bytes, origin: bytes, frame: bytes) -> bool:
        self._far_peers.add(peer)
        with self._link_lock:
            if len(frame) <= WHOLE_BYTES:
                return self._send(self._node, b"".join((_WHOLE, peer, origin, frame)))
            return self._send(self._node, frame, _LETTER + peer + origin)

    def _send(self, peer: bytes, frame: bytes, header: bytes = b"") -> bool:
        if peer not in self._known:
            door = door_path(self._session, peer)
            if not door.exists():  # every door is bound before others hear of its process: that one has left
                return False
            link = self._link
            link.setsockopt(zmq.CONNECT_ROUTING_ID, peer)
            link.connect(f"ipc://{door}")
            self._known.add(peer)
        try:
            # All parts in one C call: no signal handler runs in between, and half a message would spoil the next one.
            if header:
                deque(map(self._raw_send, (peer, header, frame), _LETTER_FLAGS), 0)
            else:
                deque(map(self._raw_send, (peer, frame), _SEND_FLAGS), 0)
        except zmq.Again:
            return False
        except zmq.ZMQError as error:
            if error.errno in (zmq.EHOSTUNREACH, zmq.ENOTSOCK, zmq.ETERM):
                return False
            raise
        return True

    def peers(self) -> list[bytes]:
        """Everybody something was sent to."""
        with self._link_lock:
            return [*self._known, *self._far_peers]

    def forget(self, peer: bytes) -> None:
        """Drops the connection to a process that is gone, with whatever was queued for it."""
        with self._link_lock:
            self._far_peers.discard(peer)
            if peer in self._known:
                self._known.discard(peer)
                try:
                    self._link.disconnect(f"ipc://{door_path(self._session, peer)}")
                except zmq.ZMQError as error:
                    if error.errno not in (ENOENT, zmq.ENOTSOCK):
                        raise

    def pending(self) -> bool:
        """Something can be received now. The descriptor is edge-triggered: ask until this is False, then poll."""
        return bool(self._ask(_EVENTS) & _POLLIN)

    def receive(self) -> tuple[bytes, bytes]:
        """(sender, frame) of the next message, by the thread that drains; both empty when there is none.

        Every message is [8-byte sender, frame]. What is not comes back with an empty frame, for the caller to count;
        looking for more frames each time would cost 3 us, so a short message takes the one behind it along.
        """
        try:
            sender = self._recv(_NOBLOCK)
        except zmq.Again:
            return b"", b""
        frame = self._recv(_NOBLOCK)
        if len(sender) == PROCESS_ID_BYTES and frame[:2] == _MAGIC:
            return sender, frame
        if frame[:4] == _WHOLE:
            return self._receive_whole(sender, frame)
        return self._receive_letter(sender, frame)

    def _pass_on(self, letter: bytes) -> None:
        self.far(letter[:8], letter[8:16], letter[16:])

    def _receive_whole(self, sender: bytes, letter: bytes) -> tuple[bytes, bytes]:
        """As `_receive_letter`, for one in one piece."""
        origin = letter[_ORIGIN]
        if self.me == self._node and origin == sender:
            self.pass_on(letter[4:])
            return b"", b""
        if sender == self._node and letter[_DESTINATION] == self.me and len(letter) >= _CONTENT:
            return origin, letter[_CONTENT:]
        return sender, b""

    def _receive_letter(self, sender: bytes, header: bytes) -> tuple[bytes, bytes]:
        """The origin and the frame of a letter that our node hands in; what a process of ours hands in to us, the node,
        goes on its way. Only a node speaks for others, and a process only for itself."""
        frame = b""
        while self._ask(_MORE):
            frame = self._recv(_NOBLOCK)
        destination, origin = header[_DESTINATION], header[_ORIGIN]
        if header[:4] != _LETTER or len(origin) != PROCESS_ID_BYTES:
            return sender, b""
        if destination == self.me and sender == self._node:
            return origin, frame
        if self.me == self._node and origin == sender:
            self.far(destination, origin, frame)
            return b"", b""
        return sender, b""

    def abandon(self) -> None:
        """In a forked child: the sockets are the parent's, and whoever tries to use them gets ForkedContextError.

        It takes no lock: one that another thread held at the fork is never released here.
        """
        self._link_lock = threading.Lock()
        self._send = self._ask = self._recv = _refuse  # type: ignore[method-assign,assignment]

    def close(self, clean: bool) -> None:
        """Closes both ends and the context. `clean` lets what was sent leave, for at most a second."""
        linger = _LINGER_CLEAN_MS if clean else 0
        with self._link_lock:
            self._link.close(linger)
        self.door.close(0)
        self._context.destroy(linger=linger)
        door_path(self._session, self.me).unlink(missing_ok=True)
