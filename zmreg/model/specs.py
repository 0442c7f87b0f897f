"""What a task or an actor asks for: counted resources, required locs, and an actor's standing orders.

Amounts are integers in units of 1/10000, so that a thousand reservations of 0.1 add up to exactly 100.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from numbers import Real
from typing import Final

from zmreg.model.record import Record, Resources, Terms

UNIT: Final = 10_000
ACCELERATOR: Final = "accelerator_type:"
"""With a kind of accelerators behind it the name of a resource: nodes that have such ones have 1 of it, and who wants
the kind takes `ACCELERATOR_SHARE`, which is as good as nothing."""
ACCELERATOR_SHARE: Final = 0.001
CPU: Final = "CPU"
GPU: Final = "GPU"
MEMORY: Final = "memory"

# Strategies, beside the default "". Those that end in a colon have a node's id behind it, in hex.
SPREAD: Final = "SPREAD"
ON: Final = "ON:"
"""There and nowhere else."""
TRY: Final = "TRY:"
"""There, also if that means to wait; elsewhere only when that node is gone or can never serve it."""
NEAR: Final = "NEAR:"
"""There if it goes soon: the inputs are there."""

# Terms beside resources, locs and strategy.
ENV: Final = "env"
"""The key of the environment (services/worker/environments.py) that a worker has to be in."""
PROCESS: Final = "process"
"""What its process is called: one for all of that name, in that environment, on a node (core/houses.py)."""
PRIORITY: Final = "priority"
"""An int as text; without it 0."""
LABEL: Final = "label:"
"""With a label's name behind it: what its value has to be (core/labels.py)."""
WISH: Final = "wish:"
"""The same, where it can be had."""
GROUP: Final = "group"
"""The id, in hex, of the placement group that it runs in."""
BUNDLE: Final = "bundle"
"""The resource that says no more than where a bundle is (core/holdings.py)."""

# These have arguments of their own; inside `resources` they would be a second, silently different, amount.
_RESERVED: Final = {CPU: "num_cpus", GPU: "num_gpus", MEMORY: "memory"}
# Slack for binary floats: 0.1 + 0.2 is meant as 0.3. A thousandth of a unit is far finer than any amount.
_SLACK: Final = 1e-3


def node_named_in(strategy: str) -> bytes:
    """The id of the node that a strategy names; empty when it names none."""
    _, colon, node = strategy.partition(":")
    return bytes.fromhex(node) if colon else b""


def grouped(amounts: Resources, group_id: bytes, index: int) -> Resources:
    """The amounts as resources of a placement group: of its bundle `index`, and of any of its bundles; of these alone
    for index -1."""
    any_of_it = [(f"{name}_group_{group_id.hex()}", amount) for name, amount in amounts]
    of_one = [(f"{name}_group_{index}_{group_id.hex()}", amount) for name, amount in amounts if index >= 0]
    return tuple(sorted(any_of_it + of_one))


def to_units(name: str, amount: object) -> int:
    """`amount` of the resource `name` in 1/10000 units.

    Raises TypeError for something that is no number, ValueError for a negative, infinite or too fine one. A bool is 0
    or 1: `num_gpus=torch.cuda.is_available()`, as programs for Ray have it.
    """
    if isinstance(amount, int):
        scaled = amount * UNIT
    elif not isinstance(amount, Real):
        raise TypeError(f"{name} must be a number, not {type(amount).__name__} ({amount!r})")
    else:
        exact = float(amount) * UNIT
        if not math.isfinite(exact):
            raise ValueError(f"{name}={amount!r} is not a finite amount")
        scaled = round(exact)
        if abs(scaled - exact) > _SLACK:
            raise ValueError(f"{name}={amount!r} is finer than 0.0001, the smallest share of a resource")
    if scaled < 0:
        raise ValueError(f"{name}={amount!r} is negative; a resource amount is 0 or more")
    return scaled


def to_amount(units: int) -> float:
    """The amount a user typed, from 1/10000 units."""
    return units / UNIT


