"""Where values are, and having them elsewhere: who_has, has_what, replicate, rebalance, scatter."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final, TypeVar, overload

from zmreg.api.refs import ObjectRef, refs_of
from zmreg.model.arguments import check_count, check_seconds
from zmreg.model.errors import ClusterError, GetTimeoutError
from zmreg.services.seat.client import Client
from zmreg.services.seat.entries import Entry, Stored
from zmreg.services.seat.seats import client

K = TypeVar("K")
T = TypeVar("T")

# Ids in one question: 33 bytes each, far below what one message may hold.
_ASKED_AT_ONCE: Final = 10_000

Holders = dict[bytes, dict[bytes, bool]]
"""Object id -> node -> whether its copy is one that stays."""


def who_has(refs: ObjectRef[Any] | Iterable[ObjectRef[Any]]) -> dict[ObjectRef[Any], list[str]]:
    """{ref: ids (hex) of the nodes that have its bytes}; an empty list for inline and pending objects.

    From this node's replica of the registry: what another node has done in the last milliseconds may be missing.
    """
    wanted = refs_of(refs, "zmreg.who_has")
    seat = client()
    for ref in wanted:
        seat.look_at(ref._entry)
    found = _holders(seat, [ref._entry for ref in wanted])
    return {ref: [node.hex() for node in found.get(ref._entry.object_id, ())] for ref in wanted}


def has_what(nodes: str | Iterable[str] | None = None, limit: int = 1_000) -> dict[str, dict[str, int]]:
    """{node id: {object id (hex, as `ref.hex()`): bytes}}, the largest first and `limit` of each node at most.

    `nodes`: ids as in `zmreg.nodes()`; by default all that live. Of other nodes it is what this one has heard, as with
    `who_has`; with `registry_scope="large"` or `"owner"` that is not all of it. Values that ride in messages are in no
    store. Raises ClusterError for a node that is not there, ValueError for a limit below 0.
    """
    limit = check_count(limit, "limit")
    seat = client()
    alive = [row["NodeID"] for row in seat.ask("nodes") or () if row["Alive"]]
    wanted = alive if nodes is None else [nodes] if isinstance(nodes, str) else list(nodes)
    for node in wanted:
        if node not in alive:
            raise ClusterError(f"no living node {node} is in the cluster; zmreg.nodes() lists them")
    rows: dict[str, list[list[Any]]] = {node: seat.ask("held", f"{node},{limit}") or [] for node in wanted}
    return {node: {object_id.hex(): nbytes for object_id, nbytes in rows[node]} for node in wanted}


def _holders(seat: Client, entries: Iterable[Entry]) -> Holders:
    """First who has it first. What the registry does not tell (`registry_scope`), the owner's notes do."""
    stored = {entry.object_id: entry.value for entry in entries if isinstance(entry.value, Stored)}
    found: Holders = {}
    ids = list(stored)
    for start in range(0, len(ids), _ASKED_AT_ONCE):
        asked = ids[start : start + _ASKED_AT_ONCE]
        told: dict[bytes, list[list[Any]]] = seat.ask("holders", ",".join(each.hex() for each in asked)) or {}
        for object_id in asked:
            value = stored[object_id]
            holders = found[object_id] = dict(map(tuple, told.get(object_id, ())))
            noted = [node for node in (value.holder, *value.copies) if node not in seat.tasks.gone_nodes]
            # A copy that was ordered has been confirmed, perhaps before the registry's word of it is here.
            holders.update(dict.fromkeys(noted[bool(holders) :], True))
    return found


def replicate(refs: ObjectRef[Any] | Sequence[ObjectRef[Any]], n: int = 2, timeout: float | None = None) -> None:
    """Have each object's bytes at `n` nodes, whichever have most room; returns when they are there.

    Such copies are never dropped to make room: while one of the nodes lives, the object is not lost. Values are waited
    for, `timeout` seconds at most (GetTimeoutError). Small values live with their owner and need no copies.
    Raises ValueError for n < 1, ClusterError when there are not so many nodes or one of them cannot take its copy.
    """
    n = check_count(n, "n", 1)
    check_seconds(timeout, past=True)
    wanted = refs_of(refs, "zmreg.replicate")
    seat = client()
    entries = list({ref._entry.object_id: ref._entry for ref in wanted}.values())
    if not seat.wait_for(entries, len(entries), False, timeout):
        raise GetTimeoutError(f"not all of {len(entries)} objects were there within {timeout} s to be copied", timeout)
    for entry in entries:
        if entry.failure is not None:
            raise seat.error_of(entry)
    stored = [entry for entry in entries if isinstance(entry.value, Stored)]
    if n > 1 and stored:
        _copy(seat, _chosen(seat, stored, n))


def _chosen(seat: Client, entries: Sequence[Entry], n: int) -> list[tuple[Entry, bytes]]:
    free = _free_bytes(seat)
    if len(free) < n:
        raise ClusterError(f"{n} copies need {n} nodes, and {len(free)} are alive: start others, or ask for less")
    holders = _holders(seat, entries)
    chosen: list[tuple[Entry, bytes]] = []
    for entry in entries:
        have = {node for node, stays in holders[entry.object_id].items() if stays and node in free}
        # A node that has a copy already only has to keep it.
        others = sorted(free.keys() - have, key=lambda node: (node not in holders[entry.object_id], -free[node]))
        for node in others[: n - len(have)]:
            free[node] -= entry.nbytes
            chosen.append((entry, node))
    return chosen


