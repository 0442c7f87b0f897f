"""The floor of calls between machines: an echo at the end of two relays, with nothing around it but pyzmq.

    caller -- ipc --> relay -- tcp, CURVE --> relay -- ipc --> echo, and back the same way

That is the way of a call between two nodes (docs/decisions/0008-letters-by-both-nodes.md): no program that goes by two
Python processes with a ROUTER each is faster. Run as `python -m benchmarks.relay FRONT BACK` it is one relay. On its
standard input come three lines for CURVE: the public and the secret key of its front, the public one of what is behind
it; empty for a plain side.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import zmq

from benchmarks.echo import ANSWER_TIMEOUT_MS, echo_server

Socket = Any  # as in echo.py


@contextmanager
def relayed_socket() -> Iterator[Socket]:
    """A DEALER whose messages come back from behind two relays."""
    public, secret = (key.decode() for key in zmq.curve_keypair())
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-relay-"))
        echo = f"ipc://{directory}/echo"
        stack.enter_context(echo_server(echo, keys="\n\n\n"))
        gate = stack.enter_context(_relay("tcp://127.0.0.1:*", echo, f"{public}\n{secret}\n\n"))
        near = stack.enter_context(_relay(f"ipc://{directory}/near", gate, f"\n\n{public}\n"))
        dealer = stack.enter_context(zmq.Context()).socket(zmq.DEALER)
        stack.enter_context(dealer)
        dealer.setsockopt(zmq.LINGER, 0)
        dealer.setsockopt(zmq.RCVTIMEO, ANSWER_TIMEOUT_MS)
        dealer.connect(near)
        dealer.send(b"ready?")
        dealer.recv()
        yield dealer


@contextmanager
def _relay(front: str, back: str, keys: str) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.relay", front, back]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(keys)
        process.stdin.flush()
        yield process.stdout.readline().strip()
    finally:
        process.terminate()
        process.communicate()


def relay(front_address: str, back_address: str) -> None:
    """Pass on both ways until terminated."""
    public, secret, behind = (sys.stdin.readline().strip().encode() for _ in range(3))
    with zmq.Context() as context, context.socket(zmq.ROUTER) as front, context.socket(zmq.DEALER) as back:
        if public:
            front.curve_server = True
            front.curve_publickey, front.curve_secretkey = public, secret
        if behind:
            back.curve_serverkey = behind
            back.curve_publickey, back.curve_secretkey = zmq.curve_keypair()
        front.bind(front_address)
        back.connect(back_address)
        print(front.getsockopt_string(zmq.LAST_ENDPOINT), flush=True)
        other = {front: back, back: front}
        poller = zmq.Poller()
        for socket in other:
            poller.register(socket, zmq.POLLIN)
        while True:
            for socket, _ in poller.poll():
                other[socket].send_multipart(socket.recv_multipart())


if __name__ == "__main__":
    relay(*sys.argv[1:])
