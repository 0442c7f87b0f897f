"""Placement groups: resources that are held together, on one node or on several, before anything runs there."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from zmreg.api.functions import RemoteFunction
from zmreg.api.refs import ObjectRef
from zmreg.api.strategies import PlacementGroupSchedulingStrategy
from zmreg.model.arguments import check_seconds
from zmreg.model.group_messages import CreateGroup, RemoveGroup
from zmreg.model.ids import object_id
from zmreg.model.record import Resources
from zmreg.model.specs import UNIT, Shape, to_amount, to_units
from zmreg.services.seat.client import Client
from zmreg.services.seat.seats import client
from zmreg.services.worker.environments import Membership

STRATEGIES = ("PACK", "SPREAD", "STRICT_PACK", "STRICT_SPREAD")


class PlacementGroup:
    """A group by reference: picklable, equal by id. It lives until it is removed, or its creator ends."""

    __slots__ = ("bundles", "group_id", "name")

    def __init__(self, group_id: bytes, bundles: tuple[Resources, ...], name: str = "") -> None:
        self.group_id = group_id
        self.bundles = bundles
        self.name = name

    @property
    def id(self) -> str:
        """Hex, as in `placement_group_table()`."""
        return self.group_id.hex()

    @property
    def bundle_specs(self) -> list[dict[str, float]]:
        """The amounts of each bundle, as they were given."""
        return [{name: to_amount(units) for name, units in bundle} for bundle in self.bundles]

    @property
    def bundle_count(self) -> int:
        """How many bundles it has."""
        return len(self.bundles)

    @property
    def is_empty(self) -> bool:
        """False: a group that has no bundles cannot be made."""
        return not self.bundles

    def ready(self) -> ObjectRef[PlacementGroup]:
        """A ref that is there as soon as all bundles are held: to this group. PlacementGroupRemovedError otherwise."""
        strategy = PlacementGroupSchedulingStrategy(self)
        ref: ObjectRef[PlacementGroup] = _is_ready.options(scheduling_strategy=strategy).remote(self)
        return ref

    def wait(self, timeout_seconds: float | None = 30) -> bool:
        """Whether all bundles are held within so many seconds. Raises PlacementGroupRemovedError."""
        check_seconds(timeout_seconds, "timeout_seconds", past=True)
        ready = self.ready()
        if not client().wait_for([ready._entry], 1, False, timeout_seconds):
            return False
        ready.get()
        return True

    def __eq__(self, other: object) -> bool:
        return isinstance(other, PlacementGroup) and other.group_id == self.group_id

    def __hash__(self) -> int:
        return hash(self.group_id)

    def __reduce__(self) -> tuple[Any, ...]:
        return PlacementGroup, (self.group_id, self.bundles, self.name)

    def __repr__(self) -> str:
        return f"<PlacementGroup {self.id[-8:]} of {len(self.bundles)} bundles>"


def _same(group: PlacementGroup) -> PlacementGroup:
    return group


_is_ready = RemoteFunction(_same, {"num_cpus": 0, "name": "placement_group.ready"})


def placement_group(
    bundles: Sequence[Mapping[str, float]], strategy: str = "PACK", name: str = "", lifetime: str | None = None
) -> PlacementGroup:
    """Have these bundles, like `[{"CPU": 2}, {"CPU": 1, "licence": 1}]`, held together: all of them, or none yet.

    `strategy`: "PACK" on few nodes, "SPREAD" on many, "STRICT_PACK" on one, "STRICT_SPREAD" each on another.
    `lifetime="detached"`: it outlives this process. Returns at once; see `ready()` and `wait()`.
    Raises ValueError for bundles that make no sense, and for a name that is taken.
    """
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy={strategy!r}: use one of {', '.join(STRATEGIES)}")
    if lifetime not in (None, "detached"):
        raise ValueError(f"lifetime={lifetime!r}: use None or 'detached'")
    if not isinstance(name, str):
        raise TypeError(f"name={name!r} must be a string")
    if not isinstance(bundles, Iterable):
        raise TypeError(f"bundles={bundles!r:.80}: a list of bundles is needed, each a dictionary of amounts")
    units = tuple(_bundle(each) for each in bundles)
    if not units:
        raise ValueError("a placement group has one bundle at least")
    seat = client()
    with seat.shield(), seat.lock:
        seat.check()
        group_id = object_id(seat.me, seat.tasks.take_numbers(1))
        full = f"{seat.namespace}\0{name}" if name else ""
        seat.tell_node(CreateGroup(group_id, full, units, strategy, lifetime == "detached"))
    if name and not any(row["placement_group_id"] == group_id.hex() for row in _rows(seat)):
        raise ValueError(f"the name {name!r} is taken by another placement group; zmreg.get_placement_group finds it")
    return PlacementGroup(group_id, units, name)


def _bundle(given: Mapping[str, float]) -> Resources:
    if not isinstance(given, Mapping):
        raise TypeError(f"bundles: each is a dictionary of amounts, not {given!r:.80}")
    units = {name: to_units(f"bundle[{name!r}]", amount) for name, amount in given.items()}
    if not any(units.values()):
        raise ValueError(f"bundle {dict(given)!r} is empty: nothing to hold")
    return Shape.of_units(units).resources


def _rows(seat: Client) -> list[dict[str, Any]]:
    return list(seat.ask("groups"))


def remove_placement_group(group: PlacementGroup) -> None:
    """Let go of what is held for it. Its tasks and actors are ended: their callers get PlacementGroupRemovedError,
    WorkerDiedError where a task must not be tried again, or ActorDiedError. Harmless when it is gone already."""
    if not isinstance(group, PlacementGroup):
        raise TypeError(f"remove_placement_group takes a placement group, not {group!r}")
    seat = client()
    with seat.shield(), seat.lock:
        seat.check()
        seat.tell_node(RemoveGroup(group.group_id))
    _rows(seat)  # answered in order: by then it is removed


def placement_group_table(group: PlacementGroup | None = None) -> dict[str, Any]:
    """What the cluster knows of a group, or of all by their ids: state (PENDING, CREATED, RESCHEDULING or REMOVED),
    strategy, name, bundles, and the nodes of those that are held."""
    if group is not None and not isinstance(group, PlacementGroup):
        raise TypeError(f"placement_group_table takes a placement group, not {group!r:.80}")
    found = {}
    for row in _rows(client()):
        row["name"] = row["name"].rpartition("\0")[2]
        row["bundles"] = dict(enumerate(row["bundles"]))
        row["bundles_to_node_id"] = {int(index): node for index, node in row["bundles_to_node_id"].items()}
        found[row["placement_group_id"]] = row
    if group is None:
        return found
    gone = {"placement_group_id": group.id, "name": group.name, "state": "REMOVED", "bundles_to_node_id": {}}
    return dict(found.get(group.id, gone))


def get_placement_group(name: str) -> PlacementGroup:
    """The group of that name in this namespace. ValueError when there is none."""
    seat = client()
    for row in _rows(seat):
        if name and row["name"] == f"{seat.namespace}\0{name}":
            units = tuple(
                tuple(sorted((each, round(amount * UNIT)) for each, amount in bundle.items()))
                for bundle in row["bundles"]
            )
            return PlacementGroup(bytes.fromhex(row["placement_group_id"]), units, name)
    raise ValueError(f"there is no placement group named {name!r} in namespace {seat.namespace!r}")


def get_current_placement_group() -> PlacementGroup | None:
    """The group that this task or actor runs in; None outside of any."""
    member: Membership | None = client().environment.group
    return None if member is None else PlacementGroup(member.group_id, member.bundles, member.name)
