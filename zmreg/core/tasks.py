"""Whether a task that failed runs again: one budget, two reasons, and a stop for tasks that keep killing workers."""

from __future__ import annotations

import signal
import sys
from collections.abc import Sequence
from typing import Final, Literal, assert_never

from zmreg.model.record import Record

FailureKind = Literal["system", "user", "memory", "cancelled"]

# A task without an end to its retries still stops after killing this many workers in a row: each death costs the
# node a process start, and other people's tasks the worker. Lost nodes and lost inputs do not count.
QUARANTINE_AFTER: Final = 10
# Log lines of the last death that are shown; the rest is in the worker's log file.
_LOG_LINES: Final = 20


class Death(Record):
    """A worker process that ended while it ran the task. `exit_code` < 0 is minus the signal, None is unknown."""

    exit_code: int | None
    node: str = ""
    log_tail: str = ""
    for_memory: bool = False
    """Its node ended it for want of memory: no crash, and counted apart."""

    @property
    def signal_name(self) -> str:
        """SIGKILL and the like; "" when no signal, or none with a name, ended it."""
        if self.exit_code is None or self.exit_code >= 0:
            return ""
        try:
            return signal.Signals(-self.exit_code).name
        except ValueError:
            return f"signal {-self.exit_code}"

    def __str__(self) -> str:
        how = "unknown" if self.exit_code is None else str(self.exit_code)
        name = f" ({self.signal_name})" if self.signal_name else ""
        return f"exit {how}{name}{f' on {self.node}' if self.node else ''}"


class Retry(Record):
    """Run it again. `attempt` is the number of the coming attempt, the first ever being 0; published to the task."""

    attempt: int


class Fail(Record):
    """The task is over. `reason` says why no further attempt is made; `deaths` is what it did to workers."""

    reason: str
    quarantined: bool = False
    deaths: tuple[Death, ...] = ()


class RetryPolicy(Record):
    """`max_retries` (-1: without end) is one budget for both reasons; user exceptions use it only when they may.

    `retry_exceptions`: True for every Exception, or the classes to retry.
    """

    max_retries: int = 3
    retry_exceptions: bool | tuple[type[BaseException], ...] = False
    quarantine_after: int = QUARANTINE_AFTER

    def __post_init__(self) -> None:
        if self.max_retries < -1:
            raise ValueError(f"max_retries={self.max_retries}: use 0 or more, or -1 for without end")
        if self.quarantine_after < 1:
            raise ValueError(f"quarantine_after={self.quarantine_after}: a task must be allowed one attempt")

    def retries(self, error: BaseException | None) -> bool:
        """Whether a user's `error` is one to retry; one that could not be unpacked (None) only under True."""
        if is_quit(error):
            return False
        if isinstance(self.retry_exceptions, bool):
            return self.retry_exceptions and (error is None or isinstance(error, Exception))
        return error is not None and isinstance(error, self.retry_exceptions)

    def may_starve(self, times: int) -> bool:
        """Whether it runs again when its worker is ended for want of memory, which has happened `times` times before.

        A budget of its own, as large as the other: who needs more than there is has to be told so in the end.
        """
        return times < (self.quarantine_after if self.max_retries == -1 else self.max_retries)

    def decide(
        self,
        kind: FailureKind,
        attempts_used: int,
        error: BaseException | None = None,
        deaths: Sequence[Death] = (),
    ) -> Retry | Fail:
        """What follows a failed attempt. `attempts_used` >= 1 counts attempts made, the failed one included.

        `deaths`: workers this task has killed so far (its own process ended while it ran), oldest first. Of those that
        were ended for want of memory ("memory") only the last is among `attempts_used`.
        """
        if attempts_used < 1:
            raise ValueError(f"attempts_used={attempts_used}: a decision follows an attempt, so it is at least 1")
        match kind:
            case "cancelled":
                return Fail("cancelled tasks are never retried")
            case "user":
                if not self.retries(error):
                    return Fail("user exceptions are retried only with retry_exceptions")
            case "system":
                crashes = [death for death in deaths if not death.for_memory]
                if self.max_retries == -1 and len(crashes) >= self.quarantine_after:
                    return Fail(_tell_deaths(deaths), quarantined=True, deaths=tuple(deaths))
            case "memory":
                if self.may_starve(sum(death.for_memory for death in deaths) - 1):
                    return Retry(attempts_used - 1)
                return Fail("its workers were ended for want of memory too often", deaths=tuple(deaths))
            case _:
                assert_never(kind)
        if self.max_retries != -1 and attempts_used > self.max_retries:
            reason = f"{attempts_used} attempts made, max_retries={self.max_retries} used up"
            if deaths:
                reason = f"{reason}; {_tell_deaths(deaths)}"
            return Fail(reason, quarantined=len(deaths) > 1, deaths=tuple(deaths))
        return Retry(attempts_used)


def is_quit(error: BaseException | None) -> bool:
    """Whether somebody has left a debugger by `q`: they would stand there again. Who has such an error knows bdb."""
    bdb = sys.modules.get("bdb")
    return bdb is not None and isinstance(error, bdb.BdbQuit)


def _tell_deaths(deaths: Sequence[Death]) -> str:
    """How many workers the task took with it, how each ended, and the last lines of the last."""
    times: dict[str, int] = {}
    for death in deaths:
        times[str(death)] = times.get(str(death), 0) + 1
    how = ", ".join(text if count == 1 else f"{text} x{count}" for text, count in times.items())
    text = f"the task killed {len(deaths)} worker{'s' if len(deaths) != 1 else ''}: {how}"
    lines = deaths[-1].log_tail.rstrip().splitlines()[-_LOG_LINES:]
    return "\n  | ".join([f"{text}; last lines:", *lines]) if lines else text
