"""What owners, the head and workers say to each other about actors."""

from __future__ import annotations

from typing import ClassVar, Final

from zmreg.model.record import Resources, Sentence, Terms

# Why an actor is dead, when somebody wanted it so.
KILLED: Final = b"killed"
RELEASED: Final = b"exited: the last handle is gone"
LEFT: Final = b"exited by itself"
WANTED_ENDS: Final = frozenset({KILLED, RELEASED, LEFT})


class CreateActor(Sentence):
    """owner -> head: make this actor; `blob` and `payload` are opaque here."""

    KIND: ClassVar[int] = 50
    actor_id: bytes
    name: str
    namespace: str
    class_name: str
    place: Resources
    hold: Resources
    locs: tuple[str, ...]
    max_restarts: int
    detached: bool
    max_concurrency: int
    """0: not given; what that means follows from the class (services/worker/hosting.py)."""
    blob: bytes
    payload: bytes
    deps: bytes
    """msgpack of the call's dependency rows (wire/batches.py), empty when none."""
    handle: bytes
    """What get_actor() needs to build a handle elsewhere, packed by the client."""
    waiting: bool
    """Inputs of the constructor are not there yet: the name is taken now, `ActorInputs` follows with the rows."""
    strategy: str = ""
    """Where it is to be placed (model/specs.py)."""
    terms: Terms = ()
    """As in `Shape`."""


class ActorRefused(Sentence):
    """head -> owner: not made; the name is taken, or (`kind` "unwritten") the head could not write it down."""

    KIND: ClassVar[int] = 51
    actor_id: bytes
    reason: str
    kind: str = ""


class Construct(Sentence):
    """node -> worker: you are this actor from now on; run its constructor."""

    KIND: ClassVar[int] = 52
    actor_id: bytes
    incarnation: int
    max_concurrency: int
    blob: bytes
    payload: bytes
    deps: bytes
    handle: bytes
    name: str


class Constructed(Sentence):
    """worker -> node: the constructor returned (failure empty) or raised."""

    KIND: ClassVar[int] = 53
    actor_id: bytes
    failure: bytes


class ActorState(Sentence):
    """head -> subscriber: state is "pending", "alive", "moving", "restarting" or "dead"."""

    KIND: ClassVar[int] = 54
    actor_id: bytes
    state: str
    worker: bytes
    incarnation: int
    failure: bytes
    """Text in UTF-8; with `init_failed` the constructor's packed exception."""
    init_failed: bool
    restarts: int


class WatchActor(Sentence):
    """client -> head: tell me this actor's state now and at each change."""

    KIND: ClassVar[int] = 55
    actor_id: bytes


class KillActor(Sentence):
    """client -> head: end it at once; `no_restart` False restarts it within its budget."""

    KIND: ClassVar[int] = 56
    actor_id: bytes
    no_restart: bool


class ReleaseActor(Sentence):
    """owner -> head: no handle is left; let it finish what is queued and end."""

    KIND: ClassVar[int] = 57
    actor_id: bytes


class RetireActor(Sentence):
    """head -> worker: take no new callers; end when the queue is empty."""

    KIND: ClassVar[int] = 58
    actor_id: bytes
    moves: bool = False
    """The actor goes on elsewhere: this is not its end."""


class ActorExiting(Sentence):
    """worker -> node: the actor ends by its own will; do not restart it."""

    KIND: ClassVar[int] = 59
    actor_id: bytes


class ActorInputs(Sentence):
    """owner -> head: the constructor's inputs are there; find the actor a place."""

    KIND: ClassVar[int] = 60
    actor_id: bytes
    payload: bytes
    """What goes into `CreateActor.deps`; of this name because it may be large (wire/codec.py)."""


class DeadlockProbe(Sentence):
    """blocked worker -> the worker that has the call it waits for: come back to `initiator` only if all are blocked."""

    KIND: ClassVar[int] = 61
    initiator: bytes
    serial: int
    depth: int
    """How deep in nested calls the initiator is."""
    start: int
    """The initiator's own call in the circle."""
    counter: int
    """The sender's call that it waits for."""
    path: tuple[str, ...]
    """Names of the calls so far."""
