"""What happens to a request, in small records. Each change of a state is one; all that can be told of a run is a fold.

`time` is in seconds of one clock that does not go back, the caller's. Values are handles: nothing here holds bytes.
"""

from __future__ import annotations

from typing import Literal

from zmreg.model.record import Record

Outcome = Literal["done", "failed", "timeout", "cancelled"]


class StepQueued(Record):
    """Its inputs exist: bind it and call it. `attempt` counts from 0."""

    request_id: str
    step: str
    time: float
    attempt: int = 0


class StepStarted(Record):
    """It runs. `inputs`: where which value went, as ("args[0]", "other.field"); empty unless the run is traced."""

    request_id: str
    step: str
    time: float
    node: str = ""
    inputs: tuple[tuple[str, str], ...] = ()


class StepFinished(Record):
    """It is done. `value` is a handle, `nbytes` the size behind it; 0: not known."""

    request_id: str
    step: str
    time: float
    node: str = ""
    value: object = None
    nbytes: int = 0


class StepFailed(Record):
    """It failed for good. `error` is an exception, or a handle to one."""

    request_id: str
    step: str
    time: float
    node: str = ""
    error: object = None


class StepCancelled(Record):
    """It is not to be done any more: drop its call, which may be under way or running. `cause`: the step that failed;
    empty when the request was ended from outside."""

    request_id: str
    step: str
    time: float
    cause: str = ""


class LevelDone(Record):
    """All steps of this depth and of every smaller one are done. Comes in order, 0 first."""

    request_id: str
    level: int
    time: float


class RunDone(Record):
    """The end, said once. `step`: the one that failed first, if one did; `error`: its error, or the request's own."""

    request_id: str
    time: float
    outcome: Outcome
    step: str = ""
    error: object = None


StepEvent = StepQueued | StepStarted | StepFinished | StepFailed | StepCancelled
RunEvent = StepEvent | LevelDone | RunDone
