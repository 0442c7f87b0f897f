"""Questions to the node about its state, and the head's word on actors that were just ordered."""

from __future__ import annotations

import threading
from typing import Any, Protocol

from zmreg.model.errors import ClusterError
from zmreg.model.messages import ActorRefused, Answer, Ask, Message
from zmreg.net.waiting import Shield, Waiter
from zmreg.wire import batches


class Asker(Protocol):
    """What asking needs from a seat."""

    lock: threading.RLock

    def shield(self) -> Shield:
        """`with` it: no interrupt lands inside, except in a wait."""

    def check(self) -> None:
        """Raises when the seat cannot be used any more."""

    def flush(self) -> None:
        """Send every batch that collects."""

    def tell_node(self, message: Message) -> None:
        """Send to our node."""

    def wait(self, waiter: Waiter, timeout: float | None = None) -> bool:
        """Pump until the waiter is done."""


class Questions:
    """What was asked and not answered."""

    def __init__(self, seat: Asker) -> None:
        self._seat = seat
        self._open: dict[int, tuple[Waiter, list[Answer]]] = {}
        self._asked = 0
        self._refused: dict[bytes, str] = {}

    def ask(self, topic: str, key: str = "", timeout: float = 10.0) -> Any:
        """Ask the node about state: plain containers, or None when there is no such thing. ClusterError: no answer."""
        seat = self._seat
        with seat.shield():
            with seat.lock:
                seat.check()
                self._asked += 1
                request = self._asked
                waiter, answers = self._open.setdefault(request, (Waiter(), []))
                seat.flush()
                seat.tell_node(Ask(request, topic, key))
            try:
                seat.wait(waiter, timeout)
            finally:
                self._open.pop(request, None)
        if not answers:
            seat.check()
            raise ClusterError(f"the node did not answer a question about {topic!r} within {timeout} s")
        return batches.unpack_plain(answers[0].body) if answers[0].found else None

    def refusal(self, actor_id: bytes) -> str:
        """Why the head refused an actor that was just ordered; empty when it did not."""
        self.ask("actor", "\0")  # the head answers in order: by then a refusal has come
        return self._refused.pop(actor_id, "")

    def on_answer(self, message: Answer) -> None:
        """The node answered."""
        waiting = self._open.get(message.request)
        if waiting is not None:
            waiting[1].append(message)
            waiting[0].finish()

    def on_refused(self, message: ActorRefused) -> None:
        """The head refused an actor."""
        self._refused[message.actor_id] = message.reason

    def give_up(self) -> None:
        """The node is gone: let everyone who waits for an answer go."""
        for waiter, _ in list(self._open.values()):
            waiter.finish()
