"""Results that stay when their program has ended: who keeps them, and who knows of all of them.

Each program has a *host*, a detached actor that submits its calls, and so owns their results: they run in the program's
own environment, and large values stay where they were made. One *keeper* for the cluster knows which host has which
name. It may die: hosts tell it of all that they have, every few seconds.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, Final

from zmreg.api.actors import ActorHandle, kill
from zmreg.api.cluster import nodes, put
from zmreg.api.context import get_runtime_context
from zmreg.api.functions import RemoteFunction
from zmreg.api.methods import method
from zmreg.api.refs import ObjectRef
from zmreg.api.watching import process_id, when_gone
from zmreg.core.retention import Kept, overdue
from zmreg.flows.kit.system import Way, system_actor
from zmreg.model.errors import ActorError

# How often hosts tell what they have. A keeper that was started anew knows all after one and a half of them.
REPORT_S: Final = 2.0
# A host that has nothing ends after so many reports of that.
_IDLE_REPORTS: Final = 15
# Names of which it is remembered why they are not there.
_GONE_KEPT: Final = 10_000
# Of what all stores have together, if nobody says otherwise.
_SHARE: Final = 4

Row = tuple[str, str, str, str, int, float, float | None, float]
"""(name, request, function, state, bytes, seconds since it was submitted, since it was there, to be kept)."""


class _Entry:
    """What the keeper knows of one name."""

    def __init__(self, host: str, handle: ActorHandle[Any], row: Row, now: float) -> None:
        self.host = host
        self.handle = handle
        name, self.request, self.function, self.state, nbytes, age, settled, ttl_s = row
        self.submitted = now - age
        self.kept = Kept(name, nbytes, None if settled is None else now - settled, ttl_s)

    def shown(self, now: float) -> dict[str, Any]:
        return {
            "name": self.kept.name, "state": self.state, "function": self.function, "nbytes": self.kept.nbytes,
            "age_s": now - self.submitted, "ttl_s": self.kept.ttl_s,
        }  # fmt: skip


class Keeper:
    """{name: host}, and what goes when."""

    def __init__(self) -> None:
        self._entries: dict[str, _Entry] = {}
        self._gone: dict[str, tuple[str, bool]] = {}
        """Why a name is not there, and whether its result is lost."""
        self._idle: dict[str, int] = {}
        self._most_bytes = 0
        again = get_runtime_context().was_current_actor_reconstructed
        self._knows_all = time.monotonic() + 1.5 * REPORT_S * again
        self._loop = asyncio.get_running_loop()
        when_gone(lambda process: self._loop.call_soon_threadsafe(self._died, process))

    @method(max_task_retries=-1)
    async def claim(self, host: str, handle: ActorHandle[Any], row: Row, replace: bool) -> str:
        """Who has the name, if it may not be taken; "" when it is the host's now."""
        await self._until_all_known()
        name, request = row[:2]
        there = self._entries.get(name)
        if there is not None and there.request != request:
            if not replace:
                return f"{there.function}, {there.state}"
            self._let_go(name, "another one was put in its place")
        self._gone.pop(name, None)
        self._entries[name] = _Entry(host, handle, row, time.monotonic())
        return ""

    async def report(
        self, host: str, handle: ActorHandle[Any], rows: Sequence[Row], most_bytes: int
    ) -> tuple[list[str], int]:
        """All that a host has: (what it is to forget, how many bytes may be kept in all, 0: nobody has said)."""
        now = time.monotonic()
        self._most_bytes = self._most_bytes or most_bytes
        dropped = []
        for row in rows:
            there = self._entries.get(row[0])
            if (there is not None and there.request != row[1]) or (there is None and row[0] in self._gone):
                dropped.append(row[0])
            else:
                self._entries[row[0]] = _Entry(host, handle, row, now)
        for name, why in overdue([entry.kept for entry in self._entries.values()], self._allowed(), now).items():
            self._let_go(name, why)
        self._idle[host] = 0 if rows else self._idle.get(host, 0) + 1
        if self._idle[host] >= _IDLE_REPORTS:
            del self._idle[host]
            kill(handle)
        return dropped, self._most_bytes

    @method(max_task_retries=-1)
    async def find(self, name: str) -> tuple[ActorHandle[Any] | None, str, bool]:
        """(its host, why there is none, whether its result is lost)."""
        if name not in self._entries and name not in self._gone:
            await self._until_all_known()
        there = self._entries.get(name)
        return (there.handle, "", False) if there is not None else (None, *self._gone.get(name, ("", False)))

    @method(max_task_retries=-1)
    async def rows(self) -> list[dict[str, Any]]:
        """All that is kept, by name."""
        await self._until_all_known()
        now = time.monotonic()
        return [entry.shown(now) for _, entry in sorted(self._entries.items())]

    @method(max_task_retries=-1)
    async def forget(self, name: str) -> bool:
        """Whether there was one."""
        await self._until_all_known()
        return self._let_go(name, "somebody has had it forgotten")

    @method(max_task_retries=-1)
    async def limit(self, most_bytes: int) -> None:
        """How many bytes may be kept in all."""
        self._most_bytes = most_bytes

    def _allowed(self) -> int:
        if self._most_bytes or not any(entry.kept.nbytes for entry in self._entries.values()):
            return self._most_bytes
        return int(sum(row["ObjectStoreBytes"] for row in nodes() if row["Alive"])) // _SHARE

    def _let_go(self, name: str, why: str) -> bool:
        entry = self._entries.pop(name, None)
        if entry is None:
            return False
        self._note_gone(name, why, False)
        entry.handle.drop.remote(name, entry.request)
        return True

    def _note_gone(self, name: str, why: str, lost: bool) -> None:
        self._gone.pop(name, None)
        self._gone[name] = why, lost
        while len(self._gone) > _GONE_KEPT:
            del self._gone[next(iter(self._gone))]

    def _died(self, process: str) -> None:
        for name in [name for name, entry in self._entries.items() if entry.host.startswith(process)]:
            del self._entries[name]
            self._note_gone(name, "the process that kept it has died, or its machine", True)
        self._idle = {host: count for host, count in self._idle.items() if not host.startswith(process)}

    async def _until_all_known(self) -> None:
        while (left := self._knows_all - time.monotonic()) > 0:
            await asyncio.sleep(left)


