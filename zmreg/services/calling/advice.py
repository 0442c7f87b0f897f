"""What costs more than it gives: told in the log "zmreg.performance", once for each function in each process.

Nothing is counted for each call. The owner's estimate of a function's duration, by which it steers how much it sends
ahead (services/calling/calls.py), is looked at once for each batch of answers.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from zmreg.services.calling.manners import DIGEST_BYTES

if TYPE_CHECKING:
    from zmreg.services.calling.calls import Template
    from zmreg.services.seat.callbacks import Callbacks

log = logging.getLogger("zmreg.performance")

# What a call costs when many are under way: 120,000 a second are 8 us each (docs/costs.md). One at a time it is twenty
# times as much, but whoever waits for each call may have reasons of his own.
CALL_US: Final = 10.0
TINY_US: Final = 5 * CALL_US
MANY_CALLS: Final = 1_000
PROJECTION: Final = "projection"
"""Name of the function behind `ref[key]`, whose calls nobody can put together."""

_told: set[bytes] = set()


def count_tiny(template: Template, calls: int, callbacks: Callbacks) -> None:
    """`calls` more calls of a function that lately takes less than TINY_US. Log handlers are users' code: on their
    thread."""
    template.tiny_calls += calls
    if template.tiny_calls < MANY_CALLS:
        return
    counted, template.tiny_calls = template.tiny_calls, -(1 << 60)  # not looked at again
    target = template.target
    if isinstance(target, str) or template.name == PROJECTION:  # a method's calls stay apart
        return
    digest = target[:DIGEST_BYTES]
    if digest in _told:
        return
    _told.add(digest)
    name, took_us = template.name, template.est_us or 0.0
    callbacks.put(lambda: _tell(name, counted, took_us))


def _tell(name: str, counted: int, took_us: float) -> None:
    log.warning(
        "%s takes about %.0f us, and each call of it costs about %.0f us besides (%d calls so far). "
        "zmreg.map(%s, items) sends many items in one call.",
        name, took_us, CALL_US, counted, name,
    )  # fmt: skip
