"""Every error zmreg raises on purpose; each says what happened, where, and what to do next.

ZmregError
  TaskError                     user code raised; also an instance of the user's own class when that can be subclassed
  TaskCancelledError            the task was cancelled before it finished
  GetTimeoutError               (TimeoutError) the wait ended, the work did not
  RequestTimeoutError           (TimeoutError) a request, or a step of it, was not done in time and was cancelled
  WorkerDiedError               exit code or signal, last log lines
  OutOfMemoryError              (MemoryError) a worker was stopped to save its machine
  ActorError
    ActorDiedError              for good; .cause when its __init__ raised
    ActorUnavailableError       for now: restarting, or its node is silent
    ActorExistsError            (ValueError) the name is taken
    PendingCallsLimitError      the caller's own limit of unanswered calls
    DeadlockError               calls wait for each other in a circle
  ObjectLostError               no copy left and no way to rebuild
    OwnerDiedError              the process that knew the object is gone
    ObjectUnreachableError      a copy exists, nobody can reach it
  ObjectStoreFullError, SpillFullError
  SchedulingError
    UnschedulableError          no node can ever meet the request
    PlacementGroupRemovedError
    WorkerStartError            the machine refuses new processes
    RuntimeEnvSetupError        a worker could not be put into the environment asked for
  GraphError                    (ValueError)
    CycleError, DuplicateStepError, FieldError
  FunctionNotFoundError         (LookupError) nobody has the name
  NoRouteError                  (LookupError) nobody has the name and the locs together
  PipelineError, PhaseError
  EngineError                   some of the processes of `zmreg.engines` failed; each error by engine
  SerializationError            (TypeError) a value, function or exception cannot cross a process border
  MessageTooLargeError, QuotaExceededError
  ClusterError                  (ConnectionError)
    HeadUnavailableError, AuthenticationError, VersionMismatchError, StaleRefError, ForkedContextError
    StateError                  the head cannot read or keep its state
      StateLockedError          another head of this cluster runs
    ProtocolError               a peer sent bytes that are no message of ours
  InternalError                 ours: please report, with the story attached

All of them survive pickling with their attributes: `args` holds the message alone and the rest lives in `__dict__`,
which is what `BaseException.__reduce__` carries. Duplicate or wrong use of the API is a plain TypeError or ValueError.
"""

from __future__ import annotations

from typing import Final, SupportsIndex

from zmreg.model.exceptions import FailureOrigin as FailureOrigin
from zmreg.model.exceptions import (
    Travelling,
    constructor_args,
    dual_class,
    fields_of,
    has_own_pickling,
    is_importable,
    rebuild_exception,
    with_sources,
)


class ZmregError(Exception):
    """Root of everything zmreg raises on purpose. `message`: the whole text, for a human."""

    def __init__(self, message: str = "") -> None:
        super().__init__(message)

    @property
    def message(self) -> str:
        """The text given at construction, without notes."""
        return str(self.args[0]) if self.args else ""


class TaskError(ZmregError):
    """User code raised in another process.

    Built by `make_task_error`, which also makes it an instance of the user's class where that is possible.
    `.step` and `.stage` are set by requests and pipelines. `str()` carries the remote traceback.
    """

    # One private attribute each, behind properties of this class: the attributes of the user's exception share the
    # same __dict__, and one called `pid` or `cause` must not shadow ours.
    _origin: FailureOrigin
    _cause: BaseException | None

    def __init__(
        self, message: str = "", origin: FailureOrigin | None = None, cause: BaseException | None = None
    ) -> None:
        super().__init__(message)
        self._origin = origin if origin is not None else FailureOrigin(type_name="TaskError", text=message)
        self._cause = cause
        self.step: str | None = None
        self.stage: str | None = None

    @property
    def origin(self) -> FailureOrigin:
        """All textual facts of the failure in one record."""
        return self._origin

    @property
    def cause(self) -> BaseException | None:
        """The user's exception itself; None when it could not travel."""
        return self._cause

    @property
    def function(self) -> str:
        """Name of the function or method that raised."""
        return self._origin.function

    @property
    def remote_traceback(self) -> str:
        """The formatted traceback as seen where it was raised."""
        return with_sources(self._origin.remote_traceback)

    @property
    def pid(self) -> int:
        """Process id of the worker; 0 when unknown."""
        return self._origin.pid

    @property
    def node_id(self) -> str:
        """Id of the worker's node; empty when unknown."""
        return self._origin.node_id

    @property
    def type_name(self) -> str:
        """Name of the user's exception class, known even when the class itself could not travel."""
        return self._origin.type_name

    @property
    def message(self) -> str:
        """The text of the user's exception."""
        return self._origin.text

    def __str__(self) -> str:
        return f"{self._origin.headline()}\n\n{self.remote_traceback}".rstrip()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self._origin.text!r}, function={self.function!r}, pid={self.pid})"

    def __reduce__(self) -> tuple[object, ...]:
        # The dual class has no importable name: it is made anew at the far end of its two halves, with `__dict__`.
        state = {name: value for name, value in self.__dict__.items() if name not in ("_origin", "_cause")}
        # Of a class that no other process can find, text and attributes come: with the class nothing would.
        cause = self._cause if is_importable(type(self._cause)) else None
        travelling = cause if cause is None or has_own_pickling(type(cause)) else Travelling(cause)
        return make_task_error, (self._origin, travelling), state

    def __reduce_ex__(self, protocol: SupportsIndex) -> tuple[object, ...]:
        return self.__reduce__()  # ours, also when the user's class has a __reduce_ex__

    def __copy__(self, _memo: object = None) -> TaskError:
        twin = make_task_error(self._origin, self._cause)
        twin.__dict__.update(self.__dict__)
        return twin

    __deepcopy__ = __copy__

    def __setstate__(self, state: dict[str, object] | None) -> None:
        self.__dict__.update(state or {})  # past a __setattr__ that refuses (frozen dataclass as exception)


