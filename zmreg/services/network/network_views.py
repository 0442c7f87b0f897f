"""What a node answers when asked about its part in the network: plain containers, made from machines' statistics."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from zmreg.model.record import Record

if TYPE_CHECKING:
    from zmreg.services.node.node import Node


def network(node: Node) -> dict[str, Any] | None:
    """Links, letters, fetches and the replicated table, as this node sees them; None for a node without ports.

    `Own` and each of `Parts` are (incarnation, operation, rows, digest): they agree when the replica is complete.
    """
    neighbours = node.neighbours
    if neighbours is None:
        return None
    beacon = node.registry.publisher.beacon()
    fetcher = neighbours.fetcher
    fetches = asdict(fetcher.fetching.statistics())
    fetches["links"] = {peer.hex(): link for peer, link in fetches["links"].items()}
    return {
        "Members": _fields(neighbours.members.statistics()),
        "Letters": {peer.hex(): _fields(each.statistics()) for peer, each in neighbours.letters.couriers.items()},
        "Links": neighbours.link_counts(),
        "Around": {peer.hex(): relay.hex() for peer, relay in neighbours.detours.around().items()},
        "PassedOn": neighbours.detours.passed_on,
        "Fetches": fetches,
        "Own": [beacon.incarnation, beacon.last_seq, beacon.count, beacon.digest],
        "Parts": {peer.hex(): list(node.registry.replica.position_of(peer)) for peer in neighbours.others()},
        "Replica": _fields(node.registry.replica.statistics()),
        "Remembered": {"Frees": fetcher.frees_kept, "ReplayBytes": node.registry.publisher.statistics().ring_bytes},
        "Functions": _functions(node),
        "Topics": node.topics.statistics() if node.topics is not None else {},
        "Gate": {"Accepted": neighbours.gatekeeper.accepted, "Rejected": neighbours.gatekeeper.rejected},
        "ProtocolErrors": node.protocol_errors,
    }


def _functions(node: Node) -> dict[str, Any]:
    """The same of the table of named functions."""
    table = node.functions.table
    if table is None:
        return {}
    beacon = table.publisher.beacon()
    return {
        "Own": [beacon.incarnation, beacon.last_seq, beacon.count, beacon.digest],
        "Parts": {peer.hex(): list(table.replica.position_of(peer)) for peer in node.other_nodes()},
        "Replica": _fields(table.replica.statistics()),
        "Malformed": node.functions.rows.malformed,
    }


def _fields(record: Record) -> dict[str, Any]:
    return {name: getattr(record, name) for name in type(record).__match_args__}
