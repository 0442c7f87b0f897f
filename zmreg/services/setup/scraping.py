"""Metrics of a cluster, asked of its nodes by somebody who visits: as text for Prometheus, or as plain containers."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, Final

from zmreg.model.errors import ClusterError
from zmreg.services.setup.observer import Observer
from zmreg.telemetry import exposition
from zmreg.telemetry.families import Family, read, told_by_nodes

# A node waits a second for processes that do not come to answering, and tells without them (services/node/looks.py).
ANSWER_S: Final = 5.0


def find_node(observer: Observer, wanted: str) -> str:
    """The id of the living node with that id, beginning of an id (from 4 digits) or name. ValueError."""
    rows = [row for row in observer.ask("nodes") if row["Alive"]]
    found = [row["NodeID"] for row in rows if wanted == row["NodeName"]]
    if len(wanted) >= 4:
        found += [row["NodeID"] for row in rows if row["NodeID"].startswith(wanted) and row["NodeID"] not in found]
    if len(found) != 1:
        there = ", ".join(f"{row['NodeName']} ({row['NodeID']})" for row in rows)
        raise ValueError(f"{'no node is' if not found else 'several nodes are'} {wanted!r}; there are {there}")
    return str(found[0])


def families(observer: Observer, node: str = "") -> list[Family]:
    """Of one node, or of all that live; those that do not answer are left out. ClusterError when none does."""
    return told_by(observer, [node] if node else observer.alive(), ANSWER_S)


def told_by(observer: Observer, nodes: Sequence[str], timeout: float) -> list[Family]:
    """Of those of these nodes that answer within `timeout` seconds. ClusterError when none does."""
    told = observer.ask_much(nodes, "metrics", "", timeout)
    if not told:
        who, word = (f"node {nodes[0]}", "not ") if len(nodes) == 1 else ("no node", "")
        raise ClusterError(f"{who} has {word}told its metrics within {timeout:g} s")
    return told_by_nodes({each: read(rows) for each, rows in told.items()})


def as_text(found: Iterable[Family]) -> str:
    """Prometheus' exposition format 0.0.4."""
    return exposition.text(found)


def as_plain(found: Iterable[Family]) -> list[dict[str, Any]]:
    """One dict a family, for JSON."""
    return exposition.plain(found)