class TaskCancelledError(ZmregError):
    """The task was cancelled. `.task_id`: hex, empty when unknown. `.ended_by`: what ended it while it ran, "flag"
    (`zmreg.cancelled()` told it), "interrupt" or "kill"; empty when it had not begun."""

    def __init__(self, message: str = "The task was cancelled.", task_id: str = "", ended_by: str = "") -> None:
        super().__init__(message)
        self.task_id = task_id
        self.ended_by = ended_by


class GetTimeoutError(ZmregError, TimeoutError):
    """The value was not there within the time given; the work goes on. `.timeout_s`: the time given, in seconds."""

    def __init__(self, message: str = "", timeout_s: float | None = None) -> None:
        super().__init__(message)
        self.timeout_s = timeout_s


class RequestTimeoutError(ZmregError, TimeoutError):
    """A request, or a `.step` of it, was not done within `.timeout_s` seconds; what was under way was cancelled."""

    timeout_s: float | None = None
    step: str = ""


class WorkerDiedError(ZmregError):
    """The process that ran the task ended. `.exit_code` or `.signal` (a number), `.log_tail`: its last lines."""

    def __init__(
        self, message: str = "", exit_code: int | None = None, signal: int | None = None, log_tail: str = ""
    ) -> None:
        super().__init__(message)
        self.exit_code = exit_code
        self.signal = signal
        self.log_tail = log_tail

    def __str__(self) -> str:
        return f"{self.message}\nlast log lines:\n{self.log_tail.rstrip()}" if self.log_tail else self.message


class OutOfMemoryError(MemoryError, ZmregError):
    """A worker was stopped before its machine ran out of memory. `.rss_bytes`: what it used then."""

    def __init__(self, message: str = "", rss_bytes: int | None = None) -> None:
        super().__init__(message)
        self.rss_bytes = rss_bytes


class ActorError(ZmregError):
    """A call on an actor cannot be answered. `.actor_id`: hex, empty when unknown."""

    def __init__(self, message: str = "", actor_id: str = "") -> None:
        super().__init__(message)
        self.actor_id = actor_id


class ActorDiedError(ActorError):
    """The actor is gone for good. `.init_failed`: its `__init__` raised, and `.cause` is that error."""

    def __init__(
        self, message: str = "", cause: BaseException | None = None, init_failed: bool = False, actor_id: str = ""
    ) -> None:
        super().__init__(message or self._usual_text(cause, init_failed), actor_id)
        self.cause = cause
        self.init_failed = self.actor_init_failed = init_failed  # the second is Ray's name

    @staticmethod
    def _usual_text(cause: BaseException | None, init_failed: bool) -> str:
        if not init_failed:
            return "The actor died unexpectedly before finishing this call."
        reason = f":\n{cause}" if cause is not None else "."
        return f"The actor died because of an error raised in its __init__{reason}"


class ActorUnavailableError(ActorError):
    """The actor cannot be reached now (restarting, or its node is silent); the call may or may not have run."""


class ActorExistsError(ActorError, ValueError):
    """An actor of this name lives already in the namespace."""


class PendingCallsLimitError(ActorError):
    """The caller has `max_pending_calls` unanswered calls on this actor."""


class DeadlockError(ActorError):
    """The call waited for can never run: actors wait for each other in a circle. `.path`: the calls of the circle."""

    def __init__(self, message: str = "", path: tuple[str, ...] = (), actor_id: str = "") -> None:
        super().__init__(message, actor_id)
        self.path = path


class ObjectLostError(ZmregError):
    """No copy of the object is left and it cannot be rebuilt. `.object_id`: hex."""

    def __init__(self, message: str = "", object_id: str = "") -> None:
        super().__init__(message)
        self.object_id = object_id


class OwnerDiedError(ObjectLostError):
    """The process that owned the object crashed, and with it the knowledge of where the value is."""


class ObjectUnreachableError(ObjectLostError):
    """A copy exists on a node that this one cannot reach."""


class ObjectStoreFullError(ZmregError):
    """No space for the object, even after evicting and spilling. The text names the top holders."""

    def __init__(self, message: str = "", needed_bytes: int = 0, budget_bytes: int = 0) -> None:
        super().__init__(message)
        self.needed_bytes = needed_bytes
        self.budget_bytes = budget_bytes


