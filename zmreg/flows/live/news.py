"""What pipelines tell those who listen: that one has begun, and how it has ended. Without a cluster nobody does."""

from __future__ import annotations

import logging
from collections.abc import Callable

from zmreg.api import events
from zmreg.api.cluster import is_initialized
from zmreg.model.errors import ZmregError

log = logging.getLogger("zmreg.pipelines")


def tell(run_id: str, what: str, value: Callable[[], object]) -> None:
    """Publish `pipeline.<run_id>.<what>` with what `value()` is, if anybody listens; it is not called otherwise."""
    if not is_initialized():
        return
    topic = f"pipeline.{run_id}"
    try:
        if events.wanted(topic):
            events.publish(f"{topic}.{what}", value())
    except (ZmregError, ValueError) as error:  # a cluster that is gone; more than an event may hold
        log.debug("pipeline %s could not tell that it has %s: %s", run_id, what, error)
