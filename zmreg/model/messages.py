"""Every sentence one process can say to another: one frozen record each, in one closed union.

Those about the store, refs and actors are defined in modules of their own and named here, the one place to import from.

All of them travel to the receiver's *door* (its bound ROUTER), in order per sender. Lines name sender -> receiver.
"client" is a driver's or worker's seat; "owner" is a client in its role as the owner of refs.
The two hot sentences, `Calls` and `Results`, have rows instead of records inside: see wire/batches.py.
"""

from __future__ import annotations

from typing import ClassVar

from zmreg.model.actor_messages import (
    ActorExiting,
    ActorInputs,
    ActorRefused,
    ActorState,
    Construct,
    Constructed,
    CreateActor,
    DeadlockProbe,
    KillActor,
    ReleaseActor,
    RetireActor,
    WatchActor,
)
from zmreg.model.ask_messages import Answer, Ask, CallersOf, LogLines, WhoseCalls
from zmreg.model.debug_messages import DebugWord
from zmreg.model.event_messages import Events, EventsTaken, PatternNews, Subscribe, Unsubscribe, WatchPatterns
from zmreg.model.far_messages import ActorHosted, ActorUnplaceable, KillProcess, PlaceActor, TryNodes, UnplaceActor
from zmreg.model.fetch_messages import FetchCredit, FetchObject, FetchRefused, FetchStop, FetchWait
from zmreg.model.function_messages import FunctionNews, FunctionRow, RegisterFunction, WatchFunctions, WithdrawFunction
from zmreg.model.group_messages import GroupWord
from zmreg.model.head_messages import ForHead, HeadChanged, HeadKept, Inventory, JobStarted
from zmreg.model.job_messages import JobNoted
from zmreg.model.kit_messages import RanHere, RunHere, SetPlugin
from zmreg.model.lodging_messages import LodgingWord
from zmreg.model.look_messages import Look, Looked, Measured
from zmreg.model.memory_messages import AskRepeatable, Repeatable
from zmreg.model.mesh_messages import (
    Admitted,
    AskHead,
    AskKept,
    Fenced,
    Join,
    Leaving,
    NodeDrains,
    NodeGone,
    NodeRecord,
    NotAdmitted,
    Passed,
    TakesNothing,
)
from zmreg.model.moving_messages import Demote
from zmreg.model.record import Resources, Sentence, Terms
from zmreg.model.ref_messages import Adopt, Borrow, BorrowSettled, Holds, Lost, Resolve, Resolved, Unborrow
from zmreg.model.replica_messages import AskReplay, AskSnapshot, Beacon, Delta, SnapshotPart
from zmreg.model.restart_messages import EndWorkers, WorkersEnded
from zmreg.model.store_messages import (
    Allocate,
    Allocated,
    AllocateRefused,
    FreeObjects,
    Pin,
    Pinned,
    PinRefused,
    Prefetch,
    Replicate,
    Replicated,
    Revive,
    Sealed,
    Unpin,
)
from zmreg.model.stream_messages import StreamClosed, StreamCredit
from zmreg.model.tidy_messages import TidyUp
from zmreg.model.verdict_messages import KnownDead

