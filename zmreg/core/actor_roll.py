"""Who there is of actors, and where each of them stands: the records under `ActorBook`. Decides nothing by itself."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from zmreg.core.effects import ActorEffect, TellActor
from zmreg.core.graves import Graves
from zmreg.core.lifecycle import Lifecycle, named
from zmreg.model.record import Record
from zmreg.model.specs import ActorEntry


class ActorState(StrEnum):
    """Where an actor stands. The values travel in `TellActor.state`."""

    PENDING = "PENDING"  # no worker yet
    STARTING = "STARTING"  # the constructor runs
    ALIVE = "ALIVE"
    RESTARTING = "RESTARTING"  # lost its worker, no new one yet
    DEAD = "DEAD"


# Fault 6: after a start that never came to life, the next waits this long; else a broken constructor burns the budget,
# and with -1 the machine, in milliseconds.
RESTART_PAUSE_S: Final = 5.0
# An actor that has lived so long is sound: what ends it then is not what ended it before.
SOUND_S: Final = 5.0
# Crashes in a row of one that is not sound, which cost nothing but the restart. From then on pauses grow to the one
# above: with max_restarts=-1 a crash in the first call would keep a node busy with nothing but forks.
CRASHES_AT_ONCE: Final = 5
_FIRST_PAUSE_S: Final = 0.2

MOVING: Final = "MOVING"
"""What subscribers hear of a living actor that is about to change its place: send it nothing until it is ALIVE."""


class ActorMove(StrEnum):
    """What can happen to an actor."""

    HOSTED = "hosted"
    CONSTRUCTED = "constructed"
    LOST = "lost its worker"
    ENDED = "ended"


MOVES: Final = {
    (ActorState.PENDING, ActorMove.HOSTED): ActorState.STARTING,
    (ActorState.STARTING, ActorMove.CONSTRUCTED): ActorState.ALIVE,
    (ActorState.STARTING, ActorMove.LOST): ActorState.RESTARTING,
    (ActorState.ALIVE, ActorMove.LOST): ActorState.RESTARTING,
    (ActorState.RESTARTING, ActorMove.HOSTED): ActorState.STARTING,
    (ActorState.PENDING, ActorMove.ENDED): ActorState.DEAD,
    (ActorState.STARTING, ActorMove.ENDED): ActorState.DEAD,
    (ActorState.ALIVE, ActorMove.ENDED): ActorState.DEAD,
    (ActorState.RESTARTING, ActorMove.ENDED): ActorState.DEAD,
}


class Stand(Record):
    """How an actor stands, as the head keeps it for the one after it."""

    actor_id: bytes
    state: str
    """An ActorState's value."""
    worker: bytes
    incarnation: int
    restarts_used: int
    leaving: bool


@dataclass(slots=True, eq=False)
class Actor:
    """A living actor, or one that is remembered."""

    entry: ActorEntry
    life: Lifecycle[ActorState, ActorMove]
    worker: bytes = b""
    incarnation: int = 0
    restarts_used: int = 0
    failure: bytes = b""
    init_failed: bool = False
    leaving: bool = False
    """No strong handle is left: it ends with the calls it has, and is not restarted."""
    moving: bool = False
    """Its node is drained: it ends there with the calls it has, and comes back elsewhere at no charge."""
    held: bool = False
    """Inputs of its constructor are not there yet: no place is asked for before `ready`."""
    pause: bool = False
    """A restart is due, but not before `due` (None until the next tick sets it, `pause_s` from then)."""
    due: float | None = None
    pause_s: float = 0.0
    alive_since: float = float("-inf")
    crashes: int = 0
    """In a row, each of an actor that was not sound yet."""
    subscribers: dict[bytes, None] = field(default_factory=dict)

    def may_restart(self) -> bool:
        limit = self.entry.max_restarts
        return not self.leaving and (self.moving or limit == -1 or self.restarts_used < limit)

    def may_move(self) -> bool:
        """Whether it outlives its node."""
        return not self.leaving and (self.entry.detached or self.may_restart())

    def pause_before_restart(self, now: float) -> float:
        """It has just lost its worker: how long its next start waits."""
        if self.life.state is ActorState.STARTING:
            return RESTART_PAUSE_S
        if self.moving:
            return 0.0
        self.crashes = self.crashes + 1 if now - self.alive_since < SOUND_S else 1
        late = self.crashes - CRASHES_AT_ONCE
        # The exponent is bounded: 2 ** crashes would outgrow a float.
        return min(RESTART_PAUSE_S, _FIRST_PAUSE_S * 2 ** min(late - 1, 20)) if late > 0 else 0.0

    def tell(self, process: bytes) -> TellActor:
        return TellActor(
            process,
            self.entry.actor_id,
            MOVING if self.moving and self.life.state is ActorState.ALIVE else self.life.state.value,
            self.worker,
            self.incarnation,
            self.failure,
            self.restarts_used,
            self.init_failed,
        )

    def tell_all(self) -> list[ActorEffect]:
        return [self.tell(process) for process in self.subscribers]

    def stand(self) -> Stand:
        return Stand(
            self.entry.actor_id,
            self.life.state.value,
            self.worker,
            self.incarnation,
            self.restarts_used,
            self.leaving,
        )


