"""Timing helpers shared by the workloads: latencies, rates, percentiles.

Only the standard library's light modules are imported here: everything a cell loads is counted in the memory of
the driver it measures.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter, perf_counter_ns

# The first guess of a rate is made with few calls; a batch never grows by more than this, so that one lucky
# (or unlucky) small batch cannot ask for minutes of work.
MAX_GROWTH = 8


def percentile(samples: Sequence[float], share: float) -> float:
    """The value below which `share` (0 to 1) of the samples lie, by nearest rank.

    Raises ValueError when there are no samples.
    """
    if not samples:
        raise ValueError("no samples to take a percentile of: the timed loop ran zero times")
    ordered = sorted(samples)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def median(samples: Sequence[float]) -> float:
    """The middle sample, or the mean of the two middle ones. Raises ValueError when there are none."""
    if not samples:
        raise ValueError("no samples to take a median of")
    ordered = sorted(samples)
    middle = len(ordered) // 2
    return ordered[middle] if len(ordered) % 2 else (ordered[middle - 1] + ordered[middle]) / 2


def latencies(once: Callable[[], object], seconds: float, at_most: int) -> list[float]:
    """Durations, in microseconds, of repeated calls of `once`: for `seconds`, but at most `at_most` calls."""
    samples: list[float] = []
    end = perf_counter_ns() + int(seconds * 1e9)
    before = perf_counter_ns()
    while len(samples) < at_most and before < end:
        once()
        after = perf_counter_ns()
        samples.append((after - before) / 1e3)
        before = after
    return samples


def latency_figures(samples: Sequence[float]) -> dict[str, float]:
    """`p50_us` and `p99_us` of durations in microseconds."""
    return {"p50_us": percentile(samples, 0.5), "p99_us": percentile(samples, 0.99)}


def timed(action: Callable[[], object]) -> float:
    """Seconds one call of `action` takes."""
    before = perf_counter()
    action()
    return perf_counter() - before


def rate(run: Callable[[int], object], seconds: float, start: int = 64, at_most: int = 100_000) -> float:
    """Items per second of `run(count)`, which does `count` items and returns when they are done.

    The batch grows until one takes `seconds`; that batch alone is the measurement. When a batch of `at_most` is
    still too short, batches of that size are repeated until they have taken `seconds` together.
    """
    count = start
    while True:
        before = perf_counter()
        run(count)
        elapsed = perf_counter() - before
        if elapsed >= seconds:
            return count / elapsed
        if count >= at_most:
            break
        wanted = int(1.2 * count * seconds / max(elapsed, 1e-6))
        count = min(at_most, max(count + 1, min(wanted, count * MAX_GROWTH)))
    done = count
    before = perf_counter() - elapsed
    while elapsed < seconds:
        run(count)
        elapsed = perf_counter() - before
        done += count
    return done / elapsed