__all__ = [
    "ActorHosted",
    "ActorUnplaceable",
    "ForHead",
    "HeadChanged",
    "HeadKept",
    "Inventory",
    "JobNoted",
    "JobStarted",
    "KillProcess",
    "PlaceActor",
    "TryNodes",
    "UnplaceActor",
    "Admitted",
    "AskHead",
    "Fenced",
    "Join",
    "Leaving",
    "NodeGone",
    "NodeDrains",
    "AskKept",
    "Passed",
    "NodeRecord",
    "NotAdmitted",
    "ActorExiting",
    "ActorInputs",
    "DeadlockProbe",
    "ActorRefused",
    "ActorState",
    "Adopt",
    "Allocate",
    "AllocateRefused",
    "Allocated",
    "Answer",
    "Ask",
    "AskReplay",
    "AskSnapshot",
    "Beacon",
    "Blocked",
    "Borrow",
    "BorrowSettled",
    "CALLS_KIND",
    "CallersOf",
    "CancelCall",
    "CancelObject",
    "Construct",
    "Constructed",
    "CreateActor",
    "Definition",
    "Demote",
    "Delta",
    "AskRepeatable",
    "EndWorkers",
    "Events",
    "EventsTaken",
    "Exit",
    "FetchCredit",
    "FetchObject",
    "FetchRefused",
    "FetchStop",
    "FetchWait",
    "FreeObjects",
    "FunctionNews",
    "FunctionRow",
    "GaveBack",
    "Goodbye",
    "Hello",
    "Holds",
    "KillActor",
    "KillOverdue",
    "LeaseGranted",
    "LeaseRecalled",
    "LeaseReturned",
    "LogLines",
    "Look",
    "Looked",
    "Lost",
    "Measured",
    "Message",
    "NeedDefinition",
    "PartReady",
    "PatternNews",
    "Pin",
    "PinRefused",
    "Pinned",
    "Prefetch",
    "ProcessDied",
    "RESULTS_KIND",
    "RanHere",
    "RegisterFunction",
    "ReleaseActor",
    "Repeatable",
    "Replicate",
    "Replicated",
    "Revive",
    "Resolve",
    "Resolved",
    "Resources",
    "RetireActor",
    "RunHere",
    "Sealed",
    "SnapshotPart",
    "SetPlugin",
    "Steal",
    "Subscribe",
    "StreamClosed",
    "StreamCredit",
    "TakesNothing",
    "TidyUp",
    "KnownDead",
    "Unborrow",
    "Unpin",
    "Unschedulable",
    "Unsubscribe",
    "UseDevices",
    "WantLeases",
    "WatchActor",
    "WatchFunctions",
    "WatchPatterns",
    "Welcome",
    "WithdrawFunction",
    "WhoseCalls",
    "WorkersAtCap",
    "WorkersEnded",
]


# -- joining and leaving -----------------------------------------------------------------------------------------------


class Hello(Sentence):
    """client -> node: I exist; my door is bound."""

    KIND: ClassVar[int] = 1
    role: str
    pid: int


class Welcome(Sentence):
    """node -> client: who I am, and where the arena is."""

    KIND: ClassVar[int] = 2
    node: bytes
    arena: str
    arena_bytes: int
    inline_limit: int
    namespace: str
    num_cpus: float
    plugins: tuple[bytes, ...] = ()
    """For workers: what to set up before the first call."""


class Goodbye(Sentence):
    """client -> node: I leave on purpose. From the driver that started the node: shut everything down.

    worker -> everybody it ever spoke to: I leave; these were my last words, and the node answers for what was mine.
    """

    KIND: ClassVar[int] = 3


class Exit(Sentence):
    """node -> worker: finish what you started, then end. With `last`, nobody needs what is yours: the cluster ends."""

    KIND: ClassVar[int] = 4
    last: bool


class ProcessDied(Sentence):
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
    drained: bool = False
    """Its node leaves, and had to end it: no fault of what it ran."""
    memory_bytes: int = 0
    """What it had of its own when its node ended it for want of memory; 0: it ended otherwise."""
    begun: bytes = b""
    """Of a program that served named functions: which calls it had begun (store/begun.py). Empty: nobody can tell."""


# -- leases ------------------------------------------------------------------------------------------------------------


class WantLeases(Sentence):
    """owner -> node: I would like to hold `count` leases of this shape in all. A level, so repeats are harmless."""

    KIND: ClassVar[int] = 10
    resources: Resources
    locs: tuple[str, ...]
    strategy: str
    count: int
    depth: int
    book: bool
    """False: only tell me which nodes have room, yourself included."""
    terms: Terms = ()


class LeaseGranted(Sentence):
    """node -> owner: send tasks of this shape straight to `worker`."""

    KIND: ClassVar[int] = 11
    resources: Resources
    locs: tuple[str, ...]
    strategy: str
    worker: bytes
    devices: tuple[str, ...] | None = None
    """GPUs that the worker has to be told of before the first call (`UseDevices`); None: nothing is to be said."""
    terms: Terms = ()


class UseDevices(Sentence):
    """owner, or node of an actor -> worker: these GPUs, by id, are for what I send from now on; none if empty."""

    KIND: ClassVar[int] = 113
    devices: tuple[str, ...]


class LeaseRecalled(Sentence):
    """node -> owner: others wait; give `worker` back as soon as what it started is done."""

    KIND: ClassVar[int] = 12
    worker: bytes


class LeaseReturned(Sentence):
    """owner -> node: I send nothing more to `worker`."""

    KIND: ClassVar[int] = 13
    worker: bytes


class Unschedulable(Sentence):
    """node -> owner: no node can ever meet this shape, or (`cannot_start`) no process could be started for it now."""

    KIND: ClassVar[int] = 14
    resources: Resources
    locs: tuple[str, ...]
    strategy: str
    reason: str
    cannot_start: bool
    terms: Terms = ()


