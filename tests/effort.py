"""How much is tried where anything could be tried: little in `make test`, more in `make explore`."""

from __future__ import annotations

import os

EFFORT = int(os.environ.get("ZMREG_TEST_EFFORT", "1"))


def examples(number: int) -> int:
    """So many of Hypothesis' examples, times the effort."""
    return number * EFFORT
