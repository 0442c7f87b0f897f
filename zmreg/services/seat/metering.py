"""What this process has counted, and how its node hears of it: when somebody asks, when we leave, and every two seconds
while it changes, so that little is lost with a process that is killed. Counting costs no message.
"""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any, Final

from zmreg.model.messages import Look, Looked, Measured
from zmreg.services.seat.client import at_leave, current
from zmreg.telemetry.families import (
    ACROSS,
    COUNTER,
    GAUGE,
    HISTOGRAM,
    OWN,
    TEXT_LENGTH,
    Family,
    check_bounds,
    check_labels,
    check_name,
    clean,
    dropped_values,
)
from zmreg.telemetry.meters import MOST_SERIES, Meter, Meters, total_name
from zmreg.wire import batches

if TYPE_CHECKING:
    from zmreg.services.seat.client import Client
    from zmreg.services.seat.station import Station

log = logging.getLogger("zmreg.metrics")

# What a `Look` of our node says.
ASKED: Final = "metrics"
PUSH_S: Final = 2.0
# Of one message: 500 histograms with 100 buckets are half a MiB.
_SERIES_AT_ONCE: Final = 500
_JOIN_S: Final = 1.0

Source = Callable[[], Iterable[Family]]
"""Says what something that counts for itself has counted so far, all of it."""


