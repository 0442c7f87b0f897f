"""`ray.util.metrics`."""

from __future__ import annotations

from zmreg.metrics import Counter, Gauge, Histogram

__all__ = ["Counter", "Gauge", "Histogram"]
