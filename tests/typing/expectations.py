"""Read by mypy --strict and by pyright, never run: what an editor knows about `.remote`, `get` and refs.

`assert_type` states what must be known. Both checkers must reject each line that ends in `# error`, one
alone a line that ends in `# error (mypy)` or `# error (pyright)`, and no line else.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from typing import assert_type

import zmreg
from zmreg.api.functions import RemoteFunction
from zmreg.api.refs import ObjectRef


@zmreg.remote
def shout(text: str, times: int = 1) -> str:
    return text.upper() * times


@zmreg.remote(num_cpus=2, max_retries=0)
def halve(number: int) -> float:
    return number / 2


@zmreg.remote
def letters(text: str) -> Iterator[str]:
    yield from text


@zmreg.remote(max_retries=0)
async def numbers(count: int) -> AsyncIterator[int]:
    for number in range(count):
        yield number


def a_generator_gives_a_ref_an_item() -> None:
    assert_type(letters.remote("ab"), zmreg.ObjectRefGenerator[str])
    assert_type([ref.get() for ref in letters.remote("ab")], list[str])
    assert_type(next(numbers.remote(3)), ObjectRef[int])
    letters.remote(1)  # error
    letters.remote("ab").close("early")  # error


async def items_are_awaited() -> None:
    async for ref in numbers.remote(3):
        assert_type(ref, ObjectRef[int])
        assert_type(await ref, int)


def knows_parameters_and_results() -> None:
    ref = shout.remote("hi", times=2)
    assert_type(ref, ObjectRef[str])
    assert_type(ref.get(), str)
    assert_type(ref.get(timeout=1.0), str)
    assert_type(ref.result(), str)
    assert_type(halve.remote(number=3), ObjectRef[float])
    assert_type(shout.options(num_cpus=2).remote("hi"), ObjectRef[str])
    assert_type(shout.options(name="loud", quiet=True).remote("hi"), ObjectRef[str])
    shout.options(quiet=True).remote(1)  # error


def keeps_the_signature(function: RemoteFunction[[str, int], str]) -> None:
    assert_type(function.remote("hi", 2), ObjectRef[str])


def rejects_wrong_calls() -> None:
    shout.remote(1)  # error
    shout.remote("hi", tiems=2)  # error
    shout.remote()  # error
    halve.remote(3, 4)  # error
    wrong: ObjectRef[int] = shout.remote("hi")  # error
    print(wrong)


def a_ref_stands_for_its_value() -> None:
    number = zmreg.put(4)
    assert_type(number, ObjectRef[int])
    assert_type(number.arg, int)
    assert_type(halve.remote(number.arg), ObjectRef[float])
    shout.remote(number.arg)  # error
    halve.remote(number)  # error


def get_knows_its_argument() -> None:
    refs = [shout.remote("a"), shout.remote("b")]
    assert_type(zmreg.get(refs[0]), str)
    assert_type(zmreg.get(refs), list[str])
    assert_type(zmreg.get(refs, timeout=1.0), list[str])
    assert_type(zmreg.get((refs[0], refs[1]), cancel_on_interrupt=True), list[str])
    assert_type(refs[0].get(cancel_on_interrupt=True), str)
    assert_type(refs[0].meta.age_s, float | None)
    zmreg.get(refs[0], cancel_on_interrupt="yes")  # error
    zmreg.get({"a": refs[0]})  # error
    zmreg.get("not a ref")  # error
    zmreg.get(refs[0], timeout="soon")  # error


def wait_and_as_completed_keep_the_type() -> None:
    refs = [shout.remote("a"), shout.remote("b")]
    ready, pending = zmreg.wait(refs, num_returns=1, timeout=0.5)
    assert_type(ready, list[ObjectRef[str]])
    assert_type(pending, list[ObjectRef[str]])
    for ref in zmreg.as_completed(refs):
        assert_type(ref, ObjectRef[str])
    assert_type(zmreg.progress(refs), list[str])
    zmreg.wait(refs[0])  # error
    zmreg.wait(refs, timeout="soon")  # error
    zmreg.progress(3)  # error


async def awaiting_gives_the_value() -> None:
    assert_type(await shout.remote("a"), str)


class Counter:
    def __init__(self, start: int = 0) -> None:
        self.total = start

    def add(self, amount: int) -> int:
        self.total += amount
        return self.total


RemoteCounter = zmreg.remote(Counter)


def actors_are_made_and_called() -> None:
    counter = RemoteCounter.options(name="hits").remote(3)
    counter.add.remote(1)
    zmreg.kill(counter)
    RemoteCounter(3)  # error


@zmreg.remote(max_restarts=1)
class Flag:
    up = False


def decorated_classes_are_actors() -> None:
    # mypy ignores what a class decorator returns (python/mypy#3135); its users write `zmreg.remote(Flag)` as above.
    Flag.remote()  # error (mypy)
    Flag()  # error (pyright)


def events_have_a_topic_and_a_value() -> None:
    with zmreg.subscribe("run.#", backlog=10) as subscription:
        assert_type(subscription, zmreg.Subscription)
        assert_type(subscription.get(timeout=1.0), zmreg.Event)
        assert_type(subscription.dropped, int)
        for topic, _ in subscription:
            assert_type(topic, str)
    zmreg.subscribe("run.#", 10)  # error
