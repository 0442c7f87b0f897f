"""A run on the disk: what its phases made, so that they need not run again. A run without a name has nothing of it."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

from zmreg.api.cluster import put
from zmreg.api.filing import to_bytes
from zmreg.api.refs import ObjectRef
from zmreg.core.phases import DONE, RUNNING, Moved, PhasePlan
from zmreg.flows.runs import outputs
from zmreg.flows.runs.item_ledger import BODY, ItemLedger, item_keys, value_of
from zmreg.flows.runs.journal import RUN, Journal, Kept, wall_s
from zmreg.flows.runs.outputs import IN_MEMORY_BYTES, Filed
from zmreg.flows.runs.phase_plan import Prepared
from zmreg.flows.runs.phases import RunOptions
from zmreg.model.errors import SerializationError

log = logging.getLogger("zmreg.runs")


class PhaseLedger:
    """Of one run."""

    def __init__(self, run_id: str, options: RunOptions, plan: PhasePlan, keep_rows: Callable[[], None] | None) -> None:
        """`keep_rows`: see `ItemLedger`. ValueError for an id that is no name of a folder."""
        self._keep_rows = keep_rows
        self._run_id = run_id
        self._named = options.get("id") is not None
        self._folder = outputs.run_folder(run_id, options.get("folder")) if self._named else Path()
        self._base = options.get("folder")
        self._keep = options.get("keep", True)
        self._resume = bool(options.get("resume"))
        self._plan = plan
        self._keys: dict[str, str] = {}
        self._reused: set[str] = set()
        self._past: dict[str, Kept] = {}
        self._journal: Journal | None = None
        self._items: ItemLedger | None = None
        self._item_keys: dict[str, list[str]] = {}

    @property
    def is_kept(self) -> bool:
        """Whether what is done is written down."""
        return self._journal is not None

    def open(self) -> None:
        """Raises PhaseError when a run of this name goes on."""
        if not self._named:
            return
        self._journal = Journal(self._folder)
        self._past = still_done(self._journal.past)
        if not self._resume:
            for row in self._past.values():
                outputs.unlink(row.file)
            for file in self._journal.forget_items():
                outputs.unlink(file)
            self._past = {}
        self._items = ItemLedger(self._journal, self._journal.past if self._resume else [], self._keep_rows)
        self._journal.write(Kept(RUN, "started", wall_s(), nbytes=len(self._plan.order)))

    def earlier(self, phase: Prepared) -> ObjectRef[Any] | None:
        """What an earlier run has made, if that is still good: same code, configuration and inputs, of which none was
        made anew, and the output whole."""
        if self._journal is None:
            return None
        key = self._keys[phase.name] = phase.key(self._keys)
        row = self._past.get(phase.name)
        if row is None or row.key != key or not row.form or any(dep not in self._reused for dep in phase.deps):
            return None
        try:
            ref = put(value_of(row))
        except (OSError, SerializationError) as error:
            log.warning("phase %s of run %s runs again: its output is lost: %s", phase.name, self._run_id, error)
            return None
        self._reused.add(phase.name)
        return ref

    def items_done(self, phase: Prepared, items: list[Any]) -> dict[int, ObjectRef[Any]]:
        """{index: result} of those items that an earlier run has done, of a phase that `earlier` knew no output of.
        What `item_done` is told from now on is about these items. Raises SerializationError."""
        if self._items is None or phase.phase.storage == "memory":
            return {}
        self._item_keys[phase.name] = keys = item_keys(self._keys[phase.name], items)
        if any(dep not in self._reused for dep in phase.deps):
            self._items.forget(phase.name)
        return self._items.earlier(phase.name, keys)

    def item_done(self, phase: str, index: int, ref: ObjectRef[Any]) -> None:
        """It will be on the disk soon."""
        if self._items is not None and phase in self._item_keys:
            self._items.note(phase, self._item_keys[phase][index], ref)

    def keep(self, phase: Prepared, ref: ObjectRef[Any], seconds: float) -> None:
        """Its output is on the disk once this returns, and the phase done. Raises SerializationError, OSError,
        sqlite3.Error."""
        if self._journal is None:
            return
        wish, name = phase.phase, phase.name
        row = Kept(name, DONE, wall_s(), key=self._keys[name], seconds=seconds)
        file = None
        if wish.storage != "memory":
            value = ref.get()
            if wish.storage == "disk" or outputs.size_of(ref) >= IN_MEMORY_BYTES:
                file = outputs.write_file(self._folder, name, value)
                row = row.but(form=file.form, file=file.path, nbytes=file.nbytes, digest=file.digest)
            else:
                row = row.but(form=BODY, body=to_bytes(value, f"the output of phase {name!r}"))
        self._journal.write(row)
        if name in self._item_keys and self._items is not None:
            self._items.forget(name)
        if (old := self._past.pop(name, None)) is not None:
            outputs.unlink(old.file)
        self.publish(name, ref, file)

    def publish(self, name: str, ref: ObjectRef[Any], file: Filed | None = None) -> None:
        """Others find it by the names of run and phase."""
        if self._journal is None:
            return
        row = self._past.get(name)
        if file is None and row is not None and row.file:
            file = Filed(row.file, row.nbytes, row.digest, row.form)
        outputs.publish(self._run_id, name, ref, file, {})

    def write(self, move: Moved, now: float) -> None:
        """A phase is in another state."""
        if self._journal is not None:
            self._journal.write(Kept(move.phase, move.state, now, move.reason))

    def close_items(self) -> None:
        """Items that are done by now are on the disk when this returns."""
        if self._items is not None:
            self._items.close()

    def close(self, status: str) -> None:
        """It is over. Without `keep`, nothing is left of it but the refs that somebody holds."""
        if self._journal is None:
            return
        try:
            self._journal.write(Kept(RUN, status, wall_s()))
        finally:
            self._journal.close()
        if not self._keep:
            outputs.cleanup(self._run_id, self._base)


def still_done(rows: list[Kept]) -> dict[str, Kept]:
    """{phase: the row with its output} of those that were done, and have not begun anew since."""
    done: dict[str, Kept] = {}
    for row in rows:
        if row.state == DONE:
            done[row.phase] = row
        elif row.state == RUNNING:
            done.pop(row.phase, None)
    return done
