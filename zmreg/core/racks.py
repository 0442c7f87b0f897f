"""A node's GPUs in lots: those that anybody may have, and one lot for each bundle of a placement group that has some.

Whoever is in a group is served from one bundle's lot, the one it names or any with room, and whoever is not from the
node's own. Between lots nothing moves but whole bundles, so what a group holds nobody else gets.

Invariants:
- a share of a device may be in several lots; all of them together never have more of it than there is.
- what was taken from a lot comes back to that one.
"""

from __future__ import annotations

from typing import Final

from zmreg.core.devices import Devices
from zmreg.model.specs import GPU, Shape

Lot = tuple[str, int]
"""(id of a group in hex, index of a bundle)"""
OWN: Final[Lot] = ("", -1)
"""What is in no bundle."""
NOTHING: Final[tuple[Lot, tuple[str, ...]]] = (OWN, ())

_OF_GROUPS: Final = f"{GPU}_group_"


def gpu_wish(shape: Shape) -> tuple[str, int, str, int]:
    """(name of the resource, units, group, index of the bundle): group "" is none, index -1 any bundle."""
    name, units, group, index = GPU, 0, "", -1
    for each, amount in shape.resources:
        if each == GPU:
            return GPU, amount, "", -1
        if each.startswith(_OF_GROUPS):
            number, _, group = each.removeprefix(_OF_GROUPS).rpartition("_")
            units = amount
            name, index = (name, int(number)) if number else (each, index)
    return name, units, group, index


class Racks:
    """All lots of one node. False in a boolean context where there is no GPU at all."""

    __slots__ = ("_lots", "own")

    def __init__(self, own: Devices, lots: dict[Lot, Devices] | None = None) -> None:
        self.own = own
        self._lots = lots or {}

    def __bool__(self) -> bool:
        return bool(self.own)

    def __repr__(self) -> str:
        return f"<Racks {self.own!r} and {len(self._lots)} bundles>"

    def copy(self) -> Racks:
        """To try takings on; where there is nothing to take, itself."""
        return (
            self
            if not self.own
            else Racks(self.own.copy(), {lot: devices.copy() for lot, devices in self._lots.items()})
        )

    def fits(self, shape: Shape) -> bool:
        """Whether what the shape asks for could be taken now."""
        _, units, group, index = gpu_wish(shape)
        return not units or self._lot(units, group, index) is not None

    def take(self, shape: Shape) -> tuple[Lot, tuple[str, ...]]:
        """Book what the shape asks for: from where, and the ids. ValueError when it does not fit."""
        name, units, group, index = gpu_wish(shape)
        if not units:
            return NOTHING
        lot = self._lot(units, group, index)
        if lot is None:
            raise ValueError(f"{units} units of {name} do not fit: {self!r}")
        return lot, self._devices(lot).take(units)

    def give_back(self, lot: Lot, ids: tuple[str, ...], units: int) -> None:
        """What `take` gave. ValueError when more comes back than was taken."""
        if ids:
            self._devices(lot).give_back(ids, units)

    def set_aside(self, group: str, bundles: dict[int, int]) -> bool:
        """Make a lot for each of these bundles, {index: units}, from the node's own; False, and nothing has changed,
        when that is not possible now."""
        trial, found = self.own.copy(), {}
        for index, units in sorted(bundles.items(), key=lambda each: -each[1]):
            if not trial.fits(units):
                return False
            found[group, index] = Devices.holding(trial.take(units), units)
        self.own = trial
        self._lots |= found
        return True

    def let_go(self, group: str, index: int) -> None:
        """The bundle is no more, and nobody holds anything of it. Harmless for one without GPUs."""
        devices = self._lots.pop((group, index), None)
        if devices is not None:
            self.own.give_back(devices.ids, devices.free)

    def _devices(self, lot: Lot) -> Devices:
        return self.own if lot == OWN else self._lots[lot]

    def _lot(self, units: int, group: str, index: int) -> Lot | None:
        if not group:
            return OWN if self.own.fits(units) else None
        open_to = [(group, index)] if index >= 0 else sorted(each for each in self._lots if each[0] == group)
        return next((lot for lot in open_to if lot in self._lots and self._lots[lot].fits(units)), None)
