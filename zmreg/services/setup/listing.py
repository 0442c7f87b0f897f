"""Rows of what there is of one kind, asked of every node at the moment: for `zmreg list` and `zmreg.listing`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from zmreg.model.ids import owner_of
from zmreg.services.setup.observer import VISITOR, Observer

KINDS: Final = ("actors", "nodes", "objects", "tasks", "workers")


def listed(observer: Observer, kind: str, limit: int) -> list[dict[str, Any]]:
    """Of objects each node says its `limit` largest; of the other kinds all are given. Nodes that do not answer within
    seconds are left out, and those that are or were here for a command alone."""
    if kind == "nodes":
        return [row for row in observer.ask("nodes") if row["NodeName"] != VISITOR]
    if kind == "actors":
        return list(observer.ask("actors") or ())
    answers = observer.ask_all(observer.alive(), kind, str(limit) if kind == "objects" else "")
    rows: list[dict[str, Any]] = []
    for node, found in answers.items():
        if kind == "objects":
            found = [_object(node, row) for row in found or ()]
        rows += found or ()
    if kind == "objects":
        rows.sort(key=lambda row: -int(row["Bytes"]))
    return rows


def _object(node: str, row: Sequence[Any]) -> dict[str, Any]:
    object_id, size, state, pins = row
    return {
        "ObjectID": object_id.hex(), "Bytes": size, "State": state, "Pins": pins, "NodeID": node,
        "OwnerID": owner_of(object_id).hex(),
    }  # fmt: skip
