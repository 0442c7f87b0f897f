"""X33: `process="name"`: tasks and actors of one name share one process of a node, and what its modules hold."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import zmreg
from tests import prometheus
from zmreg.metrics import Counter
from zmreg.model.errors import ActorDiedError, StateError, WorkerDiedError
from zmreg.services.seat.client import current
from zmreg.services.setup import scraping
from zmreg.services.setup.observer import Observer
from zmreg.services.setup.sessions import read_word

T = 30


def shelf() -> ModuleType:
    """A module that no other process has: what it holds is the process's own."""
    return sys.modules.setdefault("x33_shelf", ModuleType("x33_shelf"))


def eventually(what: Callable[[], bool]) -> None:
    deadline = time.monotonic() + T
    while not what():
        assert time.monotonic() < deadline, what
        time.sleep(0.01)


def pid_lives(pid: int) -> bool:
    return os.path.exists(f"/proc/{pid}")


@zmreg.remote
def count() -> tuple[int, int]:
    """How often this was called in this process, and which that is."""
    here = shelf()
    here.calls = getattr(here, "calls", 0) + 1
    return here.calls, os.getpid()


class Member:
    def __init__(self, fails: bool = False) -> None:
        if fails:
            raise ValueError("not to be")
        here = shelf()
        here.members = getattr(here, "members", 0) + 1

    def pid(self) -> int:
        return os.getpid()

    def members(self) -> int:
        return int(shelf().members)

    def ask(self, other: Any) -> int:
        return int(zmreg.get(other.pid.remote(), timeout=T))

    def ask_by_thread(self, other: Any) -> int:
        found: list[int] = []
        thread = threading.Thread(target=lambda: found.append(self.ask(other)))
        thread.start()
        thread.join()
        return found[0]

    def spin(self, path: str) -> None:
        open(path, "w").close()
        while True:
            time.sleep(0.01)

    def leave(self, how: str) -> None:
        zmreg.exit_actor() if how == "exit_actor" else sys.exit(3)

    def count(self) -> None:
        Counter("x33_calls", "calls").inc()

    def actor_id(self) -> str:
        return str(zmreg.get_runtime_context().get_actor_id())

    def keep(self, signal_ref: list[Any]) -> None:
        shelf().ref = signal_ref[0]

    def use(self) -> str:
        try:
            return str(zmreg.get(shelf().ref, timeout=T))
        except StateError as error:
            return str(error)


def members(process: str, count: int, **options: Any) -> list[Any]:
    return [zmreg.remote(Member).options(process=process, **options).remote() for _ in range(count)]


def pids(handles: list[Any]) -> list[int]:
    return list(zmreg.get([each.pid.remote() for each in handles], timeout=T))


