"""Doors over HTTP (services/setup/http_door.py), opened for a test and asked."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import TypeVar

from zmreg.services.setup.http_door import HttpDoor

Door = TypeVar("Door", bound=HttpDoor)


@contextmanager
def serving(door: Door) -> Iterator[Door]:
    """It answers until the end of the block, and is closed then."""
    thread = threading.Thread(target=door.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    try:
        yield door
    finally:
        door.shutdown()
        door.server_close()
        thread.join()


def asked(door: HttpDoor, method: str, path: str, headers: Mapping[str, str]) -> tuple[int, str, dict[str, str]]:
    """Status, body and headers of the answer. `Host` is its address, unless the headers have another."""
    connection = http.client.HTTPConnection("127.0.0.1", door.server_port, timeout=20)
    try:
        connection.putrequest(method, path, skip_host="Host" in headers)
        for name, value in headers.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, answer.read().decode(), dict(answer.getheaders())
    finally:
        connection.close()
