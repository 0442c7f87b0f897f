"""Actors: their names, their lifecycle, their restarts, and who is told of every change.

The book is kept where names are decided. It asks for a place (`HostActor`), has the constructor run there
(`Construct`), and follows the worker until the actor is dead for good. `UnhostActor` is said each time an actor leaves
a place, waiting or hosted, so that the node's book and this one never disagree for longer than a message.

A retry budget: `restarts_used` counts moves to RESTARTING, up to `max_restarts` (-1: without end). `incarnation`
counts the workers given, from 1; 0 = none yet. Facts about a worker the actor no longer has are ignored.
"""

from __future__ import annotations

from collections.abc import Container, Iterable
from typing import Final

from zmreg.core.actor_roll import (
    MOVES,
    RESTART_PAUSE_S,
    Actor,
    ActorMove,
    ActorRoll,
    ActorState,
    ActorStatistics,
)
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
from zmreg.core.lifecycle import Lifecycle, named
from zmreg.model.actor_messages import KILLED, LEFT, RELEASED
from zmreg.model.ids import short
from zmreg.model.specs import ActorEntry

# An actor that announced its exit has this long for its atexit functions.
EXIT_GRACE_S: Final = 10.0
# Dead actors remembered, so that late callers learn why; older ones are only known to be unknown.
_DEAD_KEPT: Final = 1_000


