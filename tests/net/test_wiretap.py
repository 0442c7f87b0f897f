"""Somebody sits on the line: reads along, changes a byte, plays it back. All real bytes between a member and a gate."""

from __future__ import annotations

import select
import socket as sockets
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from tests.net.gates import Raw, open_gate, servers_greeting
from tests.net.test_mesh import HOST, gets_through, two, until
from zmreg.net.curve import CHANGED, DENIED, LOST, OPEN, new_keys

CANARY = b"the canary of 32 printable bytes"


class Wiretap:
    """A relay to `port`: records what the caller says and hears, and flips a bit of what it says, or hears, when told
    to."""

    def __init__(self, port: int) -> None:
        self.said = self.heard = b""
        self.flip = self.flip_heard = False
        self.listener = sockets.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self.listener.getsockname()[1]}"
        self._port = port
        self._stop, self._stopped = sockets.socketpair()
        self._thread = threading.Thread(target=self._relay, name="wiretap")
        self._thread.start()

    def _relay(self) -> None:
        pairs: dict[sockets.socket, sockets.socket] = {}
        callers: set[sockets.socket] = set()
        while True:
            ready, _, _ = select.select([self.listener, self._stopped, *pairs], [], [])
            for one in ready:
                if one is self._stopped:
                    for each in pairs:
                        each.close()
                    return
                if one is self.listener:
                    caller = self.listener.accept()[0]
                    target = sockets.create_connection(("127.0.0.1", self._port))
                    pairs[caller], pairs[target] = target, caller
                    callers.add(caller)
                elif one in pairs:
                    self._pass_on(one, pairs, one in callers)

    def _pass_on(self, one: sockets.socket, pairs: dict[sockets.socket, sockets.socket], from_caller: bool) -> None:
        try:
            got = one.recv(1 << 16)
            if from_caller:
                self.said += got
            else:
                self.heard += got
            if got and (self.flip if from_caller else self.flip_heard):
                got = got[:-1] + bytes([got[-1] ^ 1])
            pairs[one].sendall(got)
        except OSError:
            got = b""
        if not got:
            other = pairs.pop(one)
            pairs.pop(other, None)
            one.close()
            other.close()

    def close(self) -> None:
        self._stop.send(b"x")
        self._thread.join()
        for each in (self.listener, self._stop, self._stopped):
            each.close()


@contextmanager
def tapped(port: int) -> Iterator[Wiretap]:
    tap = Wiretap(port)
    try:
        yield tap
    finally:
        tap.close()


def test_who_reads_along_learns_nothing() -> None:
    with open_gate() as gate, tapped(gate.port) as tap:
        caller = gate.call(gate.keys, address=tap.address)
        assert gate.until(lambda: bool(gate.delivered))
        caller.socket.send(CANARY)
        assert gate.until(lambda: len(gate.delivered) == 2)
        sender, said = gate.delivered[1]
        assert said == CANARY
        gate.socket.send_multipart([sender, CANARY])
        assert gate.until(lambda: bool(caller.received))
        line = tap.said + tap.heard
        assert len(line) > 500
        for secret in (CANARY, b"hello", CANARY[:8], *gate.keys.sets[0]._values()[1:]):
            assert secret not in line


def test_a_byte_that_was_changed_is_not_delivered_and_ends_the_connection() -> None:
    """At once: with FAILED_PROTOCOL among the events watched at the gate it took the 10 s of the heartbeat."""
    with open_gate() as gate, tapped(gate.port) as tap:
        caller = gate.call(gate.keys, address=tap.address)
        assert gate.until(lambda: bool(gate.delivered))
        tap.flip = True
        caller.socket.send(CANARY)
        assert gate.until(lambda: LOST in caller.words(), 5)
        tap.flip = False
        assert gate.until(lambda: caller.words().count(OPEN) == 2)
        assert [message[1] for message in gate.delivered] == [b"hello"]


def test_a_byte_that_was_changed_on_the_way_back_is_a_link_that_is_made_anew() -> None:
    """Only answers to pings come that way. libzmq kept the line and did not read it; reset, it ended the node."""
    with two(new_keys()) as (one, other), tapped(other.mesh.port) as tap:
        one.mesh.connect(other.name, HOST, int(tap.address.rpartition(":")[2]))
        assert gets_through(one, other, other.name, b"before")
        tap.flip_heard = True
        assert until([one, other], lambda: LOST in one.words(other.name))
        tap.flip_heard = False
        assert DENIED not in one.words(other.name)
        assert CHANGED in [happening.detail for _, happening in one.told]
        assert until([one, other], lambda: OPEN in one.words(other.name)[one.words(other.name).index(LOST) :])
        assert gets_through(one, other, other.name, b"after")


def test_what_was_recorded_cannot_be_played_back() -> None:
    with open_gate() as gate, tapped(gate.port) as tap:
        gate.call(gate.keys, address=tap.address)
        assert gate.until(lambda: bool(gate.delivered))
        raw = Raw(gate.port, tap.said)
        try:
            assert gate.until(raw.look), "it was not hung up on"
            # The greeting, and the answer to a HELLO that may be anybody's: 168 bytes, made anew each time.
            assert servers_greeting(b"gate").startswith(raw.heard[:64])
            welcome = raw.heard[64:]
            assert len(welcome) <= 2 + 168 and (not welcome or welcome[10:] not in tap.heard)
            assert len(gate.delivered) == 1 and gate.gatekeeper.accepted == 1
        finally:
            raw.close()
