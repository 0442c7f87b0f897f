"""Programs that serve named functions, for tests: started, asked, killed, and always ended."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import zmreg
from tests.processes.drivers import Driver
from zmreg import errors

# What every host serves. `calls` counts what has begun; `gate` is opened by whoever calls `open_gate`.
PROGRAM = '''
import asyncio
import collections

calls = collections.Counter()
gate = threading.Event()

def add(a, b=0):
    """The sum."""
    return a + b

def pid():
    calls["pid"] += 1
    return os.getpid()

def boom(text):
    raise ValueError(text)

def kind(x):
    return type(x).__name__, x

def count(name):
    return calls[name]

def spin(seconds):
    calls["spin"] += 1
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    return time.monotonic()

def clock():
    return time.monotonic()

def wait_at_gate(who=""):
    calls["wait_at_gate"] += 1
    gate.wait(60)
    return os.getpid()

signal.signal(signal.SIGUSR1, lambda *_: gate.set())

def open_gate():
    gate.set()

async def forever():
    calls["forever"] += 1
    try:
        await asyncio.sleep(600)
    except asyncio.CancelledError:
        calls["cancelled"] += 1
        raise

async def nap(seconds):
    await asyncio.sleep(seconds)
    return seconds

def register_late(name, value, version="", replace=False):
    zmreg.register(name, lambda: value, version=version, replace=replace)

def withdraw_late(name, version=None):
    zmreg.withdraw(name, version)

def call_another(name, *args):
    return zmreg.call(name, *args)

SERVED = [add, pid, boom, kind, count, spin, clock, wait_at_gate, open_gate, forever, nap, register_late, withdraw_late,
          call_another]
'''


class Host(Driver):
    """A program that serves what PROGRAM has, and tells its pid when it does."""

    def __init__(self, address: str, *, locs: tuple[str, ...] = (), more: str = "") -> None:
        super().__init__(
            f"{PROGRAM}\n{more}\n"
            f"zmreg.serve(SERVED, address={address!r}, locs={locs!r}, block=False)\n"
            "say('serves', os.getpid())\n"
            "zmreg.serve()\n"
            "say('left')\n"
        )

    def is_up(self) -> int:
        """Wait until it serves; its pid."""
        return int(self.after("serves"))

    def ask_to_leave(self) -> None:
        """SIGTERM: finish what has come, and leave."""
        self.process.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """kill -9."""
        self.process.kill()
        self.process.wait()


@contextmanager
def hosts(*wanted: tuple[str, tuple[str, ...]]) -> Iterator[list[Host]]:
    """One at each (address, locs), all up."""
    started: list[Host] = []
    try:
        for address, locs in wanted:
            started.append(Host(address, locs=locs))
        for host in started:
            host.is_up()
        yield started
    except BaseException as error:
        for host in started:
            error.add_note(f"a host printed on stderr:\n{host.stderr()}")
        raise
    finally:
        for host in started:
            host.__exit__(None, None, None)


def known(name: str) -> list[Any]:
    """The processes that serve a name, as this one knows."""
    return next((list(each.hosts) for each in zmreg.functions() if each.name == name), [])


class Calling(threading.Thread):
    """A call under way; `outcome` is its value, or its error."""

    def __init__(self, call: Callable[[], Any]) -> None:
        super().__init__()
        self._call = call
        self.outcome: Any = None
        self.start()

    def run(self) -> None:
        """On its thread."""
        try:
            self.outcome = self._call()
        except errors.ZmregError as error:
            self.outcome = error

    def ended(self) -> Any:
        """The outcome, as soon as there is one."""
        self.join(30)
        assert not self.is_alive()
        return self.outcome
