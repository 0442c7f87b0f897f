"""What a node holds for placement groups: amounts set aside, under names of their own once the group stands.

A bundle of 2 CPU becomes 2 of `CPU_group_0_<id>` (bundle 0) and 2 of `CPU_group_<id>` (any bundle of the group), and a
bundle also is 1,000 `bundle` of the same kinds, for those who need no more than to be there. Whoever is in the group
asks for these, and all else about placing and leasing them is as for any other resource.

Invariant: what is free of the node's own amounts, what its seats take of them, and what is set aside here make up its
total.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

from zmreg.core.claims import Claims
from zmreg.core.effects import GroupUnknown, Infeasible, LeaseEffect, Recall, StopWorker
from zmreg.core.graves import Graves
from zmreg.core.lease_plan import Outlook
from zmreg.core.seats import Claim, add
from zmreg.model.record import Resources
from zmreg.model.specs import BUNDLE, GPU, GROUP, UNIT, grouped

_REMOVED: Final = "its placement group was removed"
# Of BUNDLE, in each bundle: more than there can be processes on a node.
_PLACES: Final = 100_000 * UNIT


class Holdings(Claims):
    """The lease book's part about bundles."""

    def __init__(self, total: Mapping[str, int], locs: frozenset[str]) -> None:
        super().__init__(total, locs)
        self._bundles: dict[bytes, dict[int, Resources]] = {}
        """By group: what is set aside."""
        self._standing: dict[bytes, set[int]] = {}
        """By group: the bundles that may be used."""
        self._removed = Graves()
        self._held_back: tuple[bytes, Resources, float] | None = None
        """(group, amounts, until when): what comes free of these is for that group's bundles."""

    def _settle(self, touched: Claim | None = None) -> list[LeaseEffect]:
        raise TypeError(f"{type(self).__name__} holds bundles and has nobody to grant leases")

    def total(self) -> Resources:
        """All that this node has now; what is set aside is there twice, under its own name and its groups'."""
        return tuple(sorted(self._total.items()))

    def groups(self) -> list[tuple[bytes, tuple[int, ...], tuple[int, ...]]]:
        """Those for which something is set aside here: (group, bundles that stand, bundles that do not yet)."""
        held = [(group_id, self._standing.get(group_id, set()), each) for group_id, each in self._bundles.items()]
        return [(group_id, tuple(sorted(stand)), tuple(sorted(each.keys() - stand))) for group_id, stand, each in held]

    def prepare(self, group_id: bytes, bundles: Iterable[tuple[int, Resources]]) -> bool:
        """Set these bundles aside, all of them; False, and nothing has changed, when that is not possible now."""
        wanted = dict(bundles)
        held = self._bundles.get(group_id, {})
        if wanted.keys() & held.keys():
            return False
        trial = dict(self._seats.available)
        if self._held_back is not None and self._held_back[0] != group_id:
            add(trial, self._held_back[1], -1)
        for amounts in wanted.values():
            add(trial, amounts, -1)
        if any(trial[name] < 0 for amounts in wanted.values() for name, _ in amounts):
            return False
        gpus = {index: units for index, amounts in wanted.items() for name, units in amounts if name == GPU}
        if gpus and not self._seats.racks.set_aside(group_id.hex(), gpus):
            return False
        for amounts in wanted.values():
            add(self._seats.available, amounts, -1)
        self._bundles[group_id] = {**held, **wanted}
        return True

    def hold_back(self, group_id: bytes, amounts: Resources, until: float) -> list[LeaseEffect]:
        """Until then (as `tick` counts) lend nothing that leaves less than these amounts free, and call back leases
        until there is so much; for bundles that this group is about to ask for. The last one said counts."""
        self._held_back = group_id, amounts, until
        coming = dict(self._seats.available)
        yielding = [seat for seat in self._seats.by_worker.values() if seat.yields]
        for seat in yielding:
            if seat.recalled:
                add(coming, seat.charge())
        called: list[LeaseEffect] = []
        for seat in yielding:
            lacking = {name for name, amount in amounts if coming.get(name, 0) < amount}
            if not seat.recalled and any(name in lacking for name, _ in seat.charge()):
                seat.recalled = True
                add(coming, seat.charge())
                called.append(Recall(seat.owner, seat.worker))
        return called

    def _hold_no_more(self, group_id: bytes) -> None:
        if self._held_back is not None and self._held_back[0] == group_id:
            self._held_back = None

    def _outlook(self) -> Outlook:
        """What is left for leases."""
        if self._held_back is None:
            return Outlook(self._seats)
        left = dict(self._seats.available)
        add(left, self._held_back[1], -1)
        return Outlook(self._seats, left)

    def _widen(self, now: float) -> None:
        if self._held_back is not None and now >= self._held_back[2]:
            self._held_back = None

    def commit(self, group_id: bytes) -> list[LeaseEffect]:
        """The group stands: what is set aside may be used by who is in it."""
        self._hold_no_more(group_id)
        standing = self._standing.setdefault(group_id, set())
        for index, amounts in self._bundles.get(group_id, {}).items():
            if index not in standing:
                standing.add(index)
                names = _names(group_id, index, amounts)
                add(self._total, names)
                add(self._seats.available, names)
        return self._reconsider()

    def drop(self, group_id: bytes, indexes: Iterable[int], removed: bool) -> list[LeaseEffect]:
        """Let go of bundles that were only prepared, or with `removed` of all: who is in the group is ended."""
        effects = self._refuse(group_id) if removed else []
        if removed:
            self._hold_no_more(group_id)
        held = self._bundles.get(group_id, {})
        standing = self._standing.get(group_id, set())
        for index in list(held) if removed else [each for each in indexes if each in held and each not in standing]:
            amounts = held.pop(index)
            self._seats.racks.let_go(group_id.hex(), index)
            add(self._seats.available, amounts)
            if index in standing:
                for name, amount in _names(group_id, index, amounts):
                    for book in (self._total, self._seats.available):
                        book[name] -= amount
                        if not book[name]:
                            del book[name]
        if not held:
            self._bundles.pop(group_id, None)
            self._standing.pop(group_id, None)
        return effects + self._reconsider()

    def _refuse(self, group_id: bytes) -> list[LeaseEffect]:
        """Nobody gets anything of this group from now on, and who has something is ended."""
        self._removed.bury(group_id)
        effects: list[LeaseEffect] = []
        for claim in [each for each in self._claims() if each.place.term(GROUP) == group_id.hex()]:
            effects.append(self._refusal(claim))
            if claim.actor_id is not None:
                self._actors.pop(claim.actor_id, None)
            ended = [each for each in self._close(claim) if isinstance(each, StopWorker)]
            effects += [each.but(reason=_REMOVED) for each in ended]
        for house in [
            each for each in self._seats.houses.values() if each.group == group_id.hex()
        ]:  # lodgers are above
            self._seats.stop(house)
            effects.append(StopWorker(house.worker, _REMOVED))
        return effects

    def _refusal(self, claim: Claim) -> Infeasible:
        reason = f"its placement group {claim.place.term(GROUP)} was removed"
        return Infeasible(claim.owner, claim.actor_id, claim.place, reason)

    def _of_removed(self, claim: Claim) -> bool:
        return bool(claim.place.terms) and bytes.fromhex(claim.place.term(GROUP)) in self._removed

    def _ask_about(self, claim: Claim) -> list[LeaseEffect]:
        """It waits for its group, which may take long, or may never come: the head knows."""
        claim.infeasible_since = None
        return [GroupUnknown(bytes.fromhex(claim.place.term(GROUP)))]

    def _reconsider(self) -> list[LeaseEffect]:
        """The total is another: who could not be served may be now, and the other way round."""
        for claim in self._claims():
            claim.feasible = self.fits_node(claim.place)
            if claim.feasible:
                claim.infeasible_since = None
            self._queue.update(claim)
        return self._settle()


def _names(group_id: bytes, index: int, amounts: Resources) -> Resources:
    """What a bundle is called once the group stands: by its index, and as one of all."""
    return grouped((*amounts, (BUNDLE, _PLACES)), group_id, index)
