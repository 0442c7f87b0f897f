"""Actors: their names, their lifecycle, their restarts, and who is told of every change.

The book is kept where names are decided. It asks for a place (`HostActor`), has the constructor run there
(`Construct`), and follows the worker until the actor is dead for good. `UnhostActor` is said each time an actor leaves
a place, waiting or hosted, so that the node's book and this one never disagree for longer than a message.

A retry budget: `restarts_used` counts moves to RESTARTING, up to `max_restarts` (-1: without end). `incarnation`
counts the workers given, from 1; 0 = none yet. Facts about a worker the actor no longer has are ignored.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final

from zmreg.core.effects import (
    ActorCreated,
    ActorEffect,
    ActorRefused,
    Construct,
    HostActor,
    KillWorker,
    RetireActor,
    TellActor,
    UnhostActor,
)
from zmreg.core.graves import Graves
from zmreg.core.lifecycle import Lifecycle, named
from zmreg.model.ids import short
from zmreg.model.specs import ActorEntry


class ActorState(StrEnum):
    """Where an actor stands. The values travel in `TellActor.state`."""

    PENDING = "PENDING"  # no worker yet
    STARTING = "STARTING"  # the constructor runs
    ALIVE = "ALIVE"
    RESTARTING = "RESTARTING"  # lost its worker, no new one yet
    DEAD = "DEAD"


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

# Fault 6: after a start that never came to life, the next waits this long; else a broken constructor burns the budget,
# and with -1 the machine, in milliseconds.
RESTART_PAUSE_S: Final = 5.0
# An actor that announced its exit has this long for its atexit functions.
EXIT_GRACE_S: Final = 10.0
# Dead actors remembered, so that late callers learn why; older ones are only known to be unknown.
_DEAD_KEPT: Final = 1_000


@dataclass(slots=True, eq=False)
class _Actor:
    entry: ActorEntry
    life: Lifecycle[ActorState, ActorMove]
    worker: bytes = b""
    incarnation: int = 0
    restarts_used: int = 0
    failure: bytes = b""
    init_failed: bool = False
    leaving: bool = False
    """No strong handle is left: it ends with the calls it has, and is not restarted."""
    held: bool = False
    """Inputs of its constructor are not there yet: no place is asked for before `ready`."""
    pause: bool = False
    """A restart is due, but not before `due` (None until the next tick sets it)."""
    due: float | None = None
    subscribers: dict[bytes, None] = field(default_factory=dict)

    def may_restart(self) -> bool:
        limit = self.entry.max_restarts
        return not self.leaving and (limit == -1 or self.restarts_used < limit)

    def tell(self, process: bytes) -> TellActor:
        return TellActor(
            process,
            self.entry.actor_id,
            self.life.state.value,
            self.worker,
            self.incarnation,
            self.failure,
            self.restarts_used,
            self.init_failed,
        )

    def tell_all(self) -> list[ActorEffect]:
        return [self.tell(process) for process in self.subscribers]


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


class ActorBook:
    """Owner of actor names and lifecycles. Times are in seconds of whatever clock `tick` gets."""

    def __init__(self) -> None:
        self._actors: dict[bytes, _Actor] = {}  # the living
        self._dead: dict[bytes, _Actor] = {}
        self._by_worker: dict[bytes, bytes] = {}
        self._names: dict[tuple[str, str], bytes] = {}
        self._subscribed: dict[bytes, set[bytes]] = {}
        self._exiting: dict[bytes, float | None] = {}  # worker -> when to kill it
        self._gone = Graves()
        self._restarts = 0
        self._now = 0.0

    def create(self, actor: ActorEntry, now: float, held: bool = False) -> list[ActorEffect]:
        """Accept the actor and book its name, or refuse, in one breath. A repeated request is answered again.

        `held`: it exists and can be called, but gets no place before `ready`.
        To get or create, read `ActorRefused.taken_by`: no second question, no race.
        """
        self._now = max(self._now, now)
        if actor.actor_id in self._actors or actor.actor_id in self._dead:
            return [ActorCreated(actor.actor_id)]
        if actor.owner in self._gone:
            return [ActorRefused(actor.actor_id, actor.owner, "its owner is dead")]
        key = (actor.namespace, actor.name)
        if actor.name and key in self._names:
            taken = self._actors[self._names[key]].entry
            reason = (
                f"the name {actor.name!r} is taken in namespace {actor.namespace!r} by a {taken.class_name or 'class'} "
                f"(actor {short(taken.actor_id)}); get it with get_actor, or kill it first"
            )
            return [ActorRefused(actor.actor_id, actor.owner, reason, taken.actor_id)]
        if actor.name:
            self._names[key] = actor.actor_id
        what = f"{named('actor', actor.actor_id)} {actor.class_name}".rstrip()
        self._actors[actor.actor_id] = _Actor(actor, Lifecycle(what, ActorState.PENDING, MOVES), held=held)
        asked: list[ActorEffect] = [] if held else [HostActor(actor.actor_id, actor.place, actor.hold)]
        return [ActorCreated(actor.actor_id), *asked]

    def ready(self, actor_id: bytes) -> list[ActorEffect]:
        """A held actor's inputs are there: ask for its place. Nothing when it was not held, or has ended."""
        actor = self._actors.get(actor_id)
        if actor is None or not actor.held:
            return []
        actor.held = False
        return [HostActor(actor_id, actor.entry.place, actor.entry.hold)]

    def hosted(self, actor_id: bytes, worker: bytes) -> list[ActorEffect]:
        """A worker is dedicated to the actor. One that comes too late, or twice, is killed: nobody else can use it."""
        actor = self._actors.get(actor_id)
        if actor is None or not actor.life.can(ActorMove.HOSTED):
            return [] if actor is not None and actor.worker == worker else [KillWorker(worker)]
        actor.life.move(ActorMove.HOSTED, f"worker {short(worker)}")
        actor.worker = worker
        actor.pause = False
        actor.incarnation += 1
        self._by_worker[worker] = actor_id
        return [Construct(actor_id, worker, actor.incarnation), *actor.tell_all()]

    def constructed(self, actor_id: bytes, worker: bytes, failure: bytes | None = None) -> list[ActorEffect]:
        """The constructor returned (None) or raised (its packed exception)."""
        actor = self._actors.get(actor_id)
        if actor is None or actor.worker != worker or actor.life.state is not ActorState.STARTING:
            return []
        if failure is None:
            actor.life.move(ActorMove.CONSTRUCTED)
            actor.failure, actor.init_failed = b"", False
            retire: list[ActorEffect] = [RetireActor(actor_id, worker)] if actor.leaving else []
            return actor.tell_all() + retire
        # What raises on a first start will raise again; on a restart the world may have been at fault.
        first = actor.restarts_used == 0
        return self._lose(actor, failure, KillWorker(worker), init_failed=True, restart=not first)

    def worker_died(self, worker: bytes, reason: bytes) -> list[ActorEffect]:
        """The process is gone. `reason` goes on to the subscribers as it is."""
        self._exiting.pop(worker, None)
        actor = self._actors.get(self._by_worker.get(worker, b""))
        return [] if actor is None else self._lose(actor, reason)

    def unplaceable(self, actor_id: bytes, reason: bytes) -> list[ActorEffect]:
        """No node can ever host it: the end, whatever the budget."""
        actor = self._actors.get(actor_id)
        return [] if actor is None or actor.worker else self._end(actor, reason)

    def host_lost(self, actor_id: bytes) -> list[ActorEffect]:
        """The node that was asked for a place is gone before it gave one: ask again."""
        actor = self._actors.get(actor_id)
        if actor is None or actor.worker or actor.pause or actor.held:
            return []
        return [HostActor(actor_id, actor.entry.place, actor.entry.hold)]

    def kill(self, actor_id: bytes, no_restart: bool = True) -> list[ActorEffect]:
        """Running calls fail at once. With `no_restart=False` it comes back while its budget lasts.

        The name is free as soon as this returns. An actor without a worker has nothing to restart: only
        `no_restart=True` ends it.
        """
        actor = self._actors.get(actor_id)
        if actor is None:
            return []
        worker = actor.worker
        if no_restart:
            return self._end(actor, b"killed", KillWorker(worker) if worker else None)
        return self._lose(actor, b"killed, restart allowed", KillWorker(worker)) if worker else []

    def release(self, actor_id: bytes) -> list[ActorEffect]:
        """No strong handle is left: finish the queued calls, then exit. A detached actor does not care."""
        actor = self._actors.get(actor_id)
        if actor is None or actor.entry.detached or actor.leaving:
            return []
        actor.leaving = True
        return [RetireActor(actor_id, actor.worker)] if actor.life.state is ActorState.ALIVE else []

    def exiting(self, actor_id: bytes, worker: bytes) -> list[ActorEffect]:
        """The actor ends itself and has answered all it will answer. Dead from now on, never restarted.

        Its worker may still run atexit functions, for `EXIT_GRACE_S` at most, and its answers may still be on their
        way: the subscribers are told which worker it was, and that worker's death is the end of it for them.
        """
        actor = self._actors.get(actor_id)
        if actor is None or actor.worker != worker:
            return []
        self._exiting[worker] = None
        reason = b"exited: the last handle is gone" if actor.leaving else b"exited by itself"
        effects = self._end(actor, reason, None)
        return [each.but(worker=worker) if isinstance(each, TellActor) else each for each in effects]

    def owner_died(self, owner: bytes, adopted: Container[bytes] = ()) -> list[ActorEffect]:
        """Its actors die with it, except detached ones and those whose handles are accounted for elsewhere now."""
        self._gone.bury(owner)
        theirs = [
            actor
            for actor_id, actor in self._actors.items()
            if actor.entry.owner == owner and not actor.entry.detached and actor_id not in adopted
        ]
        effects: list[ActorEffect] = []
        for actor in theirs:
            kill = KillWorker(actor.worker) if actor.worker else None
            effects += self._end(actor, f"its owner, process {owner.hex()[:8]}, died".encode(), kill)
        return effects

    def subscribe(self, actor_id: bytes, process: bytes) -> list[ActorEffect]:
        """Tell `process` how the actor stands, now and at every change, until it is dead."""
        actor = self._actors.get(actor_id)
        if actor is not None:
            if process not in self._gone:
                actor.subscribers[process] = None
                self._subscribed.setdefault(process, set()).add(actor_id)
            return [actor.tell(process)]
        late = self._dead.get(actor_id)
        if late is not None:
            return [late.tell(process)]
        reason = b"unknown here: it ended long ago, or belongs to an earlier session"
        return [TellActor(process, actor_id, ActorState.DEAD.value, b"", 0, reason, 0)]

    def process_died(self, process: bytes) -> list[ActorEffect]:
        """A subscriber is gone. Say `worker_died` and `owner_died` too where it was one."""
        self._gone.bury(process)
        for actor_id in self._subscribed.pop(process, ()):
            self._actors[actor_id].subscribers.pop(process, None)
        return []

    def tick(self, now: float) -> list[ActorEffect]:
        """Restarts that had to wait, and exits that take too long."""
        self._now = max(self._now, now)
        effects: list[ActorEffect] = []
        for actor in [actor for actor in self._actors.values() if actor.pause]:
            if actor.due is None:
                actor.due = self._now + RESTART_PAUSE_S
            elif self._now >= actor.due:
                actor.pause, actor.due = False, None
                effects.append(HostActor(actor.entry.actor_id, actor.entry.place, actor.entry.hold))
        for worker, deadline in list(self._exiting.items()):
            if deadline is None:
                self._exiting[worker] = self._now + EXIT_GRACE_S
            elif self._now >= deadline:
                del self._exiting[worker]
                effects.append(KillWorker(worker))
        return effects

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

    def _lose(
        self,
        actor: _Actor,
        failure: bytes,
        kill: KillWorker | None = None,
        init_failed: bool = False,
        restart: bool = True,
    ) -> list[ActorEffect]:
        """The actor has no worker any more: restart it within its budget, else end it."""
        if not (restart and actor.may_restart()):
            return self._end(actor, failure, kill, init_failed)
        pause = actor.life.state is ActorState.STARTING
        actor.life.move(ActorMove.LOST, "constructor raised" if init_failed else f"worker {short(actor.worker)}")
        actor.restarts_used += 1
        self._restarts += 1
        actor.failure, actor.init_failed = failure, init_failed
        actor.pause, actor.due = pause, None
        ask: list[ActorEffect] = []
        if not pause:
            ask.append(HostActor(actor.entry.actor_id, actor.entry.place, actor.entry.hold))
        return [*self._leave(actor, kill), *actor.tell_all(), *ask]

    def _end(
        self, actor: _Actor, failure: bytes, kill: KillWorker | None = None, init_failed: bool = False
    ) -> list[ActorEffect]:
        """Dead for good: the name is free, the subscribers are told, and told nothing after that."""
        entry = actor.entry
        actor.life.move(ActorMove.ENDED, "constructor raised" if init_failed else "")
        actor.failure, actor.init_failed = failure, init_failed
        actor.pause = False
        left = self._leave(actor, kill)
        told = actor.tell_all()
        if entry.name:
            del self._names[entry.namespace, entry.name]
        for process in actor.subscribers:
            theirs = self._subscribed[process]
            theirs.discard(entry.actor_id)
            if not theirs:
                del self._subscribed[process]
        actor.subscribers.clear()
        del self._actors[entry.actor_id]
        self._dead[entry.actor_id] = actor
        if len(self._dead) > _DEAD_KEPT:
            del self._dead[next(iter(self._dead))]
        return [*left, *told]

    def _leave(self, actor: _Actor, kill: KillWorker | None) -> Iterable[ActorEffect]:
        """The place is given up. A worker that is ending itself is left to it: its node forgets it when it is gone."""
        worker, actor.worker = actor.worker, b""
        self._by_worker.pop(worker, None)
        if worker in self._exiting:
            return []
        unhost = UnhostActor(actor.entry.actor_id)
        return [unhost] if kill is None else [kill, unhost]
