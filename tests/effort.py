"""How much is tried where anything could be tried: little in `make test`, more in `make explore`."""

from __future__ import annotations

import os

EFFORT = int(os.environ.get("ZMREG_TEST_EFFORT", "1"))


def examples(number: int) -> int:
    """So many of Hypothesis' examples, times the effort."""
    return number * EFFORT


def be_patient() -> None:
    """On a busy machine no example takes too long, to think of or to try: slow is not wrong."""
    from hypothesis import HealthCheck, settings  # late: a third of a second

    settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("patient")
