"""Placement groups, at the head: which bundle on which node, and how a group comes to all of its bundles or to none.

One group at a time asks the nodes of its plan to hold its bundles. When all have said yes, all are told that it stands;
when one says no, or dies, all are told to let go, and the group waits for another try. So two groups never each hold
half of what both need. A node that dies takes its bundles along: the group asks for those anew, somewhere else.

Another head knows the groups that were written down, and the nodes say which bundles they hold (`claim`). When all have
(`all_home`), a group has what stands. What was only set aside stands with it if the former head may have said so to
others by then: when anything of the group stands, or nothing is missing. Otherwise it is let go. A bundle that
two nodes have set aside (the former head's order to let go of it was lost) is let go of by the second.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from enum import StrEnum
from typing import Final

from zmreg.core.devices import Devices
from zmreg.core.graves import Graves
from zmreg.model.ids import NODE_BYTES
from zmreg.model.mesh_messages import NodeRecord
from zmreg.model.record import Record, Resources
from zmreg.model.specs import GPU

# A group that has waited so long is given what comes free on the nodes of a plan for HOLD_FOR_S. Then others are served
# for a while, each time longer: an actor may hold for ever what the plan counts on.
HOLD_AFTER_S: Final = 5.0
HOLD_FOR_S: Final = 10.0
_LONGEST_PAUSE_S: Final = 300.0

PACK: Final = "PACK"
SPREAD: Final = "SPREAD"
STRICT_PACK: Final = "STRICT_PACK"
STRICT_SPREAD: Final = "STRICT_SPREAD"
STRATEGIES: Final = (PACK, SPREAD, STRICT_PACK, STRICT_SPREAD)


class GroupState(StrEnum):
    PENDING = "PENDING"
    """It has nothing; tried again as nodes come and resources get free."""
    CREATED = "CREATED"
    RESCHEDULING = "RESCHEDULING"
    """Some of its bundles were on a node that is gone."""


class Prepare(Record):
    """Ask `node` to hold these bundles, (index, amounts); answered by `prepared` with the same `turn`."""

    node: bytes
    group_id: bytes
    turn: int
    bundles: tuple[tuple[int, Resources], ...]


class Commit(Record):
    """Tell `node` that the group stands: its bundles may be used."""

    node: bytes
    group_id: bytes


class Drop(Record):
    """Tell `node` to let go of these bundles; with `removed` of the whole group, which will not come back."""

    node: bytes
    group_id: bytes
    indexes: tuple[int, ...]
    removed: bool


class HoldBack(Record):
    """Have `node` keep for the group what comes free of these amounts, for `seconds`."""

    node: bytes
    group_id: bytes
    amounts: Resources
    seconds: float


GroupEffect = Prepare | Commit | Drop | HoldBack

Wanted = Mapping[int, Resources]
"""Bundles by their index."""


def plan(
    wanted: Wanted, strategy: str, nodes: Sequence[NodeRecord], held: Mapping[int, bytes] | None = None
) -> dict[int, bytes] | None:
    """A node for each bundle, by what is free on `nodes`; None when there is no way. `held`: bundles that have theirs.

    PACK takes few nodes, SPREAD many; the strict ones exactly one, or one for each bundle.
    """
    held = held or {}
    awake = [node for node in nodes if not node.draining]
    free = {node.node: _Room(node) for node in awake}
    order = sorted(wanted, key=lambda index: (-sum(amount for _, amount in wanted[index]), index))
    match strategy:
        case "STRICT_SPREAD":
            return _matched(order, wanted, {node: has for node, has in free.items() if node not in held.values()})
        case "STRICT_PACK":
            return _on_one(order, wanted, [each for each in awake if not held or each.node in held.values()])
        case "PACK":
            beside = [node for node in free if node in held.values()]
            whole = None if held else _on_one(order, wanted, awake)
            return whole or _greedy(order, wanted, free, beside, spread=False)
        case _:
            return _greedy(order, wanted, free, list(held.values()), spread=True)


class _Room:
    """What is free on a node, less what a plan takes of it."""

    __slots__ = ("_amounts", "_devices")

    def __init__(self, node: NodeRecord) -> None:
        self._amounts = dict(node.available)
        self._devices = Devices.as_told(node.devices)

    def fits(self, amounts: Resources) -> bool:
        if not all(self._amounts.get(name, 0) >= amount for name, amount in amounts):
            return False
        units = dict(amounts).get(GPU, 0)
        return not (units and self._devices) or self._devices.fits(units)

    def take(self, amounts: Resources) -> None:
        for name, amount in amounts:
            self._amounts[name] -= amount
            if name == GPU and self._devices:
                self._devices.take(amount)

    def takes(self, bundles: Iterable[Resources]) -> bool:
        """Take all of them, if they fit one beside the other. For once: what it has taken by then stays taken."""
        for amounts in bundles:
            if not self.fits(amounts):
                return False
            self.take(amounts)
        return True


def _on_one(order: Sequence[int], wanted: Wanted, nodes: Sequence[NodeRecord]) -> dict[int, bytes] | None:
    node = next((each.node for each in nodes if _Room(each).takes(wanted[index] for index in order)), None)
    return None if node is None else dict.fromkeys(order, node)


def _greedy(
    order: Sequence[int], wanted: Wanted, free: dict[bytes, _Room], used: list[bytes], spread: bool
) -> dict[int, bytes] | None:
    """Largest first; each on the node that has the most (`spread`: fewest) of the group's bundles so far."""
    counts = {node: used.count(node) for node in free}
    placed: dict[int, bytes] = {}
    for index in order:
        able = [node for node, has in free.items() if has.fits(wanted[index])]
        if not able:
            return None
        node = min(able, key=lambda node: counts[node] if spread else -counts[node])
        placed[index] = node
        counts[node] += 1
        free[node].take(wanted[index])
    return placed


