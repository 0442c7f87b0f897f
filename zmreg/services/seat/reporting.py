"""What a report is made of, asked for: calls, nodes, versions. Without a cluster, any more, what is known here."""

from __future__ import annotations

import os
import platform
import socket
import sys
import time
from collections.abc import Mapping
from typing import Any, Final

from zmreg.model.errors import ZmregError
from zmreg.model.version import VERSION
from zmreg.services.calling.history import facts_of
from zmreg.services.seat.asking import asker
from zmreg.services.seat.client import Client
from zmreg.services.seat.profiling import Profile
from zmreg.services.seat.timelines import gather
from zmreg.telemetry import report
from zmreg.telemetry.past import MOST_CALLS
from zmreg.telemetry.profile import Profiled, nested
from zmreg.telemetry.timeline import Owned

# Longer than a node gives its processes to answer (services/node/looks.py).
_ANSWER_S: Final = 5.0


class Reporting:
    """Begins at once; `finish` says what ran since."""

    def __init__(self, seat: Client, interval_s: float | None) -> None:
        """With `interval_s` stacks are sampled, too. ClusterError without a cluster."""
        self._seat = seat
        self._nodes: list[dict[str, Any]] = seat.ask("nodes")
        self._profile = Profile(seat, interval_s) if interval_s is not None else None
        self._began, self._began_at = time.monotonic(), time.time()

    def finish(self, title: str, error: str) -> bytes:
        """The page. `error`: by which the block has ended, or nothing."""
        seconds = time.monotonic() - self._began
        profile = self._profile.end() if self._profile is not None else None
        owned, names, notes = self._calls()
        return report.page(
            report.Block(
                title, self._began, seconds, self._began_at, error, owned, names, self._nodes, _versions(),
                notes, profile,
            )
        )  # fmt: skip

    def _calls(self) -> tuple[list[Owned], Mapping[str, str], list[str]]:
        """(calls by process, names of processes, what is missing)."""
        seat = self._seat
        with seat.lock:
            past = seat.past.copy()
        mine = Owned(seat.me, facts_of(past).each)  # by our own clock, and without asking
        try:
            self._nodes = seat.ask("nodes")
            found = gather(asker(seat, _ANSWER_S), [row["NodeID"] for row in self._nodes if row["Alive"]])
        except ZmregError as error:
            return [mine], {}, [f"Calls of other processes are missing, and nodes are as they were: {error}"]
        others = [each for each in found.owned if each.owner != seat.me]
        full = [each for each in others if len(each.facts) > 0.99 * MOST_CALLS] + [mine] * past.is_full
        notes = [f"Calls are missing: {each} does not answer" for each in found.silent]
        for each in full:
            if each.facts and each.facts[0].answered >= self._began:
                name = found.names.get(each.owner.hex(), "this program")
                notes.append(f"Of the calls of {name} the latest {len(each.facts)} are known; the others are missing")
        return [mine, *others], found.names, notes


def _versions() -> list[tuple[str, str]]:
    rows = [
        ("zmreg", VERSION), ("Python", f"{platform.python_implementation()} {platform.python_version()}"),
        ("program", os.path.basename(sys.argv[0]) if sys.argv and sys.argv[0] else "-"),
        ("host", socket.gethostname()), ("system", platform.platform()), ("CPUs of the host", str(os.cpu_count())),
    ]  # fmt: skip
    for name in ("pyzmq", "numpy"):
        module = sys.modules.get("zmq" if name == "pyzmq" else name)
        if module is not None:
            rows.append((name, str(getattr(module, "__version__", "?"))))
    return rows


def profiled(seat: Client, interval_s: float, seconds: float) -> list[dict[str, Any]]:
    """Sample for so long; what was seen, callers before callees."""
    profile = Profile(seat, interval_s)
    try:
        time.sleep(seconds)
    finally:
        found: Profiled = profile.end()
    return nested(found.tree.nodes())
