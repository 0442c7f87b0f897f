"""What there is of one kind, as rows."""

from __future__ import annotations

from typing import Any

from zmreg.model.arguments import check_count
from zmreg.services.seat.seats import client


def listing(kind: str, limit: int = 10_000) -> list[dict[str, Any]]:
    """What `zmreg list KIND --json` shows: "actors", "nodes", "objects" (the largest), "tasks" (those that run) or
    "workers"; a dictionary each, `limit` at most.

    It is what each node knows at this moment, and old news when you read it. Of an actor the LATEST call is shown,
    which it is in or has finished; calls that are over are in `zmreg.timeline()` and `zmreg.summary()`. Raises
    ValueError for another kind, ClusterError when the node does not answer.
    """
    # Late: a visit to a node is for those who ask.
    from zmreg.services.setup.listing import KINDS, listed
    from zmreg.services.setup.observer import Observer
    from zmreg.services.setup.sessions import read_word

    if kind not in KINDS:
        raise ValueError(f"listing({kind!r}): there are {', '.join(KINDS)}")
    limit = check_count(limit, "limit")
    with Observer(read_word(client().session)) as observer:
        return listed(observer, kind, limit)[:limit]
