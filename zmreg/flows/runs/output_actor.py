"""The actor that knows the outputs of all runs of a cluster: refs, and what is known of them. Values never pass it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zmreg.api.refs import ObjectRef
from zmreg.flows.runs.outputs import Filed, StoredOutput


class OutputActor:
    """{run: {phase: output}}. Its methods do not wait, so none sees half of what another does."""

    def __init__(self) -> None:
        self._runs: dict[str, dict[str, tuple[ObjectRef[Any], StoredOutput]]] = {}

    async def store(
        self,
        run: str,
        phase: str,
        ref: list[ObjectRef[Any]],
        nbytes: int,
        file: Filed | None,
        metadata: Mapping[str, Any],
    ) -> tuple[StoredOutput, Filed | None]:
        """(what it is known as, the file that nobody needs any more)."""
        outputs = self._runs.setdefault(run, {})
        before = outputs[phase][1] if phase in outputs else None
        stored = StoredOutput(phase, before.version + 1 if before else 1, nbytes, metadata, file)
        outputs[phase] = (ref[0], stored)
        return stored, before.file if before else None

    async def ref(self, run: str, phase: str) -> list[ObjectRef[Any]]:
        """A ref to it, in a list; an empty one when there is none."""
        found = self._runs.get(run, {}).get(phase)
        return [] if found is None else [found[0]]

    async def described(self, run: str) -> dict[str, StoredOutput]:
        """All of one run, in the order in which they were stored first."""
        return {phase: stored for phase, (_, stored) in self._runs.get(run, {}).items()}

    async def drop(self, run: str) -> bool:
        """Forget them; whether there were any."""
        return self._runs.pop(run, None) is not None
