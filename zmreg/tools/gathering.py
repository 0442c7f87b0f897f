"""What nodes have answered, put together: for the command line and the dashboard alike."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from zmreg.services.setup.observer import Observer


def nodes_of(observer: Observer) -> list[dict[str, Any]]:
    """Every node that was ever heard of, without those that are or were here for a command alone."""
    from zmreg.services.setup.listing import listed

    return listed(observer, "nodes", 0)


def objects_of(answers: Mapping[str, Any], sort: str, limit: int) -> list[dict[str, Any]]:
    """One row for each object of {node: what it says of its memory}, with all its copies: those that are nobody's to
    drop before those that are. `sort`: age, else size."""
    from zmreg.model.ids import owner_of

    rows: dict[str, dict[str, Any]] = {}
    for node, answer in answers.items():
        for each in answer["Objects"]:
            row = rows.get(each["ObjectID"])
            if row is None:
                owner = owner_of(bytes.fromhex(each["ObjectID"])).hex()
                row = {"ObjectID": each["ObjectID"], "Bytes": each["Bytes"], "OwnerID": owner, "Copies": []}
                rows[each["ObjectID"]] = row
            copy = {name: each[name] for name in ("State", "Primary", "AgeSeconds", "CreatorID", "Pins")}
            row["Copies"].append({"NodeID": node, **copy})
    for row in rows.values():
        row["Copies"].sort(key=lambda copy: not copy["Primary"])
        row["AgeSeconds"] = max(copy["AgeSeconds"] for copy in row["Copies"])
        row["Pins"] = sum(sum(copy["Pins"].values()) for copy in row["Copies"])
    by = "AgeSeconds" if sort == "age" else "Bytes"
    return sorted(rows.values(), key=lambda row: -row[by])[:limit]


def memory_of(answers: Mapping[str, Any], limit: int) -> dict[str, list[dict[str, Any]]]:
    """What nodes say of their memory, for many readers: the `limit` largest objects, all processes, all stores. With
    hundreds of nodes it takes a second."""
    return {
        "Objects": objects_of(answers, "size", limit),
        "Processes": [row for answer in answers.values() for row in answer["Processes"]],
        "Stores": [answer["Store"] for answer in answers.values()],
    }
