"""Waiting until actors live: those that are just made, and those that have crashed and come back."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence
from typing import Final

from zmreg.model.errors import GetTimeoutError
from zmreg.model.ids import owner_of, short
from zmreg.net.waiting import Waiter
from zmreg.services.calling.peers import Peer
from zmreg.services.seat.client import Client

# What the head says of actors that were called wakes us. What has to be asked for is asked so often.
_LOOK_S: Final = 0.2


class Given:
    """Some actors, (id, class, whether calls are in order) each."""

    def __init__(self, seat: Client, actors: Iterable[tuple[bytes, str, bool]]) -> None:
        with seat.shield(), seat.lock:
            seat.check()
            self._peers = [seat.tasks.peer_for(*each) for each in actors]
        seat.ask("actor", "\0")  # the head answers in order: what it has told of them before is here now

    def late(self) -> list[str]:
        """Those that do not live, named. Raises the error of the first that never will again."""
        return _late(self._peers)


class Own:
    """All actors that this process has made. Those whose end was wanted do not count."""

    def __init__(self, seat: Client) -> None:
        self._seat = seat
        self._uncalled: dict[bytes, str] = {}
        """Not alive when last looked at, and never called: nobody tells us of them."""
        self._look()

    def late(self) -> list[str]:
        """As `Given.late`."""
        if self._uncalled:
            self._look()
        peers = [peer for peer in self._seat.tasks.peers.copy().values() if self._counts(peer)]
        names = [f"{name} {short(actor_id)} (never called)" for actor_id, name in self._uncalled.items()]
        return _late(peers) + names

    def _counts(self, peer: Peer) -> bool:
        return owner_of(peer.actor_id) == self._seat.me and not peer.end_was_wanted()

    def _look(self) -> None:
        """Ask the head; of what has died since the last look it tells why."""
        seat = self._seat
        rows = {bytes.fromhex(row["ActorID"]): row for row in seat.ask("actors")}
        ended = [(actor_id, name) for actor_id, name in self._uncalled.items() if actor_id not in rows]
        with seat.shield(), seat.lock:
            for actor_id, name in ended:
                seat.tasks.peer_for(actor_id, name, True)  # in which order nothing is called any more
            self._uncalled = {
                actor_id: row["ClassName"]
                for actor_id, row in rows.items()
                if owner_of(actor_id) == seat.me and actor_id not in seat.tasks.peers and row["State"] != "ALIVE"
            }
        if ended:
            seat.ask("actor", "\0")


def wait_for_actors(seat: Client, actors: Given | Own, timeout: float | None) -> None:
    """See `zmreg.wait_for_actors`."""
    deadline = None if timeout is None else time.monotonic() + timeout
    while True:
        waiter = Waiter()
        with seat.shield(), seat.lock:
            seat.tasks.actor_waits.append(waiter)
        try:
            late = actors.late()
            if not late:
                return
            seat.questions.require_head()
            left = _LOOK_S if deadline is None else deadline - time.monotonic()
            if left <= 0:
                more = f" and {len(late) - 3} more" if len(late) > 3 else ""
                text = f"{len(late)} of the actors did not live after {timeout} s: {', '.join(late[:3])}{more}"
                raise GetTimeoutError(text, timeout_s=timeout)
            with seat.shield():
                seat.wait(waiter, min(_LOOK_S, left))
            seat.check()
        finally:
            with seat.lock:
                seat.tasks.actor_waits.remove(waiter)


def _late(peers: Sequence[Peer]) -> list[str]:
    for peer in peers:
        if peer.state == "dead" and (death := peer.death()) is not None:
            try:
                raise death
            finally:
                del death  # see Peer
    return [f"{peer.class_name} {short(peer.actor_id)} ({peer.state})" for peer in peers if peer.state != "alive"]
