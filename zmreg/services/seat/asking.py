"""How processes are asked what they know of calls (seat/remembered.py tells it), and what answers make together.

For whoever looks on, too: nothing here loads what runs calls, or unpickles.
"""

from __future__ import annotations

import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from zmreg.model.errors import ClusterError
from zmreg.model.ids import node_of, owner_of
from zmreg.wire import batches

if TYPE_CHECKING:
    from zmreg.services.seat.station import Station

CALLS: Final = "calls"
WHY: Final = "why"
QUEUED: Final = "queued"
PROFILE: Final = "profile"

Ask = Callable[[str, str, str], list[dict[str, Any]] | None]
"""(node, topic, key) -> what its processes tell; None when it does not answer."""

_DEEPEST: Final = 20


def asker(seat: Station, timeout: float) -> Ask:
    """How a program or a worker asks; its node passes on what is for others."""

    def ask(node: str, topic: str, key: str) -> list[dict[str, Any]] | None:
        try:
            body = seat.ask(topic, f"{node} {key}", timeout=timeout)
        except ClusterError:
            seat.check()
            return None
        return None if body is None else batches.unpack_plain(zlib.decompress(body))

    return ask


def made_by(ask: Ask, task_id: str) -> dict[str, Any] | None:
    """What the owner of a call tells of it; None when it is gone, or has forgotten."""
    any_id = bytes.fromhex(task_id)
    for row in ask(node_of(any_id).hex(), WHY, task_id) or ():
        if row["ProcessID"] == owner_of(any_id).hex() and row["Told"] is not None:
            made: dict[str, Any] | None = row["Told"]["Made"]
            return made
    return None


def running_at(ask: Ask, task_id: str, worker: str) -> tuple[bool, dict[str, Any] | None]:
    """(whether the worker answers, what it tells of a call that was sent to it)."""
    for row in ask(node_of(bytes.fromhex(worker)).hex(), WHY, task_id) or ():
        if row["ProcessID"] == worker and row["Told"] is not None:
            return True, row["Told"]["Runs"]
    return False, None


def place_of(ask: Ask, task_id: str, worker: str) -> list[list[Any]]:
    """[file, line, function] of a call that runs there, innermost first; empty when it does not."""
    _, runs = running_at(ask, task_id, worker)
    return [] if runs is None else runs.get("Frames", [])


def chain(ask: Ask, nodes: Sequence[Mapping[str, Any]], task_id: str) -> list[str]:
    """Why a call is where it is, one line for each link: what it waits for, and what that waits for, and so on."""
    lines: list[str] = []
    seen: set[str] = set()
    while task_id and task_id not in seen and len(seen) < _DEEPEST:
        seen.add(task_id)
        made = made_by(ask, task_id)
        if made is None:
            lines.append(f"{task_id[-8:]}: its owner {task_id[:16]} does not answer, or knows of no call that makes it")
            break
        info, following = made["Info"], made["Next"]
        lines.append(f"{info['Name']} (task {info['TaskID'][-8:]}) {made['Text']}")
        if made["Needs"]:
            lines += [f"    {line}" for line in room(nodes, made["Needs"], made["Locs"])]
        if info["State"] == "sent":
            answers, runs = running_at(ask, info["TaskID"], info["WorkerID"])
            if runs is not None:
                lines.append(f"    {runs['Text']}")
                following = runs["Next"]
            elif answers:
                lines.append("    it is not there any more: its answer is on the way")
            else:
                lines.append("    that worker does not answer: it keeps Python's lock, or is gone (`zmreg stack`)")
        task_id = following[0] if following else ""
    return lines


def room(nodes: Sequence[Mapping[str, Any]], needs: Mapping[str, float], locs: Sequence[str]) -> list[str]:
    """What each node has of what is needed, the fullest last."""
    lines = []
    for node in nodes:
        if not node["Alive"]:
            continue
        has = [f"{node['Available'].get(name, 0):g} of {node['Resources'].get(name, 0):g} {name}" for name in needs]
        lacks = sorted(set(locs) - set(node["Locs"]))
        never = lacks or any(node["Resources"].get(name, 0) < amount for name, amount in needs.items())
        free = all(node["Available"].get(name, 0) >= amount for name, amount in needs.items())
        verdict = "never" if never else "has room now" if free else "has no room now"
        missing = f", lacks locs {', '.join(lacks)}" if lacks else ""
        lines.append(f"node {node['NodeID'][:8]} {verdict}: free {', '.join(has) or 'nothing counted'}{missing}")
    return lines[:_DEEPEST]
