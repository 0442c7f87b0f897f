"""What a process does with its leases: asks for them, says now and then that it lives, gives them back.

One thread says so for all leases of the process, while it has any. What Python throws away while it is held is given
back by that thread, too: finalizers run at any moment, and may not wait.
"""

from __future__ import annotations

import contextlib
import itertools
import queue
import threading
import time
from typing import TYPE_CHECKING, Final

from zmreg.api.watching import at_the_end, process_id
from zmreg.flows.kit.system import Way
from zmreg.model.errors import ZmregError

if TYPE_CHECKING:
    from zmreg.api.actors import ActorHandle
    from zmreg.flows.kit.coordinator import Claim, Coordinator

# Three times in a lease: one may be lost, and one late.
RENEW_S: Final = 3.0
_AGAIN_S: Final = 0.5


class LeaseLostError(ZmregError):
    """What was held was not, some of the time: this process was not heard of for ten seconds, and another one may have
    been granted it. Who may have done something meanwhile can be told by the tokens."""


class Held:
    """A lease of this process."""

    __slots__ = ("claim", "lost", "until")

    def __init__(self, claim: Claim, until: float) -> None:
        self.claim = claim
        self.lost = False
        self.until = until
        """On our clock: not heard of by then, we have to take it for lost."""

    @property
    def token(self) -> int:
        """The later a lease was granted, the higher it is."""
        return self.claim[0]

    def holds(self) -> bool:
        """Whether it is ours, as far as can be known here."""
        return not self.lost and time.monotonic() < self.until


def _find() -> ActorHandle[Coordinator]:
    from zmreg.flows.kit.coordinator import find  # late: it brings asyncio

    return find()


class Keeper(Way):
    """The leases of one process in one cluster, and its way to the coordinator."""

    def __init__(self, me: str) -> None:
        super().__init__(_find)
        self.me = me
        self._guard = threading.Lock()
        self._numbers = itertools.count(1)
        self._held: dict[int, Held] = {}
        self._thread: threading.Thread | None = None
        self._over = False
        # SimpleQueue: its put() may interrupt itself, as finalizers do. None: look again.
        self._dropped: queue.SimpleQueue[Held | None] = queue.SimpleQueue()
        at_the_end(self._end)

    # -- requests -----------------------------------------------------------------------------------------------------

    def request(self) -> str:
        """A name for a request, of which there is no other in the cluster."""
        return f"{self.me}.{next(self._numbers)}"

    def give_up(self, request: str) -> None:
        """Nobody waits for its answer any more. Says so, and does not wait either."""
        with contextlib.suppress(ZmregError):
            self.call("withdraw", request)

    # -- leases -------------------------------------------------------------------------------------------------------

    def hold(self, claim: Claim) -> Held:
        """From now on this process says that it lives."""
        from zmreg.flows.kit.coordinator import LEASE_S

        held = Held(claim, time.monotonic() + LEASE_S)
        with self._guard:
            self._held[held.token] = held
            if self._thread is None:
                self._thread = threading.Thread(target=self._keep, name="zmreg-leases", daemon=True)
                self._thread.start()
        return held

    def drop(self, held: Held) -> None:
        """Nobody has it in hand any more. For finalizers."""
        self._dropped.put(held)

    def let_go(self, held: Held) -> None:
        """It is being given back."""
        with self._guard:
            self._held.pop(held.token, None)

    def _end(self) -> None:
        self._over = True
        self._dropped.put(None)

    def _keep(self) -> None:
        pause = RENEW_S
        while True:
            with contextlib.suppress(queue.Empty):
                dropped = self._dropped.get(timeout=pause)
                if dropped is not None:
                    self._give_back(dropped)
                    continue
            with self._guard:
                if self._over or not self._held:
                    self._thread = None
                    return
                held = list(self._held.values())
            pause = RENEW_S if self._renew(held) else _AGAIN_S

    def _give_back(self, held: Held) -> None:
        self.let_go(held)
        with contextlib.suppress(ZmregError):
            self.call("release", self.me, held.claim)

    def _renew(self, held: list[Held]) -> bool:
        from zmreg.flows.kit.coordinator import LEASE_S

        began = time.monotonic()
        try:
            lost = set(self.ask("beat", self.me, [each.claim for each in held], timeout=LEASE_S))
        except ZmregError:  # it restarts, or all of it is over: soon again
            return False
        for each in held:
            if each.token in lost:
                each.lost = True
                self.let_go(each)
            else:
                each.until = began + LEASE_S
        return True


_keepers: dict[str, Keeper] = {}
_guard = threading.Lock()


def keeper() -> Keeper:
    """This process's, in the cluster that it has a seat in; where it has several seats, that of this one."""
    me = process_id()
    with _guard:
        return _keepers.get(me) or _keepers.setdefault(me, Keeper(me))