def _free_bytes(seat: Client) -> dict[bytes, int]:
    """Room in the stores of all living nodes."""
    rows = [row for row in seat.ask("nodes") if row["Alive"]]
    return {bytes.fromhex(row["NodeID"]): row["ObjectStoreBytes"] - row["ObjectStoreUsedBytes"] for row in rows}


def _copy(seat: Client, wanted: Iterable[tuple[Entry, bytes]]) -> None:
    _complain(seat.copying.copy(wanted))


def _complain(refused: Mapping[tuple[bytes, bytes], str]) -> None:
    if refused:
        texts = [f"object {key[0].hex()} to node {key[1].hex()}: {reason}" for key, reason in refused.items()]
        raise ClusterError(f"{len(refused)} copies could not be made: {'; '.join(texts[:3])}")


def rebalance(
    refs: ObjectRef[Any] | Iterable[ObjectRef[Any]] | None = None,
    nodes: str | Iterable[str] | None = None,
    timeout: float | None = None,
) -> int:
    """Move values from nodes whose stores are full to nodes whose are not; how many bytes have moved.

    `refs`: by default all that this program holds. `nodes`: ids as in `zmreg.nodes()`, by default all that live and do
    not leave. Only what makes two nodes clearly more alike moves, the rest stays where it is; a value has as many
    copies that stay as before, and is at its new node before it leaves the old one, so nobody sees anything of it. What
    is read in place leaves when it is read no more. Returns when it is done; 10,000 values at most move in one call.
    Values that are not there yet are waited for, `timeout` seconds at most (GetTimeoutError), and errors stay where
    they are. Left out are small values, which live with their owner, and, without `refs`, those of other owners and
    those that are not there yet.
    Raises ValueError for a ref of another owner: its owner moves it. ClusterError for a node that is not there, or that
    cannot take a value: those that it took have moved.
    """
    from zmreg.services.seat.rebalancing import held_here
    from zmreg.services.seat.rebalancing import rebalance as move  # late: few programs do this

    check_seconds(timeout, past=True)
    seat = client()
    if refs is None:
        entries = held_here(seat)
    else:
        wanted = refs_of(refs, "zmreg.rebalance")
        entries = list({ref._entry.object_id: ref._entry for ref in wanted}.values())
        for entry in entries:
            if entry.owner != seat.me:
                text = f"object {entry.object_id.hex()} belongs to process {entry.owner.hex()}, which can rebalance it"
                raise ValueError(text)
        if not seat.wait_for(entries, len(entries), False, timeout):
            raise GetTimeoutError(f"not all of {len(entries)} objects were there within {timeout} s to move", timeout)
    stores = _stores(seat, nodes)
    stored = [entry for entry in entries if isinstance(entry.value, Stored)]
    moved, refused = move(seat, stored, _holders(seat, stored), stores)
    _complain(refused)
    return moved


def _stores(seat: Client, nodes: str | Iterable[str] | None) -> dict[bytes, tuple[int, int]]:
    """Node -> (bytes in use, size of its store), of those asked for."""
    rows = {row["NodeID"]: row for row in seat.ask("nodes") or () if row["Alive"]}
    usable = [node for node, row in rows.items() if row["State"] == "ALIVE"]
    wanted = usable if nodes is None else [nodes] if isinstance(nodes, str) else list(nodes)
    for node in wanted:
        if node not in rows:
            raise ClusterError(f"no living node {node} is in the cluster; zmreg.nodes() lists them")
    return {
        bytes.fromhex(node): (rows[node]["ObjectStoreUsedBytes"], rows[node]["ObjectStoreBytes"]) for node in wanted
    }


@overload
def scatter(  # type: ignore[overload-overlap]
    values: Mapping[K, T], broadcast: bool = ...
) -> dict[K, ObjectRef[T]]: ...
@overload
def scatter(values: Iterable[T], broadcast: bool = ...) -> list[ObjectRef[T]]: ...
def scatter(values: Iterable[Any], broadcast: bool = False) -> Any:
    """`put` each value, and have copies at the nodes one after the other; with `broadcast` at every node.

    Refs in a list, or, of a dictionary's values, under its keys. Returns when the copies are there. This node keeps its
    own, so that nothing is lost with one of the others. Raises what `put` and `replicate` raise, TypeError for a text
    or bytes, whose letters nobody wants apart.
    """
    if isinstance(values, (str, bytes, bytearray)) or not isinstance(values, Iterable):
        raise TypeError(f"zmreg.scatter takes several values, in a list or a dictionary, not {values!r:.80}")
    if isinstance(values, Mapping):
        return dict(zip(values, _scattered(values.values(), broadcast), strict=True))
    return _scattered(values, broadcast)


def _scattered(values: Iterable[T], broadcast: bool) -> list[ObjectRef[T]]:
    seat = client()
    refs = [ObjectRef[T](seat.put(value)) for value in values]
    others = sorted(node for node in _free_bytes(seat) if node != seat.node)
    if broadcast:
        _copy(seat, [(ref._entry, node) for ref in refs for node in others])
    else:
        ring = [seat.node, *others]
        pairs = [(ref._entry, ring[place % len(ring)]) for place, ref in enumerate(refs)]
        _copy(seat, [(entry, node) for entry, node in pairs if node != seat.node])
    return refs