# -- tasks -------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("cluster")
class TestTasks:
    def test_X33_tasks_of_a_name_share_one_process_and_find_what_the_last_one_left(self) -> None:
        found = zmreg.get([count.options(process="tasks").remote() for _ in range(50)], timeout=T)
        assert [calls for calls, _ in found] == list(range(1, 51))
        (process,) = {pid for _, pid in found}
        others = zmreg.get([count.remote() for _ in range(20)] + [count.options(process="b").remote()], timeout=T)
        assert process not in {pid for _, pid in others}
        assert zmreg.get(count.options(process="tasks", num_cpus=0.5).remote(), timeout=T) == (51, process)

    def test_X33_a_task_may_wait_for_one_of_its_own_name_and_others_run_elsewhere(self) -> None:
        @zmreg.remote(process="deep")
        def deep(left: int) -> list[int]:
            below = zmreg.get(deep.remote(left - 1)) if left else [zmreg.get(count.remote())[1]]
            return [*below, os.getpid()]

        elsewhere, *here = zmreg.get(deep.remote(3), timeout=T)
        assert len(set(here)) == 1
        assert elsewhere not in here

    def test_X33_callers_in_several_processes_take_turns(self) -> None:
        @zmreg.remote(num_cpus=0)
        def caller() -> list[tuple[int, int]]:
            return [zmreg.get(count.options(process="turns", num_cpus=0.1).remote()) for _ in range(5)]

        found = [each for calls in zmreg.get([caller.remote() for _ in range(3)], timeout=T) for each in calls]
        assert sorted(calls for calls, _ in found) == list(range(1, 16))
        assert len({pid for _, pid in found}) == 1

    def test_X33_when_the_process_dies_the_next_task_gets_another(self) -> None:
        @zmreg.remote(process="mortal", max_retries=0)
        def die() -> None:
            os._exit(3)

        _, first = zmreg.get(count.options(process="mortal").remote(), timeout=T)
        with pytest.raises(WorkerDiedError):
            zmreg.get(die.remote(), timeout=T)
        calls, second = zmreg.get(count.options(process="mortal").remote(), timeout=T)
        assert calls == 1
        assert second != first

    def test_X33_an_environment_of_its_own_is_a_process_of_its_own(self) -> None:
        @zmreg.remote(process="env")
        def variable() -> tuple[str | None, int]:
            return os.environ.get("X33"), os.getpid()

        inside = variable.options(runtime_env={"env_vars": {"X33": "set"}})
        found = zmreg.get([variable.remote(), inside.remote(), inside.remote()], timeout=T)
        assert [each for each, _ in found] == [None, "set", "set"]
        assert len({pid for _, pid in found}) == 2

    def test_X33_what_is_no_name_is_refused(self) -> None:
        for wrong, kind in (("", ValueError), ("x" * 81, ValueError), (3, TypeError)):
            for target in (count, zmreg.remote(Member)):
                with pytest.raises(kind, match="process"):
                    target.options(process=wrong)  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match="max_calls"):
            zmreg.remote(max_calls=1, process="x")(count.__wrapped__)  # type: ignore[attr-defined]
        with pytest.raises(ValueError, match="max_calls"):
            zmreg.remote(max_calls=1)(count.__wrapped__).options(process="x")  # type: ignore[attr-defined]


