"""Actors: a class whose one instance lives in a process of its own and keeps its state between calls."""

from __future__ import annotations

import asyncio
import threading

import zmreg


@zmreg.remote
class Counter:
    """Calls of one caller run one after the other, in the order they were made."""

    def __init__(self, start: int = 0) -> None:
        self.value = start

    def add(self, amount: int) -> int:
        self.value += amount
        return self.value


@zmreg.remote(max_concurrency=2)
class Meeting:
    """Two threads: two calls run at the same time, here each waits for the other."""

    def __init__(self) -> None:
        self._both_here = threading.Barrier(2)

    def arrive(self, name: str) -> str:
        self._both_here.wait(timeout=20)
        return name


@zmreg.remote
class Mailbox:
    """An `async def` method makes the whole actor asynchronous: many calls wait in it without a thread each."""

    def __init__(self) -> None:
        self._letters: asyncio.Queue[str] = asyncio.Queue()

    async def take(self) -> str:
        return await self._letters.get()

    async def post(self, letter: str) -> None:
        await self._letters.put(letter)


def main() -> None:
    zmreg.init(num_cpus=2)

    counter = Counter.remote(start=100)
    values = zmreg.get([counter.add.remote(1) for _ in range(5)])
    print("counter:", values)
    assert values == [101, 102, 103, 104, 105]

    meeting = Meeting.remote()
    names = zmreg.get([meeting.arrive.remote("ann"), meeting.arrive.remote("bob")])
    print("met:", names)
    assert names == ["ann", "bob"]

    mailbox = Mailbox.remote()
    letters = [mailbox.take.remote() for _ in range(100)]  # a hundred calls, all waiting inside the actor
    for number in range(100):
        mailbox.post.remote(f"letter {number}")
    received = zmreg.get(letters)
    print("letters taken:", len(received))
    assert sorted(received) == sorted(f"letter {number}" for number in range(100))

    # By name, from anywhere in the cluster, for as long as somebody holds its handle (or with lifetime="detached").
    named = Counter.options(name="hits").remote()
    hits = zmreg.get_actor("hits")
    assert hits == named
    assert hits.add.remote(3).get() == 3

    zmreg.shutdown()


if __name__ == "__main__":
    main()
