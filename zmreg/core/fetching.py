"""Getting objects from other nodes: one transfer for each object, whoever wants it and however many.

A pure machine: each input returns what is to be done, in that order. The node tells it about holders (`want`, `learn`),
room (`reserved`), answers of holders (`on_chunk`, `on_refused`, `on_wait`), deaths (`node_gone`) and time (`tick`).

Promises:
- A want ends once, in Completed (every byte written, in order), in Failed (with everybody asked and why not), or by
  `cancel`. With Failed and `cancel` goes Release, if room was asked for.
- A transfer that breaks goes on with another holder at the byte it had reached, under a new number; chunks of an
  older number change nothing. Values never change, so bytes of two holders fit together.
- Credit never exceeds one window; at most `transfers` objects are under way, and new ones start while the sum of their
  sizes is within `in_flight_bytes`. An object over half of that counts as half: two giants go at a time, and small ones
  beside one. Who waits for a holder takes no place from others. The queue is first in, first out.
- A holder's silence is not its death: it is paused, others are asked, then it is asked again. After `patience_s` in
  which nobody sent a byte, or at least said that it will, the fetch fails.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from random import Random
from typing import Final

from zmreg.core.fetch_effects import (
    AskLocations,
    Completed,
    Credit,
    Failed,
    FetchEffect,
    Release,
    Reserve,
    Stop,
    Write,
)
from zmreg.core.fetch_lines import FetchLimits, Lines
from zmreg.core.graves import Graves
from zmreg.core.wants import Stage, Turn, Want
from zmreg.model.fetch_messages import CHUNK_BYTES, Refusal

__all__ = ["FetchLimits", "FetchStatistics", "Fetching", "LinkStatistics"]

# After a silence a transfer starts with this much credit, doubled as it goes: a slow link must not fill up with what
# nobody waits for any more.
_SHY_WINDOW: Final = 2 * CHUNK_BYTES

# Ticks come some ten times a second: a longer gap was our own standing still.
_SLEEP_S: Final = 1.0

_WORDS: Final[dict[Refusal, str]] = {
    "NOT_HERE": "it does not have it",
    "BUSY": "it was busy sending it to others",
    "GONE": "it was freed there",
    "WRONG_SIZE": "it has it with another size",
    "NO_MEMORY": "it has it on disk and found no memory to read it back",
}


@dataclass(slots=True)
class LinkStatistics:
    """What came from one node since the start. `retries`: transfers that broke; `refused`: answers without a byte."""

    objects: int = 0
    nbytes: int = 0
    retries: int = 0
    refused: int = 0


@dataclass(frozen=True, slots=True)
class FetchStatistics:
    """`queued` to `in_flight_bytes` are of this moment, the rest counts from the start."""

    queued: int
    reserving: int
    fetching: int
    waiting: int
    in_flight_bytes: int
    completed: int
    failed: int
    cancelled: int
    joined: int
    """Wants of an object that was under way already."""
    late_chunks: int
    doubled_chunks: int
    links: dict[bytes, LinkStatistics]


@dataclass(slots=True)
class _Counts:
    completed: int = 0
    failed: int = 0
    cancelled: int = 0
    joined: int = 0
    late: int = 0
    doubled: int = 0
    links: dict[bytes, LinkStatistics] = field(default_factory=dict)

    def link(self, node: bytes) -> LinkStatistics:
        found = self.links.get(node)
        if found is None:
            found = self.links[node] = LinkStatistics()
        return found


class Fetching:
    """See the module. `random` breaks ties among holders; `now` is seconds of any clock that does not go back."""

    def __init__(self, me: bytes, random: Random, limits: FetchLimits | None = None) -> None:
        self.limits = limits or FetchLimits()
        self._me = me
        self._random = random
        self._wants: dict[bytes, Want] = {}
        self._lines = Lines(self.limits)
        self._dead = Graves()
        self._counts = _Counts()
        self._ticked_at = float("-inf")

    def __repr__(self) -> str:
        return f"<Fetching [{self._lines.active}/{self.limits.transfers} under way | {len(self._wants)} wanted]>"

    def __contains__(self, object_id: bytes) -> bool:
        return object_id in self._wants

    def __len__(self) -> int:
        """How many objects are wanted; while there are any, `tick` has to be called."""
        return len(self._wants)

    # -- who wants what, and where it is ------------------------------------------------------------------------------

    def want(self, object_id: bytes, nbytes: int, holders: Iterable[bytes], now: float) -> list[FetchEffect]:
        """Get it from one of `holders`, or, when there is none, from whoever AskLocations finds. Repeats join."""
        want = self._wants.get(object_id)
        if want is not None:
            self._counts.joined += 1
            return self._heard(want, holders, now)
        if nbytes < 0:
            raise ValueError(f"object {object_id.hex()} cannot have {nbytes} bytes")
        if not self._wants:
            self._ticked_at = now
        want = self._wants[object_id] = Want(object_id, nbytes, self.limits.window_bytes, now)
        for holder in holders:
            self._note(want, holder)
        self._lines.line_up(want, now)
        return self._admit(now)

    def learn(self, object_id: bytes, holder: bytes, now: float) -> list[FetchEffect]:
        """`holder` is said to have it now; news of objects that nobody wants are welcome and do nothing."""
        want = self._wants.get(object_id)
        return [] if want is None else self._heard(want, (holder,), now)

    def no_more(self, object_id: bytes, now: float) -> list[FetchEffect]:
        """AskLocations is answered: `learn` has been called for all there is."""
        want = self._wants.get(object_id)
        if want is None or not want.asked:
            return []
        want.answered = True
        return self._then(self._wait(want, now) if want.stage is Stage.WAITING else [], now)

    def cancel(self, object_id: bytes, now: float) -> list[FetchEffect]:
        """Nobody waits for it any more, or it was freed. It must not be cancelled for one of several who want it."""
        want = self._wants.get(object_id)
        if want is None:
            return []
        self._counts.cancelled += 1
        stop = [Stop(want.holder, want.transfer)] if want.stage is Stage.FETCHING else []
        return self._then([*stop, *self._end(want)], now)

    def node_gone(self, node: bytes, now: float) -> list[FetchEffect]:
        """`node` is dead: nothing comes from it any more, and news that name it are old."""
        self._dead.bury(node)
        effects: list[FetchEffect] = []
        for want in list(self._wants.values()):
            if node not in want.holders:
                continue
            want.drop(node, "its node died")
            if want.stage is Stage.FETCHING and want.holder == node:
                effects += self._broke(want, now)
            elif want.stage is Stage.WAITING:
                effects += self._wait(want, now)
        return self._then(effects, now)

    # -- room ---------------------------------------------------------------------------------------------------------

    def reserved(self, object_id: bytes, ok: bool, reason: str, now: float) -> list[FetchEffect]:
        """The store's answer to Reserve. Without room the fetch has Failed, with the store's `reason` as it is."""
        want = self._wants.get(object_id)
        if want is None or want.stage is not Stage.RESERVING:
            return []
        if not ok:
            self._end(want)
            self._counts.failed += 1
            return self._then([Failed(object_id, reason, tuple(want.tried.items()), "room")], now)
        want.has_room = True
        want.hope_at = now
        return self._then(self._go_on(want, now) if want.nbytes else self._finish(want), now)

    # -- what holders say ---------------------------------------------------------------------------------------------

    def on_chunk(self, transfer: int, offset: int, nbytes: int, now: float) -> list[FetchEffect]:
        """A chunk is at hand. If it is wanted, the first effect is the Write of it."""
        want = self._lines.transfers.get(transfer)
        if want is None:
            self._counts.late += 1
            return []
        if offset < want.offset:
            self._counts.doubled += 1
            return []
        if offset > want.offset:
            want.blame(want.holder, "a chunk of it was lost on the way")
            # If not even the first one arrived, asking again at once could go on for ever.
            return self._then(self._broke(want, now, pause=want.offset == want.start), now)
        if nbytes <= 0 or offset + nbytes > want.upto:
            want.drop(want.holder, f"it sent {nbytes} bytes where {want.upto - offset} were asked for")
            return self._then(self._broke(want, now), now)
        return self._take(want, nbytes, now)

    def on_refused(
        self, transfer: int, reason: Refusal, others: Iterable[bytes], nbytes: int, now: float
    ) -> list[FetchEffect]:
        """The holder will send nothing (more). `others` may have it; `nbytes` is its size there, or -1."""
        want = self._lines.transfers.get(transfer)
        if want is None:
            return []
        holder = want.holders[want.holder]
        self._counts.link(holder.node).refused += 1
        busy = reason == "BUSY"
        if busy:
            want.hope_at = now
            want.asked = want.answered = False
            holder.was_busy(now, 0.5 + self._random.random())
            want.blame(holder.node, _WORDS[reason])
        else:
            size = f" ({nbytes} bytes)" if reason == "WRONG_SIZE" else ""
            want.drop(holder.node, _WORDS[reason] + size)
        for other in others:
            self._note(want, other, unsure=busy)
        self._lines.leave(want)
        return self._then(self._go_on(want, now), now)

    def on_wait(self, transfer: int, now: float) -> None:
        """The holder has it, on disk, and brings it back: it is not silent."""
        want = self._lines.transfers.get(transfer)
        if want is not None:
            want.word_at = want.hope_at = now

    # -- time ---------------------------------------------------------------------------------------------------------

    def tick(self, now: float) -> list[FetchEffect]:
        """Time passes; to be called some ten times a second while anything is wanted."""
        since, self._ticked_at = self._ticked_at, now
        effects: list[FetchEffect] = []
        for want in list(self._wants.values()):
            if now - since > _SLEEP_S:
                want.slept(since, now)
            if want.stage is Stage.FETCHING:
                silent_s = now - want.word_at
                patience_s = self.limits.stall_s * (1 << min(want.holders[want.holder].silences, 10))
                if silent_s >= patience_s or self._is_over(want, now):
                    want.blame(want.holder, f"it was silent for {silent_s:.1f} s")
                    effects += self._broke(want, now, pause=True)
            elif want.stage is Stage.WAITING:
                effects += self._wait(want, now)
        return self._then(effects, now)

    def statistics(self) -> FetchStatistics:
        """What is under way, and what was."""
        stages = Counter(want.stage for want in self._wants.values())
        counts = self._counts
        return FetchStatistics(
            queued=stages[Stage.QUEUED],
            reserving=stages[Stage.RESERVING],
            fetching=stages[Stage.FETCHING],
            waiting=stages[Stage.WAITING],
            in_flight_bytes=self._lines.flight_bytes,
            completed=counts.completed,
            failed=counts.failed,
            cancelled=counts.cancelled,
            joined=counts.joined,
            late_chunks=counts.late,
            doubled_chunks=counts.doubled,
            links={
                node: LinkStatistics(link.objects, link.nbytes, link.retries, link.refused)
                for node, link in counts.links.items()
            },
        )

    # -- inside: none of these lets the next one in; `_then` does ---------------------------------------------------

    def _then(self, effects: list[FetchEffect], now: float) -> list[FetchEffect]:
        return effects + self._admit(now)

    def _admit(self, now: float) -> list[FetchEffect]:
        effects: list[FetchEffect] = []
        while (want := self._lines.next(now)) is not None:
            if want.hopeless():
                # No room is taken for what nobody is known to have.
                self._lines.move(want, Turn.LACK)
                effects += self._wait(want, now)
            elif want.has_room:
                effects += self._go_on(want, now)
            else:
                self._lines.move(want, Turn.RESERVE)
                effects.append(Reserve(want.object_id, want.nbytes))
        return effects

    def _note(self, want: Want, node: bytes, unsure: bool = False) -> bool:
        # Our own store does not have it, whatever the table says: else nobody would have come here.
        return node != self._me and node not in self._dead and want.note(node, unsure)

    def _heard(self, want: Want, holders: Iterable[bytes], now: float) -> list[FetchEffect]:
        news = [holder for holder in holders if self._note(want, holder)]
        if news:
            want.wake()
        return self._then(self._wait(want, now) if want.stage is Stage.WAITING else [], now)

    def _take(self, want: Want, nbytes: int, now: float) -> list[FetchEffect]:
        write = Write(want.object_id, want.offset, nbytes)
        link = self._counts.link(want.holder)
        link.nbytes += nbytes
        want.offset += nbytes
        want.word_at = want.hope_at = now
        want.asked = want.answered = False
        want.holders[want.holder].gave()
        if want.offset == want.nbytes:
            link.objects += 1
            stop = Stop(want.holder, want.transfer)
            return self._then([write, stop, *self._finish(want)], now)
        if want.upto < want.nbytes and want.upto - want.offset <= want.window // 2:
            want.window = min(self.limits.window_bytes, want.window * 2)
            want.upto = min(want.nbytes, want.offset + want.window)
            return [write, Credit(want.holder, want.transfer, want.upto)]
        return [write]

    def _broke(self, want: Want, now: float, pause: bool = False) -> list[FetchEffect]:
        """The transfer is over, unfinished; `pause`: ask this holder again only after a while, and for less."""
        self._counts.link(want.holder).retries += 1
        if pause:
            want.holders[want.holder].was_silent(now)
            want.window = min(_SHY_WINDOW, self.limits.window_bytes)
        stop = [] if want.holder in self._dead else [Stop(want.holder, want.transfer)]
        self._lines.leave(want)
        return [*stop, *self._go_on(want, now)]

    def _go_on(self, want: Want, now: float) -> list[FetchEffect]:
        """It has room and a slot, and no transfer."""
        if self._is_over(want, now):
            return self._fail(want)
        holder = want.choose(now, self._lines.loads, self._random)
        if holder is None:
            self._lines.move(want, Turn.LACK)
            return self._wait(want, now)
        self._lines.move(want, Turn.ASK)
        return [self._lines.begin(want, holder, now)]

    def _wait(self, want: Want, now: float) -> list[FetchEffect]:
        """It is WAITING: for time to pass, for news, or no longer."""
        if (want.answered and want.hopeless()) or self._is_over(want, now):
            return self._fail(want)
        if want.next_try() <= now:
            self._lines.move(want, Turn.LINE_UP)
            self._lines.line_up(want, now)
        elif not want.asked and want.unheard():
            want.asked = True
            return [AskLocations(want.object_id)]
        return []

    def _is_over(self, want: Want, now: float) -> bool:
        return now >= want.hope_at + self.limits.patience_s

    def _fail(self, want: Want) -> list[FetchEffect]:
        self._counts.failed += 1
        lost = want.hopeless()
        reason = "no node has it" if lost else f"nobody has sent any of it for {self.limits.patience_s:g} s"
        return [
            *self._end(want),
            Failed(want.object_id, reason, tuple(want.tried.items()), "lost" if lost else "silent"),
        ]

    def _finish(self, want: Want) -> list[FetchEffect]:
        self._end(want)
        self._counts.completed += 1
        return [Completed(want.object_id, want.holder, want.nbytes)]

    def _end(self, want: Want) -> list[FetchEffect]:
        """Forget it. Returns the Release that is due unless the room was refused, or is full."""
        roomy = want.has_room or want.stage is Stage.RESERVING
        self._lines.leave(want)
        self._lines.move(want, Turn.END)
        del self._wants[want.object_id]
        return [Release(want.object_id)] if roomy else []
