"""What an owner makes of a worker's death: which of its tasks had begun, which may try again, and what to say."""

from __future__ import annotations

import signal

from zmreg.core.tasks import QUARANTINE_AFTER, Death, Fail, RetryPolicy
from zmreg.model.errors import (
    OutOfMemoryError,
    ProtocolError,
    TaskCancelledError,
    TaskError,
    WorkerDiedError,
    ZmregError,
)
from zmreg.model.ids import object_id
from zmreg.model.messages import ProcessDied
from zmreg.services.calling.calls import Task, describe
from zmreg.telemetry.past import clipped
from zmreg.wire import payload
from zmreg.wire.failures import decode_failure

UNKNOWN = b"?"
"""In `ProcessDied.running`: its node is gone too, and nobody can tell what it was in."""


def count_begun(tasks: list[Task], running: bytes, me: bytes) -> int:
    """How many tasks, in the order they were sent, may have run: those up to the one the worker was in.

    What stands before that one is done but unanswered, what stands behind it never began.
    """
    if running == UNKNOWN:
        return len(tasks)
    if running[:8] == me:
        number = int.from_bytes(running[8:], "big")
        for place, task in enumerate(tasks):
            if task.counter == number:
                return place + 1
    return 0


def one_more_attempt(task: Task, message: ProcessDied, suspect: bool) -> bool:
    """Book one more attempt, if the task's options allow it and it has not killed too many workers already.

    What its node has ended in order to leave is no fault of the task, nor is what another task did (`suspect` is the
    one the worker was in) before the answer had left: tried again, if it may be at all, at no charge.
    """
    if message.drained or not suspect:
        return task.template.max_retries != 0
    exit_code = message.exit_code if message.signal is None else -message.signal
    starved = message.memory_bytes > 0
    task.deaths = (*task.deaths, Death(exit_code, log_tail=message.log_tail, for_memory=starved))
    policy = RetryPolicy(task.template.max_retries)
    verdict = policy.decide("memory" if starved else "system", task.attempt + 1, deaths=task.deaths)
    if isinstance(verdict, Fail):
        return False
    task.attempt = verdict.attempt
    return True


def is_to_retry(task: Task, failure: bytes) -> bool:
    """Whether the task's options have it tried again after this error of the user's."""
    template = task.template
    if not template.retry_exceptions or task.cancelled:
        return False
    error = payload.unpack_failure(failure)
    cause = error.cause if isinstance(error, TaskError) else error
    policy = RetryPolicy(template.max_retries, template.retry_exceptions)
    return not isinstance(policy.decide("user", task.attempt + 1, cause), Fail)


def headline(failure: bytes) -> str:
    """An error in one line; nothing of it is unpickled."""
    try:
        return clipped(decode_failure(failure)[0].headline())
    except ProtocolError:  # it was too long to be remembered (telemetry/past.py)
        return "an error that is too long to be kept here"


def times_starved(task: Task) -> int:
    """How often its worker was ended for want of memory."""
    return sum(death.for_memory for death in task.deaths)


def may_repeat(task: Task) -> bool:
    """Whether it would run again if its worker were ended for want of memory now."""
    return not task.cancelled and RetryPolicy(task.template.max_retries).may_starve(times_starved(task))


def worker_died(task: Task, message: ProcessDied, me: bytes) -> ZmregError:
    """The error of a task whose worker died under it for the last time."""
    if task.cancelled and message.signal is None and message.exit_code is None:
        return TaskCancelledError(f"{describe(task, me)} was cancelled")
    tries = f" on each of {task.attempt + 1} attempts" if task.attempt else ""
    if task.grace_s is not None and message.signal == signal.SIGKILL:
        return cancelled_error(task, me, "kill")
    if message.memory_bytes:
        return _out_of_memory(task, message, me)
    forced = " after cancel(force=True)" if task.cancelled else ""
    text = f"the worker that ran {describe(task, me)} died{tries}{forced}: {message.reason}"
    if task.template.max_retries == -1 and len(task.deaths) >= QUARANTINE_AFTER:
        text += f"; it is not tried again, because it killed {len(task.deaths)} workers in a row"
    if message.log_tail:
        text += f"\nlast lines it printed:\n{message.log_tail}"
    return WorkerDiedError(text, exit_code=message.exit_code, signal=message.signal, log_tail=message.log_tail)


def _out_of_memory(task: Task, message: ProcessDied, me: bytes) -> OutOfMemoryError:
    times = times_starved(task)
    often = f" {times} times" if times > 1 else ""
    text = (
        f"the worker that ran {describe(task, me)} was ended{often} for want of memory, the last time so: "
        f"{message.reason}. Have the task take less, or fewer run side by side (num_cpus=, memory=), or give the "
        "machine more; max_retries says how often it is tried again."
    )
    return OutOfMemoryError(text, rss_bytes=message.memory_bytes)


def cancelled_failure(task: Task, me: bytes, ended_by: str = "") -> bytes:
    """The packed error of a cancelled task."""
    return payload.pack_failure(cancelled_error(task, me, ended_by))


def cancelled_error(task: Task, me: bytes, ended_by: str) -> TaskCancelledError:
    """The error of a cancelled task; `ended_by` as in the class."""
    how = ""
    if ended_by == "flag":
        how = ": zmreg.cancelled() told it, and it ended by itself"
    elif ended_by == "interrupt":
        how = ": KeyboardInterrupt ended it"
    elif ended_by == "kill":
        how = f": it did not end within grace={task.grace_s:g} s, so its process was killed"
    text = f"{describe(task, me)} was cancelled{how}"
    return TaskCancelledError(text, task_id=object_id(me, task.counter).hex(), ended_by=ended_by)