class Shape(Record):
    """A resource request: `resources` sorted by name, in 1/10000 units, no zeros; `locs` sorted names, all required."""

    resources: tuple[tuple[str, int], ...] = ()
    locs: tuple[str, ...] = ()
    strategy: str = ""
    """Where, as far as it is asked for: "" is near the inputs, then here, then elsewhere; SPREAD; or ON, TRY or NEAR
    with a node's id (hex) behind it."""
    terms: Terms = ()
    """What few ask for, sorted by name: see ENV, PROCESS, PRIORITY, LABEL, WISH."""

    def __eq__(self, other: object) -> bool:  # as a key of every pool and claim, it has these two spelled out
        return type(other) is Shape and (
            self.resources == other.resources
            and self.locs == other.locs
            and self.strategy == other.strategy
            and self.terms == other.terms
        )

    def __hash__(self) -> int:
        return hash((self.resources, self.locs, self.strategy, self.terms))

    @classmethod
    def of(
        cls,
        num_cpus: float | None = None,
        num_gpus: float | None = None,
        resources: Mapping[str, float] | None = None,
        locs: Iterable[str] = (),
        memory: float | None = None,
        strategy: str = "",
        terms: Terms = (),
    ) -> Shape:
        """The shape of what a user typed. `num_cpus=None` is a task's default of 1; `memory` is in bytes.

        Raises ValueError for negative or too fine amounts and for CPU, GPU or memory inside `resources`.
        """
        units = {CPU: to_units("num_cpus", 1 if num_cpus is None else num_cpus)}
        units[GPU] = to_units("num_gpus", 0 if num_gpus is None else num_gpus)
        units[MEMORY] = to_units("memory", 0 if memory is None else memory)
        for name, amount in (resources or {}).items():
            if name in _RESERVED:
                raise ValueError(f"resources={{{name!r}: ...}} is ambiguous: use the argument {_RESERVED[name]}=")
            units[name] = to_units(f"resources[{name!r}]", amount)
        return cls.of_units(units, locs, strategy, terms)

    @classmethod
    def of_units(
        cls, units: Mapping[str, int], locs: Iterable[str] = (), strategy: str = "", terms: Terms = ()
    ) -> Shape:
        """The canonical shape of amounts that are in 1/10000 units already."""
        if isinstance(locs, str):
            raise TypeError(f"locs must be a set of names, not the one string {locs!r}; write {{{locs!r}}}")
        kept = tuple(sorted((name, amount) for name, amount in units.items() if amount))
        return cls(kept, tuple(sorted(set(locs))), strategy, terms)

    def with_strategy(self, strategy: str) -> Shape:
        """The same, elsewhere."""
        return Shape(self.resources, self.locs, strategy, self.terms)

    def with_terms(self, terms: Mapping[str, str]) -> Shape:
        """The same on other terms as well."""
        return Shape(self.resources, self.locs, self.strategy, tuple(sorted({**dict(self.terms), **terms}.items())))

    def term(self, name: str) -> str:
        """What it says about one of the terms; empty when it does not."""
        return dict(self.terms).get(name, "") if self.terms else ""

    def fits(self, available: Mapping[str, int]) -> bool:
        """Whether every amount is there at once. Locs are the caller's to check: they are never used up."""
        return all(available.get(name, 0) >= amount for name, amount in self.resources)

    def amount(self, name: str) -> int:
        """Units of `name` asked for; 0 when the shape does not mention it."""
        return next((amount for each, amount in self.resources if each == name), 0)

    def to_floats(self) -> dict[str, float]:
        """{name: amount as typed}, for people and for state listings."""
        return {name: to_amount(amount) for name, amount in self.resources}

    def __str__(self) -> str:
        parts = [_words(name, to_amount(amount)) for name, amount in self.resources]
        if self.locs:
            parts.append(f"locs {', '.join(self.locs)}")
        if self.strategy:
            parts.append(f"strategy {self.strategy}")
        # The environment is the whole program's: nobody has asked for it with this call.
        parts += [f"{name.removeprefix(LABEL)} {value}" for name, value in self.terms if name != ENV]
        return ", ".join(parts) or "nothing"

    def __repr__(self) -> str:
        return f"<Shape {self}>"


def _words(name: str, amount: float) -> str:
    if name == MEMORY and amount >= 1 << 20:
        return f"{amount / (1 << 30):.3g} GiB memory"
    return f"{amount:g} {name}"


def actor_shapes(
    num_cpus: float | None = None,
    num_gpus: float | None = None,
    resources: Mapping[str, float] | None = None,
    locs: Iterable[str] = (),
    memory: float | None = None,
    strategy: str = "",
    terms: Terms = (),
) -> tuple[Shape, Shape]:
    """(place, hold) of an actor: with nothing given, 1 CPU to be placed and 0 while alive; else all of it for life."""
    names = tuple(locs) if not isinstance(locs, str) else locs
    place = Shape.of(num_cpus, num_gpus, resources, names, memory, strategy, terms)
    given = num_cpus is not None or num_gpus is not None or bool(resources) or memory is not None
    return place, place if given else Shape((), place.locs)


class ActorEntry(Record):
    """What the owner of names and restarts keeps of an actor. An empty `name` is an anonymous actor."""

    actor_id: bytes
    owner: bytes
    name: str = ""
    namespace: str = ""
    class_name: str = ""
    place: Shape = Shape()
    hold: Shape = Shape()
    max_restarts: int = 0
    """Restarts granted for life; -1 is without end."""
    detached: bool = False
    """Outlives its owner; ends only by kill or by its own exit."""
