"""`zmreg.annotate`: options for all that is called and created in a block (core-api row X18)."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import zmreg
from zmreg.model.errors import WorkerDiedError
from zmreg.model.specs import PRIORITY


@pytest.fixture(scope="module", autouse=True)
def one_node() -> Iterator[None]:
    zmreg.init(num_cpus=2, resources={"tape": 4}, locs={"here"}, log_to_driver=False)
    yield
    zmreg.shutdown()


@zmreg.remote
def assigned() -> dict[str, float]:
    return dict(zmreg.get_runtime_context().get_assigned_resources())


@zmreg.remote
def dies(path: str) -> None:
    with open(path, "a") as file:
        file.write("x")
    os._exit(1)


@zmreg.remote
class Holder:
    def assigned(self) -> dict[str, float]:
        return dict(zmreg.get_runtime_context().get_assigned_resources())


def tapes(ref: Any) -> float:
    return float(zmreg.get(ref, timeout=30).get("tape", 0.0))


def test_X18_what_is_called_in_a_block_has_its_options_and_what_is_not_has_none() -> None:
    with zmreg.annotate(resources={"tape": 2}, locs={"here"}):
        assert tapes(assigned.remote()) == 2 and tapes(assigned.options(num_cpus=0).remote()) == 2
        assert tapes(Holder.remote().assigned.remote()) == 2
        assert zmreg.get(zmreg.put({"a": 1})["a"]) == 1, "a part of a value is no call of the program's"
    assert tapes(assigned.remote()) == 0
    assert tapes(Holder.remote().assigned.remote()) == 0


def test_X18_inner_blocks_and_what_a_function_says_itself_go_before() -> None:
    mine = assigned.options(resources={"tape": 1})
    with zmreg.annotate(resources={"tape": 2}, priority=3):
        with zmreg.annotate(resources={"tape": 4}):
            assert [tapes(each.remote()) for each in (assigned, mine)] == [4, 1]
            term = zmreg.api.annotating._notes.get().function(assigned)._template.shape.term(PRIORITY)
            assert term == "3", "what the inner one does not say holds on"
        assert [tapes(each.remote()) for each in (assigned, mine)] == [2, 1]


def test_X18_retries(tmp_path: Path) -> None:
    path = tmp_path / "runs"
    with zmreg.annotate(retries=0):
        ref = dies.remote(str(path))
    with pytest.raises(WorkerDiedError):
        ref.get(timeout=30)
    assert path.read_text() == "x"


def test_X18_a_block_is_its_threads_and_its_coroutines_own() -> None:
    found: list[float] = []

    async def both() -> list[float]:
        async def inside() -> float:
            with zmreg.annotate(resources={"tape": 1}):
                await asyncio.sleep(0)
                return float((await assigned.remote()).get("tape", 0.0))

        async def beside() -> float:
            await asyncio.sleep(0)
            return float((await assigned.remote()).get("tape", 0.0))

        return list(await asyncio.gather(inside(), beside()))

    assert asyncio.run(both()) == [1, 0]
    with zmreg.annotate(resources={"tape": 1}):
        thread = threading.Thread(target=lambda: found.append(tapes(assigned.remote())))
        thread.start()
        thread.join(30)
    assert found == [0]


@pytest.mark.parametrize("wrong", [{"priority": "high"}, {"retries": -2}, {"locs": "here"}, {"resources": {"CPU": 1}}])
def test_X18_what_makes_no_sense_is_said_at_once(wrong: dict[str, Any]) -> None:
    with pytest.raises((TypeError, ValueError)):
        zmreg.annotate(**wrong)
