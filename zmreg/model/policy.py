"""One way of saying how patient and how stubborn to be, for tasks, steps, stages and phases alike."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final

from zmreg.model.arguments import is_number
from zmreg.model.record import Wish

# No pause before another try is longer than this, however often it has failed.
MOST_BACKOFF_S: Final = 30.0
RAISE: Final = "raise"
SKIP: Final = "skip"
DEAD_LETTER: Final = "dead_letter"
ON_ERROR: Final = (RAISE, SKIP, DEAD_LETTER)


class Policy(Wish):
    """What is not said is as if there were no policy; what a task, step, stage or phase says itself goes before.

    Raises TypeError and ValueError for values that are none. Where it is used, TypeError for something that is said and
    that nobody there could do, as a rate of a task.
    """

    timeout: float | None = None
    """Seconds. Of a step from when its inputs are there, of a stage for each item, of a phase for all of it."""
    retries: int | None = None
    """How often it is tried again. Of a step: after a call that was lost with its node."""
    backoff: float | None = None
    """Seconds before the first retry, twice as many before each further one, 30 at most; a quarter more or less."""
    retry_on: type[Exception] | tuple[type[Exception], ...] | None = None
    """What is worth a retry; None: any Exception."""
    on_error: str | None = None
    """When retries are used up: "raise", "skip", or, of a stage, "dead_letter"."""
    cache: bool | None = None
    """Whether the value of an equal call will do."""
    concurrency: int | None = None
    """How many items are worked on at a time."""
    buffer: int | None = None
    """Items that may lie about untaken: before a stage, or of a task that is a generator."""
    rate: float | None = None
    """The most items a second."""

    def __post_init__(self) -> None:
        check(self, "a policy")

    def said(self, who: str, serves: Collection[str]) -> dict[str, object]:
        """{name: value} of what is said. `serves`: what `who` can do; TypeError for the rest."""
        given = {name: value for name in FIELDS if (value := getattr(self, name)) is not None}
        for name in given:
            if name not in serves:
                raise TypeError(f"{who} has no {name}, and its policy says {name}={given[name]!r}; it has "
                                f"{', '.join(each for each in FIELDS if each in serves)}. Next: "
                                f"policy.but({name}=None)")  # fmt: skip
        return given


FIELDS: Final = Policy.__match_args__


def check(terms: object, where: str, error: type[Exception] = ValueError) -> None:
    """Looks at those of a policy's fields that `terms` has. None: not said. Raises `error`, which names `where`."""
    for field, least in (("retries", 0), ("concurrency", 1), ("buffer", 1)):
        number = getattr(terms, field, None)
        if number is not None and (not isinstance(number, int) or isinstance(number, bool) or number < least):
            raise error(f"{where}: {field}={number!r}: a whole number from {least} on")
    for field, open_end in (("timeout", True), ("rate", True), ("backoff", False)):
        number = getattr(terms, field, None)
        if number is None:
            continue
        if not is_number(number) or number < 0 or (open_end and number == 0):
            raise error(f"{where}: {field}={number!r}: a number{' above 0' if open_end else ' from 0 on'}")
    on_error = getattr(terms, "on_error", None)
    if on_error is not None and on_error not in ON_ERROR:
        raise error(f"{where}: on_error={on_error!r}: write one of {', '.join(map(repr, ON_ERROR))}")
    kinds = classes(getattr(terms, "retry_on", None) or ())
    if not all(isinstance(kind, type) and issubclass(kind, BaseException) for kind in kinds):
        raise error(f"{where}: retry_on={kinds!r}: write classes of exceptions")


def classes(kinds: type[BaseException] | tuple[type[BaseException], ...]) -> tuple[type[BaseException], ...]:
    """One or several, as several."""
    return kinds if isinstance(kinds, tuple) else (kinds,)


def pause_s(backoff_s: float, failures: int, chance: float) -> float:
    """Seconds to wait after so many `failures` (from 1 on). `chance` from 0 to 1 spreads those that failed at once."""
    # The exponent is bounded: 2.0 ** 1024 is no float.
    return min(MOST_BACKOFF_S, backoff_s * 2.0 ** min(failures - 1, 20)) * (0.75 + chance / 2)
