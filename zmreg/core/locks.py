"""Who holds which named lock: leases, waiting requests, fencing tokens. One machine for a whole cluster.

A request wants one of each of its keys at once, or waits. A key has a limit: 1 for a lock, more for a semaphore. Who
waits is served in the order of arrival, and nobody overtakes an earlier request that wants one of the same keys: so
nobody starves, and requests for several keys cannot lock each other out. What nobody else wants is never held back.

A grant is a lease. Its holder says now and then that it lives (`beat`); who does not, or is known to be dead, loses it.
Tokens grow with every grant, so that whoever is handed two knows which one is the later.

Invariants: leases of a key are at most its limit; a request is granted at most once; no request waits at whose keys
there is room and nobody earlier.
"""

from __future__ import annotations

from collections.abc import Iterable

from zmreg.model.record import Record


class Lease(Record):
    """What a request was granted."""

    token: int
    request: str
    holder: str
    keys: tuple[str, ...]
    until: float
    """It ends then, unless its holder is heard of before."""


class Wish(Record):
    """A request that waits. `holder` is the process that asks."""

    request: str
    holder: str
    keys: tuple[str, ...]


class Grant(Record):
    """Say to whoever made the request that it is granted."""

    request: str
    token: int


class LockBook:
    """All locks of a cluster. `now` is in seconds, of any clock that goes forward."""

    def __init__(self, lease_s: float, first_token: int, *, silent_until: float = 0.0) -> None:
        """The first token granted is above `first_token`. Before `silent_until` nothing is granted: the leases of the
        book before this one may still hold, and their holders say so until then."""
        self._lease_s = lease_s
        self._last_token = first_token
        self._silent_until = silent_until
        self._limits: dict[str, int] = {}
        self._leases: dict[int, Lease] = {}
        self._by_request: dict[str, int] = {}
        self._taken: dict[str, int] = {}
        self._waiting: dict[str, Wish] = {}
        self._wanted: dict[str, int] = {}

    # -- requests -----------------------------------------------------------------------------------------------------

    def acquire(self, wish: Wish, limits: tuple[int, ...], now: float) -> list[Grant]:
        """Make a request, with the limit of each of its keys; it waits unless it is among the grants.

        A request that was made before is not made twice. Raises ValueError for a key that has another limit.
        """
        granted = self._by_request.get(wish.request)
        if granted is not None:
            return [Grant(wish.request, granted)]
        self._check(wish.keys, limits)
        if wish.request not in self._waiting:
            self._limits.update(zip(wish.keys, limits, strict=True))
            self._waiting[wish.request] = wish
            for key in wish.keys:
                self._wanted[key] = self._wanted.get(key, 0) + 1
        return self._serve(now)

    def _check(self, keys: tuple[str, ...], limits: tuple[int, ...]) -> None:
        for key, limit in zip(keys, limits, strict=True):
            known = self._limits.get(key, limit)
            if known != limit:
                raise ValueError(f"{key!r} allows {known} at a time, and not {limit}: somebody holds or wants it so")

    def withdraw(self, request: str, now: float) -> list[Grant]:
        """A request is not wanted any more; if it was granted meanwhile, it is given back."""
        if request in self._waiting:
            self._wait_no_more(request)
        token = self._by_request.get(request)
        if token is not None:
            self._end(token)
        return self._serve(now)

    def release(self, token: int, now: float) -> tuple[bool, list[Grant]]:
        """Give back: whether it was still held, and who is next."""
        held = token in self._leases
        if held:
            self._end(token)
        return held, self._serve(now)

    # -- life and death -----------------------------------------------------------------------------------------------

    def beat(self, claims: Iterable[tuple[Lease, tuple[int, ...]]], now: float) -> tuple[list[int], list[Grant]]:
        """A process lives, and holds these, with the limits of their keys: the tokens that it has lost.

        What is unknown here was granted by the book before this one: it holds again if there is room for it, as long as
        this one is silent.
        """
        lost = []
        for claim, limits in claims:
            self._last_token = max(self._last_token, claim.token)
            if claim.token in self._leases or self._may_hold_again(claim, limits, now):
                self._put(claim.but(until=now + self._lease_s), limits)
            else:
                lost.append(claim.token)
        return lost, self._serve(now)

    def _may_hold_again(self, claim: Lease, limits: tuple[int, ...], now: float) -> bool:
        if now >= self._silent_until or claim.request in self._by_request:
            return False
        pairs = zip(claim.keys, limits, strict=True)
        return all(self._limits.get(key, limit) == limit and self._taken.get(key, 0) < limit for key, limit in pairs)

    def gone(self, holder: str, now: float) -> list[Grant]:
        """A process, or all whose ids begin so, is dead: what it held and wanted is free."""
        for token in [token for token, lease in self._leases.items() if lease.holder.startswith(holder)]:
            self._end(token)
        for request in [request for request, wish in self._waiting.items() if wish.holder.startswith(holder)]:
            self._wait_no_more(request)
        return self._serve(now)

    def tick(self, now: float) -> list[Grant]:
        """Let go of what was not renewed in time."""
        for token in [token for token, lease in self._leases.items() if lease.until <= now]:
            self._end(token)
        return self._serve(now)

    def deadline(self) -> float | None:
        """When to tick next; None when nothing can happen by itself."""
        ends = [lease.until for lease in self._leases.values()]
        if self._silent_until and self._waiting:
            ends.append(self._silent_until)
        return min(ends, default=None)

    # -- what there is ------------------------------------------------------------------------------------------------

    def held(self, key: str) -> int:
        """How many hold it."""
        return self._taken.get(key, 0)

    def wanted(self, key: str) -> int:
        """How many wait for it."""
        return self._wanted.get(key, 0)

    def leases(self) -> tuple[Lease, ...]:
        """All of them, the oldest first."""
        return tuple(self._leases.values())

    def __repr__(self) -> str:
        return f"<LockBook [{len(self._leases)} held, {len(self._waiting)} waiting]>"

    # -- inside -------------------------------------------------------------------------------------------------------

    def _serve(self, now: float) -> list[Grant]:
        if now < self._silent_until:
            return []
        self._silent_until = 0.0
        grants, refused = [], set[str]()
        for wish in list(self._waiting.values()):
            room = all(key not in refused and self._taken.get(key, 0) < self._limits[key] for key in wish.keys)
            if not room:
                refused.update(wish.keys)  # who came later does not overtake
                continue
            self._last_token += 1
            lease = Lease(self._last_token, wish.request, wish.holder, wish.keys, now + self._lease_s)
            self._put(lease, tuple(self._limits[key] for key in wish.keys))
            self._wait_no_more(wish.request)
            grants.append(Grant(wish.request, lease.token))
        return grants

    def _put(self, lease: Lease, limits: tuple[int, ...]) -> None:
        if lease.token not in self._leases:
            self._limits.update(zip(lease.keys, limits, strict=True))
            for key in lease.keys:
                self._taken[key] = self._taken.get(key, 0) + 1
        self._leases[lease.token] = lease
        self._by_request[lease.request] = lease.token

    def _end(self, token: int) -> None:
        lease = self._leases.pop(token)
        del self._by_request[lease.request]
        self._one_less(self._taken, lease.keys)

    def _wait_no_more(self, request: str) -> None:
        self._one_less(self._wanted, self._waiting.pop(request).keys)

    def _one_less(self, counts: dict[str, int], keys: tuple[str, ...]) -> None:
        """A key that nobody holds or wants any more is nothing: the next one may set another limit."""
        for key in keys:
            counts[key] -= 1
            if not counts[key]:
                del counts[key]
                if key not in self._taken and key not in self._wanted:
                    del self._limits[key]
