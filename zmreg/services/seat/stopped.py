"""Which calls are stopped at breakpoints: what a process tells of itself, and how others ask all of them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any, Final

from zmreg.model.look_messages import Look, Looked
from zmreg.wire import batches

if TYPE_CHECKING:
    from zmreg.services.seat.asking import Ask
    from zmreg.services.seat.station import Station

STOPPED: Final = "stopped"
# The states of a stop.
OPEN: Final = "open"
TAKEN: Final = "attached"


def tell(seat: Station, message: Look) -> bool:
    """Answer our node at once, if it asks for stops; False when it asks for something else."""
    if message.what.strip() != STOPPED:
        return False
    from zmreg.services.seat.client import Client  # late, both: a node reads this module for a word of it
    from zmreg.services.worker.breaking import stops

    found = stops.get(seat) if isinstance(seat, Client) else None
    rows = [stop.row() for stop in found.open.values() if stop.place[1]] if found is not None else []
    seat.tell_node(Looked(message.request, batches.pack_plain(rows)))
    return True


def gathered(ask: Ask, nodes: Iterable[str]) -> list[dict[str, Any]]:
    """A row for each stop, the oldest first."""
    rows = []
    for node in nodes:
        for process in ask(node, STOPPED, "") or ():
            of_it = {"WorkerID": process["ProcessID"], "NodeID": process["NodeID"], "Pid": process["Pid"]}
            rows += [{**row, **of_it} for row in process["Told"] or ()]
    return sorted(rows, key=lambda row: -float(row["Seconds"]))
