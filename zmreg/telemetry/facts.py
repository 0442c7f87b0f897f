"""What is remembered of calls, expanded: a `Fact` for each, and how they travel to another process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

from zmreg.model.record import Record
from zmreg.telemetry.past import DONE, MOST_CALLS, Batch, End, Past, Row, Submissions, Words


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
            for answer, name in named(batch, read):
                submitted = self._submissions.when(answer.counter)
                sent = self._sendings.when(answer.counter, batch.worker, batch.at)
                yield _answered(batch, answer, name, submitted, sent, self._words.get(answer.counter, ()))

    def _ends(self, past: Past) -> Iterator[Fact]:
        for end in past.ends:
            yield _ended(end, self._submissions.when(end.counter))


def named(batch: Batch, read: Read) -> Iterator[tuple[Answer, str]]:
    """The answers of calls in a batch, with the functions' names."""
    name, place = "", 0
    for answer in read(batch.rows):
        if place < len(batch.names) and batch.names[place][0] == answer.counter:
            name, place = batch.names[place][1], place + 1
        if name and answer.state:
            yield answer, name


def _answered(batch: Batch, answer: Answer, name: str, submitted: float | None, sent: float | None,
              words: Iterable[Words]) -> Fact:  # fmt: skip
    """`words`: what has happened to that call."""
    attempt = max((each.attempt + 1 for each in words if each.at < batch.at), default=0)
    return Fact(
        answer.counter, name, batch.worker, answer.state, submitted, sent, batch.at, answer.run_us, attempt,
        answer.returns, answer.error,
    )  # fmt: skip


def _ended(end: End, submitted: float | None) -> Fact:
    return Fact(
        end.counter, end.name, end.worker, end.state, submitted, None, end.at, 0, end.attempt, end.returns, end.error
    )


def latest_of(past: Past, counter: int, read: Read, wanted: Callable[[bytes | list[Row]], bool]) -> Fact | None:
    """What `Facts.latest` has for the first or only value of a call, without making sense of all others; None if there
    is nothing, or it is another value. `wanted`: whether the number may be that of an answer in a frame."""
    end = next((each for each in reversed(past.ends) if each.counter == counter), None)
    for batch in past.latest(wanted):
        found = [(answer, name) for answer, name in named(batch, read) if answer.counter == counter]
        if end is not None and end.at >= batch.at:
            break
        if found:
            words = [each for each in past.words if each.counter == counter]
            sent = past.sent_at(counter, batch.worker, batch.at)
            return _answered(batch, *found[-1], past.submissions().when(counter), sent, words)
    return None if end is None else _ended(end, past.submissions().when(counter))


def submitted_at(past: Past, counter: int) -> float | None:
    """When a call was submitted, at the latest; None when that is forgotten, or not known yet."""
    submissions: Submissions = past.submissions()
    return submissions.when(counter)


def sent_at(past: Past, counter: int, worker: bytes) -> float | None:
    """When it was sent to this worker the last time; None when that is forgotten."""
    return past.sent_at(counter, worker, float("inf"))


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
