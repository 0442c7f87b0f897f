"""The phases of a run: which waits for which, and what follows from how one ended.

Pure: a phase is a name here. `PhaseMachine` is told what happened and answers with what has changed; whoever drives it
starts what is ready. A phase that does not run says why: nothing is left out in silence.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Final

from zmreg.model.errors import InternalError, PhaseError
from zmreg.model.record import Record

WAITING: Final = "waiting"
READY: Final = "ready"
RUNNING: Final = "running"
DONE: Final = "done"
REUSED: Final = "reused"
FAILED: Final = "failed"
SKIPPED: Final = "skipped"
CANCELLED: Final = "cancelled"

ENDED: Final = frozenset({DONE, REUSED, FAILED, SKIPPED, CANCELLED})
HAS_OUTPUT: Final = frozenset({DONE, REUSED})

COMPLETED: Final = "completed"
"""The status of a run in which every phase is done, or was left out by its own condition."""

# What may follow what. A missing row is a bug of whoever drives the machine.
MOVES: Final = frozenset(
    {
        (WAITING, READY), (WAITING, SKIPPED), (WAITING, CANCELLED),
        (READY, RUNNING), (READY, REUSED), (READY, SKIPPED), (READY, FAILED), (READY, CANCELLED),
        (RUNNING, DONE), (RUNNING, FAILED), (RUNNING, CANCELLED),
    }
)  # fmt: skip


class PhaseRow(Record):
    """What the machine has to know of one phase. `required`: its failure fails the run, and what depends on it."""

    name: str
    depends_on: tuple[str, ...] = ()
    required: bool = True


class PhasePlan(Record):
    """Phases that make sense together. Made by `plan_phases`."""

    order: tuple[str, ...]
    """Each after all it depends on; else as listed."""
    needs: dict[str, tuple[str, ...]]
    needed_by: dict[str, tuple[str, ...]]
    required: dict[str, bool]


class Moved(Record):
    """A phase is in another state. `reason`: why it does not run, or with what it failed."""

    phase: str
    state: str
    reason: str = ""


def plan_phases(rows: Iterable[PhaseRow]) -> PhasePlan:
    """Raises PhaseError for no phase, a name twice, a dependency that is no phase, and circles, with the path."""
    listed = list(rows)
    named = {row.name: row for row in listed}
    if not listed:
        raise PhaseError("a run without phases: give at least one, as in zmreg.run([zmreg.Phase('first', fn)])")
    seen: set[str] = set()
    for row in listed:
        if row.name in seen:
            raise PhaseError(f"two phases are called {row.name!r}: give one of them another name")
        seen.add(row.name)
        for dep in row.depends_on:
            if dep not in named:
                raise PhaseError(f"phase {row.name!r} depends on {dep!r}, and there is no such phase; there are "
                                 f"{', '.join(map(repr, named))}")  # fmt: skip
    needs = {row.name: tuple(dict.fromkeys(row.depends_on)) for row in listed}
    needed_by: dict[str, list[str]] = {name: [] for name in needs}
    for name, deps in needs.items():
        for dep in deps:
            needed_by[dep].append(name)
    frozen = {name: tuple(users) for name, users in needed_by.items()}
    return PhasePlan(_ordered(needs, frozen), needs, frozen, {row.name: row.required for row in listed})


def _ordered(needs: Mapping[str, tuple[str, ...]], needed_by: Mapping[str, tuple[str, ...]]) -> tuple[str, ...]:
    """Kahn's algorithm; those that are free at the same time in the order in which they were listed."""
    waits = {name: len(deps) for name, deps in needs.items()}
    place = {name: index for index, name in enumerate(needs)}
    free = [name for name, count in waits.items() if not count]
    order: list[str] = []
    while free:
        name = min(free, key=place.__getitem__)
        free.remove(name)
        order.append(name)
        for user in needed_by[name]:
            waits[user] -= 1
            if not waits[user]:
                free.append(user)
    if len(order) < len(needs):
        _complain_of_circle(needs, {name for name in needs if name not in order})
    return tuple(order)


def _complain_of_circle(needs: Mapping[str, tuple[str, ...]], rest: Collection[str]) -> None:
    """Each of the rest waits for one of the rest: going on from any of them, one comes twice."""
    path = [min(rest)]
    while True:
        before = next(dep for dep in needs[path[-1]] if dep in rest)
        if before in path:
            circle = [before, *reversed(path[path.index(before) :])]
            raise PhaseError(f"phases wait for each other: {' -> '.join(circle)}")
        path.append(before)


