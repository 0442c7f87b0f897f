"""Values of this process move to emptier nodes (core/rebalancing.py says which and where)."""

from __future__ import annotations

import gc
from collections.abc import Iterable, Mapping
from typing import Final

from zmreg.core.rebalancing import Move, Piece, plan
from zmreg.services.seat.client import Client
from zmreg.services.seat.entries import STORED, Entry, EntryRef

# Values under way at a time: each of them is twice there until it has arrived.
_WINDOW: Final = 64


def held_here(seat: Client) -> list[Entry]:
    """The stored values of our own to which somebody here has a ref. Nobody keeps a list of them: that would cost each
    call something, so they are looked for among all objects of the interpreter."""
    refs = [each for each in gc.get_objects() if issubclass(type(each), EntryRef)]
    entries = [entry for each in refs if (entry := getattr(each, "_entry", None)) is not None]
    mine = (entry for entry in entries if entry.owner == seat.me and entry.state == STORED)
    return list({entry.counter: entry for entry in mine}.values())


def rebalance(
    seat: Client,
    entries: Iterable[Entry],
    holders: Mapping[bytes, Mapping[bytes, bool]],
    stores: Mapping[bytes, tuple[int, int]],
) -> tuple[int, dict[tuple[bytes, bytes], str]]:
    """Move what is to move: (bytes moved, why not where not). `holders`: object -> node -> whether its copy stays."""
    known = {entry.object_id: entry for entry in entries}
    pieces = [
        Piece(key, entry.nbytes, tuple(node for node, stays in holders[key].items() if stays))
        for key, entry in known.items()
    ]
    moves = plan(pieces, stores)
    moved, refused = 0, dict[tuple[bytes, bytes], str]()
    for start in range(0, len(moves), _WINDOW):
        part: list[Move] = moves[start : start + _WINDOW]
        no = seat.copying.copy((known[each.key], each.target) for each in part)
        done = [each for each in part if (each.key, each.target) not in no]
        seat.copying.leave((known[each.key], each.source, each.target) for each in done)
        moved += sum(each.nbytes for each in done)
        refused |= no
    return moved, refused
