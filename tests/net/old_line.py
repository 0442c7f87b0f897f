"""A program for tests/net/test_gate.py: a peer comes twice under one name, speaks on the old line, and that breaks.

Prints what its gate has heard. libzmq ends the whole process when the gate pings a broken line that nobody reads.
"""

from __future__ import annotations

import json
import select
import socket as sockets
import struct
import sys
import threading
import time

import zmq

from tests.net.gates import Caller, Gate, open_gate
from zmreg.net.curve import dial
from zmreg.net.factory import connect

# Closing with this set ends a connection by RST, as a peer does that has closed it and is still spoken to.
_RESET = struct.pack("ii", 1, 0)
# Two of the gate's pings would have been due by then.
_AFTER_S = 4.5


class Line:
    """A relay for one connection to `port`."""

    def __init__(self, port: int) -> None:
        self.listener = sockets.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self.listener.getsockname()[1]}"
        self.passed = 0
        self._target = sockets.create_connection(("127.0.0.1", port))
        self._broken = threading.Event()
        self._thread = threading.Thread(target=self._relay)
        self._thread.start()

    def _relay(self) -> None:
        caller = self.listener.accept()[0]
        self.listener.close()
        while not self._broken.is_set():
            for one in select.select([caller, self._target], [], [], 0.02)[0]:
                got = one.recv(1 << 16)
                self.passed += len(got) if one is caller else 0
                (self._target if one is caller else caller).sendall(got)
        self._target.setsockopt(sockets.SOL_SOCKET, sockets.SO_LINGER, _RESET)
        for each in (self._target, caller):
            each.close()

    def reset(self) -> None:
        self._broken.set()
        self._thread.join()


def come(gate: Gate, address: str) -> Caller:
    """As `Gate.call`, under a name."""
    caller = Caller(gate.context)
    gate.callers.append(caller)
    caller.socket.setsockopt(zmq.ROUTING_ID, b"the same")
    dial(caller.socket, gate.keys)
    connect(caller.socket, address)
    return caller


def main() -> None:
    with open_gate() as gate:
        old_line = Line(gate.port)
        old = come(gate, old_line.address)
        old.socket.send(b"old")
        assert gate.until(lambda: len(gate.delivered) == 1)
        new = come(gate, gate.address)
        new.socket.send(b"new")
        assert gate.until(lambda: len(gate.delivered) == 2)
        passed = old_line.passed
        old.socket.send(b"late")
        assert gate.until(lambda: old_line.passed > passed)
        old_line.reset()
        old.watch.close()
        old.socket.close(0)
        until = time.monotonic() + _AFTER_S
        gate.callers.remove(old)
        gate.until(lambda: time.monotonic() > until, 2 * _AFTER_S)
        new.socket.send(b"still here")
        came = gate.until(lambda: gate.delivered[-1][1] == b"still here")
        assert came, (gate.delivered, gate.happenings, new.happenings, old.happenings)
        json.dump([message[1].decode() for message in gate.delivered], sys.stdout)


if __name__ == "__main__":
    main()
