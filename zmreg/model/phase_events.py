"""What is published of a run: under `run.ID.phase.NAME.STATE` and `run.ID.done`."""

from __future__ import annotations

from zmreg.model.record import Record


class PhaseChanged(Record):
    """A phase is in another state. `time`: seconds since 1970; `reason`: why it does not run, or what failed."""

    run_id: str
    phase: str
    state: str
    time: float
    reason: str = ""


class RunEnded(Record):
    """Nothing more happens. `status`: "completed", "failed" or "cancelled"."""

    run_id: str
    status: str
    time: float
