"""The floor of the latency figures: a pyzmq ROUTER in a second process, and the ways to talk to it.

Run as `python -m benchmarks.echo ADDRESS` it is the server: it sends every message back, except, when it serves chunks,
a request of 8 bytes (see `chunk_transfer`), which it answers with that many bytes. On its standard input come three
lines: the public and the secret key for CURVE (empty: a plain socket), and the word `chunks` or nothing.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from time import perf_counter
from typing import Any

import zmq

ECHO_BYTES = 200
CHUNK_BYTES = 1 << 20
# Chunks on the way at once: 16 MiB, enough to keep two processes busy, little beside what is transferred.
WINDOW = 16
# A server that does not answer fails the cell long before its hard timeout.
ANSWER_TIMEOUT_MS = 10_000

Socket = Any  # zmq.Socket is generic in ways that differ between the pyzmq versions we accept


@contextmanager
def echo_socket() -> Iterator[Socket]:
    """A DEALER connected over ipc to an echo server in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="bench-echo-") as directory:
        address = f"ipc://{directory}/echo"
        with echo_server(address, keys="\n\n\n"), zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
            dealer.setsockopt(zmq.LINGER, 0)
            dealer.setsockopt(zmq.RCVTIMEO, ANSWER_TIMEOUT_MS)
            dealer.connect(address)
            dealer.send(b"ready?")
            dealer.recv()
            yield dealer


def echo_many(dealer: Socket, count: int) -> None:
    """`count` echoes of ECHO_BYTES, up to 200 on the way at once (far below the high-water marks)."""
    payload = bytes(ECHO_BYTES)
    for first in range(0, count, 200):
        size = min(200, count - first)
        for _ in range(size):
            dealer.send(payload)
        for _ in range(size):
            dealer.recv()


@contextmanager
def chunk_socket(curve: bool = True) -> Iterator[Socket]:
    """A DEALER connected over tcp loopback, under CURVE or plain, to a server of chunks, which echoes the rest."""
    server_public, server_secret = (key.decode() if curve else "" for key in zmq.curve_keypair())
    public, secret = zmq.curve_keypair()
    with echo_server("tcp://127.0.0.1:*", keys=f"{server_public}\n{server_secret}\nchunks\n") as process:
        address = str(process.stdout.readline()).strip()
        with zmq.Context() as context, context.socket(zmq.DEALER) as dealer:
            dealer.setsockopt(zmq.LINGER, 0)
            dealer.setsockopt(zmq.RCVTIMEO, ANSWER_TIMEOUT_MS)
            if curve:
                dealer.curve_serverkey = server_public.encode()
                dealer.curve_publickey, dealer.curve_secretkey = public, secret
            dealer.connect(address)
            yield dealer


def chunk_transfer(dealer: Socket, nbytes: int) -> float:
    """Seconds to fetch `nbytes` in chunks of CHUNK_BYTES, each chunk asked for, WINDOW of them on the way."""
    target = memoryview(bytearray(nbytes))
    chunks = -(-nbytes // CHUNK_BYTES)
    request = CHUNK_BYTES.to_bytes(8, "big")
    before = perf_counter()
    for _ in range(min(WINDOW, chunks)):
        dealer.send(request)
    asked = min(WINDOW, chunks)
    for index in range(chunks):
        chunk = dealer.recv(copy=False).buffer
        start = index * CHUNK_BYTES
        end = min(start + CHUNK_BYTES, nbytes)
        target[start:end] = chunk[: end - start]
        if asked < chunks:
            dealer.send(request)
            asked += 1
    return perf_counter() - before


@contextmanager
def echo_server(address: str, keys: str) -> Iterator[Any]:
    """A server at `address` in a process of its own; `keys` is what it reads from its standard input."""
    command = [sys.executable, "-m", "benchmarks.echo", address]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdin is not None
        process.stdin.write(keys)
        process.stdin.flush()
        yield process
    finally:
        process.terminate()
        process.communicate()


def serve(address: str) -> None:
    """Bind, tell the address, answer until terminated."""
    public, secret, chunks = (sys.stdin.readline().strip() for _ in range(3))
    with zmq.Context() as context, context.socket(zmq.ROUTER) as router:
        if public:
            router.curve_server = True
            router.curve_publickey, router.curve_secretkey = public.encode(), secret.encode()
        router.bind(address)
        print(router.getsockopt_string(zmq.LAST_ENDPOINT), flush=True)
        body = bytes(CHUNK_BYTES)
        while True:
            *route, message = router.recv_multipart()
            if chunks and len(message) == 8:
                message = body[: int.from_bytes(message, "big")]
            router.send_multipart([*route, message], copy=len(message) < CHUNK_BYTES)


if __name__ == "__main__":
    serve(sys.argv[1])