# -- actors ------------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("cluster")
class TestActors:
    def test_X33_actors_and_tasks_of_a_name_share_one_process_and_call_each_other(self) -> None:
        several = members("many", 5)
        (process,) = set(pids(several))
        assert zmreg.get(several[0].members.remote(), timeout=T) == 5
        assert zmreg.get(count.options(process="many").remote(), timeout=T)[1] == process
        assert zmreg.get(several[0].ask.remote(several[1]), timeout=T) == process
        assert zmreg.get(several[1].ask_by_thread.remote(several[2]), timeout=T) == process
        ids = zmreg.get([each.actor_id.remote() for each in several], timeout=T)
        assert ids == [each._actor_id.hex() for each in several]
        assert [row["Name"] for row in zmreg.listing("workers") if row["Pid"] == process].count("Member") == 5

    def test_X33_one_is_killed_in_the_midst_of_a_call_and_the_others_go_on(self, tmp_path: Path) -> None:
        first, second = members("kill", 2)
        process = pids([first, second])[0]
        spinning = first.spin.remote(str(tmp_path / "spins"))
        eventually((tmp_path / "spins").exists)
        zmreg.kill(first)
        with pytest.raises(ActorDiedError, match="killed"):
            zmreg.get(spinning, timeout=T)
        assert pids([second, *members("kill", 1)]) == [process] * 2

    def test_X33_a_constructor_that_raises_fails_its_own_actor(self) -> None:
        (good,) = members("born", 1)
        bad = zmreg.remote(Member).options(process="born").remote(fails=True)
        with pytest.raises(ActorDiedError, match="not to be"):
            zmreg.get(bad.pid.remote(), timeout=T)
        assert pids([good, *members("born", 1)]) == pids([good]) * 2

    @pytest.mark.parametrize("how", ["exit_actor", "sys.exit"])
    def test_X33_one_that_ends_itself_ends_alone(self, how: str) -> None:
        first, second = members(f"ends-{how}", 2)
        process = pids([first, second])[0]
        with pytest.raises(ActorDiedError, match="exited by itself" if how == "exit_actor" else "code 3"):
            zmreg.get(first.leave.remote(how), timeout=T)
        assert pids([second]) == [process]

    def test_X33_the_last_handle_ends_one_and_the_process_goes_on(self) -> None:
        first, second = members("handles", 2)
        process = pids([first, second])[0]
        name = first._actor_id.hex()
        del first
        eventually(lambda: all(row["ActorID"] != name or row["State"] == "DEAD" for row in zmreg.listing("actors")))
        assert pids([second]) == [process]
        assert zmreg.get(second.members.remote(), timeout=T) == 2
        second.close(T)
        assert zmreg.get(count.options(process="handles").remote(), timeout=T) == (1, process), "what it held is there"

    def test_X33_kill_9_is_the_death_of_all_and_each_restarts_by_its_own_budget(self) -> None:
        once, always, never = (members("dies", 1, max_restarts=each, max_task_retries=-1)[0] for each in (1, -1, 0))
        self.kill_9(pids([once, always, never]))
        with pytest.raises(ActorDiedError, match="SIGKILL"):
            zmreg.get(never.pid.remote(), timeout=T)
        self.kill_9(pids([once, always]))
        with pytest.raises(ActorDiedError, match="SIGKILL"):
            zmreg.get(once.pid.remote(), timeout=T)
        assert pids([always, *members("dies", 1)]) == pids([always]) * 2

    def kill_9(self, found: list[int]) -> None:
        (process,) = set(found)
        os.kill(process, signal.SIGKILL)
        eventually(lambda: not pid_lives(process))

    def test_X33_each_holds_its_own_resources(self) -> None:
        free = zmreg.available_resources().get("CPU", 0)
        first, second = members("holds", 2, num_cpus=free / 2)
        process = pids([first, second])[0]
        eventually(lambda: not zmreg.available_resources().get("CPU", 0))
        (third,) = members("holds", 1, num_cpus=free / 2)
        asked = third.pid.remote()
        assert zmreg.wait([asked], timeout=0)[0] == []
        zmreg.kill(first)
        assert zmreg.get(asked, timeout=T) == process

    def test_X33_threaded_async_and_grouped_ones_live_side_by_side(self) -> None:
        class Async:
            async def ask(self, other: Any) -> tuple[int, int]:
                await asyncio.sleep(0)
                return os.getpid(), await other.pid.remote()

        class Grouped:
            @zmreg.method(concurrency_group="io")
            def thread(self) -> tuple[int, str]:
                return os.getpid(), threading.current_thread().name

        (plain,) = members("kinds", 1)
        (threaded,) = members("kinds", 1, max_concurrency=3)
        both = zmreg.get(zmreg.remote(process="kinds")(Async).remote().ask.remote(threaded), timeout=T)
        grouped = zmreg.remote(process="kinds", concurrency_groups={"io": 2})(Grouped).remote()
        process, name = zmreg.get(grouped.thread.remote(), timeout=T)
        assert {*both, process} == set(pids([plain, threaded]))
        assert name.startswith("zmreg-call-io")

    def test_X33_what_several_count_in_one_process_is_counted_once(self) -> None:
        several = members("counts", 3)
        zmreg.get([each.count.remote() for each in several], timeout=T)

        def told() -> float:
            seat = current()
            assert seat is not None
            with Observer(read_word(seat.session)) as observer:
                found = prometheus.read(scraping.as_text(scraping.families(observer)))
            return prometheus.total(found, "x33_calls_total")

        assert told() == 3
        several.pop().close(T)
        zmreg.get([each.count.remote() for each in several], timeout=T)
        assert told() == 5

    def test_X33_it_is_found_by_its_name(self) -> None:
        kept = members("named", 1, name="x33")
        assert pids([zmreg.get_actor("x33"), *members("named", 1)]) == pids(kept) * 2

    def test_X33_a_ref_that_went_over_by_a_variable_is_refused_and_not_waited_for(self, tmp_path: Path) -> None:
        first, second = members("refs", 2)
        pending = waits.remote(str(tmp_path / "go"))
        zmreg.get(first.keep.remote([pending]), timeout=T)
        assert "process 'refs'" in zmreg.get(second.use.remote(), timeout=T)
        (tmp_path / "go").touch()
        assert zmreg.get(first.use.remote(), timeout=T) == "7"


@zmreg.remote(num_cpus=0)
def waits(path: str) -> int:
    eventually(Path(path).exists)
    return 7
