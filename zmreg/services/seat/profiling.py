"""The program's side of the profiler: for as long as it wants one, it says so to all processes once a second.

Each tells all that it has seen; the latest word of each counts, that of one which has ended meanwhile, too. Whoever
begins meanwhile hears it within a second, and where several begin, the others sooner.
"""

from __future__ import annotations

import os
import threading
import time
from typing import Any, Final

from zmreg.model.errors import ZmregError
from zmreg.services.machine.sampling import LEASE_S
from zmreg.services.seat.asking import PROFILE, asker
from zmreg.services.seat.client import Client
from zmreg.telemetry.profile import CallTree, Profiled

ROUND_S: Final = 1.0
# After the begin, and after somebody new was heard, when more of them are likely to begin.
FIRST_S: Final = 0.1
# Longer than a node gives its processes to answer (services/node/looks.py).
_ANSWER_S: Final = 5.0
# By then whoever has not been told to go on has ended.
_GONE_S: Final = 2 * LEASE_S


class Profile:
    """Begins at once."""

    def __init__(self, seat: Client, interval_s: float) -> None:
        self._seat = seat
        self._interval_us = max(1, round(interval_s * 1e6))
        self._token = os.urandom(8).hex()
        self._ask = asker(seat, _ANSWER_S)
        self._latest: dict[str, tuple[float, dict[str, Any]]] = {}
        """By sampler: when it was heard, and what it has told."""
        self._gone = CallTree()
        self._processes = 0
        self._silent: list[str] = []
        self._over = threading.Event()
        self._began = time.monotonic()
        self._round(self._interval_us)
        self._thread = threading.Thread(target=self._run, name="zmreg-profile", daemon=True)
        self._thread.start()

    def end(self) -> Profiled:
        """Have all of them stop; what they have seen. Whoever does not answer now counts as far as it has told."""
        self._over.set()
        self._thread.join(_ANSWER_S)
        self._round(0)
        for _, told in self._latest.values():
            self._gone.merge(told)
        return Profiled(self._gone, self._processes, time.monotonic() - self._began, self._silent)

    def _run(self) -> None:
        pause = FIRST_S
        while not self._over.wait(pause) and self._seat.closed is None:
            known = self._processes
            self._round(self._interval_us)
            pause = min(ROUND_S, 2 * pause) if self._processes == known else FIRST_S

    def _round(self, interval_us: int) -> None:
        """Ask all nodes. Without a cluster, any more, there is nothing to be had."""
        key, now, silent = f"{self._token} {interval_us} {self._seat.me.hex()}", time.monotonic(), []
        try:
            nodes = [row["NodeID"] for row in self._seat.ask("nodes") if row["Alive"]]
            for node in nodes:
                rows = self._ask(node, PROFILE, key)
                if rows is None:
                    silent.append(f"node {node}")
                for row in rows or ():
                    if row["Told"]:
                        self._heard(row["Told"], now)
                    elif row["Told"] is None:
                        silent.append(f"{row['Name']} pid={row['Pid']}")
        except ZmregError as error:
            silent.append(str(error))
        self._silent = silent
        for name in [name for name, (at, _) in self._latest.items() if at < now - _GONE_S]:
            self._gone.merge(self._latest.pop(name)[1])

    def _heard(self, told: dict[str, Any], now: float) -> None:
        if told["Sampler"] not in self._latest:
            self._processes += 1
        self._latest[told["Sampler"]] = now, told
