"""`GET /metrics` over HTTP, by a process of its own: it asks nodes as any visitor does, and shares no loop with them.

Read only. On loopback the Host header has to name this machine, so that no web page can have a browser ask; anywhere
else a token is needed. Nothing that comes is looked at beyond its path and three headers.
"""

from __future__ import annotations

import contextlib
import hmac
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from zmreg.model.errors import ClusterError, ZmregError
from zmreg.services.setup import scraping
from zmreg.services.setup.addresses import is_loopback
from zmreg.services.setup.http_door import MOST_AT_ONCE as MOST_AT_ONCE
from zmreg.services.setup.http_door import HttpDoor, HttpHandler
from zmreg.services.setup.observer import Observer
from zmreg.services.setup.sessions import read_word
from zmreg.telemetry.exposition import CONTENT_TYPE

log = logging.getLogger("zmreg.metrics")

PATH: Final = "/metrics"
# Who asks oftener gets the same once more: no number of those who ask is a load on a node.
FRESH_S: Final = 1.0
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


class MetricsDoor(HttpDoor):
    """Listens from the start; `serve_forever` answers."""

    def __init__(self, host: str, port: int, scrape: Callable[[], str], token: str = "") -> None:
        """`port` 0: any free one. Raises OSError; ValueError for an address that others reach, without a token."""
        if not token and not is_loopback(host):
            raise ValueError(
                f"{host} can be reached from other machines: give a token that those who ask have to know, "
                "--token-file FILE, or listen on 127.0.0.1"
            )
        self.asker = _Asker(scrape)
        self.token = token.encode()
        super().__init__(host, port, _Handler)

    @property
    def url(self) -> str:
        """Where it is."""
        return f"{self.place}{PATH}"


class _Handler(HttpHandler):
    server: MetricsDoor
    refusal = "metrics can be read, and nothing else\n"

    def do_GET(self) -> None:
        """The one thing there is."""
        if (wrong := self._wrong()) is not None:
            self.answer(*wrong)
            return
        try:
            text = self.server.asker.text()
        except ClusterError as error:
            self.answer(503, f"{error}\n")
        except Exception as error:
            log.exception("metrics could not be told")
            self.answer(503, f"metrics could not be told ({type(error).__name__}); the log says why\n")
        else:
            self.answer(200, text, CONTENT_TYPE)

    do_HEAD = do_GET

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
