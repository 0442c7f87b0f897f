"""`ray.exceptions`: Ray's names for zmreg's errors. What is one error here has more than one name there."""

from __future__ import annotations

import zmreg

errors = zmreg.errors

ActorDiedError = errors.ActorDiedError
ActorUnavailableError = errors.ActorUnavailableError
AuthenticationError = errors.AuthenticationError
GetTimeoutError = errors.GetTimeoutError
ObjectLostError = errors.ObjectLostError
ObjectStoreFullError = errors.ObjectStoreFullError
OutOfMemoryError = errors.OutOfMemoryError
OwnerDiedError = errors.OwnerDiedError
RuntimeEnvSetupError = errors.RuntimeEnvSetupError
TaskCancelledError = errors.TaskCancelledError
RayError = errors.ZmregError
RayTaskError = UserCodeException = errors.TaskError
RayActorError = errors.ActorError
ActorAlreadyExistsError = errors.ActorExistsError
PendingCallsLimitExceeded = errors.PendingCallsLimitError
WorkerCrashedError = errors.WorkerDiedError
NodeDiedError = LocalRayletDiedError = RpcError = errors.ClusterError
ObjectFetchTimedOutError = errors.ObjectUnreachableError
ObjectReconstructionFailedError = ObjectFreedError = ReferenceCountingAssertionError = errors.ObjectLostError
OutOfDiskError = errors.SpillFullError
RaySystemError = errors.InternalError
TaskUnschedulableError = ActorUnschedulableError = errors.UnschedulableError
TaskPlacementGroupRemoved = ActorPlacementGroupRemoved = errors.PlacementGroupRemovedError
UnserializableException = OufOfBandObjectRefSerializationException = errors.SerializationError


class Stopped(errors.TaskError, StopIteration):
    """What `ray.get` raises for a method that has raised StopIteration; `zmreg.get` raises a plain TaskError, which
    ends no loop by accident."""


class CrossLanguageError(errors.ZmregError):
    """So that it can be imported, as those below; nothing raises them here."""


class AsyncioActorExit(errors.ZmregError):
    """See above."""


class ActorHandleNotFoundError(errors.ZmregError, ValueError):
    """See above."""


class PlasmaObjectNotAvailable(errors.ZmregError):
    """See above."""


class ObjectRefStreamEndOfStreamError(errors.ZmregError):
    """See above."""


class StreamingGeneratorReplayInconsistentError(errors.InternalError):
    """See above."""


class RayChannelError(errors.InternalError):
    """See above."""


class RayChannelTimeoutError(RayChannelError, TimeoutError):
    """See above."""


class RayCgraphCapacityExceeded(errors.InternalError):
    """See above."""


class RayDirectTransportError(errors.InternalError):
    """See above."""


__all__ = [
    "ActorAlreadyExistsError",
    "ActorDiedError",
    "ActorHandleNotFoundError",
    "ActorPlacementGroupRemoved",
    "ActorUnavailableError",
    "ActorUnschedulableError",
    "AsyncioActorExit",
    "AuthenticationError",
    "CrossLanguageError",
    "GetTimeoutError",
    "LocalRayletDiedError",
    "NodeDiedError",
    "ObjectFetchTimedOutError",
    "ObjectFreedError",
    "ObjectLostError",
    "ObjectReconstructionFailedError",
    "ObjectRefStreamEndOfStreamError",
    "ObjectStoreFullError",
    "OufOfBandObjectRefSerializationException",
    "OutOfDiskError",
    "OutOfMemoryError",
    "OwnerDiedError",
    "PendingCallsLimitExceeded",
    "PlasmaObjectNotAvailable",
    "RayActorError",
    "RayCgraphCapacityExceeded",
    "RayChannelError",
    "RayChannelTimeoutError",
    "RayDirectTransportError",
    "RayError",
    "RaySystemError",
    "RayTaskError",
    "ReferenceCountingAssertionError",
    "RpcError",
    "RuntimeEnvSetupError",
    "StreamingGeneratorReplayInconsistentError",
    "TaskCancelledError",
    "TaskPlacementGroupRemoved",
    "TaskUnschedulableError",
    "UnserializableException",
    "UserCodeException",
    "WorkerCrashedError",
]
