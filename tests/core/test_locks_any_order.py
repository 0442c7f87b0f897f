"""The book of locks under every order of events hypothesis can think of (core-api X10).

The test plays the holders, and keeps its own account of who holds what from the grants alone.
"""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from tests.effort import examples
from zmreg.core.locks import Grant, Lease, LockBook, Wish

HOLDERS = ["n1a", "n1b", "n2a", "n2b"]
LIMITS = {"x": 1, "y": 1, "s": 2}
LEASE_S = 10.0


class AnyOrder(RuleBasedStateMachine):
    """Holders may be silent, die, be forgotten by a new book, and come back with what they held."""

    @initialize()
    def start(self) -> None:
        self.book = LockBook(LEASE_S, 0)
        self.now = 0.0
        self.number = 0
        self.last = 0
        self.silent_until = 0.0
        self.wishes: dict[str, Wish] = {}
        self.granted: dict[int, Lease] = {}
        self.done: set[str] = set()

    def hear(self, grants: list[Grant]) -> None:
        for grant in grants:
            assert grant.token > self.last, "tokens grow"
            assert grant.request not in self.done, "granted twice, or after its end"
            assert self.now >= self.silent_until
            self.last = grant.token
            wish = self.wishes.pop(grant.request)
            earlier = [each for each in self.wishes.values() if int(each.request) < int(wish.request)]
            assert not [each for each in earlier if set(each.keys) & set(wish.keys)], "overtaken"
            self.done.add(grant.request)
            until = self.now + LEASE_S
            self.granted[grant.token] = Lease(grant.token, wish.request, wish.holder, wish.keys, until)
        self.expire()

    def expire(self) -> None:
        self.granted = {token: each for token, each in self.granted.items() if each.until > self.now}

    @rule(holder=st.sampled_from(HOLDERS), keys=st.sets(st.sampled_from(sorted(LIMITS)), min_size=1))
    def ask(self, holder: str, keys: set[str]) -> None:
        self.number += 1
        wish = Wish(str(self.number), holder, tuple(sorted(keys)))
        self.wishes[wish.request] = wish
        self.hear(self.book.acquire(wish, tuple(LIMITS[key] for key in wish.keys), self.now))

    @rule(data=st.data())
    def ask_again(self, data: st.DataObject) -> None:
        if self.wishes:
            wish = data.draw(st.sampled_from(list(self.wishes.values())))
            self.hear(self.book.acquire(wish, tuple(LIMITS[key] for key in wish.keys), self.now))

    @rule(data=st.data())
    def give_up(self, data: st.DataObject) -> None:
        if self.number:
            request = str(data.draw(st.integers(1, self.number)))
            self.wishes.pop(request, None)
            self.done.add(request)
            self.granted = {token: each for token, each in self.granted.items() if each.request != request}
            self.hear(self.book.withdraw(request, self.now))

    @rule(data=st.data())
    def give_back(self, data: st.DataObject) -> None:
        if self.granted:
            token = data.draw(st.sampled_from(list(self.granted)))
            del self.granted[token]
            _, grants = self.book.release(token, self.now)
            self.hear(grants)

    @rule(holder=st.sampled_from(HOLDERS))
    def beat(self, holder: str) -> None:
        mine = [each for each in self.granted.values() if each.holder == holder]
        lost, grants = self.book.beat([(each, tuple(LIMITS[key] for key in each.keys)) for each in mine], self.now)
        assert not lost, "what holds is not lost"
        for each in mine:
            self.granted[each.token] = each.but(until=self.now + LEASE_S)
        self.hear(grants)

    @rule(holder=st.sampled_from([*HOLDERS, "n1"]))
    def die(self, holder: str) -> None:
        self.granted = {token: each for token, each in self.granted.items() if not each.holder.startswith(holder)}
        self.wishes = {key: each for key, each in self.wishes.items() if not each.holder.startswith(holder)}
        self.hear(self.book.gone(holder, self.now))

    @rule(seconds=st.sampled_from([0.5, 4.0, 11.0]))
    def pass_time(self, seconds: float) -> None:
        end = self.now + seconds
        while (deadline := self.book.deadline()) is not None and deadline <= end:
            self.now = max(self.now, deadline)
            self.expire()
            self.hear(self.book.tick(self.now))
        self.now = end
        self.expire()

    @rule()
    def restart(self) -> None:
        """The book is lost, and another one starts; holders ask again for what they want, the old ones hold on."""
        self.silent_until = self.now + LEASE_S
        self.book = LockBook(LEASE_S, self.last, silent_until=self.silent_until)
        for holder in HOLDERS:
            self.beat(holder)
        for wish in self.wishes.values():
            self.hear(self.book.acquire(wish, tuple(LIMITS[key] for key in wish.keys), self.now))

    @invariant()
    def what_is_held_is_what_was_granted(self) -> None:
        if not hasattr(self, "book"):
            return
        assert {each.token for each in self.book.leases()} == set(self.granted)
        for key, limit in LIMITS.items():
            held = sum(key in each.keys for each in self.granted.values())
            assert held == self.book.held(key) <= limit
            assert self.book.wanted(key) == sum(key in each.keys for each in self.wishes.values())

    @invariant()
    def nobody_waits_without_a_reason(self) -> None:
        if not hasattr(self, "book") or self.now < self.silent_until:
            return
        spoken_for: set[str] = set()
        for wish in sorted(self.wishes.values(), key=lambda each: int(each.request)):
            free = [self.book.held(key) < LIMITS[key] and key not in spoken_for for key in wish.keys]
            assert not all(free), "it could have all, and nobody is before it"
            spoken_for.update(wish.keys)


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=examples(60), stateful_step_count=40, deadline=None)
