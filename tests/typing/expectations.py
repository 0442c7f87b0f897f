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
    assert_type(counter, zmreg.ActorHandle[Counter])
    counter.add.remote(1)
    zmreg.kill(counter)
    with RemoteCounter.remote() as short_lived:
        assert_type(short_lived, zmreg.ActorHandle[Counter])
    assert_type(zmreg.remote(max_restarts=1)(Counter).remote(start=3), zmreg.ActorHandle[Counter])
    RemoteCounter(3)  # error


def constructors_are_checked(remote: zmreg.ActorClass[Counter]) -> None:
    RemoteCounter.remote("3")  # error
    RemoteCounter.remote(3, 4)  # error
    RemoteCounter.options(name="hits").remote(started=3)  # error
    zmreg.remote(num_cpus=1)(Counter).remote("3")  # error
    assert_type(remote.remote(3), zmreg.ActorHandle[Counter])


class Typed:
    @zmreg.method
    def add(self, amount: int, twice: bool = False) -> int:
        return amount + self.add(amount)

    @zmreg.method(max_task_retries=2, quiet=True)
    def name(self) -> str:
        return str(self.add(1) + 1)

    @zmreg.method
    async def later(self, text: str) -> bytes:
        return text.encode() + await self.later(text)

    @zmreg.method(concurrency_group="io")
    async def latest(self) -> bytes:
        return await self.later("a")

    @zmreg.method
    def items(self, count: int) -> Iterator[int]:
        yield from range(count)

    @zmreg.method(_generator_backpressure_num_objects=2)
    async def texts(self) -> AsyncIterator[str]:
        yield self.name()

    @zmreg.method(num_returns=2)
    def pair(self) -> tuple[int, str]:
        return self.add(1), self.name()

    def plain(self, amount: int) -> int:
        return self.add(amount, twice=True)


def decorated_methods_have_types() -> None:
    handle = zmreg.remote(Typed).remote()
    actor = zmreg.typed(handle)
    assert_type(actor, Typed)
    assert_type(actor.add.remote(1), ObjectRef[int])
    assert_type(actor.add.remote(amount=1, twice=True).get(), int)
    assert_type(zmreg.get([actor.name.remote()]), list[str])
    assert_type(actor.later.remote("a"), ObjectRef[bytes])
    assert_type(actor.latest.options(quiet=True).remote(), ObjectRef[bytes])
    assert_type(next(actor.items.remote(3)), ObjectRef[int])
    assert_type(actor.texts.remote(), zmreg.ObjectRefGenerator[str])
    assert_type(actor.add.batch([(1,), actor.add.delay(2, twice=True)]), list[ObjectRef[int]])
    assert_type(actor.add.options(name="adds").remote(1), ObjectRef[int])
    handle.plain.remote(1)
    handle.pair.remote()
    actor.add.remote("1")  # error
    actor.add.remote(1, 2, 3)  # error
    actor.add.remote(amuont=1)  # error
    actor.add.delay("1")  # error
    actor.ad.remote(1)  # error
    actor.plain.remote(1)  # error
    zmreg.typed(3)  # error


def decorated_methods_are_methods(here: Typed) -> None:
    assert_type(here.add(1), int)
    assert_type(Typed.add(here, 1), int)
    assert_type(list(here.items(2)), list[int])
    here.add("1")  # error


async def coroutine_methods_are_coroutines(here: Typed) -> None:
    assert_type(await here.later("a"), bytes)
    assert_type(await zmreg.typed(zmreg.remote(Typed).remote()).later.remote("a"), bytes)


@zmreg.remote
async def whispers(text: str) -> str:
    return text.lower()


@zmreg.remote(max_retries=0)
async def hisses(text: str) -> str:
    return text.lower()


def async_functions_give_what_they_return() -> None:
    assert_type(whispers.remote("A"), ObjectRef[str])
    assert_type(hisses.remote("A"), ObjectRef[str])


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
    assert_type(zmreg.get_events("run.#", limit=10), list[zmreg.KeptEvent])
    assert_type(zmreg.get_events()[0].time, float)
    zmreg.get_events("run.#", 10)  # error
