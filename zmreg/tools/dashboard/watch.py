"""Who asks the cluster: one thread with one seat, for all who look on. When the cluster goes away it looks for it.

Whoever reads gets the last copy at once, and waits only while there is none yet.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, Final

from zmreg.model.errors import ClusterError, ZmregError
from zmreg.tools.dashboard.copies import Copies, Copy, Key

if TYPE_CHECKING:
    from zmreg.services.setup.observer import Observer

log = logging.getLogger("zmreg.dashboard")

# Between two tries to find a cluster that is away.
RETRY_S: Final = 1.0
# Whether the node that we visit answers at all.
WELL_S: Final = 2.0
# A look round while nothing is due: Ctrl-C comes in between.
IDLE_S: Final = 5.0

Source = Callable[..., Any]
"""(observer, what of it is asked) -> the answer, as plain containers. Raises ClusterError."""


class Busy(Exception):
    """Too many different things are asked for at this moment."""


class Watch:
    """`run` is for one thread; the rest for any."""

    def __init__(
        self,
        visit: Callable[[], AbstractContextManager[Observer]],
        sources: Mapping[str, Source],
        copies: Copies,
    ) -> None:
        """`visit` takes a seat, as `services.setup.observer.observe`."""
        self._visit = visit
        self._sources = sources
        self._copies = copies
        self._changed = threading.Condition()
        self._where: dict[str, str] = {}
        self._trouble = ""
        self._since = time.time()

    # -- reading -------------------------------------------------------------------------------------------------------

    def read(self, keys: Iterable[Key], patience_s: float, rest_s: float) -> dict[Key, Copy]:
        """The copies that there are. Of what nobody has read for long there is none yet: the first is waited for so
        many seconds, and the others `rest_s`. Raises Busy."""
        wanted = list(keys)
        now = time.monotonic()
        deadline, rest = now + patience_s, now + rest_s
        with self._changed:
            if not all(self._copies.want(key, now) for key in wanted):
                raise Busy
            self._changed.notify_all()
            while True:
                found = {key: copy for key in wanted if (copy := self._copies.of(key)) is not None}
                left = (rest if wanted[0] in found else deadline) - time.monotonic()
                if len(found) == len(wanted) or left <= 0 or self._trouble:
                    return found
                self._changed.wait(left)

    def state(self) -> dict[str, Any]:
        """For people: whose facts these are, and whether the cluster answers."""
        with self._changed:
            return {"Answers": not self._trouble and bool(self._where), "Trouble": self._trouble, "Since": self._since,
                    **self._where}  # fmt: skip

    # -- asking --------------------------------------------------------------------------------------------------------

    def run(self, ready: Callable[[], object]) -> None:
        """Until an interrupt; `ready` is called once, when the cluster has answered for the first time. Raises what
        `visit` does, and ClusterError, before that."""
        was_there = False
        while True:
            try:
                with self._visit() as observer:
                    self._arrive(observer)
                    if not was_there:
                        was_there = True
                        ready()
                    while True:
                        self._turn(observer)
            except (ZmregError, OSError, ValueError) as error:
                if not was_there:
                    raise
                self._lose(error)
                time.sleep(RETRY_S)

    def _arrive(self, observer: Observer) -> None:
        _is_well(observer)
        with self._changed:
            word = observer.word
            self._where = {"Cluster": word.cluster, "NodeID": word.node, "NodeName": word.name}
            self._trouble, self._since = "", time.time()
            self._changed.notify_all()

    def _lose(self, error: Exception) -> None:
        with self._changed:
            if not self._trouble:
                self._since = time.time()
            self._trouble = str(error) or type(error).__name__
            self._changed.notify_all()

    def _turn(self, observer: Observer) -> None:
        """Ask what is due, or wait until something is. ClusterError when our node is gone."""
        with self._changed:
            now = time.monotonic()
            due = self._copies.due(now)
            if not due:
                self._changed.wait(min(IDLE_S, self._copies.next_at(now) - now))
                return
        for key in due:
            self._ask(observer, key)

    def _ask(self, observer: Observer, key: Key) -> None:
        name, *what = key
        began = time.monotonic()
        value, error = None, ""
        try:
            value = self._sources[name](observer, *what)
        except ClusterError as trouble:  # of this question alone, if the node is there: there may be no head
            _is_well(observer)
            error = str(trouble)
        except Exception as trouble:
            error = f"{name} could not be asked ({type(trouble).__name__}); what the dashboard prints says why"
            before = self._copies.of(key)
            if before is None or before.error != error:  # once, not every two seconds
                log.exception("%s could not be asked", name)
        with self._changed:
            if error:
                self._copies.fail(key, error, began, time.monotonic())
            else:
                self._copies.put(key, value, began, time.monotonic())
            self._changed.notify_all()


def _is_well(observer: Observer) -> None:
    """Raises ClusterError when our node does not answer."""
    observer.ask("health", timeout=WELL_S)