def _matched(order: Sequence[int], wanted: Wanted, free: Mapping[bytes, _Room]) -> dict[int, bytes] | None:
    """Each bundle on a node of its own: a matching, found by letting earlier ones move aside."""
    taken: dict[bytes, int] = {}

    def find(index: int, tried: set[bytes]) -> bool:
        for node, has in free.items():
            if node not in tried and has.fits(wanted[index]):
                tried.add(node)
                if node not in taken or find(taken[node], tried):
                    taken[node] = index
                    return True
        return False

    if not all(find(index, set()) for index in order):
        return None
    return {index: node for node, index in taken.items()}


def _at_rest(node: NodeRecord) -> NodeRecord:
    """The record as it would be if all ended that runs there outside of placement groups."""
    free = dict(node.total)
    for name, amount in node.total:
        kind, _, group = name.partition("_group_")
        if group and "_" not in group and kind in free:
            free[kind] -= amount
    return node.but(available=tuple(sorted(free.items())), devices=())


def _sum(bundles: Iterable[Resources]) -> Resources:
    total: dict[str, int] = {}
    for amounts in bundles:
        for name, amount in amounts:
            total[name] = total.get(name, 0) + amount
    return tuple(sorted(total.items()))


class Group:
    """One placement group. `places`: the nodes of the bundles that are held; `asked`: of those that are asked for."""

    __slots__ = (
        "asked", "bundles", "detached", "doubles", "group_id", "hold_at", "kept", "name", "owner", "pause", "places",
        "strategy", "unanswered",
    )  # fmt: skip

    def __init__(
        self, group_id: bytes, owner: bytes, name: str, bundles: tuple[Resources, ...], strategy: str, detached: bool
    ) -> None:
        self.group_id, self.owner, self.name = group_id, owner, name
        self.bundles, self.strategy, self.detached = bundles, strategy, detached
        self.places: dict[int, bytes] = {}
        self.asked: dict[int, bytes] = {}
        self.unanswered: set[bytes] = set()
        self.doubles: list[tuple[int, bytes]] = []
        """Bundles that a node has set aside, and for which another is meant: (index, node)."""
        self.kept = True
        """Nobody is asked for a group that has yet to be written down."""
        self.hold_at: float | None = None
        """When it is next given what comes free; None: it does not wait."""
        self.pause = HOLD_AFTER_S

    @property
    def state(self) -> GroupState:
        if len(self.places) == len(self.bundles):
            return GroupState.CREATED
        return GroupState.RESCHEDULING if self.places else GroupState.PENDING

    @property
    def missing(self) -> dict[int, Resources]:
        return {index: each for index, each in enumerate(self.bundles) if index not in self.places}

    def __repr__(self) -> str:
        return f"<Group {self.group_id.hex()[-8:]} {self.state} {len(self.places)}/{len(self.bundles)}>"


