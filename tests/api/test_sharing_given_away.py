"""A ref that an actor had from a caller, and gives away with its last handle (row 21; met with core-api row 51)."""

from __future__ import annotations

from typing import Any

import pytest

import zmreg

pytestmark = pytest.mark.usefixtures("cluster")


class Plain:
    def __init__(self) -> None:
        self.items: list[Any] = []

    def put(self, boxed: list[Any]) -> None:
        self.items.append(boxed[0])

    def get(self) -> list[Any]:
        return [self.items.pop()]


class Async:
    def __init__(self) -> None:
        self.items: list[Any] = []

    async def put(self, boxed: list[Any]) -> None:
        self.items.append(boxed[0])

    async def get(self) -> list[Any]:
        return [self.items.pop()]


@pytest.mark.parametrize(("kind", "options"), [(Plain, {}), (Plain, {"max_concurrency": 4}), (Async, {})])
def test_row21_the_owner_hears_that_it_has_it_back_before_that_the_actor_has_not(kind: type, options: Any) -> None:
    """Was lost in most of such calls of async actors, and in some of threaded ones."""
    actor: Any = zmreg.remote(kind).options(num_cpus=0, **options).remote()
    for number in range(100):
        zmreg.get(actor.put.remote([zmreg.put(number)]), timeout=30)
        [ref] = zmreg.get(actor.get.remote(), timeout=30)
        assert ref.get(30) == number
