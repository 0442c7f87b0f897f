"""Questions to the node about its state, and the head's word on actors that were just ordered."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from zmreg.model.errors import ClusterError, HeadUnavailableError
from zmreg.model.messages import ActorRefused, Answer, Ask, Message
from zmreg.net.waiting import Shield, Waiter
from zmreg.wire import batches

OF_THE_HEAD = frozenset({"actor", "actors", "groups", "jobs", "submission", "submissions"})
# Our node says when there is no head; this is for one that is there and does not answer.
HEAD_MOST_S = 300.0


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
        self._open: dict[int, tuple[Waiter, list[Answer], Message]] = {}
        self._asked = 0
        self._lasting: list[Waiter] = []
        self._refused: dict[bytes, ActorRefused] = {}
        self.at_the_end: list[Callable[[], object]] = []
        """Of others who wait for words of the node: to be called, under the lock, when there will be no more."""
        self.headless: HeadUnavailableError | None = None
        """There has been no head for long: what has to be asked there fails."""

    def ask(self, topic: str, key: str = "", timeout: float = 10.0) -> Any:
        """Ask the node about state: plain containers, or None when there is no such thing. ClusterError: no answer.

        What only the head knows is waited for as long as one may come back; then it is HeadUnavailableError.
        """
        far = topic in OF_THE_HEAD
        timeout = max(timeout, HEAD_MOST_S) if far else timeout
        answer = self._exchange(lambda request: Ask(request, topic, key), far, timeout)
        if answer is None:
            raise ClusterError(f"the node did not answer a question about {topic!r} within {timeout} s")
        return batches.unpack_plain(answer.body) if answer.found else None

    def ask_each(self, topic: str, keys: Sequence[str], deadline: float) -> int:
        """Ask the node one thing of each key, all at once; how many were answered by then. Of no topic of the head."""
        seat = self._seat
        with seat.shield():
            with seat.lock:
                seat.check()
                first = self._asked + 1
                self._asked += len(keys)
                questions = [Ask(first + place, topic, key) for place, key in enumerate(keys)]
                opened = [self._open.setdefault(each.request, (Waiter(), [], each)) for each in questions]
                seat.flush()
                for each in questions:
                    seat.tell_node(each)
            try:
                for waiter, _, _ in opened:
                    seat.wait(waiter, max(0.0, deadline - time.monotonic()))
            finally:
                for each in questions:
                    self._open.pop(each.request, None)
        return sum(bool(answers) for _, answers, _ in opened)

    def say(self, make: Callable[[int], Message], timeout: float = 10.0) -> Any:
        """Tell the node something that is answered, `make(number of the request)`; what it answers. ClusterError."""
        answer = self._exchange(make, False, timeout)
        if answer is None:
            raise ClusterError(f"the node did not answer within {timeout} s")
        return batches.unpack_plain(answer.body)

    def _exchange(self, make: Callable[[int], Message], far: bool, timeout: float) -> Answer | None:
        seat = self._seat
        with seat.shield():
            with seat.lock:
                seat.check()
                if far:
                    self.require_head()
                self._asked += 1
                request = self._asked
                message = make(request)
                waiter, answers, _ = self._open.setdefault(request, (Waiter(), [], message))
                seat.flush()
                seat.tell_node(message)
            try:
                seat.wait(waiter, timeout)
            finally:
                self._open.pop(request, None)
        if not answers:
            seat.check()
            if far:
                self.require_head()
        return answers[0] if answers else None

    def refusal(self, actor_id: bytes) -> ActorRefused | None:
        """Why the head refused an actor that was just ordered; None when it did not."""
        self.ask("actor", "\0")  # the head answers in order: by then a refusal has come
        return self._refused.pop(actor_id, None)

    def require_head(self) -> None:
        """Raises HeadUnavailableError when there has been none for long."""
        if self.headless is not None:
            raise HeadUnavailableError(str(self.headless))

    def on_head(self, reason: str) -> None:
        """Another head is there (or the same again), and is asked what the last one did not answer; or (`reason`)
        there has been none for long, and nobody waits any more."""
        self.headless = HeadUnavailableError(reason) if reason else None
        for waiter, answers, question in list(self._open.values()):
            if not isinstance(question, Ask) or question.topic not in OF_THE_HEAD or answers:
                continue
            if reason:
                waiter.finish()
            else:
                self._seat.tell_node(question)

    def on_answer(self, message: Answer) -> None:
        """The node answered."""
        waiting = self._open.get(message.request)
        if waiting is not None:
            waiting[1].append(message)
            waiting[0].finish()

    def on_refused(self, message: ActorRefused) -> None:
        """The head refused an actor."""
        self._refused[message.actor_id] = message

    def give_up(self) -> None:
        """The node is gone, or we leave: let everyone who waits for an answer go."""
        for each in self.at_the_end:
            each()
        for waiter in [*self._lasting, *(waiter for waiter, _, _ in self._open.values())]:
            waiter.finish()

    def until_the_end(self, waiter: Waiter) -> None:
        """Have it finished when the node is gone, or the seat is given up."""
        self._lasting.append(waiter)
