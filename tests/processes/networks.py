"""Two networks of their own on this machine, joined by a cable that can be pulled. They end with what holds them."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager

ADDRESSES = ("10.77.0.1", "10.77.0.2")
_PORT = "cable"
"""What each end is called in its network."""


class NoNetworksError(Exception):
    """They cannot be made here; the text says why."""


class Cable:
    """`prefixes[n]` before a command runs it at end n, where its address is `ADDRESSES[n]`."""

    def __init__(self, prefixes: Sequence[Sequence[str]]) -> None:
        self.prefixes = prefixes

    def pull(self, end: int) -> None:
        """Out of that end: its interface is gone, and with it the route; the other one has no carrier."""
        _run(*self.prefixes[end], "ip", "link", "set", _PORT, "down")

    def plug(self, end: int) -> None:
        """In again; the interface has its address and its route as before."""
        _run(*self.prefixes[end], "ip", "link", "set", _PORT, "up")


@contextmanager
def cable() -> Iterator[Cable]:
    """Raises NoNetworksError where they cannot be made."""
    with ExitStack() as stack:
        first = stack.enter_context(_held(("unshare", "--map-root-user", "--net")))
        inside = ("nsenter", "--target", str(first), "--user", "--preserve-credentials", "--net")
        second = stack.enter_context(_held((*inside, "unshare", "--net")))
        prefixes = [inside, (*inside[:2], str(second), *inside[3:])]
        _run(*inside, "ip", "link", "add", _PORT, "type", "veth", "peer", "name", _PORT, "netns", str(second))
        for prefix, address in zip(prefixes, ADDRESSES, strict=True):
            _run(*prefix, "ip", "address", "add", f"{address}/24", "dev", _PORT)
            for port in ("lo", _PORT):
                _run(*prefix, "ip", "link", "set", port, "up")
        yield Cable(prefixes)


@contextmanager
def _held(command: Sequence[str]) -> Iterator[int]:
    """The pid of a process that has a network of its own until we end, or are killed: then its input ends."""
    try:
        holder = subprocess.Popen(
            [*command, "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
    except OSError as error:
        raise NoNetworksError(str(error)) from None
    with holder:
        assert holder.stdin is not None and holder.stdout is not None and holder.stderr is not None
        try:
            holder.stdin.write("there\n")
            holder.stdin.flush()
            said = holder.stdout.readline()
        except BrokenPipeError:
            said = ""
        if not said:
            raise NoNetworksError(holder.stderr.read().strip())
        yield holder.pid


def _run(*command: str) -> None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except OSError as error:
        raise NoNetworksError(str(error)) from None
    if done.returncode:
        raise NoNetworksError(f"{' '.join(command)}: {done.stderr.strip()}")
