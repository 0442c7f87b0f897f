"""Every sentence one process can say to another: one frozen dataclass each, in one closed union.

All of them travel to the receiver's *door* (its bound ROUTER), in order per sender. Lines name sender -> receiver.
"client" is a driver's or worker's seat; "owner" is a client in its role as the owner of refs.
The two hot sentences, `Calls` and `Results`, have rows instead of records inside: see wire/batches.py.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

Resources = tuple[tuple[str, int], ...]
"""Amounts in 1/10000 units, sorted by name."""


# -- joining and leaving ------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Hello:
    """client -> node: I exist; my door is bound."""

    KIND: ClassVar[int] = 1
    role: str
    pid: int


@dataclass(frozen=True, slots=True)
class Welcome:
    """node -> client: who I am, and where the arena is."""

    KIND: ClassVar[int] = 2
    node: bytes
    arena: str
    arena_bytes: int
    inline_limit: int
    namespace: str
    num_cpus: float


@dataclass(frozen=True, slots=True)
class Goodbye:
    """client -> node: I leave on purpose. From the driver that started the node: shut everything down."""

    KIND: ClassVar[int] = 3


@dataclass(frozen=True, slots=True)
class Exit:
    """node -> worker: finish what you started, then end. With `if_idle`, only if nobody needs you."""

    KIND: ClassVar[int] = 4
    if_idle: bool


@dataclass(frozen=True, slots=True)
class ProcessDied:
    """node -> every client: this process is gone; nothing it was asked will be answered."""

    KIND: ClassVar[int] = 5
    process: bytes
    exit_code: int | None
    signal: int | None
    running: bytes
    """Id of the task it was in (empty: none): calls sent before that one have run, calls after it have not."""
    reason: str
    log_tail: str
    adopted: bool
    """It left in peace and the node now answers for its objects."""


# -- leases -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class WantLeases:
    """owner -> node: I would like to hold `count` leases of this shape in all. A level, so repeats are harmless."""

    KIND: ClassVar[int] = 10
    resources: Resources
    locs: tuple[str, ...]
    count: int
    depth: int


@dataclass(frozen=True, slots=True)
class LeaseGranted:
    """node -> owner: send tasks of this shape straight to `worker`."""

    KIND: ClassVar[int] = 11
    resources: Resources
    locs: tuple[str, ...]
    worker: bytes


@dataclass(frozen=True, slots=True)
class LeaseRecalled:
    """node -> owner: others wait; give `worker` back as soon as what it started is done."""

    KIND: ClassVar[int] = 12
    worker: bytes


@dataclass(frozen=True, slots=True)
class LeaseReturned:
    """owner -> node: I send nothing more to `worker`."""

    KIND: ClassVar[int] = 13
    worker: bytes


@dataclass(frozen=True, slots=True)
class Unschedulable:
    """node -> owner: no node can ever meet this shape."""

    KIND: ClassVar[int] = 14
    resources: Resources
    locs: tuple[str, ...]
    reason: str


@dataclass(frozen=True, slots=True)
class Blocked:
    """worker -> node: my task waits for others; my CPU is free meanwhile (`blocked`), or I take it back."""

    KIND: ClassVar[int] = 15
    blocked: bool


@dataclass(frozen=True, slots=True)
class WorkersAtCap:
    """node -> owner: wanted, feasible, but every allowed worker process exists and is in use."""

    KIND: ClassVar[int] = 16
    resources: Resources
    locs: tuple[str, ...]


# -- the store ----------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Allocate:
    """client -> node: room for an object of `nbytes`, please."""

    KIND: ClassVar[int] = 20
    object_id: bytes
    nbytes: int


@dataclass(frozen=True, slots=True)
class Allocated:
    """node -> client: write at `offset`; claim the pages first unless they are claimed."""

    KIND: ClassVar[int] = 21
    object_id: bytes
    offset: int
    nbytes: int
    claimed: bool


@dataclass(frozen=True, slots=True)
class AllocateRefused:
    """node -> client: no room, and why."""

    KIND: ClassVar[int] = 22
    object_id: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Sealed:
    """client -> node: the object is whole. `ok` False: it never will be."""

    KIND: ClassVar[int] = 23
    object_id: bytes
    ok: bool


@dataclass(frozen=True, slots=True)
class Pin:
    """client -> node: I read this object now; keep it where it is."""

    KIND: ClassVar[int] = 24
    object_id: bytes


@dataclass(frozen=True, slots=True)
class Pinned:
    """node -> client: it lies here until you unpin it."""

    KIND: ClassVar[int] = 25
    object_id: bytes
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class PinRefused:
    """node -> client: not here, and why."""

    KIND: ClassVar[int] = 26
    object_id: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Unpin:
    """client -> node: one pin less on each of these."""

    KIND: ClassVar[int] = 27
    object_ids: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class FreeObjects:
    """owner -> holder node: nobody needs these any more."""

    KIND: ClassVar[int] = 28
    object_ids: tuple[bytes, ...]


# -- calls --------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Definition:
    """owner -> worker: the function or class with this digest, pickled. Sent before the first call that needs it."""

    KIND: ClassVar[int] = 30
    digest: bytes
    blob: bytes


@dataclass(frozen=True, slots=True)
class NeedDefinition:
    """worker -> owner: I no longer have this one; send it again."""

    KIND: ClassVar[int] = 31
    digest: bytes


@dataclass(frozen=True, slots=True)
class Steal:
    """owner -> worker: give back up to `count` of my tasks that you have not started, newest first."""

    KIND: ClassVar[int] = 32
    count: int


@dataclass(frozen=True, slots=True)
class GaveBack:
    """worker -> owner: these were not started and never will be here."""

    KIND: ClassVar[int] = 33
    counters: tuple[int, ...]
    blocked: bool
    """The task that runs waits for others: send nothing until I answer again."""


@dataclass(frozen=True, slots=True)
class CancelCall:
    """owner -> worker: drop this call, or interrupt it if it runs."""

    KIND: ClassVar[int] = 34
    counter: int
    force: bool
    recursive: bool


@dataclass(frozen=True, slots=True)
class CancelObject:
    """any holder of a ref -> its owner: cancel the task that makes it."""

    KIND: ClassVar[int] = 35
    object_id: bytes
    force: bool
    recursive: bool


# -- refs ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Resolve:
    """borrower -> owner: tell me when this object is there, and how to have it."""

    KIND: ClassVar[int] = 40
    object_id: bytes


@dataclass(frozen=True, slots=True)
class Resolved:
    """owner -> borrower: state "inline" (payload), "stored" (nbytes), "failed" (payload = failure) or "lost" (reason)."""

    KIND: ClassVar[int] = 41
    object_id: bytes
    state: str
    payload: bytes
    nbytes: int
    contained: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Borrow:
    """borrower -> owner: I hold a ref of yours that `lender` gave me; tell the lender when you know."""

    KIND: ClassVar[int] = 42
    object_id: bytes
    lender: bytes


@dataclass(frozen=True, slots=True)
class BorrowSettled:
    """owner -> lender: `borrower` is known to me; your own hold is no longer needed for it."""

    KIND: ClassVar[int] = 43
    object_id: bytes
    borrower: bytes


@dataclass(frozen=True, slots=True)
class Unborrow:
    """borrower -> owner: I hold none of these any more; `count` says how often each had been lent to me."""

    KIND: ClassVar[int] = 44
    object_ids: tuple[bytes, ...]
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Adopt:
    """worker -> node, when it leaves in peace: answer for this object of mine from now on."""

    KIND: ClassVar[int] = 45
    object_id: bytes
    state: str
    payload: bytes
    nbytes: int
    borrowers: tuple[bytes, ...]


# -- actors -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CreateActor:
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
    blob: bytes
    payload: bytes
    deps: bytes
    """msgpack of the call's dependency rows (wire/batches.py), empty when none."""
    handle: bytes
    """What get_actor() needs to build a handle elsewhere, packed by the client."""
    waiting: bool
    """Inputs of the constructor are not there yet: the name is taken now, `ActorInputs` follows with the rows."""