class GroupBook:
    """The groups of a cluster."""

    def __init__(self) -> None:
        self.groups: dict[bytes, Group] = {}
        self._busy: Group | None = None
        """The one that asks nodes now."""
        self._held_until = 0.0
        """Until when nodes hold something back for one that waits."""
        self.removed = Graves()
        self._turn = 0
        self._strays: dict[tuple[bytes, bytes], tuple[tuple[int, ...], tuple[int, ...]]] = {}
        """By node and group: claims for groups that are not known. Their orders may still be said again."""

    def create(self, group: Group) -> bool:
        """Accept it; `look` finds it a place. False when its name is taken; said twice is said once."""
        if group.group_id in self.groups:
            return True
        if group.name and self.named(group.name) is not None:
            return False
        self.groups[group.group_id] = group
        for node, group_id in [each for each in self._strays if each[1] == group.group_id]:
            self._take(group, node, *self._strays.pop((node, group_id)))
        return True

    def claim(self, node: bytes, group_id: bytes, standing: tuple[int, ...], prepared: tuple[int, ...]) -> None:
        """A node holds bundles that another head has asked it for. To be followed by `all_home`."""
        group = self.groups.get(group_id)
        if group is None:
            self._strays[node, group_id] = standing, prepared
        else:
            self._take(group, node, standing, prepared)

    def _take(self, group: Group, node: bytes, standing: tuple[int, ...], prepared: tuple[int, ...]) -> None:
        for index in standing:
            group.places.setdefault(index, node)
        for index in prepared:
            meant = group.asked.get(index, b"") if group is self._busy else group.asked.setdefault(index, node)
            if meant != node:
                group.doubles.append((index, node))

    def all_home(self) -> list[GroupEffect]:
        """Nobody else will claim anything: decide what was only set aside, and have unknown groups let go."""
        effects: list[GroupEffect] = [Drop(node, group_id, (), True) for node, group_id in self._strays]
        self._strays.clear()
        for group in self.groups.values():
            if group is not self._busy:
                group.doubles += [(i, node) for i, node in group.asked.items() if group.places.get(i, node) != node]
                group.asked = {index: node for index, node in group.asked.items() if index not in group.places}
            # Before any Commit, which makes all that its node has set aside for the group stand.
            effects += [Drop(node, group.group_id, (index,), False) for index, node in group.doubles]
            group.doubles = []
            if group is self._busy or not group.asked:
                continue
            if group.places or len(group.asked) == len(group.bundles):
                effects += [Commit(node, group.group_id) for node in sorted(set(group.asked.values()))]
                group.places |= group.asked
                group.asked = {}
            else:
                effects += self._let_go(group)
        return effects

    def named(self, name: str) -> Group | None:
        """The group of that name."""
        return next((each for each in self.groups.values() if each.name == name), None)

    def look(self, nodes: Sequence[NodeRecord], now: float) -> list[GroupEffect]:
        """Have the first group that has bundles without a place, and finds one by what `nodes` say, ask for it."""
        if self._busy is not None:
            return []
        for group in self.groups.values():
            missing = group.missing if group.kept else {}
            found = plan(missing, group.strategy, nodes, group.places) if missing else None
            if found is not None:
                self._turn += 1
                self._busy, group.asked, group.unanswered = group, found, set(found.values())
                return [
                    Prepare(
                        node, group.group_id, self._turn, tuple((i, missing[i]) for i in self._asked_of(group, node))
                    )
                    for node in sorted(group.unanswered)
                ]
        return self._hold_back(nodes, now)

    def _hold_back(self, nodes: Sequence[NodeRecord], now: float) -> list[GroupEffect]:
        """Nobody finds a place: who has waited long enough is given what comes free, one group at a time."""
        for group in self.groups.values():
            if not group.missing:
                continue
            if group.hold_at is None:
                group.hold_at, group.pause = now + HOLD_AFTER_S, HOLD_AFTER_S
            elif now >= max(group.hold_at, self._held_until):
                group.hold_at = now + HOLD_FOR_S + group.pause
                group.pause = min(2 * group.pause, _LONGEST_PAUSE_S)
                found = plan(group.missing, group.strategy, [_at_rest(node) for node in nodes], group.places)
                if found:
                    self._held_until = now + HOLD_FOR_S
                    return [
                        HoldBack(
                            node, group.group_id, _sum(group.bundles[i] for i in found if found[i] == node), HOLD_FOR_S
                        )
                        for node in sorted(set(found.values()))
                    ]
        return []

    def prepared(self, node: bytes, group_id: bytes, turn: int, agreed: bool) -> list[GroupEffect]:
        """A node answers. A late one, to a turn that is over, was told to let go by then."""
        group = self._busy
        if group is None or group.group_id != group_id or turn != self._turn or node not in group.unanswered:
            return []
        group.unanswered.discard(node)
        if not agreed:
            return self._roll_back(group)
        if group.unanswered:
            return []
        nodes = sorted(set(group.asked.values()))
        group.places |= group.asked
        group.asked, group.hold_at, self._busy, self._held_until = {}, None, None, 0.0
        return [Commit(each, group_id) for each in nodes]

    def node_gone(self, gone: bytes, nodes: Iterable[bytes] = ()) -> list[GroupEffect]:
        """With the bundles it held, and with the owners that ran there. `nodes`: those that live."""
        for node, group_id in [each for each in self._strays if each[0] == gone]:
            del self._strays[node, group_id]
        for group in self.groups.values():
            group.places = {index: place for index, place in group.places.items() if place != gone}
            if group is not self._busy:
                group.asked = {index: place for index, place in group.asked.items() if place != gone}
        busy, nodes = self._busy, list(nodes)
        effects = self._roll_back(busy, gone) if busy is not None and gone in busy.asked.values() else []
        owners = {each.owner for each in self.groups.values() if each.owner[:NODE_BYTES] == gone[:NODE_BYTES]}
        return effects + [effect for owner in sorted(owners) for effect in self.owner_died(owner, nodes)]

    def remove(self, group_id: bytes, nodes: Iterable[bytes]) -> list[GroupEffect]:
        """It is no more: all `nodes` are told, those who have none of it, too, as tasks may wait for it there."""
        group = self.groups.pop(group_id, None)
        if group is None:
            return []
        self.removed.bury(group_id)
        if self._busy is group:
            self._busy = None
        return [Drop(node, group_id, (), True) for node in nodes]

    def owner_died(self, owner: bytes, nodes: Iterable[bytes]) -> list[GroupEffect]:
        """Its groups are removed, the detached ones aside."""
        theirs = [each for each in self.groups.values() if each.owner == owner and not each.detached]
        nodes = list(nodes)
        return [effect for group in theirs for effect in self.remove(group.group_id, nodes)]

    def _asked_of(self, group: Group, node: bytes) -> list[int]:
        return sorted(index for index, place in group.asked.items() if place == node)

    def _roll_back(self, group: Group, gone: bytes = b"") -> list[GroupEffect]:
        dropped = self._let_go(group, gone)
        group.unanswered, self._busy = set(), None
        # The next try is another's: one whose plan is refused again and again must not keep all others waiting.
        self.groups[group.group_id] = self.groups.pop(group.group_id)
        return dropped

    def _let_go(self, group: Group, gone: bytes = b"") -> list[GroupEffect]:
        nodes = sorted(set(group.asked.values()) - {gone})
        dropped: list[GroupEffect] = [
            Drop(node, group.group_id, tuple(self._asked_of(group, node)), False) for node in nodes
        ]
        group.asked = {}
        return dropped
