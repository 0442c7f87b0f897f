"""The dashboard over HTTP: one page, and its facts as JSON. Read only; whatever comes is a question for a copy.

The standard library's server does: answers are whole, nothing streams, and a browser asks every two seconds. Starlette
and uvicorn would bring an event loop that nothing here needs, and seven packages to whoever looks at a cluster.

The token is in the fragment of the address that is printed, which browsers send to nobody; the page keeps it for its
tab and sends it as a header. A cookie would be sent to every port of this machine, other users' programs included, and
by pages that are not ours. So the page itself has no facts, and is served without a token.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
import ipaddress
import json
import logging
import math
import re
import socket
import time
from collections.abc import Callable, Mapping
from importlib.resources import files
from typing import Any, Final
from urllib.parse import parse_qs, urlsplit

from zmreg.services.setup.addresses import is_loopback
from zmreg.services.setup.http_door import HttpDoor, HttpHandler, bracketed
from zmreg.tools.dashboard.copies import Copy, Key
from zmreg.tools.dashboard.views import VIEWS, document
from zmreg.tools.dashboard.watch import Busy, Watch

# For the first copies of a page that nobody has looked at: what it is about, and the rest.
PATIENCE_S: Final = 5.0
REST_S: Final = 0.6
_API: Final = "/api/"
_HOST: Final = re.compile(r"(\[[^\[\]]+\]|[^\[\]:]+)(:[0-9]{1,5})?")
_ID: Final = re.compile(r"[0-9a-f]{16}")
_TASK: Final = re.compile(r"[0-9a-f]{32}")
_MOST_TEXT: Final = 200

log = logging.getLogger("zmreg.dashboard")

Answer = tuple[int, Mapping[str, Any]]


class DashboardDoor(HttpDoor):
    """Listens from the start; `serve_forever` answers."""

    def __init__(self, host: str, port: int, watch: Watch, token: str) -> None:
        """`port` 0: any free one; ValueError without a token, OSError."""
        if not token:
            raise ValueError("the dashboard is served to those alone who have its token: give one")
        self.watch = watch
        self.token = token.encode()
        self.page = page()
        self.policy = policy_of(self.page)
        self.faults: set[tuple[str, str]] = set()
        super().__init__(host, port, _Handler)
        self.is_near = is_loopback(host)
        self._named = {host.casefold()} if self.is_near else {host.casefold(), socket.gethostname().casefold()}

    def is_called(self, host: str) -> bool:
        """Whether that is us, as a `Host` header says it: by an address, or by this machine's own name, at whatever
        port a tunnel has. Another name for our address would be that of a page which had a browser led here."""
        found = _HOST.fullmatch(host.casefold())
        if found is None:
            return False
        name = found[1].strip("[]")
        return _is_loopback(name) or name in self._named or (not self.is_near and _is_address(name))

    @property
    def url(self) -> str:
        """Where it is, with the token. For a wildcard, as this machine reaches it."""
        any_of_ours = self.server_name in ("0.0.0.0", "::", "")
        name = "localhost" if any_of_ours else bracketed(self.server_name)
        return f"http://{name}:{self.server_port}/#token={self.token.decode()}"


def _is_loopback(name: str) -> bool:
    """As `is_loopback`, and no name that begins like one."""
    return name == "localhost" or (_is_address(name) and ipaddress.ip_address(name).is_loopback)


def _is_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def page() -> bytes:
    """All of it: style and script are in it."""
    return files(__package__).joinpath("page.html").read_bytes()


def policy_of(html: bytes) -> str:
    """What a browser may do with it: run this script, use this style, ask us. Nothing from elsewhere."""
    parts = {name: _digest(html, name) for name in ("script", "style")}
    return (
        f"default-src 'none'; script-src {parts['script']}; style-src {parts['style']}; connect-src 'self'; "
        "img-src data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def _digest(html: bytes, element: str) -> str:
    inner = html.partition(f"<{element}>".encode())[2].partition(f"</{element}>".encode())[0]
    return f"'sha256-{base64.b64encode(hashlib.sha256(inner).digest()).decode()}'"


class _Handler(HttpHandler):
    server: DashboardDoor
    refusal = "the dashboard can be read, and nothing else\n"

    def do_GET(self) -> None:
        """The page, or facts."""
        place = urlsplit(self.path)
        if not self._is_ours():
            self.answer(403, "this is served as its address was printed; a proxy has to send that as Host\n")
        elif place.path == "/":
            more = {"Content-Security-Policy": self.server.policy, "Referrer-Policy": "no-referrer"}
            self.answer(200, self.server.page, "text/html; charset=utf-8", more)
        elif not place.path.startswith(_API):
            self.answer(404, f"there is /, and facts below {_API}\n")
        elif not self._has_token():
            self.answer(401, "the token is missing or wrong: Authorization: Bearer TOKEN\n")
        else:
            status, text = self._told(place.path.removeprefix(_API), place.query)
            self.answer(status, text, "application/json; charset=utf-8")

    def _told(self, name: str, query: str) -> tuple[int, str]:
        """A fault of ours, or an answer of a node of another version, is an answer, and is told once."""
        try:
            status, found = told(self.server.watch, name, query)
            return status, json.dumps(_plain(found), allow_nan=False)
        except Exception as error:
            fault = name, type(error).__name__
            if fault not in self.server.faults:
                self.server.faults.add(fault)
                log.exception("%s could not be told", name)
            text = f"{name} could not be told ({fault[1]}); what the dashboard prints says why"
            return 500, json.dumps({"Error": text})

    do_HEAD = do_GET

    def _is_ours(self) -> bool:
        """No page of somebody else's has a browser ask."""
        host, origin = self.headers.get("Host", ""), self.headers.get("Origin")
        site = self.headers.get("Sec-Fetch-Site", "none")
        if not self.server.is_called(host) or (origin is not None and origin.casefold() != f"http://{host}".casefold()):
            return False
        return site in ("none", "same-origin") or urlsplit(self.path).path == "/"  # a link may lead to the page

    def _has_token(self) -> bool:
        given = self.headers.get("Authorization", "").encode("latin-1", "replace")
        return hmac.compare_digest(given, b"Bearer " + self.server.token)


