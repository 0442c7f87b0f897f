"""What zmreg's few pages over HTTP have in common, each served by a process of its own: read only, so many at once,
each with so many seconds, and nobody who was led here by another name's address.

The standard library's server is enough: answers are whole, there are no sessions, and whoever floods it floods a
process that nobody else depends on.
"""

from __future__ import annotations

import errno
import io
import socket
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

MOST_AT_ONCE: Final = 16
# For the whole of a request, however slowly it comes; and once more for the answer.
READ_S: Final = 5.0


class HttpDoor(ThreadingHTTPServer):
    """Listens from the start; `serve_forever` answers."""

    daemon_threads = True
    request_queue_size = 16

    def __init__(self, host: str, port: int, handler: type[HttpHandler]) -> None:
        """`port` 0: any free one. Raises OSError."""
        if ":" in host:
            self.address_family = socket.AF_INET6
        self._room = threading.BoundedSemaphore(MOST_AT_ONCE)
        try:
            super().__init__((host, port), handler)
        except OSError as error:  # taken, or no address of this machine
            more = "; give another port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else ""
            raise OSError(error.errno, f"cannot listen at {bracketed(host)}:{port}: {error.strerror}{more}") from None
        # As a browser writes it that was led here by another name's address, it is none of these.
        self.hosts = {f"{name}:{self.server_port}" for name in ("localhost", "127.0.0.1", "[::1]", bracketed(host))}

    def server_bind(self) -> None:
        """As of a TCPServer: HTTPServer would look up this machine's name."""
        self.socket.bind(self.server_address)
        self.server_address = self.socket.getsockname()
        self.server_name, self.server_port = str(self.server_address[0]), int(self.server_address[1])

    def process_request(self, request: Any, client_address: Any) -> None:
        """On a thread, of which there are so many and no more."""
        if not self._room.acquire(blocking=False):
            self.shutdown_request(request)
            return
        try:
            super().process_request(request, client_address)
        except BaseException:  # there was no thread to be had: its place is another's
            self._room.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The whole of it."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who asked has hung up, or sent what is no HTTP: nobody here is to be told."""

    @property
    def place(self) -> str:
        """Scheme, host and port."""
        return f"http://{bracketed(self.server_name)}:{self.server_port}"


def bracketed(host: str) -> str:
    """As it stands in an address."""
    return f"[{host}]" if ":" in host else host


class _Hasty(io.RawIOBase):
    """What comes by a connection within so many seconds; then TimeoutError."""

    def __init__(self, connection: socket.socket, seconds: float) -> None:
        self._connection = connection
        self._until = time.monotonic() + seconds

    def readable(self) -> bool:
        """It is."""
        return True

    def readinto(self, buffer: Any) -> int:
        """As much as there is."""
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("the request takes too long to come")
        self._connection.settimeout(left)
        return self._connection.recv_into(buffer)


class HttpHandler(BaseHTTPRequestHandler):
    """One request: `do_GET` is its own, all that could change something is refused."""

    server_version = "zmreg"
    sys_version = ""
    timeout = READ_S
    refusal = "this can be read, and nothing else\n"

    def setup(self) -> None:
        """Read with a limit for all of it, not one for each packet: who is slow has one of few places."""
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_Hasty(self.connection, self.timeout))

    def _refuse(self) -> None:
        self.answer(405, self.refusal)

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_CONNECT = do_TRACE = _refuse

    def answer(
        self,
        status: int,
        text: str | bytes,
        kind: str = "text/plain; charset=utf-8",
        more: Mapping[str, str] | None = None,
    ) -> None:
        """Say it, with what each answer has."""
        body = text if isinstance(text, bytes) else text.encode("utf-8", "replace")
        self.connection.settimeout(self.timeout)  # of all that is sent by one call
        self.send_response(status)
        headers = {
            "Content-Type": kind, "Content-Length": str(len(body)), "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'", **(more or {}),
        }  # fmt: skip
        if status == 401:
            headers["WWW-Authenticate"] = "Bearer"
        if status == 405:
            headers["Allow"] = "GET, HEAD"
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:
        """Who reads is of no interest."""
