"""Who wants to hear of every death, and of the end of the seat. Most processes never do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zmreg.model.ids import NODE_BYTES
from zmreg.model.messages import NodeGone, ProcessDied
from zmreg.services.seat.client import Client


def when_gone(client: Client, tell: Callable[[str], object]) -> None:
    """Call `tell` with the id (hex) of each process that is gone from now on; of a node that is gone, with what the ids
    of all processes there begin with. On whatever thread receives, under the client's lock: it must be quick."""
    with client.shield(), client.lock:
        hear_of_process, hear_of_node = client.handlers[ProcessDied], client.handlers[NodeGone]

        def process_died(sender: bytes, message: Any) -> None:
            hear_of_process(sender, message)
            tell(message.process.hex())

        def node_gone(sender: bytes, message: Any) -> None:
            hear_of_node(sender, message)
            tell(message.node[:NODE_BYTES].hex())

        client.handlers[ProcessDied] = process_died
        client.handlers[NodeGone] = node_gone


def at_the_end(client: Client, tell: Callable[[], object]) -> None:
    """Call it when this seat is given up, or its node is gone. As above."""
    with client.shield(), client.lock:
        client.questions.at_the_end.append(tell)
