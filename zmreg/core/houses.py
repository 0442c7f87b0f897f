"""Processes with a name (`process=`): one for each name, environment and node, that its tasks and actors share.

Its first worker is the *house*: it is lent like any other, to one owner at a time, for the tasks of that name. Actors
are its *lodgers*: workers of their own in the same process, each with a seat, an id and a claim, so that whoever
places, calls or kills one sees no difference. A house is there for what its process keeps between calls, so it outlasts
leases, owners and idle times. It ends with its program, with its placement group, and where the cap on workers leaves
no room, if nobody lodges in it.

Invariants: at most one house that is not stopping for each name; a lodger's house is never stopped before it, but the
process may die, and all in it; a lodger takes none of the node's processes.
"""

from __future__ import annotations

from typing import Final

from zmreg.core.seats import Claim, Seat, Seats
from zmreg.model.ids import worker_id
from zmreg.model.specs import GROUP

# The numbers of forked workers begin at 1, those of drivers in the upper half.
_FIRST: Final = 1 << 30


def is_ready(seats: Seats, claim: Claim) -> bool:
    """Whether the claim can be given a seat now."""
    house = seats.houses.get(claim.env)
    if house is None:
        return bool(seats.fresh)
    return claim.owner is None or house.claim is None


def occupy(seats: Seats, claim: Claim, prefix: bytes) -> Seat:
    """Seat the claim: in its house, or as a lodger there, who has yet to come. Only when it is ready.

    A fresh worker becomes the house where there is none. `prefix`: how ids of this node begin.
    """
    house = seats.houses.get(claim.env)
    if house is None:
        worker, house = seats.fresh.popitem()
        house.is_house = house.used = True
        house.env, house.group = claim.env, claim.place.term(GROUP)
        seats.houses[claim.env] = house
        seats.rest(house)
    if claim.owner is not None:
        del seats.used[house.worker]
        return seats.seat(house, claim)
    seats.lodgers_born += 1
    worker = worker_id(prefix.ljust(4, b"\0"), _FIRST + seats.lodgers_born)
    lodger = seats.by_worker[worker] = Seat(worker, house=house, coming=True)
    house.lodgers += 1
    seats.lodgers += 1
    return seats.seat(lodger, claim)


def is_deserted(house: Seat | None) -> bool:
    """Whether nobody will ever use it again, and its process can end."""
    return (
        house is not None
        and house.deserted
        and not house.lodgers
        and house.claim is None
        and not house.stopping
    )  # fmt: skip