class Blocked(Sentence):
    """worker -> node: my task waits for others; my CPU is free meanwhile (`blocked`), or I take it back."""

    KIND: ClassVar[int] = 15
    blocked: bool


class WorkersAtCap(Sentence):
    """node -> owner: wanted, feasible, but every allowed worker process exists and is in use."""

    KIND: ClassVar[int] = 16
    resources: Resources
    locs: tuple[str, ...]
    strategy: str
    terms: Terms = ()


# -- calls -------------------------------------------------------------------------------------------------------------


class Definition(Sentence):
    """owner -> worker: the function or class with this digest, pickled. Sent before the first call that needs it."""

    KIND: ClassVar[int] = 30
    digest: bytes
    blob: bytes


class NeedDefinition(Sentence):
    """worker -> owner: I no longer have this one; send it again."""

    KIND: ClassVar[int] = 31
    digest: bytes


class Steal(Sentence):
    """owner -> worker: give back up to `count` unstarted tasks, newest first; `riders`: also those that ride on one."""

    KIND: ClassVar[int] = 32
    count: int
    riders: bool = False


class GaveBack(Sentence):
    """worker -> owner: these were not started and never will be here."""

    KIND: ClassVar[int] = 33
    counters: tuple[int, ...]
    blocked: bool
    """The task that runs waits for others: send nothing until I answer again."""


class PartReady(Sentence):
    """worker -> owner: one of the values that a generator yields for its several refs, while the call goes on."""

    KIND: ClassVar[int] = 36
    counter: int
    index: int
    stored: bool
    payload: bytes
    nbytes: int
    type_name: str
    contained: tuple[bytes, ...]


class CancelCall(Sentence):
    """owner -> worker: drop this call, or interrupt it if it runs; `grace_s`: step by step
    (services/worker/graces.py)."""

    KIND: ClassVar[int] = 34
    counter: int
    force: bool
    recursive: bool
    grace_s: float | None


class CancelObject(Sentence):
    """any holder of a ref -> its owner: cancel the task that makes it."""

    KIND: ClassVar[int] = 35
    object_id: bytes
    force: bool
    recursive: bool
    grace_s: float | None


class KillOverdue(Sentence):
    """owner -> node: kill this worker in `grace_s` seconds, if it is still in that call then."""

    KIND: ClassVar[int] = 37
    worker: bytes
    counter: int
    grace_s: float


Message = (
    Hello | Welcome | Goodbye | Exit | ProcessDied
    | WantLeases | LeaseGranted | LeaseRecalled | LeaseReturned | Unschedulable | Blocked | WorkersAtCap | UseDevices
    | Allocate | Allocated | AllocateRefused | Sealed | Pin | Pinned | PinRefused | Unpin | FreeObjects
    | Prefetch | Replicate | Replicated | Revive | Demote
    | Definition | NeedDefinition | Steal | GaveBack | PartReady | CancelCall | CancelObject | KillOverdue
    | Lost | Resolve | Resolved | Borrow | BorrowSettled | Unborrow | Adopt | Holds
    | CreateActor | ActorRefused | Construct | Constructed | ActorState | WatchActor | KillActor | ReleaseActor
    | RetireActor | ActorExiting | ActorInputs | DeadlockProbe
    | PlaceActor | UnplaceActor | ActorHosted | ActorUnplaceable | KillProcess | TryNodes
    | Join | Admitted | NotAdmitted | AskHead | NodeRecord | NodeGone | Leaving | Fenced
    | NodeDrains | AskKept | Passed | TakesNothing | KnownDead | EndWorkers | WorkersEnded | AskRepeatable | Repeatable
    | Inventory | HeadChanged | ForHead | HeadKept | JobStarted | JobNoted
    | Ask | Answer | LogLines | WhoseCalls | CallersOf
    | FetchObject | FetchCredit | FetchStop | FetchRefused | FetchWait
    | Delta | Beacon | AskReplay | AskSnapshot | SnapshotPart
    | FunctionRow | RegisterFunction | WithdrawFunction | WatchFunctions | FunctionNews
    | Subscribe | Unsubscribe | WatchPatterns | PatternNews | Events | EventsTaken | StreamCredit | StreamClosed
    | RunHere | RanHere | SetPlugin | TidyUp | GroupWord | Look | Looked | Measured | DebugWord | LodgingWord
)  # fmt: skip

CALLS_KIND = 100
"""owner -> worker: a batch of calls (rows)."""
RESULTS_KIND = 101
"""worker -> owner: a batch of results (rows)."""