class PhaseMachine:
    """What state each phase is in. Every method that reports something returns what has changed by it, in order."""

    def __init__(self, plan: PhasePlan) -> None:
        self.plan = plan
        self.states: dict[str, str] = dict.fromkeys(plan.order, WAITING)
        self.reasons: dict[str, str] = {}
        """Why a phase was skipped or cancelled, or what it failed with."""
        self.was_cancelled = False

    def begin(self) -> list[Moved]:
        """Phases that wait for nobody are ready."""
        return [self._move(name, READY) for name in self.plan.order if not self.plan.needs[name]]

    def started(self, name: str) -> list[Moved]:
        """It runs."""
        return [self._move(name, RUNNING)]

    def done(self, name: str) -> list[Moved]:
        """It has its output."""
        return self._ended(name, DONE, "")

    def reused(self, name: str) -> list[Moved]:
        """Its output of an earlier run is still good: it does not run."""
        return self._ended(name, REUSED, "")

    def failed(self, name: str, reason: str) -> list[Moved]:
        """It failed for good."""
        return self._ended(name, FAILED, reason)

    def declined(self, name: str, reason: str) -> list[Moved]:
        """Its own condition says that it is not to run."""
        return self._ended(name, SKIPPED, reason)

    def cancel(self, reason: str) -> list[Moved]:
        """Nothing goes on."""
        self.was_cancelled = True
        left = [name for name in self.plan.order if self.states[name] not in ENDED]
        return [self._move(name, CANCELLED, reason) for name in left]

    @property
    def ready(self) -> tuple[str, ...]:
        """Phases that may start, in order."""
        return tuple(name for name in self.plan.order if self.states[name] == READY)

    @property
    def is_over(self) -> bool:
        """Whether every phase has ended in some way."""
        return all(state in ENDED for state in self.states.values())

    @property
    def status(self) -> str:
        """ "running", "completed", "failed" or "cancelled". A phase that is not required may fail in a run that is
        completed; one that was skipped, because something it needs failed, is in a run that failed."""
        if self.was_cancelled:
            return CANCELLED
        if any(state == FAILED and self.plan.required[name] for name, state in self.states.items()):
            return FAILED
        return COMPLETED if self.is_over else RUNNING

    # -- what follows -------------------------------------------------------------------------------------------------

    def _ended(self, name: str, state: str, reason: str) -> list[Moved]:
        moved = [self._move(name, state, reason)]
        ended = deque([name])
        while ended:  # not by recursion: chains are longer than the stack is deep
            for user in self.plan.needed_by[ended.popleft()]:
                if self.states[user] != WAITING:
                    continue
                verdict = self._verdict(user)
                if verdict is not None:
                    moved.append(self._move(user, SKIPPED, verdict))
                    ended.append(user)
                elif all(self.states[dep] in ENDED for dep in self.plan.needs[user]):
                    moved.append(self._move(user, READY))
        return moved

    def _verdict(self, name: str) -> str | None:
        """Why it cannot run any more, if so."""
        for dep in self.plan.needs[name]:
            state = self.states[dep]
            if state in (FAILED, SKIPPED) and self.plan.required[dep]:
                why = self.reasons.get(dep, "")
                return f"{dep} {'failed' if state == FAILED else 'was skipped'}{f': {why}' if why else ''}"
        return None

    def _move(self, name: str, state: str, reason: str = "") -> Moved:
        if (self.states[name], state) not in MOVES:
            raise InternalError(f"phase {name!r} is {self.states[name]}, and cannot become {state}")
        self.states[name] = state
        if reason:
            self.reasons[name] = reason
        return Moved(name, state, reason)

    def __repr__(self) -> str:
        counts = {state: sum(each == state for each in self.states.values()) for state in set(self.states.values())}
        return f"<PhaseMachine {self.status} [{', '.join(f'{n} {state}' for state, n in sorted(counts.items()))}]>"


class Place(Record):
    """Somewhere phases can run: what is there, and how much is under way there already."""

    name: str
    locs: frozenset[str] = frozenset()
    load: float = 0.0


def distribute(wishes: Sequence[tuple[str, frozenset[str]]], places: Sequence[Place]) -> dict[str, list[str]]:
    """{place: phases} of (phase, locs) in order: each goes to the least loaded place that has all its locs, the first
    of equal ones. Raises PhaseError for a phase that no place has the locs for, and when there is no place."""
    given: dict[str, list[str]] = {place.name: [] for place in places}
    for phase, locs in wishes:
        fit = [place for place in places if locs <= place.locs]
        if not fit:
            wanted = f"all of {', '.join(sorted(locs))}" if locs else "a worker at all"
            raise PhaseError(f"phase {phase!r} has nowhere to run: nobody has {wanted}")
        given[min(fit, key=lambda place: place.load + len(given[place.name])).name].append(phase)
    return given
