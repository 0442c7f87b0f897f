"""Values of a request that were lost with their node: the steps that made them are run again, for those who need them.

Only as far as their `retries` allow: they have run before. The run itself does not hear of it; a step whose input is
made again waits meanwhile, as one that nobody can be called for does.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from zmreg.api.refs import ObjectRef
from zmreg.core.graphs import Plan


class Mending:
    """Which values are made again, and who waits for them."""

    def __init__(self, plan: Plan, values: Mapping[str, object]) -> None:
        """`values`: {step: ref} as the run has them."""
        self._plan = plan
        self._values = values
        self._mended: dict[str, ObjectRef[Any]] = {}
        self._used: dict[str, int] = {}
        self._waits: dict[str, set[str]] = {}
        """{step: those whose values it waits for}: who asked, and whoever is to be run again after another."""
        self.again: set[str] = set()
        """Steps that are to be run again, or run."""
        self.refused: list[str] = []
        """Those that may not, for want of `retries`, when `ask` said None."""

    def ref(self, step: str) -> Any:
        """The handle to a step's value; KeyError when there is none any more."""
        found = self._mended.get(step)
        return self._values[step] if found is None else found

    def waits(self, step: str) -> bool:
        """Whether an input of it is being made."""
        return step in self._waits

    def ask(self, step: str, itself: bool = False) -> list[str] | None:
        """`step` has found a value of its inputs lost, or its own is (`itself`): the steps to run now; None when one of
        them may not."""
        needed: dict[str, set[str]] = {}
        stack = [step]
        while stack:
            each = stack.pop()
            if each in needed:
                continue
            needed[each] = {name for name in self._plan.deps[each] if not self._usable(name)}
            stack += needed[each]
        lost = set() if itself else needed.pop(step)
        fresh = [name for name in needed if name not in self.again]
        self.refused = [name for name in fresh if self._used.get(name, 0) >= self._plan.steps[name].retries]
        if self.refused:
            return None
        if lost:
            self._waits[step] = lost
        for name in fresh:
            self._used[name] = self._used.get(name, 0) + 1
            self._mended.pop(name, None)
            self.again.add(name)
            if needed[name]:
                self._waits[name] = needed[name]
        return [name for name in fresh if not needed[name]]

    def _usable(self, step: str) -> bool:
        if step in self.again:
            return False
        ref = self._mended.get(step) or self._values.get(step)
        return isinstance(ref, ObjectRef) and not ref.failed()

    def may_repeat(self, step: str) -> bool:
        """Count one more run of a step that was lost while it ran again. False: that was the last."""
        self._used[step] = self._used.get(step, 0) + 1
        return self._used[step] <= self._plan.steps[step].retries

    def made(self, step: str, ref: ObjectRef[Any]) -> list[str]:
        """It is there again; who may go on now."""
        self.again.discard(step)
        self._mended[step] = ref
        ready = []
        for other, missing in list(self._waits.items()):
            missing.discard(step)
            if not missing:
                del self._waits[other]
                ready.append(other)
        return ready

    def failed(self, step: str) -> list[str]:
        """It will not be there; the steps of the run that wait for it, by way of others too."""
        doomed = [step]
        asked: list[str] = []
        while doomed:
            each = doomed.pop()
            self.again.discard(each)
            waiting = [other for other, missing in self._waits.items() if each in missing]
            for other in waiting:
                del self._waits[other]
                (doomed if other in self.again else asked).append(other)
        return asked