class _Mine:
    """One result, at its host."""

    def __init__(self, request: str, function: str, ttl_s: float) -> None:
        self.request = request
        self.function = function
        self.ttl_s = ttl_s
        self.submitted = time.monotonic()
        self.settled: float | None = None
        self.ref: ObjectRef[Any] | None = None

    def row(self, name: str) -> Row:
        now, ref = time.monotonic(), self.ref
        state = "running" if self.settled is None or ref is None else "failed" if ref.failed() else "done"
        nbytes = 0 if self.settled is None or ref is None else ref.meta.nbytes
        age = None if self.settled is None else now - self.settled
        return name, self.request, self.function, state, nbytes, now - self.submitted, age, self.ttl_s


class Host:
    """Submits a program's calls in its place, and keeps their results."""

    def __init__(self) -> None:
        self._mine: dict[str, _Mine] = {}
        self._loop = asyncio.get_running_loop()
        self._way = Way(find_keeper)
        self._most_bytes = 0
        self._news = asyncio.Event()
        self._telling = self._loop.create_task(self._tell())

    async def submit(
        self, name: str, request: str, ttl_s: float, replace: bool, function: Any, named: Sequence[str], *values: Any
    ) -> str:
        """Call it, or keep the one value when there is no function; who has the name, if it is taken."""
        label = getattr(function, "__name__", "") or getattr(function, "__qualname__", "") or "a value"
        mine = _Mine(request, label, ttl_s)
        refused = await self._way.ask_async("claim", process_id(), self._me(), mine.row(name), replace)
        if refused or (name in self._mine and self._mine[name].request == request):
            return str(refused)
        self._mine[name] = mine
        try:
            self._watch(name, mine, put(values[0]) if function is None else _called(function, named, values))
        except BaseException:
            del self._mine[name]
            await self._way.ask_async("forget", name)
            raise
        return ""

    async def state(self, name: str) -> str:
        """running, done or failed; "" when there is none."""
        mine = self._mine.get(name)
        return "" if mine is None else mine.row(name)[3]

    async def refs(self, name: str) -> list[ObjectRef[Any]]:
        """Its ref, in a list; an empty one when there is none."""
        mine = self._mine.get(name)
        return [] if mine is None or mine.ref is None else [mine.ref]

    async def retry(self, name: str) -> bool:
        """Submit a failed call once more. ValueError when it has not failed."""
        mine = self._mine.get(name)
        if mine is None or mine.ref is None:
            return False
        ref = mine.ref.retry()
        mine.settled = None
        self._watch(name, mine, ref)
        return True

    async def cancel(self, name: str) -> bool:
        """Cancel a call."""
        mine = self._mine.get(name)
        if mine is not None and mine.ref is not None:
            mine.ref.cancel()
        return mine is not None

    async def drop(self, name: str, request: str) -> None:
        """Keep it no more. A call under way is cancelled."""
        if name in self._mine and self._mine[name].request == request:
            mine = self._mine.pop(name)
            if mine.settled is None and mine.ref is not None:
                mine.ref.cancel()

    def _me(self) -> ActorHandle[Any]:
        return get_runtime_context().current_actor

    def _watch(self, name: str, mine: _Mine, ref: ObjectRef[Any]) -> None:
        mine.ref = ref
        ref.add_done_callback(lambda done: self._loop.call_soon_threadsafe(self._is_there, name, done))

    def _is_there(self, name: str, ref: ObjectRef[Any]) -> None:
        mine = self._mine.get(name)
        if mine is None or mine.ref is not ref:
            return
        if ref.failed():
            ref.exception(0)  # whoever asks gets it; here nobody has to be told that it was not read
        mine.settled = time.monotonic()
        self._news.set()

    async def _tell(self) -> None:
        me = process_id()
        while True:
            rows = [mine.row(name) for name, mine in self._mine.items()]
            requests = {row[0]: row[1] for row in rows}
            try:
                dropped, most = await self._way.ask_async("report", me, self._me(), rows, self._most_bytes)
            except ActorError:  # it is started anew, and hears the same again in a moment
                dropped, most = [], self._most_bytes
            self._most_bytes = most
            for name in dropped:
                await self.drop(name, requests[name])
            try:
                await asyncio.wait_for(self._news.wait(), REPORT_S)
            except TimeoutError:
                continue
            self._news.clear()


def _called(function: Any, named: Sequence[str], values: Sequence[Any]) -> ObjectRef[Any]:
    """The call; the last `named` of the values are named ones."""
    at = len(values) - len(named)
    remote = function if isinstance(function, RemoteFunction) else RemoteFunction(function, {})
    ref: ObjectRef[Any] = remote.remote(*values[:at], **dict(zip(named, values[at:], strict=True)))
    return ref


def find_keeper() -> ActorHandle[Keeper]:
    """The cluster's; made now when there is none."""
    return system_actor(Keeper, "keeper")