class Metering:
    """One process's. Any thread may count; the locks of others are never taken under ours."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._telling = threading.Lock()
        self._meters = Meters()
        self._kept: dict[Source, Callable[[], object]] = {}
        self._failed: set[Source] = set()
        """Those of which the log says that they have raised."""
        self._metered: Station | None = None
        self._thread: threading.Thread | None = None
        self._over = threading.Event()

    # -- counting -----------------------------------------------------------------------------------------------------

    def check(self, family: Family) -> None:
        """ValueError when there is another metric of that name."""
        with self._lock:
            self._meters.meter(family)

    def count(self, family: Family, record: Callable[[Meter, tuple[str, ...], float], bool], labels: tuple[str, ...],
              value: float) -> None:  # fmt: skip
        """Note one value: `record` is a method of Meter. Said once in the log when there are too many series."""
        with self._lock:
            meter = self._meters.by_name.get(family.name)
            if meter is None:  # first use since this process has joined another cluster
                meter = self._meters.meter(family)
            taken = record(meter, labels, value)
            first = not taken and meter.refused == 1
        if first:
            log.warning(
                "metric %s has %d series in this process, and takes no more: what %s brings is dropped and counted",
                family.name, MOST_SERIES, dict(zip(family.labels, labels, strict=True)),
            )  # fmt: skip
        if self._thread is None:
            self._begin_pushing()

    def keep(self, source: Source, forget: Callable[[], object]) -> None:
        """Ask this, too, until this process leaves its cluster; then `forget` is called."""
        with self._lock:
            self._kept[source] = forget

    def keeps(self, source: Source) -> bool:
        """Whether it is asked."""
        return source in self._kept

    # -- telling ------------------------------------------------------------------------------------------------------

    def meter_seat(self, station: Station) -> None:
        """Somebody asks our node for metrics: it is told what this process says of itself, too."""
        with self._lock:
            self._metered = station

    def tell(self, station: Station) -> None:
        """Tell our node what has changed. In order: what was counted before this call is told when it returns."""
        with self._telling:
            with self._lock:
                changed = list(self._meters.changes())
                sources, refused = list(self._kept), self._meters.refused()
            for source in sources:
                changed += self._told_by(source)
            if self._metered is station:
                changed += own_figures(station)
            if refused:
                changed.append(dropped_values({(name,): float(times) for name, times in refused.items()}))
            messages = [Measured(batches.pack_plain(part)) for part in _parts(changed)]
            with station.lock:
                if station.closed is None:
                    for message in messages:
                        station.tell_node(message)

    def _told_by(self, source: Source) -> list[Family]:
        """Nothing when it raises, which is said once in the log: all others have something to tell as well."""
        try:
            return list(source())
        except Exception:
            if source not in self._failed:
                self._failed.add(source)
                log.exception("%r has raised when it was asked for metrics: what it counts is missing", source)
            return []

    def leave(self, client: Client) -> None:
        """The process leaves its cluster: all is told. In another one it begins at zero."""
        thread = self._thread
        self._over.set()
        if thread is not None and thread is not threading.current_thread():
            thread.join(_JOIN_S)
        if client.closed is None and not client.forked and self._has_news(client):
            self.tell(client)
        with self._lock:
            self._meters.clear()
            self._metered = self._thread = None
            self._over = threading.Event()
            kept, self._kept = self._kept, {}
            self._failed.clear()
        for forget in kept.values():
            forget()

    def _has_news(self, client: Client) -> bool:
        """Of what users count, or for a node that is asked for metrics: any other has no use for them."""
        with self._lock:
            return self._metered is client or self._meters.has_changes()

    def _begin_pushing(self) -> None:
        client = current()
        client = client and (client.house or client)
        if client is None or client.closed is not None or client.forked:
            return
        with self._lock:
            if self._thread is None:
                self._thread = threading.Thread(
                    target=self._push, args=(client, self._over), name="zmreg-metrics", daemon=True
                )
                self._thread.start()

    def _push(self, client: Client, over: threading.Event) -> None:
        while not over.wait(PUSH_S) and client.closed is None:
            with self._lock:
                changed = self._meters.has_changes()
            if changed:
                self.tell(client)


def _parts(families: Iterable[Family]) -> Iterator[list[list[Any]]]:
    """Rows of families for one message each: no more than so many series together."""
    part: list[list[Any]] = []
    room = _SERIES_AT_ONCE
    for family in families:
        items = list(family.series.items())
        for start in range(0, len(items), _SERIES_AT_ONCE):
            some = items[start : start + _SERIES_AT_ONCE]
            if len(some) > room:
                yield part
                part, room = [], _SERIES_AT_ONCE
            part.append(family.but(series=dict(some)).as_row())
            room -= len(some)
    if part:
        yield part


def own_figures(station: Station) -> list[Family]:
    """What a process says of the calls it has made."""
    tasks = station.tasks
    with station.lock:
        live, queued = len(tasks.live), sum(len(pool.queue) for pool in tasks.pools.values())
        finished = {"ok": tasks.finished - tasks.not_ok, "failed": tasks.failed, "cancelled": tasks.cancelled}
        restored = tasks.lineage.rebuilt
    from zmreg.services.seat.durations import durations_of  # late: for those who are asked

    return [
        *durations_of(station),
        Family(
            "zmreg_tasks", GAUGE, "Calls of tasks and actors by state; running and blocked ones are submitted, too.",
            ("state",), series={("queued",): float(queued), ("submitted",): float(max(0, live - queued))},
        ),
        Family(
            "zmreg_tasks_finished_total", COUNTER, "Calls of tasks and actors that have ended, by how.", ("outcome",),
            series={(outcome,): float(count) for outcome, count in finished.items()},
        ),
        Family(
            "zmreg_tasks_rebuilt_total", COUNTER, "Calls made again because what they had made was lost.",
            series={(): float(restored)},
        ),
    ]  # fmt: skip


def answer(station: Station, message: Look) -> None:
    """Our node is asked for metrics, now or at times: on a thread of its own, whatever our main thread is in."""
    threading.Thread(target=_answer, args=(station, message), name="zmreg-metered", daemon=True).start()


def _answer(station: Station, message: Look) -> None:
    if station.house is None:
        metering().meter_seat(station)
    if message.what == ASKED:
        if station.house is None:
            metering().tell(station)
        else:  # what is counted in its process, its house tells
            station.tell_node(Measured(batches.pack_plain([each.as_row() for each in own_figures(station)])))
        with station.lock:
            if station.closed is None:
                station.tell_node(Looked(message.request, batches.pack_plain(None)))


_metering: Metering | None = None


def metering() -> Metering:
    """This process's."""
    global _metering
    if _metering is None:
        _metering = Metering()
    return _metering


def _leave(client: Client) -> None:
    if _metering is not None and client.house is None:
        _metering.leave(client)


def _forked() -> None:
    """In the child: what was counted is the parent's, and so is the thread; its lock may be held for ever."""
    global _metering
    _metering = None


at_leave.append(_leave)
os.register_at_fork(after_in_child=_forked)

# What the users' side makes metrics of, which reaches the folds by us alone.
__all__ = [
    "ACROSS",
    "COUNTER",
    "GAUGE",
    "HISTOGRAM",
    "OWN",
    "TEXT_LENGTH",
    "Family",
    "Meter",
    "Metering",
    "Source",
    "check_bounds",
    "check_labels",
    "check_name",
    "clean",
    "metering",
    "total_name",
]
