"""What is remembered of calls, expanded: a `Fact` for each, and how they travel to another process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from zmreg.model.record import Record
from zmreg.telemetry.past import DONE, MOST_CALLS, Past, Row, Sendings, Submissions, Words


class Answer(Record):
    """One answer of a worker, read."""

    counter: int
    run_us: int
    state: str = DONE
    """done, failed or cancelled."""
    returns: int = 1
    error: str = ""


Read = Callable[[bytes | list[Row]], Iterable[Answer]]
"""The answers in a frame, or in its rows; what says that a call was not begun is none."""


class Fact(Record):
    """An attempt of a call that is over, as its owner knows it. Times are of the owner's clock."""

    counter: int
    name: str
    worker: bytes
    """Empty when it was never sent, or nobody knows where."""
    state: str
    submitted: float | None
    """At the latest; calls that leave together have one time. None when that is forgotten."""
    sent: float | None
    """To the worker that answered."""
    answered: float
    run_us: int
    """By the worker's clock."""
    attempt: int
    """0 for the first."""
    returns: int
    error: str

    @property
    def waited_s(self) -> float | None:
        """From its submission to its answer, less the time that it ran: both were measured on one host each."""
        if self.submitted is None:
            return None
        return max(0.0, self.answered - self.submitted - self.run_us * 1e-6)


class Facts:
    """The calls of one owner that are over, in the order in which that was known."""

    def __init__(self, past: Past, read: Read) -> None:
        self._submissions, self._sendings = past.submissions(), past.sendings()
        words: dict[int, list[Words]] = {}
        for each in past.words:
            words.setdefault(each.counter, []).append(each)
        self._words = words
        self.latest: dict[int, Fact] = {}
        """By the number of each value: the last attempt of the call that made it."""
        facts = [*self._answers(past, read), *self._ends(past)]
        facts.sort(key=lambda fact: fact.answered)
        self.each = facts
        for fact in facts:
            for number in range(fact.counter, fact.counter + max(1, fact.returns)):
                self.latest[number] = fact

    def _answers(self, past: Past, read: Read) -> Iterator[Fact]:
        for batch in past.batches():
            name, place = "", 0
            for answer in read(batch.rows):
                if place < len(batch.names) and batch.names[place][0] == answer.counter:
                    name, place = batch.names[place][1], place + 1
                if name and answer.state:
                    yield self._fact(answer, name, batch.worker, batch.at)

    def _fact(self, answer: Answer, name: str, worker: bytes, at: float) -> Fact:
        counter = answer.counter
        before = [each.attempt for each in self._words.get(counter, ()) if each.at < at]
        attempt = max(before) + 1 if before else 0
        return Fact(
            counter, name, worker, answer.state, self._submissions.when(counter),
            self._sendings.when(counter, worker, at), at, answer.run_us, attempt, answer.returns, answer.error,
        )  # fmt: skip

    def _ends(self, past: Past) -> Iterator[Fact]:
        for end in past.ends:
            submitted = self._submissions.when(end.counter)
            yield Fact(
                end.counter, end.name, end.worker, end.state, submitted, None, end.at, 0, end.attempt, end.returns,
                end.error,
            )  # fmt: skip


def submitted_at(past: Past, counter: int) -> float | None:
    """When a call was submitted, at the latest; None when that is forgotten, or not known yet."""
    submissions: Submissions = past.submissions()
    return submissions.when(counter)


def sent_at(past: Past, counter: int, worker: bytes) -> float | None:
    """When it was sent to this worker the last time; None when that is forgotten."""
    sendings: Sendings = past.sendings()
    return sendings.when(counter, worker, float("inf"))


# -- between processes -------------------------------------------------------------------------------------------------

_TIMES: Final = ("submitted", "sent", "answered")


def told(facts: list[Fact], now: float, most: int = MOST_CALLS) -> list[list[Any]]:
    """The latest ones as plain rows: times as ages in seconds, since another process has another clock."""
    rows = []
    for fact in facts[-most:] if most else ():
        ages = [None if (at := getattr(fact, name)) is None else now - at for name in _TIMES]
        rows.append(
            [fact.counter, fact.name, fact.worker, fact.state, *ages, fact.run_us, fact.attempt, fact.returns,
             fact.error]
        )  # fmt: skip
    return rows


def heard(rows: Iterable[list[Any]], now: float) -> list[Fact]:
    """What `told` says, in times of the clock that is read here: off by what the answer took."""
    facts = []
    for counter, name, worker, state, submitted, sent, answered, *rest in rows:
        at = now - answered
        facts.append(Fact(counter, name, worker, state, _time(submitted, now), _time(sent, now), at, *rest))
    return facts


def _time(age: float | None, now: float) -> float | None:
    return None if age is None else now - age