@dataclass(frozen=True, slots=True)
class ActorRefused:
    """head -> owner: not made; the name is taken."""

    KIND: ClassVar[int] = 51
    actor_id: bytes
    reason: str


@dataclass(frozen=True, slots=True)
class Construct:
    """node -> worker: you are this actor from now on; run its constructor."""

    KIND: ClassVar[int] = 52
    actor_id: bytes
    incarnation: int
    max_concurrency: int
    blob: bytes
    payload: bytes
    deps: bytes
    handle: bytes


@dataclass(frozen=True, slots=True)
class Constructed:
    """worker -> node: the constructor returned (failure empty) or raised."""

    KIND: ClassVar[int] = 53
    actor_id: bytes
    failure: bytes


@dataclass(frozen=True, slots=True)
class ActorState:
    """head -> subscriber: state is "pending", "alive", "restarting" or "dead"."""

    KIND: ClassVar[int] = 54
    actor_id: bytes
    state: str
    worker: bytes
    incarnation: int
    failure: bytes
    """Text in UTF-8; with `init_failed` the constructor's packed exception."""
    init_failed: bool
    restarts: int


@dataclass(frozen=True, slots=True)
class WatchActor:
    """client -> head: tell me this actor's state now and at each change."""

    KIND: ClassVar[int] = 55
    actor_id: bytes


