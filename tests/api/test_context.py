"""The runtime context: who am I, where am I (core-api row 49)."""

from __future__ import annotations

import asyncio
import os
import signal
from typing import Any

import pytest

import zmreg
from zmreg.model.errors import ActorUnavailableError
from zmreg.services.seat.client import current

pytestmark = pytest.mark.usefixtures("cluster")
T = 30


def facts() -> dict[str, Any]:
    context = zmreg.get_runtime_context()
    return {
        "job": context.get_job_id(),
        "node": context.get_node_id(),
        "worker": context.get_worker_id(),
        "task": context.get_task_id(),
        "task_name": context.get_task_name(),
        "actor": context.get_actor_id(),
        "actor_name": context.get_actor_name(),
        "attempt": context.get_attempt_number(),
        "pid": context.get_pid(),
    }


@zmreg.remote
class Who:
    def facts(self) -> dict[str, Any]:
        return facts()

    def me(self) -> Any:
        return zmreg.get_runtime_context().current_actor

    def resources(self) -> dict[str, float]:
        return zmreg.get_runtime_context().get_assigned_resources()

    def restarted(self) -> tuple[bool, int]:
        context = zmreg.get_runtime_context()
        return context.was_current_actor_reconstructed, context.actor_restarts

    def pid(self) -> int:
        return os.getpid()


def test_row49_in_a_driver():
    mine = facts()
    assert mine["task"] is mine["task_name"] is mine["actor"] is mine["actor_name"] is None
    assert mine["node"] == zmreg.nodes()[0]["NodeID"]
    assert mine["pid"] == os.getpid()
    assert zmreg.get_runtime_context().get_task_function_name() is None
    assert zmreg.get_runtime_context().gcs_address
    assert zmreg.get_runtime_context().was_current_actor_reconstructed is False
    assert zmreg.get_runtime_context().get_assigned_resources() == {}
    with pytest.raises(RuntimeError, match="inside an actor"):
        _ = zmreg.get_runtime_context().current_actor
    with pytest.raises(RuntimeError, match="cancelled"):
        zmreg.get_runtime_context().is_canceled()
    with pytest.raises(RuntimeError, match="exit_actor"):
        zmreg.exit_actor()


@pytest.mark.near
def test_row49_in_a_task():
    @zmreg.remote
    def look() -> dict[str, Any]:
        return facts()

    ref = look.remote()
    theirs = ref.get(timeout=T)
    mine = facts()
    assert theirs["task"] == ref.hex()
    assert "look" in theirs["task_name"]
    assert theirs["actor"] is None
    assert theirs["attempt"] == 0
    assert theirs["pid"] != mine["pid"]
    assert (theirs["job"], theirs["node"]) == (mine["job"], mine["node"])
    assert theirs["worker"] != mine["worker"]


def test_row49_in_an_actor():
    who = Who.options(name="who").remote()
    named = who.__ray_call__.remote(lambda self: zmreg.get_runtime_context().gcs_address)
    assert named.get(timeout=T) == zmreg.get_runtime_context().gcs_address
    ref = who.facts.remote()
    theirs = ref.get(timeout=T)
    assert theirs["task"] == ref.hex()
    assert theirs["actor_name"] == "who"
    assert theirs["actor"] == who.facts.remote().get(timeout=T)["actor"]
    assert "facts" in theirs["task_name"]
    assert who.me.remote().get(timeout=T) == who
    assert Who.remote().facts.remote().get(timeout=T)["actor_name"] is None


def test_row49_assigned_resources():
    @zmreg.remote(num_cpus=0.5)
    def half() -> dict[str, float]:
        return zmreg.get_runtime_context().get_assigned_resources()

    assert half.remote().get(timeout=T) == {"CPU": 0.5}
    assert Who.remote().resources.remote().get(timeout=T) == {}
    assert Who.options(num_cpus=1).remote().resources.remote().get(timeout=T) == {"CPU": 1.0}


def test_row49_was_current_actor_reconstructed():
    who = Who.options(max_restarts=1).remote()
    assert who.restarted.remote().get(timeout=T) == (False, 0)
    os.kill(who.pid.remote().get(timeout=T), signal.SIGKILL)
    while True:
        try:
            assert who.restarted.remote().get(timeout=T) == (True, 1)
            break
        except ActorUnavailableError:
            continue


def test_row49_trap_task_ids_are_per_coroutine():
    @zmreg.remote
    class Async:
        def __init__(self) -> None:
            self.all_here = asyncio.Event()
            self.count = 0

        async def look(self, total: int) -> tuple[str | None, str | None]:
            before = zmreg.get_runtime_context().get_task_id()
            self.count += 1
            if self.count == total:
                self.all_here.set()
            await self.all_here.wait()
            return before, zmreg.get_runtime_context().get_task_id()

    actor = Async.remote()
    refs = [actor.look.remote(20) for _ in range(20)]
    assert zmreg.get(refs, timeout=T) == [(ref.hex(), ref.hex()) for ref in refs]


def test_row49_task_ids_are_per_thread_in_a_threaded_actor():
    @zmreg.remote(max_concurrency=4)
    class Threads:
        def __init__(self) -> None:
            import threading

            self.barrier = threading.Barrier(4)

        def look(self) -> str | None:
            self.barrier.wait(T)
            return zmreg.get_runtime_context().get_task_id()

    actor = Threads.remote()
    refs = [actor.look.remote() for _ in range(4)]
    assert zmreg.get(refs, timeout=T) == [ref.hex() for ref in refs]


def test_row49_is_canceled_in_a_sync_actor_and_not_in_an_async_one():
    @zmreg.remote
    class Polls:
        def run(self) -> bool:
            return zmreg.get_runtime_context().is_canceled()

    @zmreg.remote
    class Async:
        async def run(self) -> str:
            try:
                zmreg.get_runtime_context().is_canceled()
            except RuntimeError as error:
                return str(error)
            return ""

    assert Polls.remote().run.remote().get(timeout=T) is False
    assert "CancelledError" in Async.remote().run.remote().get(timeout=T)


def test_fault31_a_question_that_makes_no_sense_does_not_end_the_node():
    seat = current()
    for topic, key in (("assigned", "no hex"), ("objects", "many"), ("drain", "no hex")):
        assert seat.ask(topic, key) is None
    assert zmreg.nodes(), "the node goes on"
