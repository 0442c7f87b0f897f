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

__all__ = [
    "ActorAlreadyExistsError",
    "ActorDiedError",
    "ActorPlacementGroupRemoved",
    "ActorUnavailableError",
    "ActorUnschedulableError",
    "AuthenticationError",
    "GetTimeoutError",
    "LocalRayletDiedError",
    "NodeDiedError",
    "ObjectFetchTimedOutError",
    "ObjectFreedError",
    "ObjectLostError",
    "ObjectReconstructionFailedError",
    "ObjectStoreFullError",
    "OufOfBandObjectRefSerializationException",
    "OutOfDiskError",
    "OutOfMemoryError",
    "OwnerDiedError",
    "PendingCallsLimitExceeded",
    "RayActorError",
    "RayError",
    "RaySystemError",
    "RayTaskError",
    "ReferenceCountingAssertionError",
    "RpcError",
    "RuntimeEnvSetupError",
    "TaskCancelledError",
    "TaskPlacementGroupRemoved",
    "TaskUnschedulableError",
    "UnserializableException",
    "UserCodeException",
    "WorkerCrashedError",
]