@dataclass(frozen=True, slots=True)
class KillActor:
    """client -> head: end it at once; `no_restart` False restarts it within its budget."""

    KIND: ClassVar[int] = 56
    actor_id: bytes
    no_restart: bool


@dataclass(frozen=True, slots=True)
class ReleaseActor:
    """owner -> head: no handle is left; let it finish what is queued and end."""

    KIND: ClassVar[int] = 57
    actor_id: bytes


@dataclass(frozen=True, slots=True)
class RetireActor:
    """node -> worker: take no new callers; end when the queue is empty."""

    KIND: ClassVar[int] = 58
    actor_id: bytes


@dataclass(frozen=True, slots=True)
class ActorExiting:
    """worker -> node: the actor ends by its own will; do not restart it."""

    KIND: ClassVar[int] = 59
    actor_id: bytes


@dataclass(frozen=True, slots=True)
class ActorInputs:
    """owner -> head: the constructor's inputs are there; find the actor a place."""

    KIND: ClassVar[int] = 60
    actor_id: bytes
    deps: bytes


# -- questions, logs ----------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ask:
    """client -> node: a question about state ("actor", "nodes", "stats", "workers", ...); `key` narrows it."""

    KIND: ClassVar[int] = 70
    request: int
    topic: str
    key: str


@dataclass(frozen=True, slots=True)
class Answer:
    """node -> client: msgpack of plain containers; `found` False when there is no such thing."""

    KIND: ClassVar[int] = 71
    request: int
    found: bool
    body: bytes


@dataclass(frozen=True, slots=True)
class LogLines:
    """node -> driver: what a worker printed; `skipped` bytes were over the rate cap."""

    KIND: ClassVar[int] = 72
    source: str
    text: str
    skipped: int


Message = (
    Hello | Welcome | Goodbye | Exit | ProcessDied
    | WantLeases | LeaseGranted | LeaseRecalled | LeaseReturned | Unschedulable | Blocked | WorkersAtCap
    | Allocate | Allocated | AllocateRefused | Sealed | Pin | Pinned | PinRefused | Unpin | FreeObjects
    | Definition | NeedDefinition | Steal | GaveBack | CancelCall | CancelObject
    | Resolve | Resolved | Borrow | BorrowSettled | Unborrow | Adopt
    | CreateActor | ActorRefused | Construct | Constructed | ActorState | WatchActor | KillActor | ReleaseActor
    | RetireActor | ActorExiting | ActorInputs
    | Ask | Answer | LogLines
)  # fmt: skip

CALLS_KIND = 100
"""owner -> worker: a batch of calls (rows)."""
RESULTS_KIND = 101
"""worker -> owner: a batch of results (rows)."""
