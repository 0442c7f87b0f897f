"""What a host says of calls it was sent, and who else may not say it. Rows R23 to R25 of requests.md."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

import zmreg
from tests.processes.clusters import until
from tests.processes.named_hosts import Host, known
from zmreg import errors
from zmreg.testing.cluster import LocalCluster

MORE = """
from zmreg import errors

async def tally(name):
    return calls[name]

def pretend(kind):
    calls["pretend"] += 1
    raise getattr(errors, kind)("made by hand")

async def blocks_the_loop():
    calls["blocks_the_loop"] += 1
    gate.wait(60)
    return os.getpid()

SERVED += [tally, pretend, blocks_the_loop]
"""
THREADS = 64


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster([{}, {"locs": {"m1"}}, {"locs": {"m2"}}]) as cluster:
        cluster.attach()
        yield cluster


@pytest.fixture
def two(cluster: LocalCluster) -> Iterator[tuple[Host, Host]]:
    first, second = (Host(node.address, more=MORE) for node in cluster.nodes[1:])
    with first, second:
        first.is_up()
        second.is_up()
        until(lambda: len(known("pretend")) == 2, "not both are known")
        yield first, second
    until(lambda: not known("pretend"), "they are gone, and still known")


class Pretender:
    """The same in an actor, whose own end is told in yet other ways."""

    def __init__(self) -> None:
        self.calls = 0
        zmreg.register("actor_pretends", self.pretend)

    def pretend(self, kind: str) -> None:
        self.calls += 1
        raise getattr(errors, kind)("made by hand")

    def count(self) -> int:
        return self.calls


KINDS = ["FunctionWithdrawnError", "WorkerDiedError", "ActorDiedError", "ActorUnavailableError"]


def test_R23_an_error_that_a_function_made_by_hand_is_no_lost_host(two: tuple[Host, Host]) -> None:
    actor = zmreg.remote(Pretender).remote()
    assert actor.count.remote().get() == 0
    for number, kind in enumerate(KINDS, 1):
        with pytest.raises(getattr(errors, kind), match="made by hand"):
            zmreg.call("pretend", kind, retries=3)
        with pytest.raises(getattr(errors, kind), match="made by hand") as caught:
            zmreg.request([zmreg.Step("x", "pretend", (kind,), retries=3)])
        assert caught.value.step == "x"
        with pytest.raises(getattr(errors, kind), match="made by hand"):
            zmreg.call("actor_pretends", kind, retries=3, queue_until=10)
        assert sum(zmreg.call("count", "pretend", locs={loc}) for loc in ("m1", "m2")) == 2 * number
        assert actor.count.remote().get() == number


@pytest.mark.parametrize(
    ("name", "at_once", "ask"), [("wait_at_gate", THREADS, "tally"), ("blocks_the_loop", 1, "count")]
)
def test_R25_what_a_dead_host_had_begun_is_told_and_what_it_had_not_runs_elsewhere(
    cluster: LocalCluster, name: str, at_once: int, ask: str
) -> None:
    waiting = 6

    async def outcomes(first: Host, stack: ExitStack) -> list[Any]:
        first.is_up()
        await asyncio.to_thread(until, lambda: known(name), "it is not known")
        calls = [asyncio.create_task(zmreg.acall(name)) for _ in range(at_once + waiting)]
        await asyncio.to_thread(until, lambda: zmreg.call(ask, name) == at_once, "they did not begin")
        stack.enter_context(Host(cluster.nodes[2].address, more=MORE)).is_up()
        await asyncio.to_thread(until, lambda: len(known(name)) == 2, "the second is not known")
        await asyncio.to_thread(zmreg.call, "open_gate", locs={"m2"})
        first.kill()
        return await asyncio.gather(*calls, return_exceptions=True)

    with Host(cluster.nodes[1].address, more=MORE) as first, ExitStack() as stack:
        found = Counter(map(str, map(type, asyncio.run(outcomes(first, stack)))))
        assert found == {str(errors.WorkerDiedError): at_once, str(int): waiting}
        assert zmreg.call("count", name) == waiting, "and each of them once"
    until(lambda: not known(name), "they are gone, and still known")
