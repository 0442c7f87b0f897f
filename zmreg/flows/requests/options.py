"""How a request is run, and what is kept of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypedDict, cast

from zmreg.flows.requests.trace import LevelRecord
from zmreg.model.arguments import check_seconds
from zmreg.model.record import Record

DETAILS: Final = ("values", "refs", "summary")


class RequestOptions(TypedDict, total=False):
    """What `zmreg.request` and its like take beside the steps."""

    timeout: float | None
    """Seconds for all of it; then it is cancelled and raises TimeoutError. None: no limit."""
    keep: Iterable[str] | str
    """Steps whose values are returned beside those that no other step takes; "all" of them."""
    request_id: str | None
    """Its name, to subscribe to its events before it runs; None: a random one."""
    return_intermediate_results: bool
    """One record for each level, in the result and in errors."""
    include_execution_summary: bool
    """Where the time went, in the result."""
    intermediate_result_callback_topic: str | None
    """Where the record of each level is published; "{request_id}" in it is filled in."""
    on_level: Callable[[LevelRecord], object] | None
    """Called with the record of each level, on the thread that drives the request. What it raises is logged."""
    detail: str
    """What records hold: "values" (those over 64 KiB stay where they are until asked for), "refs" (all do), or
    "summary" (type, size, and 200 characters)."""
    debug_mode: bool
    """Records, summary, timeline, previews of all arguments, and each event in the log at level DEBUG."""
    bind_timeout: float
    """Seconds for which a function that nobody serves is waited for."""
    queue_until: float | None
    """Seconds for which somebody with all the locs and the version is waited for, when others have the function."""


class Options(Record):
    """The same, whole. `kept`: somebody may look at the run itself."""

    timeout: float | None = None
    keep: Iterable[str] | str = ()
    request_id: str | None = None
    return_intermediate_results: bool = False
    include_execution_summary: bool = False
    intermediate_result_callback_topic: str | None = None
    on_level: Callable[[LevelRecord], object] | None = None
    detail: str = "values"
    debug_mode: bool = False
    bind_timeout: float = 1.0
    queue_until: float | None = None
    kept: bool = False

    @property
    def has_levels(self) -> bool:
        """Whether the result and errors have records of levels."""
        return self.return_intermediate_results or self.debug_mode

    @property
    def has_summary(self) -> bool:
        """Whether the result has a summary."""
        return self.include_execution_summary or self.debug_mode

    @property
    def traced(self) -> bool:
        """Whether anything is noted while it runs."""
        told = self.on_level is not None or self.intermediate_result_callback_topic is not None
        return told or self.kept or self.has_levels or self.has_summary

    @property
    def patience_s(self) -> float:
        """For how long one who can be called is waited for."""
        return max(self.bind_timeout, self.queue_until or 0.0)


def options_of(given: RequestOptions, kept: bool = False) -> Options:
    """Raises TypeError for an option there is none of, ValueError for a value that is none."""
    known = RequestOptions.__annotations__
    for name in given:
        if name not in known:
            import difflib  # late: only a misspelt name needs it

            near = difflib.get_close_matches(name, known, 1)
            meant = f"did you mean {near[0]!r}?" if near else f"there are {', '.join(known)}"
            raise TypeError(f"a request has no option {name!r}; {meant}")
    options = Options(**cast("Mapping[str, Any]", given), kept=kept)
    if options.detail not in DETAILS:
        raise ValueError(f"detail={options.detail!r}: write one of {', '.join(map(repr, DETAILS))}")
    for name in ("timeout", "bind_timeout", "queue_until"):
        seconds = getattr(options, name)
        check_seconds(seconds, name)
    return options
