"""The actor that a cluster's locks, events and barriers live in: asyncio around two machines.

It is made when the first of them is used, found by name, lives where the head lives if there is room, and is restarted.
It takes texts and numbers only: no code and no value of a user's comes here. The machines are in `core/locks.py` and
`core/barriers.py`; what a process does with its leases is in `flows/kit/leases.py`.
"""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections.abc import Iterable
from typing import Final

from zmreg.api.actors import ActorHandle
from zmreg.api.context import get_runtime_context
from zmreg.api.methods import method
from zmreg.api.watching import when_gone
from zmreg.core.barriers import Meeting
from zmreg.core.locks import Grant, Lease, LockBook, Wish
from zmreg.flows.kit.system import system_actor

# A holder that is not heard of for so long, without being known to be dead, has lost what it held. Ten seconds of
# silence are what a node is declared dead for.
LEASE_S: Final = 10.0

Claim = tuple[int, str, tuple[str, ...], tuple[int, ...]]
"""(token, request, keys, their limits) of a lease, as its holder tells it."""


class Coordinator:
    """Locks, events and barriers by name. Requests have names that their makers choose, and no two are alike."""

    def __init__(self, lease_s: float) -> None:
        self._loop = asyncio.get_running_loop()
        now = self._loop.time()
        # Microseconds: a book that comes after another one begins above all tokens of that, unless it has granted a
        # million a second since it began; and what holders say they hold lifts it, too.
        first = int(time.time() * 1e6)
        again = get_runtime_context().was_current_actor_reconstructed
        self._book = LockBook(lease_s, first, silent_until=now + lease_s if again else 0.0)
        if again:  # until then it is silent, and afterwards somebody may have waited
            self._loop.call_at(now + lease_s, lambda: self._serve(self._book.tick(self._loop.time())))
        self._timer: asyncio.TimerHandle | None = None
        self._waiting: dict[str, tuple[str, asyncio.Future[int]]] = {}
        self._set: set[str] = set()
        self._for_event: dict[str, set[str]] = {}
        self._meetings: dict[str, Meeting] = {}
        when_gone(self._tell_of_death)

    # -- locks --------------------------------------------------------------------------------------------------------

    @method(max_task_retries=-1)
    async def acquire(
        self, request: str, holder: str, keys: tuple[str, ...], limits: tuple[int, ...], wait: bool
    ) -> int:
        """The token of the lease, as soon as it is granted; 0 when it is not, or was withdrawn meanwhile.

        ValueError for a key with another limit.
        """
        for grant in self._book.acquire(Wish(request, holder, keys), limits, self._loop.time()):
            if grant.request == request:
                self._arm()
                return grant.token
        if not wait:
            self._serve(self._book.withdraw(request, self._loop.time()))
            return 0
        self._arm()
        return await self._answer(request, holder)

    @method(max_task_retries=-1)
    async def release(self, holder: str, claim: Claim) -> bool:
        """Whether it was still held. A coordinator that began after the lease takes its holder's word for it."""
        now = self._loop.time()
        lost, grants = self._book.beat([_lease(holder, claim)], now)
        _, more = self._book.release(claim[0], now)
        self._serve([*grants, *more])
        return not lost

    @method(max_task_retries=-1)
    async def withdraw(self, request: str) -> None:
        """The answer to a request is not waited for any more; what it has brought is given back."""
        self._serve(self._book.withdraw(request, self._loop.time()))
        for meeting in self._meetings.values():
            meeting.leave(request)
        self._settle(request, 0)

    @method(max_task_retries=-1)
    async def beat(self, holder: str, claims: Iterable[Claim]) -> list[int]:
        """A process lives, and holds these; tokens of those that it has lost."""
        lost, grants = self._book.beat([_lease(holder, claim) for claim in claims], self._loop.time())
        self._serve(grants)
        return lost

    async def held(self, key: str) -> int:
        """How many hold it."""
        return self._book.held(key)

    async def wanted(self, key: str) -> int:
        """How many wait for it."""
        return self._book.wanted(key)

    # -- events -------------------------------------------------------------------------------------------------------

    async def set_event(self, name: str) -> None:
        """Let go all who wait for it, and from now on nobody waits."""
        self._set.add(name)
        for request in self._for_event.pop(name, ()):
            self._settle(request, 1)

    async def clear_event(self, name: str) -> None:
        """As if it had never been set."""
        self._set.discard(name)

    async def is_set(self, name: str) -> bool:
        """Whether it is."""
        return name in self._set

    async def wait_event(self, request: str, holder: str, name: str) -> int:
        """1 when it is set; 0 when the request was withdrawn."""
        if name in self._set:
            return 1
        waiting = self._for_event.setdefault(name, set())
        waiting.add(request)
        try:
            return await self._answer(request, holder)
        finally:
            waiting.discard(request)
            if not waiting and self._for_event.get(name) is waiting:
                del self._for_event[name]

    # -- barriers -----------------------------------------------------------------------------------------------------

    async def meet(self, request: str, holder: str, name: str, parties: int) -> int:
        """Which one of those who go on together this is, from 1 in the order they came; 0 when it was withdrawn."""
        meeting = self._meetings.setdefault(name, Meeting(parties))
        going = meeting.arrive(request, holder, parties)
        for place, each in enumerate(going, 1):
            self._settle(each, place)
        try:
            return len(going) or await self._answer(request, holder)
        finally:
            if not len(meeting) and self._meetings.get(name) is meeting:
                del self._meetings[name]

    # -- inside -------------------------------------------------------------------------------------------------------

    async def _answer(self, request: str, holder: str) -> int:
        future: asyncio.Future[int] = self._loop.create_future()
        self._waiting[request] = holder, future
        try:
            return await future
        finally:
            self._waiting.pop(request, None)

    def _settle(self, request: str, value: int) -> None:
        _, future = self._waiting.get(request, ("", None))
        if future is not None and not future.done():
            future.set_result(value)

    def _serve(self, grants: Iterable[Grant]) -> None:
        for grant in grants:
            self._settle(grant.request, grant.token)
        self._arm()

    def _arm(self) -> None:
        # What is granted or renewed later never ends earlier: one timer at a time, and none when nothing is held.
        if self._timer is None and (deadline := self._book.deadline()) is not None:
            self._timer = self._loop.call_at(deadline, self._tick)

    def _tick(self) -> None:
        self._timer = None
        self._serve(self._book.tick(self._loop.time()))

    def _tell_of_death(self, who: str) -> None:
        with contextlib.suppress(RuntimeError):  # the loop is closed, and so all of it is over
            self._loop.call_soon_threadsafe(self._gone, who)

    def _gone(self, who: str) -> None:
        for meeting in self._meetings.values():
            meeting.gone(who)
        for request, (holder, _) in list(self._waiting.items()):
            if holder.startswith(who):
                self._settle(request, 0)
        self._serve(self._book.gone(who, self._loop.time()))


def _lease(holder: str, claim: Claim) -> tuple[Lease, tuple[int, ...]]:
    token, request, keys, limits = claim
    return Lease(token, request, holder, keys, 0.0), limits


def find() -> ActorHandle[Coordinator]:
    """The cluster's coordinator; made now when there is none."""
    return system_actor(Coordinator, "coordinator", LEASE_S)
