"""Everything a machine can ask the world to do. A machine returns these; the service that owns it performs them.

Process ids are 8 bytes; task, object and actor ids are 16, the first 8 naming the owner process.
Each machine has its own closed union, so that a `match` over it can end in `assert_never`.
"""

from __future__ import annotations

from zmreg.model.record import Record
from zmreg.model.specs import Shape


class StartWorker(Record):
    """Start one worker process; answer with `worker_started` or `worker_start_failed`."""


class StartLodger(Record):
    """Have the process of `house` make one more worker in itself, under this id; answer with `worker_started` or
    `lodger_failed`."""

    worker: bytes
    house: bytes


class StopWorker(Record):
    """End this worker: idle and not needed, its owner is dead, or its actor is gone. Answer with `worker_died`."""

    worker: bytes
    reason: str = ""
    """Kill it at once, for this; empty: ask it to end."""


class Granted(Record):
    """Tell `owner` it may send tasks of `shape` to `worker` until it returns the lease."""

    owner: bytes
    shape: Shape
    worker: bytes
    devices: tuple[str, ...] | None = None
    """The GPUs that `worker` has to be told of before it runs anything; None: nothing new."""


class Recall(Record):
    """Ask `owner`, once, to finish what it sent to `worker` and return that lease: somebody else waits."""

    owner: bytes
    worker: bytes


class Hosted(Record):
    """`worker` is now dedicated to the actor."""

    actor_id: bytes
    worker: bytes
    devices: tuple[str, ...] | None = None
    """As in `Granted`."""


class Infeasible(Record):
    """Tell the owner (or, for `owner=None`, whoever asked to host `actor_id`): this node can never serve `shape`."""

    owner: bytes | None
    actor_id: bytes | None
    shape: Shape
    reason: str


class CannotStart(Record):
    """Tell the owner or the actor's keeper: no worker process can be started here and none is left to wait for."""

    owner: bytes | None
    actor_id: bytes | None
    shape: Shape
    reason: str


class GroupUnknown(Record):
    """Ask the head about this placement group: somebody has waited for it for long."""

    group_id: bytes


class AtCap(Record):
    """Tell `owner`: resources are free but the worker cap is reached; a blocked worker may run its task itself."""

    owner: bytes
    shape: Shape


class HostActor(Record):
    """Find a worker for the actor; answer with `hosted`, `unplaceable` or `host_lost`."""

    actor_id: bytes
    place: Shape
    hold: Shape


class UnhostActor(Record):
    """Forget the actor's place: drop it from the queue, or give back what it holds."""

    actor_id: bytes


class Construct(Record):
    """Have `worker` run the constructor; answer with `constructed`. `incarnation` counts workers given, from 1."""

    actor_id: bytes
    worker: bytes
    incarnation: int


class RetireActor(Record):
    """Ask `worker` to finish the calls it has queued, announce `exiting` (unless the actor `moves`), and exit."""

    actor_id: bytes
    worker: bytes
    moves: bool = False


class KillWorker(Record):
    """Kill this actor worker now; running calls fail."""

    worker: bytes


class TellActor(Record):
    """Tell `process`, a subscriber, how the actor stands.

    `worker` is b"" while there is none; of a dead actor it is the one that ends in peace and still answers. `failure`
    is UTF-8 text, or what `worker_died` was given; with `init_failed` it is the constructor's packed exception instead.
    """

    process: bytes
    actor_id: bytes
    state: str
    worker: bytes
    incarnation: int
    failure: bytes
    restarts_used: int
    init_failed: bool = False


class ActorCreated(Record):
    """Tell the creator: accepted, and the name, if any, is taken by this actor."""

    actor_id: bytes


class ActorRefused(Record):
    """Tell `owner`: not created. `taken_by` is the actor that has the name, or b""."""

    actor_id: bytes
    owner: bytes
    reason: str
    taken_by: bytes = b""


LeaseEffect = (
    StartWorker | StartLodger | StopWorker | Granted | Recall | Hosted | Infeasible | CannotStart | AtCap | GroupUnknown
)
ActorEffect = HostActor | UnhostActor | Construct | RetireActor | KillWorker | TellActor | ActorCreated | ActorRefused
Effect = LeaseEffect | ActorEffect
