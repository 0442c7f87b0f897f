"""A node's watch over memory: when it runs short, one worker after the other is ended, before the kernel picks any.

Twice: from `WATCH` below the threshold on, it notes what each worker is in and asks the owners which of it would be
tried again; at the threshold `core.memory` picks one, which is killed, and nothing new is lent until that has helped.
Otherwise a look costs 0.2 ms, four times a second. What is only idle, and large, is asked to end and hands on what it
owns.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from signal import SIGKILL
from typing import TYPE_CHECKING, Final

from zmreg.core import memory as minds
from zmreg.model.ids import counter_of, owner_of
from zmreg.model.messages import AskRepeatable, Repeatable
from zmreg.services.machine.memory import Meter, own_bytes
from zmreg.store.board import showing

if TYPE_CHECKING:
    from zmreg.services.node.node import Node
    from zmreg.services.node.nursery import Child, Death

log = logging.getLogger("zmreg.guard")

# So far below the threshold (a share of the limit) it begins to note who does what since when.
WATCH: Final = 0.1
# How long a killed process may take to be gone before another is chosen: the kernel gives back 1 GiB in 0.1 s or so.
GONE_S: Final = 5.0
# For so long, while memory is short, nothing new is lent beside what runs. Not for ever: what runs may wait for that
# very thing without our knowing, and the memory may be somebody else's for good.
HOLD_S: Final = 30.0
# When no worker is worth ending, that is said again after so long.
SILENCE_S: Final = 60.0
_NEVER: Final = float("inf")
# In `_Doing.what`, for an actor: what it does has no beginning and no end.
_LIFE: Final = b"actor"


class _Doing:
    """What a worker is in: a task's id, an actor's life, or nothing; since when, and whether it would be repeated."""

    __slots__ = ("again", "since", "what")

    def __init__(self, what: bytes, since: float, again: bool | None) -> None:
        self.what = what
        self.since = since
        self.again = again


class Guard:
    """One node's."""

    def __init__(self, node: Node) -> None:
        settings = node.settings
        self._node = node
        self._session = Path(node.config["session"])
        self._meter = Meter()
        self._threshold = settings.memory_threshold
        self._period = settings.memory_check_s
        self._due = 0.0 if self._threshold and self._period else _NEVER
        self._doing: dict[bytes, _Doing] = {}
        self._ending: tuple[bytes, float] = (b"", 0.0)
        """Who was told to end last, and until when nobody else is."""
        self._awaits = False
        """Memory is short, and who is ended is decided when the owners have answered."""
        self._short_since = _NEVER
        self._quiet_until = 0.0
        self.reading = self._meter.read()
        """The last one."""
        self._kills = self.reading.kills if self.reading is not None else 0
        self.ended = 0
        """Workers killed so far."""

    def tick(self, now: float) -> None:
        """Measure, if it is time to; decide."""
        if now < self._due:
            return
        self._due = max(self._due + self._period, now)
        reading = self.reading = self._meter.read()
        if reading is None or not minds.is_short(reading, self._threshold - min(WATCH, self._threshold / 2)):
            self._doing.clear()
            self._node.leases.tight = self._awaits = False
            self._short_since = _NEVER
            return
        asked = self._look_round(now)
        is_short = minds.is_short(reading, self._threshold)
        self._short_since = min(self._short_since, now) if is_short else _NEVER
        self._node.leases.tight = is_short and now - self._short_since < HOLD_S
        # Who has just been asked answers within milliseconds; who has not by the next look is not waited for.
        self._awaits = is_short and asked and not self._awaits
        if is_short and not self._awaits:
            self._relieve(reading, now)

    def on_answer(self, message: Repeatable) -> None:
        """An owner says whether a task would be tried again."""
        doing = self._doing.get(message.worker)
        if doing is not None and len(doing.what) > len(_LIFE) and counter_of(doing.what) == message.counter:
            doing.again = message.again
        if self._awaits and self.reading is not None and all(each.again is not None for each in self._doing.values()):
            self._awaits = False
            self._relieve(self.reading, time.monotonic())

    def story_of(self, death: Death) -> str:
        """Why a worker has ended; when the kernel may have done it for want of memory, that is said."""
        kills = self._kills
        reading = self._meter.read() if death.signal == SIGKILL else None
        if reading is not None:
            self._kills = reading.kills
        if self._kills > kills and not death.memory_bytes:
            return f"{death.reason}, most likely by the kernel, which has just ended a process here for want of memory"
        return death.reason

    def statistics(self) -> dict[str, float | str]:
        """Counts of this moment, sizes in bytes."""
        reading = self.reading
        if reading is None:
            return {"ended": self.ended}
        return {"used_bytes": reading.used, "limit_bytes": reading.limit, "limit": reading.source, "ended": self.ended}

    def _look_round(self, now: float) -> bool:
        """Note who has begun something new, and ask about it; whether there was anything to ask."""
        asked = False
        children = self._node.nursery.children
        for worker in [each for each in self._doing if each not in children]:
            del self._doing[worker]
        for worker, child in children.items():
            if child.house:  # its memory is that of its process, and ends with that
                continue
            what = _LIFE if child.is_actor else showing(self._session / f"{worker.hex()}.now")
            before = self._doing.get(worker)
            if before is None or before.what != what:
                # Between two tasks it has only such as have not begun: they go elsewhere, at no charge.
                again = child.restarts if child.is_actor else None if what else True
                self._doing[worker] = _Doing(what, now, again)
                if again is None:
                    asked = True
                    self._node.post(owner_of(what), AskRepeatable(worker, counter_of(what)))
        return asked

    def _relieve(self, reading: minds.Reading, now: float) -> None:
        worker, until = self._ending
        if worker in self._node.nursery.children and now < until:
            return
        chosen = minds.victim(self._occupants(), reading, self._threshold)
        if chosen is None:
            if now >= self._quiet_until:
                self._quiet_until = now + SILENCE_S
                log.warning(
                    "memory is short (%s of %s in use, %s), and no worker has enough of it to be worth ending",
                    minds.text_of(reading.used), minds.text_of(reading.limit), reading.source,
                )  # fmt: skip
            return
        self._ending = (chosen.worker, now + GONE_S)
        if chosen.use == "idle":
            self._node.perform(self._node.leases.dismiss(chosen.worker))
            return
        text = minds.reason(chosen, reading, self._threshold, self._largest())
        log.warning("worker %s: %s", chosen.worker.hex(), text)
        self.ended += 1
        self._node.nursery.children[chosen.worker].memory_bytes = max(1, chosen.nbytes)
        self._node.nursery.kill(chosen.worker, text)

    def _occupants(self) -> list[minds.Occupant]:
        """Who could be ended. A process in which actors lodge is as dear as these, and as what it does itself."""
        found, children = [], self._node.nursery.children
        homes: dict[bytes, bool] = {}
        for each in children.values():
            if each.house:
                homes[each.house] = homes.get(each.house, True) and each.restarts
        for worker, doing in self._doing.items():
            child, use = children[worker], self._node.leases.use_of(worker)
            if use in ("", "stopping") or child.kill_at == 0:
                continue
            is_actor = child.is_actor or worker in homes
            kind: minds.Use = "actor" if is_actor else "idle" if use == "idle" else "task"
            again = doing.again and homes.get(worker, True)
            found.append(minds.Occupant(worker, own_bytes(child.pid), kind, again, doing.since, child.label()))
        return found

    def _largest(self) -> list[tuple[str, int]]:
        """Who has most here: workers, programs, and this node."""
        children: list[Child] = list(self._node.nursery.children.values())
        named = [(child.label(), own_bytes(child.pid)) for child in children if child.pid and not child.house]
        drivers = [hello.pid for hello in self._node.clients.values() if hello.role == "driver"]
        named += [(f"driver pid={pid}", own_bytes(pid, with_children=False)) for pid in drivers]
        named.append(("the object store", self._node.store.used_bytes()))
        return sorted(named, key=lambda each: -each[1])