@dataclass(frozen=True, slots=True)
class ActorStatistics:
    """Counts of this moment; `dead` are those still remembered."""

    pending: int
    starting: int
    alive: int
    restarting: int
    dead: int
    names: int
    restarts: int


class ActorRoll:
    """The actors by id, worker and name, and those who listen to them."""

    def __init__(self) -> None:
        self._actors: dict[bytes, Actor] = {}  # the living
        self._dead: dict[bytes, Actor] = {}
        self._by_worker: dict[bytes, bytes] = {}
        self._names: dict[tuple[str, str], bytes] = {}
        self._subscribed: dict[bytes, set[bytes]] = {}
        self._exiting: dict[bytes, float | None] = {}  # worker -> when to kill it
        self._gone = Graves()
        self._restarts = 0
        self._now = 0.0
        self._changed: dict[bytes, None] | None = None

    def watch_changes(self) -> None:
        """Have `changes` tell from now on."""
        self._changed = {}

    def changes(self) -> tuple[list[Stand], list[tuple[bytes, bytes]]]:
        """(the living, the ended and why) of the actors that have changed since the last time."""
        stands, ends = [], []
        for actor_id in self._changed or ():
            actor = self._actors.get(actor_id)
            if actor is not None:
                stands.append(actor.stand())
            else:
                late = self._dead.get(actor_id)
                ends.append((actor_id, b"" if late is None or late.init_failed else late.failure))
        if self._changed:
            self._changed.clear()
        return stands, ends

    def _note(self, actor_id: bytes) -> None:
        if self._changed is not None:
            self._changed[actor_id] = None

    def restore(self, actor: ActorEntry, stand: Stand, held: bool) -> None:
        """Know an actor again as the last head had written it down. Nothing is asked for: see `claim` and `missing`."""
        what = f"{named('actor', actor.actor_id)} {actor.class_name}".rstrip()
        life = Lifecycle(what, ActorState(stand.state), MOVES)
        self._actors[actor.actor_id] = Actor(
            actor, life, stand.worker, stand.incarnation, stand.restarts_used, leaving=stand.leaving, held=held
        )
        if stand.worker:
            self._by_worker[stand.worker] = actor.actor_id
        if actor.name:
            self._names[actor.namespace, actor.name] = actor.actor_id

    def restore_end(self, actor_id: bytes, reason: bytes) -> None:
        """Know again that an actor is dead: an order of it that is said once more is not carried out."""
        life = Lifecycle(named("actor", actor_id), ActorState.DEAD, MOVES)
        self._dead[actor_id] = Actor(ActorEntry(actor_id, actor_id[:8]), life, failure=reason)

    def lookup(self, namespace: str, name: str) -> ActorEntry | None:
        """The living actor of that name."""
        actor_id = self._names.get((namespace, name))
        return None if actor_id is None else self._actors[actor_id].entry

    def processes(self) -> set[bytes]:
        """Everybody who has to do with a living actor: its worker, its owner, who listens."""
        actors = self._actors.values()
        return {each for actor in actors for each in (actor.worker, actor.entry.owner, *actor.subscribers) if each}

    def names(self, namespace: str) -> list[str]:
        """The names in use there, sorted."""
        return sorted(name for space, name in self._names if space == namespace)

    def state(self, actor_id: bytes) -> ActorState | None:
        """Where the actor stands; None when unknown, or dead for so long that it was forgotten."""
        actor = self._actors.get(actor_id) or self._dead.get(actor_id)
        return None if actor is None else actor.life.state

    def fate(self, actor_id: bytes) -> str:
        """What has ended the actor, for people; "" while it lives, and of one whose constructor raised."""
        late = self._dead.get(actor_id)
        return "" if late is None or late.init_failed else late.failure.decode(errors="replace")

    def worker(self, actor_id: bytes) -> bytes:
        """The worker that is the actor now; empty while it has none."""
        actor = self._actors.get(actor_id)
        return b"" if actor is None else actor.worker

    def restarts(self, actor_id: bytes) -> int:
        """How often the actor was restarted; 0 when unknown."""
        actor = self._actors.get(actor_id) or self._dead.get(actor_id)
        return 0 if actor is None else actor.restarts_used

    def __len__(self) -> int:
        return len(self._actors)

    def __contains__(self, actor_id: bytes) -> bool:
        return actor_id in self._actors

    def story(self, actor_id: bytes) -> tuple[str, ...]:
        """The actor's last moves, one line each: what `zmreg why` shows."""
        actor = self._actors.get(actor_id) or self._dead.get(actor_id)
        return () if actor is None else actor.life.story()

    def statistics(self) -> ActorStatistics:
        states = [actor.life.state for actor in self._actors.values()]
        return ActorStatistics(
            pending=states.count(ActorState.PENDING),
            starting=states.count(ActorState.STARTING),
            alive=states.count(ActorState.ALIVE),
            restarting=states.count(ActorState.RESTARTING),
            dead=len(self._dead),
            names=len(self._names),
            restarts=self._restarts,
        )

    def __repr__(self) -> str:
        now = self.statistics()
        return (
            f"<ActorBook [{now.alive} alive, {now.pending + now.starting} starting, {now.restarting} restarting, "
            f"{now.dead} dead | {now.names} names, {now.restarts} restarts]>"
        )
