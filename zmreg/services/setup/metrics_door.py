"""`GET /metrics` over HTTP, by a process of its own: it asks nodes as any visitor does, and shares no loop with them.

Read only. On loopback the Host header has to name this machine, so that no web page can have a browser ask; anywhere
else a token is needed. Nothing that comes is looked at beyond its path and three headers.
"""

from __future__ import annotations

import contextlib
import hmac
import io
import logging
import os
import select
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Final

from zmreg.model.errors import ClusterError, ZmregError
from zmreg.services.setup import scraping
from zmreg.services.setup.addresses import is_loopback
from zmreg.services.setup.observer import Observer
from zmreg.services.setup.sessions import read_word
from zmreg.telemetry.exposition import CONTENT_TYPE

log = logging.getLogger("zmreg.metrics")

PATH: Final = "/metrics"
# Who asks oftener gets the same once more: no number of those who ask is a load on a node.
FRESH_S: Final = 1.0
MOST_AT_ONCE: Final = 16
# For the whole of a request, however slowly it comes; and once more for the answer.
READ_S: Final = 5.0
TOKEN_LENGTH: Final = 16
_OTHERS: Final = 0o077


def read_token(path: Path) -> str:
    """The token in a file of mode 0600. Raises OSError, ValueError when others may read it or it is too short."""
    mode = path.stat().st_mode & 0o777
    if mode & _OTHERS:
        raise ValueError(f"{path} is open to other users (mode {mode:o}): chmod 600 {path}")
    token = path.read_text().strip()
    if len(token) < TOKEN_LENGTH or not token.isascii() or not token.isprintable():
        raise ValueError(
            f"{path} has no token of {TOKEN_LENGTH} letters and digits at least; "
            f"make one: python3 -c 'import secrets; print(secrets.token_urlsafe(32))' > {path}"
        )
    return token


class _Asker:
    """What is told, no older than a second. For any thread."""

    def __init__(self, scrape: Callable[[], str]) -> None:
        self._scrape = scrape
        self._lock = threading.Lock()
        self._told = ""
        self._until = float("-inf")

    def text(self) -> str:
        """Raises ClusterError."""
        with self._lock:
            if time.monotonic() >= self._until:
                self._told = self._scrape()
                self._until = time.monotonic() + FRESH_S
            return self._told


class MetricsDoor(ThreadingHTTPServer):
    """Listens from the start; `serve_forever` answers."""

    daemon_threads = True
    request_queue_size = 16

    def __init__(self, host: str, port: int, scrape: Callable[[], str], token: str = "") -> None:
        """`port` 0: any free one. Raises OSError; ValueError for an address that others reach, without a token."""
        if not token and not is_loopback(host):
            raise ValueError(
                f"{host} can be reached from other machines: give a token that those who ask have to know, "
                "--token-file FILE, or listen on 127.0.0.1"
            )
        if ":" in host:
            self.address_family = socket.AF_INET6
        self.asker = _Asker(scrape)
        self.token = token.encode()
        self._room = threading.BoundedSemaphore(MOST_AT_ONCE)
        super().__init__((host, port), _Handler)
        # As a browser writes it that was led here by another name's address, it is none of these.
        self.hosts = {f"{name}:{self.server_port}" for name in ("localhost", "127.0.0.1", "[::1]", _bracketed(host))}

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
        super().process_request(request, client_address)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        """The whole of it."""
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._room.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Who asked has hung up, or sent what is no HTTP: nobody here is to be told."""

    @property
    def url(self) -> str:
        """Where it is."""
        return f"http://{_bracketed(self.server_name)}:{self.server_port}{PATH}"


def _bracketed(host: str) -> str:
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


class _Handler(BaseHTTPRequestHandler):
    server: MetricsDoor
    server_version = "zmreg"
    sys_version = ""
    timeout = READ_S

    def setup(self) -> None:
        """Read with a limit for all of it, not one for each packet: who is slow has one of few places."""
        super().setup()
        self.rfile.close()
        self.rfile = io.BufferedReader(_Hasty(self.connection, self.timeout))

    def do_GET(self) -> None:
        """The one thing there is."""
        if (wrong := self._wrong()) is not None:
            self._answer(*wrong)
            return
        try:
            text = self.server.asker.text()
        except ClusterError as error:
            self._answer(503, f"{error}\n")
        except Exception as error:
            log.exception("metrics could not be told")
            self._answer(503, f"metrics could not be told ({type(error).__name__}); the log says why\n")
        else:
            self._answer(200, text, CONTENT_TYPE)

    do_HEAD = do_GET

    def _refuse(self) -> None:
        self._answer(405, "metrics can be read, and nothing else\n")

    do_POST = do_PUT = do_PATCH = do_DELETE = do_OPTIONS = do_CONNECT = do_TRACE = _refuse

    def _wrong(self) -> tuple[int, str] | None:
        token = self.server.token
        if token:
            given = self.headers.get("Authorization", "").encode("latin-1", "replace")
            if not hmac.compare_digest(given, b"Bearer " + token):
                return 401, "the token is missing or wrong: Authorization: Bearer TOKEN\n"
        elif self.headers.get("Host", "").lower() not in self.server.hosts or "Origin" in self.headers:
            return 403, "this is served to programs of this machine alone\n"
        if self.path.partition("?")[0] != PATH:
            return 404, f"there is {PATH}, and nothing else\n"
        return None

    def _answer(self, status: int, text: str, kind: str = "text/plain; charset=utf-8") -> None:
        body = text.encode("utf-8", "replace")
        self.connection.settimeout(self.timeout)  # of all that is sent by one call
        self.send_response(status)
        headers = {
            "Content-Type": kind, "Content-Length": str(len(body)), "Cache-Control": "no-store",
            "X-Content-Type-Options": "nosniff", "Content-Security-Policy": "default-src 'none'",
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
        """Who reads metrics is of no interest."""


def serve(door: MetricsDoor, pid: int) -> None:
    """Answer until the process `pid`, whose metrics these are, has ended; then ClusterError. Interrupts go through."""
    try:
        watched = os.pidfd_open(pid)
    except ProcessLookupError:
        door.server_close()
        raise ClusterError("the node is gone") from None
    thread = threading.Thread(target=door.serve_forever, name="zmreg-metrics-door", daemon=True)
    thread.start()
    try:
        select.select([watched], [], [])
        raise ClusterError("the node whose metrics were served has ended")
    finally:
        door.shutdown()
        door.server_close()
        os.close(watched)


def main() -> None:
    """Of the process that a node starts for its own setting `metrics_port`: session directory and port in argv."""
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
    word = read_word(Path(sys.argv[1]))
    try:
        with Observer(word) as observer:
            door = MetricsDoor(
                "127.0.0.1", int(sys.argv[2]), lambda: scraping.as_text(scraping.families(observer, word.node))
            )
            with contextlib.suppress(ClusterError):  # our node has ended, and so do we
                serve(door, word.pid)
    except (OSError, ZmregError) as error:
        sys.exit(f"metrics are not served on port {sys.argv[2]}: {error}")
