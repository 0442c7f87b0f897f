"""Which of a node's GPUs go to whom: whole ones to one holder each, shares of one side by side on as few as possible.

Invariants:
- 0 <= free <= capacity, for each device; what was taken and not given back is exactly what is missing.
- the ids of one taking are distinct.
- a share never lies across two devices: code sees whole devices, and uses one of them sparingly.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from zmreg.model.specs import UNIT


class Devices:
    """The devices of one node, by id, and what is free of each in 1/10000 units."""

    __slots__ = ("_capacity", "_free")

    def __init__(self, capacity: Mapping[str, int], free: Mapping[str, int] | None = None) -> None:
        self._capacity = capacity
        self._free = dict(capacity if free is None else free)

    @classmethod
    def of(cls, units: int, ids: Iterable[str] = ()) -> Devices:
        """As many as `units` of GPU take, by these ids or by 0, 1, 2, ...; ValueError when there are too few ids."""
        count = -(-units // UNIT)
        names = list(ids) or [str(number) for number in range(count)]
        if len(names) < count:
            raise ValueError(f"{count} GPUs, but only {len(names)} ids for them: {', '.join(names)}")
        return cls({name: min(UNIT, units - place * UNIT) for place, name in enumerate(names[:count])})

    @classmethod
    def as_told(cls, free: Iterable[int]) -> Devices:
        """Another node's, by what it has said is `free` of each: to try takings on, no more."""
        return cls({str(number): units for number, units in enumerate(free)})

    @classmethod
    def holding(cls, ids: tuple[str, ...], units: int) -> Devices:
        """What `take(units)` gave, to be given on in parts."""
        return cls(dict(_parts(ids, units)))

    def __bool__(self) -> bool:
        return bool(self._capacity)

    def __repr__(self) -> str:
        return f"<Devices {', '.join(f'{name}: {free / UNIT:g} free' for name, free in self._free.items())}>"

    def copy(self) -> Devices:
        """To try takings on."""
        return Devices(self._capacity, self._free)

    @property
    def ids(self) -> tuple[str, ...]:
        """In the order in which they were taken, or named."""
        return tuple(self._capacity)

    @property
    def free(self) -> int:
        """Units that are free on all of them together; not all of it need be of use to one taker."""
        return sum(self._free.values())

    @property
    def shares(self) -> tuple[int, ...]:
        """What is free of each, in their order."""
        return tuple(self._free.values())

    def fits(self, units: int) -> bool:
        """Whether `units` could be taken now."""
        return self._choose(units) is not None

    def take(self, units: int) -> tuple[str, ...]:
        """Book `units`: so many whole devices, and for what is left a share of one more, whose id comes last.

        ValueError when it does not fit.
        """
        chosen = self._choose(units)
        if chosen is None:
            raise ValueError(f"{units / UNIT:g} GPUs do not fit: {self!r}")
        for name, amount in _parts(chosen, units):
            self._free[name] -= amount
        return chosen

    def give_back(self, ids: tuple[str, ...], units: int) -> None:
        """What `take(units)` gave. ValueError when more comes back than was taken."""
        for name, amount in _parts(ids, units):
            if self._free[name] + amount > self._capacity[name]:
                raise ValueError(f"more of GPU {name} is given back than was taken: {self!r}")
            self._free[name] += amount

    def _choose(self, units: int) -> tuple[str, ...] | None:
        whole, share = divmod(units, UNIT)
        unused = [name for name, free in self._free.items() if free == UNIT]
        if len(unused) < whole:
            return None
        chosen = unused[:whole]
        if share:
            # The fullest that has room: whole ones stay whole for those who need them.
            fitting = [name for name, free in self._free.items() if free >= share and name not in chosen]
            if not fitting:
                return None
            chosen.append(min(fitting, key=lambda name: self._free[name]))
        return tuple(chosen)


def _parts(ids: tuple[str, ...], units: int) -> list[tuple[str, int]]:
    """How much of each device a taking is."""
    return [(name, min(UNIT, units - place * UNIT)) for place, name in enumerate(ids)]
