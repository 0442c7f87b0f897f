"""What calls have printed, until it is known in which program's call all that began.

A call's owner knows in which task it made that call, so it is asked. When that task is a worker's, too, the owner of
that one is asked, and so on up to a driver. What was printed waits here meanwhile, and nowhere on the way, so nobody's
end loses it: whoever is gone, or takes longer than `patience_s` for all of it, is asked no more.
"""

from __future__ import annotations

from typing import Generic, TypeVar

from zmreg.model.ids import is_driver, owner_of

T = TypeVar("T")


class _Held(Generic[T]):
    __slots__ = ("number", "until", "what")

    def __init__(self, number: int, until: float) -> None:
        self.number = number
        self.until = until
        self.what: list[T] = []


class Hearsay(Generic[T]):
    """Things said by tasks, until it is known whose these are.

    What becomes known is answered as (call of a driver, thing), with an empty call where nobody knows any more, in the
    order in which it was said, as far as it was of one task.
    """

    def __init__(self, patience_s: float) -> None:
        self._patience_s = patience_s
        self._held: dict[bytes, _Held[T]] = {}
        """By the task whose caller is to be found."""
        self._unasked: list[bytes] = []
        self._numbers = 0

    def hold(self, task: bytes, what: T, now: float) -> None:
        """`task`, whose owner is no driver, has said this."""
        held = self._held.get(task)
        if held is None:
            self._numbers += 1
            held = self._held[task] = _Held(self._numbers, now + self._patience_s)
            self._unasked.append(task)
        held.what.append(what)

    def questions(self) -> dict[bytes, tuple[bytes, ...]]:
        """{process: its calls, of which it is to be asked who has made them}; each call is in here once."""
        found: dict[bytes, list[bytes]] = {}
        for task in self._unasked:
            if task in self._held:
                found.setdefault(owner_of(task), []).append(task)
        self._unasked.clear()
        return {process: tuple(tasks) for process, tasks in found.items()}

    def answered(self, task: bytes, caller: bytes) -> list[tuple[bytes, T]]:
        """`caller` has made the call, which is empty when that is not known; there may be another question then."""
        if caller and not is_driver(owner_of(caller)) and task != caller:
            return self._pass_up(task, caller)
        held = self._held.pop(task, None)
        known = caller if caller and is_driver(owner_of(caller)) else b""
        return [(known, what) for what in held.what] if held is not None else []

    def _pass_up(self, task: bytes, caller: bytes) -> list[tuple[bytes, T]]:
        held = self._held.pop(task, None)
        if held is None:
            return []
        above = self._held.get(caller)
        if above is None:
            self._held[caller] = held
            self._unasked.append(caller)
        else:
            above.number, above.until = min(above.number, held.number), min(above.until, held.until)
            above.what += held.what
        return []

    def gone(self, prefix: bytes) -> list[tuple[bytes, T]]:
        """A process, or every process of a node, is gone: it answers no more."""
        return [each for task in list(self._held) if task.startswith(prefix) for each in self.answered(task, b"")]

    def overdue(self, now: float) -> list[tuple[bytes, T]]:
        """What has waited long enough."""
        late = [task for task, held in self._held.items() if held.until <= now]
        return [each for task in late for each in self.answered(task, b"")]

    def latest(self) -> int:
        """A number for `settled`: of what is held by now."""
        return self._numbers

    def settled(self, number: int) -> bool:
        """Whether nothing is left of what was held when `latest` said this."""
        return all(held.number > number for held in self._held.values())

    def __repr__(self) -> str:
        return f"<Hearsay [{sum(len(held.what) for held in self._held.values())} of {len(self._held)} tasks]>"
