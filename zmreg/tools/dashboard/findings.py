"""What somebody should know who looks at a cluster: pure, made of what its nodes have answered."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from zmreg.tools.dashboard.figures import Figure, amount_of

ERROR: Final = "error"
WARNING: Final = "warning"
# An answer takes this long at most, so a clock that is off by less cannot be told from a slow one.
CLOCK_S: Final = 5.0
FULL: Final = 0.95
# So many of each kind are told one by one.
MOST: Final = 20

Finding = dict[str, str]
_Says = Callable[[float], str]

_COUNTS: Final[tuple[tuple[str, str, _Says], ...]] = (
    ("zmreg_registry_digest_mismatch_total", ERROR, lambda n: f"{n:g} replicas were not equal to the original: an "
     "error of zmreg's; please report it"),
    ("zmreg_memory_ended_total", WARNING, lambda n: f"{n:g} workers were ended for want of memory"),
    ("zmreg_object_store_waiting", WARNING, lambda n: f"{n:g} processes wait for room in a store (Objects shows what "
     "is there)"),
    ("zmreg_auth_rejected_total", WARNING, lambda n: f"{n:g} connections were refused for want of the cluster's key"),
    ("zmreg_protocol_errors_total", WARNING, lambda n: f"{n:g} messages made no sense; the nodes' logs say which"),
    ("zmreg_metrics_dropped_total", WARNING, lambda n: f"{n:g} values of metrics were not taken: too many series"),
)  # fmt: skip


def findings(
    nodes: Sequence[Mapping[str, Any]],
    health: Mapping[str, Mapping[str, Any]],
    families: Iterable[Mapping[str, Any]],
    now: float,
) -> list[Finding]:
    """`nodes`: rows; `health`: {node: its answer}, with the `Asked` time that was here; `families`: metrics. `now`:
    seconds since 1970. The worst first."""
    found = [*_of_nodes(nodes), *_of_health(nodes, health)]
    told = list(families)
    for metric, level, says in _COUNTS:
        count = amount_of(told, Figure("", "", metric))
        if count:
            found.append(_finding(level, says(count)))
    return sorted(found, key=lambda each: each["Level"] != ERROR)


def _finding(level: str, text: str) -> Finding:
    return {"Level": level, "Text": text}


def _name(row: Mapping[str, Any]) -> str:
    return f"node {row['NodeName']} ({row['NodeID'][:8]})"


def _of_nodes(nodes: Sequence[Mapping[str, Any]]) -> list[Finding]:
    found = []
    if nodes and not any(row["Alive"] for row in nodes):
        found.append(_finding(ERROR, "no node of the cluster is there any more"))
    dead = [row for row in nodes if row["State"] == "DEAD"]
    for row in dead[:MOST]:
        found.append(_finding(ERROR, f"{_name(row)} is dead: {row['Reason'] or 'nobody knows why'}"))
    if len(dead) > MOST:
        found.append(_finding(ERROR, f"and {len(dead) - MOST} more nodes are dead"))
    for row in nodes:
        if row["State"] == "SUSPECTED":
            found.append(_finding(WARNING, f"{_name(row)} is silent, and gets no new work"))
        elif row["State"] == "DRAINING":
            found.append(_finding(WARNING, f"{_name(row)} is about to leave, and gets no new work"))
        if row["Alive"] and row["ObjectStoreBytes"] and (
            row["ObjectStoreUsedBytes"] > FULL * row["ObjectStoreBytes"]
        ):  # fmt: skip
            found.append(_finding(WARNING, f"the store of {_name(row)} is full; copies go, and values go to disk"))
    return found


def _of_health(nodes: Sequence[Mapping[str, Any]], health: Mapping[str, Mapping[str, Any]]) -> list[Finding]:
    found = []
    rows = {row["NodeID"]: row for row in nodes}
    lost = [
        _name(rows[node]) if node in rows else "the visitor on this machine"
        for node, facts in health.items()
        if facts["HeadLost"]
    ]
    if lost:
        who = ", ".join(lost[:3]) + (f" and {len(lost) - 3} more" if len(lost) > 3 else "")
        found.append(_finding(ERROR, f"the head is silent to {who}: nobody joins, and no actor is made, until it is "
                                     "back"))  # fmt: skip
    for node, facts in health.items():
        off = facts["Time"] - facts["Asked"]
        if abs(off) > CLOCK_S and node in rows:
            found.append(_finding(WARNING, f"the clock of {_name(rows[node])} is {abs(off):.0f} s "
                                           f"{'ahead of' if off > 0 else 'behind'} this machine's"))  # fmt: skip
    versions = sorted({str(facts["Version"]) for facts in health.values()})
    if len(versions) > 1:
        found.append(_finding(WARNING, f"nodes run different versions: {', '.join(versions)}"))
    return found