class ActorBook(ActorRoll):
    """Owner of actor names and lifecycles. Times are in seconds of whatever clock `tick` gets."""

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
        self._actors[actor.actor_id] = Actor(actor, Lifecycle(what, ActorState.PENDING, MOVES), held=held)
        self._note(actor.actor_id)
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
        self._note(actor_id)
        return [Construct(actor_id, worker, actor.incarnation), *actor.tell_all()]

    def constructed(self, actor_id: bytes, worker: bytes, failure: bytes | None = None) -> list[ActorEffect]:
        """The constructor returned (None) or raised (its packed exception)."""
        actor = self._actors.get(actor_id)
        if actor is None or actor.worker != worker or actor.life.state is not ActorState.STARTING:
            return []
        if failure is None:
            actor.life.move(ActorMove.CONSTRUCTED)
            actor.failure, actor.init_failed, actor.alive_since = b"", False, self._now
            self._note(actor_id)
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

    def leave_node(self, actor_id: bytes) -> list[ActorEffect]:
        """Its node is drained: it finishes the calls it has. Then it comes back elsewhere, if it may; else it is dead.

        Nothing for an actor that has no worker: see `host_lost`.
        """
        actor = self._actors.get(actor_id)
        if actor is None or not actor.worker or actor.moving:
            return []
        worker = actor.worker
        if actor.may_move():
            actor.moving = True
            return [*actor.tell_all(), RetireActor(actor_id, worker, True)]
        if actor.leaving:  # it ends with the calls it has anyway
            return []
        self._exiting[worker] = None
        effects = self._end(actor, b"its node was drained, and it may not be restarted (max_restarts)")
        told = [each.but(worker=worker) if isinstance(each, TellActor) else each for each in effects]
        return [RetireActor(actor_id, worker), *told]

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
            return self._end(actor, KILLED, KillWorker(worker) if worker else None)
        actor.alive_since = float("-inf")  # somebody's wish, and no crash of an actor that is not sound
        return self._lose(actor, b"killed, restart allowed", KillWorker(worker)) if worker else []

    def release(self, actor_id: bytes) -> list[ActorEffect]:
        """No strong handle is left: finish the queued calls, then exit. A detached actor does not care."""
        actor = self._actors.get(actor_id)
        if actor is None or actor.entry.detached or actor.leaving:
            return []
        actor.leaving = True
        self._note(actor_id)
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
        reason = RELEASED if actor.leaving else LEFT
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
                actor.due = self._now + actor.pause_s
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

    # -- after a restart of the head ---------------------------------------------------------------------------------

    def claim(self, actor_id: bytes, worker: bytes, constructed: bool) -> list[ActorEffect]:
        """A node has this worker for a restored actor that has found no place yet. What the last head had decided and
        could not write down any more is made up for; a constructor that runs, or was never begun, is asked for again.
        """
        actor = self._actors.get(actor_id)
        if actor is None:
            return [KillWorker(worker)]
        if actor.worker != worker:
            if actor.life.can(ActorMove.LOST):
                actor.life.move(ActorMove.LOST, "while there was no head")
                actor.restarts_used += 1
                self._by_worker.pop(actor.worker, None)
            actor.life.move(ActorMove.HOSTED, f"worker {short(worker)}, under the last head")
            actor.worker, actor.pause, actor.held = worker, False, False
            actor.incarnation += 1
            self._by_worker[worker] = actor_id
        self._note(actor_id)
        if constructed and actor.life.state is ActorState.STARTING:
            return self.constructed(actor_id, worker)
        if actor.life.state is ActorState.STARTING:
            return [Construct(actor_id, worker, actor.incarnation), *actor.tell_all()]
        retire: list[ActorEffect] = [RetireActor(actor_id, worker)] if actor.leaving else []
        return actor.tell_all() + retire

    def missing(self, actor_id: bytes, reason: bytes) -> list[ActorEffect]:
        """No node has a worker for this restored actor. A detached one is made anew whatever its budget: it has nobody
        who could do it, and its death is the head's machine's, not its own."""
        actor = self._actors.get(actor_id)
        if actor is None:
            return []
        if not actor.worker:
            return self.host_lost(actor_id)
        if not actor.entry.detached or actor.leaving:
            return self.worker_died(actor.worker, reason)
        actor.life.move(ActorMove.LOST, reason.decode(errors="replace"))
        self._by_worker.pop(actor.worker, None)
        actor.worker = b""
        self._note(actor_id)
        return [*actor.tell_all(), HostActor(actor_id, actor.entry.place, actor.entry.hold)]

    def _lose(
        self,
        actor: Actor,
        failure: bytes,
        kill: KillWorker | None = None,
        init_failed: bool = False,
        restart: bool = True,
    ) -> list[ActorEffect]:
        """The actor has no worker any more: restart it within its budget, else end it."""
        if not (restart and actor.may_restart()):
            return self._end(actor, failure, kill, init_failed)
        actor.pause_s = actor.pause_before_restart(self._now)
        actor.life.move(ActorMove.LOST, "constructor raised" if init_failed else f"worker {short(actor.worker)}")
        actor.restarts_used += not actor.moving
        self._restarts += not actor.moving
        actor.moving = False
        actor.failure, actor.init_failed = failure, init_failed
        actor.pause, actor.due = actor.pause_s > 0, None
        ask: list[ActorEffect] = []
        if not actor.pause:
            ask.append(HostActor(actor.entry.actor_id, actor.entry.place, actor.entry.hold))
        return [*self._leave(actor, kill), *actor.tell_all(), *ask]

    def _end(
        self, actor: Actor, failure: bytes, kill: KillWorker | None = None, init_failed: bool = False
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
        self._note(entry.actor_id)
        self._dead[entry.actor_id] = actor
        if len(self._dead) > _DEAD_KEPT:
            del self._dead[next(iter(self._dead))]
        return [*left, *told]

    def _leave(self, actor: Actor, kill: KillWorker | None) -> Iterable[ActorEffect]:
        """The place is given up. A worker that is ending itself is left to it: its node forgets it when it is gone."""
        worker, actor.worker = actor.worker, b""
        self._by_worker.pop(worker, None)
        if worker in self._exiting:
            return []
        unhost = UnhostActor(actor.entry.actor_id)
        return [unhost] if kill is None else [kill, unhost]


__all__ = ["EXIT_GRACE_S", "MOVES", "RESTART_PAUSE_S", "ActorBook", "ActorMove", "ActorState", "ActorStatistics"]
