"""A relay whose connections can be held, one by one: what a partition does to an old line while a new one stands."""

from __future__ import annotations

import select
import socket as sockets
import threading

_LOOK_S = 0.02


class _Pair:
    """One connection: who called, and the gate it was for."""

    def __init__(self, caller: sockets.socket, target: sockets.socket) -> None:
        self.ends = (caller, target)
        self.held = self.over = self.ended = False


class HoldingRelay:
    """Relays to `port`. `hold()` keeps back what callers say on the connections there are now; `release()` lets it
    through, and then ends these connections."""

    def __init__(self, port: int) -> None:
        self._target = port
        self._listener = sockets.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._pairs: list[_Pair] = []
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        while not self._over.is_set():
            for each in [each for each in self._pairs if each.over]:
                self._end(each)
            open_ends = {
                end: each for each in self._pairs for end in each.ends if not (each.held and end is each.ends[0])
            }
            for ready in select.select([self._listener, *open_ends], [], [], _LOOK_S)[0]:
                if ready is self._listener:
                    caller = self._listener.accept()[0]
                    self._pairs.append(_Pair(caller, sockets.create_connection(("127.0.0.1", self._target))))
                elif not open_ends[ready].ended:
                    self._pass(open_ends[ready], ready)
        for each in list(self._pairs):
            self._end(each)
        self._listener.close()

    def _pass(self, pair: _Pair, ready: sockets.socket) -> None:
        other = pair.ends[ready is pair.ends[0]]
        try:
            got = ready.recv(1 << 16)
            other.sendall(got)
        except OSError:
            got = b""
        if not got and not (ready is pair.ends[1] and pair.held):
            self._end(pair)

    def _end(self, pair: _Pair) -> None:
        if pair.held:  # its last words come late
            pair.ends[0].setblocking(False)
            try:
                while got := pair.ends[0].recv(1 << 16):
                    pair.ends[1].sendall(got)
            except OSError:
                pass
        pair.ended = True
        self._pairs.remove(pair)
        for end in pair.ends:
            end.close()

    def hold(self) -> None:
        for each in self._pairs:
            each.held = True

    def release(self) -> None:
        for each in self._pairs:
            each.over = each.held

    def close(self) -> None:
        self._over.set()
        self._thread.join()
