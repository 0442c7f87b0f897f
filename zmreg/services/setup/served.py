"""Which named functions are served, asked of a node by somebody who visits."""

from __future__ import annotations

from typing import Any

from zmreg.model.function_messages import FunctionRow
from zmreg.model.ids import node_of
from zmreg.services.setup.observer import Observer
from zmreg.wire import codec


def served(observer: Observer) -> list[dict[str, Any]]:
    """A row for each function and the process that serves it. ClusterError."""
    rows = []
    for data in observer.ask("functions") or ():
        row = codec.decode(data)
        if isinstance(row, FunctionRow):
            rows.append(
                {
                    "Name": row.name, "Version": row.version, "HostID": row.host.hex(),
                    "NodeID": node_of(row.host).hex(), "NodeName": row.node_name,
                    "Locs": sorted({*row.locs, *row.node_locs}), "Actor": row.actor_class, "Resting": row.resting,
                    "Signature": row.signature,
                }
            )  # fmt: skip
    return rows
