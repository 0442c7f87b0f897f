"""What kits need to know of processes: which one this is, who is gone, when this one's seat is."""

from __future__ import annotations

from collections.abc import Callable

from zmreg.services.seat import context, watching
from zmreg.services.seat.seats import client


def process_id() -> str:
    """The id of this process in its cluster, hex; another one after another `zmreg.init`."""
    return client().me.hex()


def when_gone(tell: Callable[[str], object]) -> None:
    """See `zmreg.services.seat.watching.when_gone`."""
    watching.when_gone(client(), tell)


def at_the_end(tell: Callable[[], object]) -> None:
    """See `zmreg.services.seat.watching.at_the_end`."""
    watching.at_the_end(client(), tell)


def head_node() -> str:
    """The id (hex) of the node that is the head, as far as this one knows; "" when there is none."""
    rows = client().ask("nodes")
    return next((row["NodeID"] for row in rows if row["IsHead"] and row["Alive"]), "")


def interrupt_own_call() -> None:
    """See `zmreg.services.seat.context.interrupt_own_call`."""
    context.interrupt_own_call()
