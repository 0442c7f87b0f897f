"""Items of phases on the disk as they are done, so that a phase which was killed goes on where it was.

A thread of its own: a result is read, put into bytes and written while further items run. Written are all that have
gathered, once a second and at the end, in one transaction; what is not yet written when the program dies runs again.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Any, Final

from zmreg.api.cluster import put
from zmreg.api.filing import from_bytes, to_bytes
from zmreg.api.prints import print_of
from zmreg.api.refs import ObjectRef
from zmreg.core.fingerprints import combined
from zmreg.flows.runs import outputs
from zmreg.flows.runs.journal import ITEM, Journal, Kept, wall_s
from zmreg.flows.runs.outputs import IN_MEMORY_BYTES, Filed
from zmreg.model.errors import ZmregError

log = logging.getLogger("zmreg.runs")

EVERY_S: Final = 1.0
# A sink makes a file of what it has: of Parquet a new one each time.
EVERY_WITH_ROWS_S: Final = 10.0
# So many results are held until they are written; who makes more of them waits for the disk.
MOST_HELD: Final = 10_000
BODY: Final = "body"
"""The form of a row that has the value in itself."""


class ItemLedger:
    """Of one run. `keep_rows`, if there is a sink, is called before results count as done: rows that came of them must
    be in files by then. It may raise; then the results wait for the next time."""

    def __init__(self, journal: Journal, past: list[Kept], keep_rows: Callable[[], None] | None) -> None:
        self._journal = journal
        self._past: dict[tuple[str, str], Kept] = {(row.phase, row.key): row for row in past if row.state == ITEM}
        self._keep_rows = keep_rows
        self._every_s = EVERY_S if keep_rows is None else EVERY_WITH_ROWS_S
        self._held: list[tuple[str, str, ObjectRef[Any]]] = []
        self._changed = threading.Condition()
        self._writing = threading.Lock()
        """Held while rows are written, and while they are forgotten."""
        self._closed = False
        self._thread: threading.Thread | None = None

    # -- of an earlier run --------------------------------------------------------------------------------------------

    def earlier(self, phase: str, keys: list[str]) -> dict[int, ObjectRef[Any]]:
        """{index: result} of those items that were done, by their keys. One that cannot be read any more is not."""
        found: dict[int, ObjectRef[Any]] = {}
        for index, key in enumerate(keys):
            row = self._past.get((phase, key))
            if row is None:
                continue
            try:
                found[index] = put(value_of(row))
            except (OSError, ZmregError) as error:
                log.warning("item %d of phase %s runs again: its result is lost: %s", index, phase, error)
        if found:
            log.info("phase %s goes on: %d of its %d items were done", phase, len(found), len(keys))
        return found

    # -- of this one --------------------------------------------------------------------------------------------------

    def note(self, phase: str, key: str, ref: ObjectRef[Any]) -> None:
        """An item is done; waits only when far more have gathered than the disk takes."""
        with self._changed:
            self._held.append((phase, key, ref))
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="zmreg-run-items", daemon=True)
                self._thread.start()
            self._changed.wait_for(lambda: len(self._held) < MOST_HELD or self._closed, timeout=self._every_s)

    def forget(self, phase: str) -> None:
        """It is done as a whole, or runs anew: nothing of its items is of use."""
        with self._writing:
            with self._changed:
                self._held = [each for each in self._held if each[0] != phase]
                self._changed.notify_all()
            for place in [place for place in self._past if place[0] == phase]:
                del self._past[place]
            for file in self._journal.forget_items(phase):
                outputs.unlink(file)

    def close(self) -> None:
        """What is done so far is written."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        if self._thread is not None:
            self._thread.join()

    # -- the thread ---------------------------------------------------------------------------------------------------

    def _work(self) -> None:
        while True:
            with self._changed:
                over = self._changed.wait_for(lambda: self._closed, timeout=self._every_s)
            with self._writing:
                with self._changed:
                    taken = list(self._held)
                if taken and self._write(taken):
                    with self._changed:
                        del self._held[: len(taken)]
                        self._changed.notify_all()
            if over:
                return

    def _write(self, taken: list[tuple[str, str, ObjectRef[Any]]]) -> bool:
        try:
            if self._keep_rows is not None:
                self._keep_rows()
            self._journal.write_items([row for each in taken if (row := self._row(*each)) is not None])
        except Exception as error:  # noqa: BLE001  a full disk, a sink that is gone: they wait for the next time
            log.warning("%d results of items are not on the disk yet: %s: %s", len(taken), type(error).__name__, error)
            return False
        return True

    def _row(self, phase: str, key: str, ref: ObjectRef[Any]) -> Kept | None:
        try:
            value = ref.get()
            if outputs.size_of(ref) < IN_MEMORY_BYTES:
                body = to_bytes(value, f"a result of phase {phase!r}")
                return Kept(phase, ITEM, wall_s(), key=key, form=BODY, body=body)
            file = outputs.write_file(self._journal.folder, phase, value)
        except ZmregError as error:  # it cannot be pickled, or is lost: it runs again
            log.warning("a result of phase %s is not kept: %s", phase, error)
            return None
        return Kept(phase, ITEM, wall_s(), "", key, file.form, file.path, file.nbytes, file.digest)


def item_keys(phase_key: str, items: list[Any]) -> list[str]:
    """By what each item is known again: its phase's key, its place, and what it is. Raises SerializationError."""
    return [
        combined({"phase": phase_key.encode(), "item": print_of((at, each))}).hex() for at, each in enumerate(items)
    ]


def value_of(row: Kept) -> Any:
    """What a row has kept. Raises OSError, SerializationError."""
    if row.form == BODY:
        return from_bytes(row.body or b"")
    return outputs.read_file(Filed(row.file, row.nbytes, row.digest, row.form))
