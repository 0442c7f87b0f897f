"""Locks, semaphores, events and barriers by name, for all processes of a cluster.

    with zmreg.sync.Lock("accounts") as lock:
        store.write(data, fence=lock.token)

Whoever uses the same name means the same thing: programs, tasks and actors, on any node. Objects of these classes are
names in hand: cheap, and pickled by name. What is held belongs to the process that has acquired it, and is free when
that gives it back, throws the object away, or ends, however it ends. A process that is not heard of for ten seconds,
but may live, loses what it holds as well: hence the tokens, which grow with every grant. Whoever receives things from
holders refuses those with a lower token than the last one.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, Self

from zmreg.flows.kit.leases import Held, Keeper, LeaseLostError, keeper
from zmreg.flows.kit.variables import Variable
from zmreg.model.arguments import check_count, check_seconds
from zmreg.model.errors import GetTimeoutError


def _check_name(name: object, what: str) -> None:
    if not isinstance(name, str) or not name:
        raise ValueError(f"a {what} has a name, a string that is not empty, and not {name!r}")


def _seconds(timeout: float | None) -> float | None:
    check_seconds(timeout)
    return None if timeout == math.inf else timeout


class _Leased:
    """What is acquired and released: so many of each of some keys."""

    _what = ""

    def __init__(self, names: Iterable[str], limit: int, kind: str) -> None:
        self._names = tuple(dict.fromkeys(names))
        for name in self._names:
            _check_name(name, self._what)
        self._keys = tuple(f"{kind}:{name}" for name in self._names)
        self._limits = (limit,) * len(self._keys)
        self._held: list[tuple[Keeper, Held]] = []

    def acquire(self, timeout: float | None = None) -> bool:
        """Wait until it is granted: True; False when that takes longer than `timeout` seconds (0 does not wait).

        Who waits is served in the order of arrival. ValueError when others use it with another limit.
        """
        timeout, mine = _seconds(timeout), keeper()
        request = mine.request()
        try:
            token = mine.ask("acquire", *self._wish(mine, request, timeout), timeout=timeout or None)
            return self._got(mine, request, token)
        except GetTimeoutError:
            mine.give_up(request)
            return False
        except BaseException:  # an interrupt, say: it may be granted already
            mine.give_up(request)
            raise

    async def acquire_async(self, timeout: float | None = None) -> bool:
        """`acquire` in an event loop."""
        timeout, mine = _seconds(timeout), keeper()
        request = mine.request()
        try:
            wish = self._wish(mine, request, timeout)
            return self._got(mine, request, await mine.ask_async("acquire", *wish, timeout=timeout or None))
        except GetTimeoutError:
            mine.give_up(request)
            return False
        except BaseException:  # cancelled, say
            mine.give_up(request)
            raise

    def _wish(self, mine: Keeper, request: str, timeout: float | None) -> tuple[Any, ...]:
        return request, mine.me, self._keys, self._limits, timeout != 0

    def _got(self, mine: Keeper, request: str, token: int) -> bool:
        if token:
            self._held.append((mine, mine.hold((token, request, self._keys, self._limits))))
        return bool(token)

    def release(self) -> None:
        """Give back what was acquired by this object last, by whatever thread.

        RuntimeError when it has nothing; LeaseLostError when it was lost before, and so another one may have had it.
        """
        mine, held = self._take()
        self._say(held, mine.ask("release", mine.me, held.claim))

    async def release_async(self) -> None:
        """`release` in an event loop."""
        mine, held = self._take()
        self._say(held, await mine.ask_async("release", mine.me, held.claim))

    def _take(self) -> tuple[Keeper, Held]:
        try:
            mine, held = self._held.pop()
        except IndexError:
            raise RuntimeError(f"{self!r} is not held by this object; call acquire() first") from None
        mine.let_go(held)
        return mine, held

    def _say(self, held: Held, was_held: bool) -> None:
        if not was_held or held.lost:
            raise LeaseLostError(
                f"{self!r} was not held to the end (token {held.token}): this process was not heard of for too long, "
                "and another one may have held it meanwhile; check what it has written by tokens"
            )

    @property
    def held(self) -> bool:
        """Whether this object holds it; False also when it was lost meanwhile, as far as can be known here."""
        return any(held.holds() for _, held in self._held[-1:])

    @property
    def token(self) -> int:
        """The fencing token of what was acquired last: higher than that of any grant before, of whatever name.

        RuntimeError when this object holds nothing.
        """
        if not self._held:
            raise RuntimeError(f"{self!r} is not held by this object, so there is no token")
        return self._held[-1][1].token

    def __enter__(self) -> Self:
        self.acquire()
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            self.release()
        except LeaseLostError:
            if kind is None:  # else the error that came first is the one to be seen
                raise

    async def __aenter__(self) -> Self:
        await self.acquire_async()
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        try:
            await self.release_async()
        except LeaseLostError:
            if kind is None:
                raise

    def __del__(self) -> None:
        for mine, held in getattr(self, "_held", ()):
            mine.drop(held)

    def __repr__(self) -> str:
        return f"<{self._what} {', '.join(self._names)}>"


class Lock(_Leased):
    """Held by one at a time. Not reentrant: who holds it and acquires it again waits for itself."""

    _what = "Lock"

    def __init__(self, name: str) -> None:
        super().__init__((name,), 1, "lock")

    def locked(self) -> bool:
        """Whether anybody holds it."""
        return bool(keeper().ask("held", self._keys[0]))

    def __reduce__(self) -> tuple[Any, ...]:
        return Lock, self._names


class MultiLock(_Leased):
    """Several locks at once, or none: no two programs can have half each. The same names as those of `Lock`."""

    _what = "MultiLock"

    def __init__(self, names: Iterable[str]) -> None:
        if isinstance(names, str):
            raise TypeError(f"MultiLock takes several names, not the one string {names!r}; use Lock for that")
        super().__init__(names, 1, "lock")
        if not self._names:
            raise ValueError("MultiLock takes one name at least")

    def __reduce__(self) -> tuple[Any, ...]:
        return MultiLock, (self._names,)


class Semaphore(_Leased):
    """Held by `limit` at a time. One object may acquire it several times."""

    _what = "Semaphore"

    def __init__(self, name: str, limit: int = 1) -> None:
        super().__init__((name,), check_count(limit, "limit", 1), "semaphore")

    def holders(self) -> int:
        """How many times it is held now, by anybody."""
        return int(keeper().ask("held", self._keys[0]))

    def __reduce__(self) -> tuple[Any, ...]:
        return Semaphore, (*self._names, *self._limits)


async def _wait_async(name: str, *args: Any, timeout: float | None) -> int:
    mine = keeper()
    request = mine.request()
    try:
        return int(await mine.ask_async(name, request, mine.me, *args, timeout=timeout))
    except BaseException:
        mine.give_up(request)
        raise


def _wait(name: str, *args: Any, timeout: float | None) -> int:
    mine = keeper()
    request = mine.request()
    try:
        return int(mine.ask(name, request, mine.me, *args, timeout=timeout))
    except BaseException:
        mine.give_up(request)
        raise


class Event:
    """A flag for all: `wait` until somebody has said `set`. Forgotten when the coordinator's process dies."""

    def __init__(self, name: str) -> None:
        _check_name(name, "Event")
        self.name = name

    def set(self) -> None:
        """Let go everybody who waits; from now on nobody does."""
        keeper().ask("set_event", self.name)

    def clear(self) -> None:
        """Whoever waits from now on waits until it is set again."""
        keeper().ask("clear_event", self.name)

    def is_set(self) -> bool:
        """Whether it is set."""
        return bool(keeper().ask("is_set", self.name))

    def wait(self, timeout: float | None = None) -> bool:
        """Wait until it is set: True; False after `timeout` seconds.

        ActorUnavailableError when the coordinator died meanwhile.
        """
        timeout = _seconds(timeout)
        if timeout == 0:
            return self.is_set()
        try:
            return bool(_wait("wait_event", self.name, timeout=timeout))
        except GetTimeoutError:
            return False

    async def wait_async(self, timeout: float | None = None) -> bool:
        """`wait` in an event loop."""
        try:
            return bool(await _wait_async("wait_event", self.name, timeout=_seconds(timeout)))
        except GetTimeoutError:
            return False

    def __reduce__(self) -> tuple[Any, ...]:
        return Event, (self.name,)

    def __repr__(self) -> str:
        return f"<Event {self.name}>"


class Barrier:
    """Who comes waits until `parties` are there, then all go on, and it is as new. The dead do not count."""

    def __init__(self, name: str, parties: int) -> None:
        _check_name(name, "Barrier")
        self.name = name
        self.parties = check_count(parties, "parties", 1)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the others; which one this was, from 0 in the order of arrival.

        GetTimeoutError after `timeout` seconds: this one does not wait any more, the others do. ValueError when they
        wait for another number of parties. ActorUnavailableError when the coordinator died meanwhile.
        """
        return _wait("meet", self.name, self.parties, timeout=_seconds(timeout)) - 1

    async def wait_async(self, timeout: float | None = None) -> int:
        """`wait` in an event loop."""
        return await _wait_async("meet", self.name, self.parties, timeout=_seconds(timeout)) - 1

    def __reduce__(self) -> tuple[Any, ...]:
        return Barrier, (self.name, self.parties)

    def __repr__(self) -> str:
        return f"<Barrier {self.name} of {self.parties}>"


__all__ = ["Barrier", "Event", "LeaseLostError", "Lock", "MultiLock", "Semaphore", "Variable"]