# -- what is asked -----------------------------------------------------------------------------------------------------


def told(watch: Watch, name: str, query: str) -> Answer:
    """(HTTP's status, a document) for /api/NAME?QUERY."""
    fields = {key: values[-1] for key, values in parse_qs(query).items()}
    keys, make = _asked(name, fields)
    if isinstance(keys, str):
        return (404 if name not in (*VIEWS, *_CLICKS) else 400), {"Error": keys}
    try:
        copies = watch.read(keys, PATIENCE_S, REST_S)
    except Busy:
        return 503, {"Error": "too many different things are asked for at this moment; ask again in some seconds"}
    return 200, {"State": watch.state(), **make(copies)}


_Make = Callable[[Mapping[Key, Copy]], Mapping[str, Any]]


def _asked(name: str, fields: Mapping[str, str]) -> tuple[list[Key] | str, _Make]:
    """The copies that are needed and what is made of them; or what is wrong."""
    if name in VIEWS:
        contains = fields.get("contains", "")[:_MOST_TEXT]
        return [(source,) for source in VIEWS[name][1]], lambda copies: document(name, copies, contains, _clock)
    if name in _CLICKS:
        key = _CLICKS[name](fields)
        return ([key] if isinstance(key, tuple) else key), _one
    return f"there is no {name!r}; there are {', '.join([*VIEWS, *_CLICKS])}", _one


def _clock() -> tuple[float, float]:
    return time.monotonic(), time.time()


def _one(copies: Mapping[Key, Copy]) -> Mapping[str, Any]:
    copy = next(iter(copies.values()), None)
    if copy is None:
        return {"Found": None, "Errors": ["there is no answer yet"]}
    return {"Found": copy.value, "Errors": [copy.error] if copy.error else []}


def _log_key(fields: Mapping[str, str]) -> Key | str:
    node, log = fields.get("node", ""), fields.get("log", "")
    if _ID.fullmatch(node) and (log == "node" or _ID.fullmatch(log)):
        return "log", node, log
    return "say node=ID and log=ID, each 16 hex digits; log=node is the node's own"


def _why_key(fields: Mapping[str, str]) -> Key | str:
    task = fields.get("id", "")
    return ("why", task) if _TASK.fullmatch(task) else "say id=ID, the 32 hex digits of a task or an object"


_CLICKS: Final[Mapping[str, Callable[[Mapping[str, str]], Key | str]]] = {"log": _log_key, "why": _why_key}


def _plain(value: Any) -> Any:
    """As JSON has it: keys are text, bytes hex, and what is no number is null."""
    if isinstance(value, Mapping):
        return {str(key): _plain(each) for key, each in value.items()}
    if isinstance(value, list | tuple | set | frozenset):
        return [_plain(each) for each in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
