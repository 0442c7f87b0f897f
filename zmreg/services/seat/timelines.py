"""The calls of all processes of a cluster that are over, asked for and folded."""

from __future__ import annotations

import time
from collections.abc import Iterable
from typing import Any

from zmreg.model.record import Record
from zmreg.services.seat.asking import CALLS, Ask
from zmreg.telemetry import timeline
from zmreg.telemetry.facts import heard
from zmreg.telemetry.past import MOST_CALLS
from zmreg.telemetry.timeline import Owned


class Gathered(Record):
    """What the processes remember."""

    owned: list[Owned]
    names: dict[str, str]
    """Of processes, by their ids in hex."""
    silent: list[str]
    """Nodes, and processes, that have not answered."""


def gather(ask: Ask, nodes: Iterable[str], most: int = MOST_CALLS) -> Gathered:
    """Ask the nodes, one after the other, for the latest `most` calls of each of their processes."""
    owned: list[Owned] = []
    names: dict[str, str] = {}
    silent: list[str] = []
    for node in nodes:
        rows = ask(node, CALLS, str(most))
        now = time.monotonic()
        if rows is None:
            silent.append(f"node {node}")
            continue
        for row in rows:
            names[row["ProcessID"]] = f"{row['Name']} pid={row['Pid']}"
            if row["Told"] is None:
                silent.append(f"{row['Name']} pid={row['Pid']}")
            elif row["Told"]:
                owned.append(Owned(bytes.fromhex(row["ProcessID"]), heard(row["Told"], now)))
    return Gathered(owned, names, silent)


def trace(found: Gathered) -> dict[str, Any]:
    """For trace viewers."""
    return timeline.chrome_trace(found.owned, found.names)


def summary(found: Gathered) -> list[dict[str, Any]]:
    """A row for each function."""
    return timeline.counts(found.owned)
