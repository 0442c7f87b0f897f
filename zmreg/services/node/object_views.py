"""Where objects are, and what has moved: what a node answers about them when asked."""

from __future__ import annotations

from heapq import nlargest
from typing import TYPE_CHECKING

from zmreg.core.index import read_location

if TYPE_CHECKING:
    from zmreg.services.node.node import Node


def links(node: Node) -> dict[str, dict[str, int]]:
    """What came from and went to each other node since our start."""
    if node.neighbours is None or node.fetcher is None:
        return {}
    came = node.fetcher.fetching.statistics().links
    went = node.fetcher.serving.statistics().links
    letters = node.neighbours.letters
    found = {}
    for other in sorted({*came, *went, *letters.couriers, *letters.sent_bytes}):
        link = dict.fromkeys(("objects_received", "bytes_received", "objects_sent", "bytes_sent"), 0)
        if other in came:
            link |= {"objects_received": came[other].objects, "bytes_received": came[other].nbytes}
        if other in went:
            link |= {"objects_sent": went[other].objects, "bytes_sent": went[other].nbytes}
        courier = letters.couriers.get(other)
        link["letter_bytes_received"] = courier.received_bytes if courier is not None else 0
        link["letter_bytes_sent"] = letters.sent_bytes.get(other, 0)
        found[other.hex()] = link
    return found


def cache(node: Node) -> dict[str, int]:
    """Reads of other nodes' objects; and copies of these that were dropped, and that are in memory now."""
    fetcher, store = node.fetcher, node.store.table.statistics()
    counts = (fetcher.hits, fetcher.misses, fetcher.shared) if fetcher is not None else (0, 0, 0)
    return {
        **dict(zip(("hits", "misses", "shared"), counts, strict=True)),
        "evicted": store.evicted_total, "bytes": store.cached_bytes,
    }  # fmt: skip


def holders(node: Node, key: str) -> dict[bytes, list[tuple[bytes, bool]]] | None:
    """Object id -> (node, whether its copy stays), of the comma-separated ids in `key`."""
    try:
        ids = [bytes.fromhex(each) for each in key.split(",")]
    except ValueError:
        return None
    found = {}
    for object_id in ids:
        rows = node.registry.holders(object_id) if node.neighbours is not None else []
        found[object_id] = [(holder, primary) for holder, _, primary in rows if holder != node.me]
        if node.store.table.contains(object_id):
            found[object_id].insert(0, (node.me, not node.store.table.describe(object_id)[1]))
    return found


def held(node: Node, key: str) -> list[tuple[bytes, int]]:
    """What one node has: (object id, bytes), the largest first. `key`: its id (hex), and how many rows at most."""
    whose, _, most = key.partition(",")
    asked, table = bytes.fromhex(whose), node.store.table
    if asked == node.me:
        return [(object_id, nbytes) for object_id, nbytes, *_ in table.top(int(most)) if table.contains(object_id)]
    rows = ((object_id, read_location(value)[0]) for object_id, value in node.registry.index.items(asked))
    return nlargest(int(most), rows, key=lambda row: row[1])