class SpillFullError(ObjectStoreFullError):
    """The spill directory's disk is full."""


class SchedulingError(ZmregError):
    """Work cannot be placed."""


class UnschedulableError(SchedulingError):
    """No node can ever meet the request; the text shows it beside the best node."""


class PlacementGroupRemovedError(SchedulingError):
    """The placement group this work was bound to was removed."""


class WorkerStartError(SchedulingError):
    """The node could not start a worker process."""


class RuntimeEnvSetupError(SchedulingError):
    """A worker could not be put into the environment (`runtime_env=`) that its task or actor asks for."""


class GraphError(ZmregError, ValueError):
    """A request's graph is wrong."""


class CycleError(GraphError):
    """Steps wait for each other. `.path`: their names in order, first and last the same."""

    def __init__(self, message: str = "", path: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.path = path


class DuplicateStepError(GraphError):
    """Two steps have one name."""


class FieldError(GraphError):
    """A step asks for a field that its input does not have."""


class FunctionNotFoundError(ZmregError, LookupError):
    """Nobody has registered a function of this name."""


class FunctionWithdrawnError(FunctionNotFoundError):
    """The process that was asked does not serve the name any more, and has not begun the call: another may."""


class NoRouteError(ZmregError, LookupError):
    """Nobody has the name and all the locs together."""


class EngineError(ZmregError):
    """Some engines failed: `.errors` by engine, the `.results` of the others, and the first error as its cause."""

    errors: dict[int, BaseException] = {}
    results: dict[int, object] = {}


class PipelineError(ZmregError):
    """A stage failed: `.stage` its name, `.index` of its item (from 0; -1: none), `.preview` of that, `.cause`."""

    stage = preview = node = remote_traceback = ""
    index = -1
    cause: BaseException | None = None


class PhaseError(ZmregError):
    """A run's phases are wrong, or one failed. `.phase`: its name."""

    phase: str = ""


class SerializationError(ZmregError, TypeError):
    """A value, function or exception cannot cross a process border; the text names the path to the culprit."""


class MessageTooLargeError(ZmregError):
    """A message is over the wire's limit; refused before it was sent."""


class QuotaExceededError(ZmregError):
    """The caller is over one of its quotas; the text names it."""


class ClusterError(ZmregError, ConnectionError):
    """The cluster cannot be reached or does not accept this process."""


class HeadUnavailableError(ClusterError):
    """The head did not answer within the deadline."""


class AuthenticationError(ClusterError):
    """The peer refused our key, or we its; the text names the key file."""


class StateError(ClusterError):
    """The head cannot read its state directory, or write what it would have to keep; the text says which and why."""


class StateLockedError(StateError):
    """Another head of this cluster runs: one state directory serves one process; the text names it."""


class VersionMismatchError(ClusterError):
    """The two ends speak different versions of the protocol or of Python."""


class StaleRefError(ClusterError):
    """The ref belongs to a cluster or session that is over."""


class ForkedContextError(ClusterError):
    """This process is a fork of one that used zmreg; it must call init() itself."""


class ProtocolError(ClusterError):
    """A peer sent bytes that are no message of ours. `.peer`: its name or identity, empty when unknown."""

    def __init__(self, message: str = "", peer: str = "") -> None:
        super().__init__(message)
        self.peer = peer


class InternalError(ZmregError):
    """A bug in zmreg. `.story`: the last facts of the thing concerned; please report both."""

    def __init__(self, message: str = "", story: str = "") -> None:
        super().__init__(message)
        self.story = story

    def __str__(self) -> str:
        return f"{self.message}\n{self.story}" if self.story else self.message


# 1,000 classes: programs have a few dozen, but a notebook that redefines one per cell must not grow this for ever.
_MAX_DUALS: Final = 1000
_duals: dict[type[BaseException], type[TaskError] | None] = {}


def make_task_error(origin: FailureOrigin, cause: BaseException | None) -> TaskError:
    """A TaskError for `cause`, also an instance of its class when that is possible; never raises.

    A plain TaskError results when there is no cause, when it is not an Exception (SystemExit must not end the driver),
    when it steers loops (StopIteration), or when its class refuses to be subclassed or copied.
    """
    error: TaskError | None = None
    if isinstance(cause, Exception) and (dual := _dual_class(type(cause))) is not None:
        try:
            error = rebuild_exception(dual, constructor_args(cause), fields_of(cause), dict(cause.__dict__))
        except Exception:  # noqa: BLE001  a foreign class may object in any way; its error must still be told
            error = None
    if error is None:
        return TaskError(origin.text, origin, cause)
    # Through __dict__: a frozen dataclass as exception refuses assignment.
    error.__dict__.update(_origin=origin, _cause=cause, step=None, stage=None)
    return error


def _dual_class(cls: type[BaseException]) -> type[TaskError] | None:
    if cls not in _duals:
        if len(_duals) >= _MAX_DUALS:
            _duals.clear()
        _duals[cls] = dual_class(TaskError, cls)
    return _duals[cls]
