"""Counters, gauges and histograms that count where your code runs: in drivers, tasks and actors."""

from __future__ import annotations

from zmreg.api.metering import Counter, Gauge, Histogram

__all__ = ["Counter", "Gauge", "Histogram"]
