"""Concurrency groups, and the order of calls that can be had (core-api rows 42, 47, 48)."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

import zmreg

pytestmark = pytest.mark.usefixtures("cluster")
T = 30


class Threads:
    """Counts who is inside at once, by group."""

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.free = threading.Event()
        self.now: dict[str, int] = {}
        self.most: dict[str, int] = {}

    def _stay(self, group: str) -> str:
        with self.lock:
            self.now[group] = self.now.get(group, 0) + 1
            self.most[group] = max(self.most.get(group, 0), self.now[group])
        self.free.wait(T)
        with self.lock:
            self.now[group] -= 1
        return threading.current_thread().name

    @zmreg.method(concurrency_group="io")
    def read(self) -> str:
        return self._stay("io")

    @zmreg.method(concurrency_group="compute")
    def crunch(self) -> str:
        return self._stay("compute")

    def plain(self) -> str:
        return self._stay("default")

    @zmreg.method(concurrency_group="control")
    def inside(self) -> dict[str, int]:
        with self.lock:
            return dict(self.now)

    @zmreg.method(concurrency_group="control")
    def open(self) -> dict[str, int]:
        self.free.set()
        return self.most


class Coroutines:
    """The same on a loop."""

    def __init__(self) -> None:
        self.free = asyncio.Event()
        self.now: dict[str, int] = {}
        self.most: dict[str, int] = {}

    async def _stay(self, group: str) -> str:
        self.now[group] = self.now.get(group, 0) + 1
        self.most[group] = max(self.most.get(group, 0), self.now[group])
        await self.free.wait()
        self.now[group] -= 1
        return group

    @zmreg.method(concurrency_group="io")
    async def read(self) -> str:
        return await self._stay("io")

    @zmreg.method(concurrency_group="compute")
    async def crunch(self) -> str:
        return await self._stay("compute")

    async def plain(self) -> str:
        return await self._stay("default")

    @zmreg.method(concurrency_group="control")
    async def inside(self) -> dict[str, int]:
        return dict(self.now)

    @zmreg.method(concurrency_group="control")
    async def open(self) -> dict[str, int]:
        self.free.set()
        return self.most


GROUPS = {"io": 2, "compute": 1, "control": 1}


def until(actor: Any, wanted: dict[str, int]) -> None:
    deadline = threading.Event()
    for _ in range(2_000):
        if actor.inside.remote().get(timeout=T) == wanted:
            return
        deadline.wait(0.005)
    raise AssertionError(f"{actor.inside.remote().get(timeout=T)}, not {wanted}")


@pytest.mark.parametrize("cls", [Threads, Coroutines])
def test_row47_each_group_has_its_own_limit_and_a_full_one_stalls_no_other(cls):
    actor = zmreg.remote(num_cpus=0, max_concurrency=3, concurrency_groups=GROUPS)(cls).remote()
    refs = [getattr(actor, name).remote() for name in ("crunch", "read", "plain") for _ in range(5)]
    until(actor, {"io": 2, "compute": 1, "default": 3})
    assert not zmreg.wait(refs, num_returns=1, timeout=0)[0]
    assert actor.open.remote().get(timeout=T) == {"io": 2, "compute": 1, "default": 3}
    zmreg.get(refs, timeout=T)


@pytest.mark.parametrize("cls", [Threads, Coroutines])
def test_row47_a_call_may_ask_for_another_group_or_for_the_default_one(cls):
    actor = zmreg.remote(num_cpus=0, max_concurrency=1, concurrency_groups=GROUPS)(cls).remote()
    refs = [actor.crunch.options(concurrency_group="io").remote() for _ in range(4)]
    refs += [actor.crunch.options(concurrency_group=None).remote() for _ in range(4)]
    until(actor, {"compute": 3})  # two by way of io, one of the default group
    refs.append(actor.crunch.remote())
    until(actor, {"compute": 4})
    assert actor.open.remote().get(timeout=T)["compute"] == 4
    zmreg.get(refs, timeout=T)


def test_row47_the_default_group_is_there_and_has_one_thread():
    actor = zmreg.remote(num_cpus=0, concurrency_groups=GROUPS)(Threads).remote()
    refs = [actor.plain.remote() for _ in range(3)]
    until(actor, {"default": 1})
    assert actor.open.remote().get(timeout=T) == {"default": 1}
    assert len(set(zmreg.get(refs, timeout=T))) == 1, "row 44: one thread, used again"


def test_row47_threads_belong_to_their_group_and_stay():
    actor = zmreg.remote(num_cpus=0, concurrency_groups=GROUPS)(Threads).remote()
    actor.open.remote().get(timeout=T)
    names = {zmreg.get([actor.read.remote() for _ in range(3)], timeout=T)[0] for _ in range(5)}
    assert names <= {"zmreg-call-io-0", "zmreg-call-io-1"}
    assert actor.crunch.remote().get(timeout=T) == "zmreg-call-compute-0"


def test_row47_what_every_actor_can_do_takes_a_group_too():
    actor = zmreg.remote(num_cpus=0, concurrency_groups=GROUPS)(Threads).remote()
    stuck = actor.plain.remote()
    until(actor, {"default": 1})
    assert actor.__ray_ready__.options(concurrency_group="control").remote().get(timeout=T) is True
    actor.open.remote().get(timeout=T)
    stuck.get(timeout=T)


def test_row47_handles_elsewhere_know_the_groups():
    made = zmreg.remote(num_cpus=0, concurrency_groups=GROUPS)(Threads).options(name="grouped").remote()

    @zmreg.remote
    def look(handle: Any) -> str:
        handle.open.remote().get(timeout=T)
        with pytest.raises(ValueError, match="compute, control, io"):
            handle.read.options(concurrency_group="nobody")
        return handle.plain.options(concurrency_group="io").remote().get(timeout=T)

    assert "-io-" in look.remote(made).get(timeout=T)
    assert "-io-" in look.remote(zmreg.get_actor("grouped")).get(timeout=T)


def test_row47_groups_live_through_a_restart():
    actor = zmreg.remote(num_cpus=0, concurrency_groups=GROUPS, max_restarts=1)(Threads).remote()
    actor.open.remote().get(timeout=T)
    zmreg.kill(actor, no_restart=False)
    actor.open.remote().get(timeout=T)
    assert "-io-" in actor.read.remote().get(timeout=T)


def test_row47_wrong_groups_are_told_at_once():
    with pytest.raises(ValueError, match="asks for concurrency_group='control', and its class has compute"):
        zmreg.remote(concurrency_groups={"compute": 1})(Threads)
    with pytest.raises(ValueError, match="has none"):
        zmreg.remote(Threads)
    for wrong, error in (({"": 1}, ValueError), ({"io": 0}, ValueError), ({"io": "2"}, TypeError), (["io"], TypeError)):
        with pytest.raises(error, match="concurrency_groups"):
            zmreg.remote(concurrency_groups=wrong)(Threads)
    grouped = zmreg.remote(num_cpus=0, concurrency_groups=GROUPS)(Threads)
    with pytest.raises(ValueError, match="belong to the class"):
        grouped.options(concurrency_groups={"io": 5})
    with pytest.raises(ValueError, match="concurrency_group='nobody'"):
        grouped.remote().read.options(concurrency_group="nobody")


# -- 48 ----------------------------------------------------------------------------------------------------------------


class Log:
    def __init__(self) -> None:
        self.said: list[str] = []

    def say(self, what: str) -> list[str]:
        self.said.append(what)
        return list(self.said)


def test_row48_order_cannot_be_had_where_calls_run_side_by_side():
    with pytest.raises(ValueError, match="allow_out_of_order_execution"):
        zmreg.remote(allow_out_of_order_execution=False, concurrency_groups=GROUPS)(Threads)
    with pytest.raises(ValueError, match="in no order"):
        zmreg.remote(allow_out_of_order_execution=False, max_concurrency=2)(Log)
    with pytest.raises(ValueError, match="in no order"):
        zmreg.remote(allow_out_of_order_execution=False)(Log).options(max_concurrency=2)
    with pytest.raises(TypeError, match="bool"):
        zmreg.remote(allow_out_of_order_execution="no")(Log)


def test_row48_a_plain_actor_keeps_order_unless_told_otherwise():
    @zmreg.remote(num_cpus=0)
    class Gate:
        def __init__(self) -> None:
            self.event = asyncio.Event()

        async def wait(self) -> str:
            await self.event.wait()
            return "late"

        async def open(self) -> None:
            self.event.set()

    gate = Gate.remote()
    log = zmreg.remote(num_cpus=0, allow_out_of_order_execution=True)(Log).remote()
    late = log.say.remote(gate.wait.remote())
    assert log.say.remote("early").get(timeout=T) == ["early"]
    gate.open.remote()
    assert late.get(timeout=T) == ["early", "late"]
