"""How the C heap of a node treats memory that is free again: it keeps it."""

from __future__ import annotations

import ctypes
from typing import Final

_M_TRIM_THRESHOLD: Final = -1
_M_MMAP_THRESHOLD: Final = -3
# A window of chunks on its way through, and what encryption takes beside it.
_KEPT_BYTES: Final = 24 << 20
# Larger than a frame at the gate (net/factory.py).
_MAPPED_FROM_BYTES: Final = 16 << 20


def keep_freed() -> None:
    """Have malloc keep up to 24 MiB in each thread's heap instead of giving back each freed chunk of an object.

    Else the kernel clears 256 pages anew for each MiB that passes, at both ends: a fifth of what a fetch costs. Only
    glibc has the knob; elsewhere nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_TRIM_THRESHOLD, _KEPT_BYTES)
        mallopt(_M_MMAP_THRESHOLD, _MAPPED_FROM_BYTES)
