"""How actors end: kill, exit, close, a crash; and who is told (core-api rows 38, 39, 65, C24, C41; fault 4)."""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

import zmreg
from zmreg.model.errors import ActorDiedError, ActorError, ActorUnavailableError

pytestmark = pytest.mark.usefixtures("cluster")
T = 30


@zmreg.remote
class Actor:
    def __init__(self, path: str = "") -> None:
        self.path = path
        self.done: list[Any] = []

    def pid(self) -> int:
        return os.getpid()

    def hang(self, began: Any = None) -> None:
        if began is not None:
            began[0].tell.remote("began").get()
        threading.Event().wait()

    def slow(self, seconds: float, what: Any = None) -> Any:
        time.sleep(seconds)
        self.done.append(what)
        return what

    def all(self) -> list[Any]:
        return self.done

    def leave(self) -> None:
        zmreg.exit_actor()

    def register(self) -> None:
        import atexit

        atexit.register(Path(self.path).touch)

    def quit(self, code: int) -> None:
        sys.exit(code)


@zmreg.remote(num_cpus=0)
class Board:
    """Tells a waiting caller as soon as it was told something."""

    def __init__(self) -> None:
        import asyncio

        self.told: Any = asyncio.Queue()

    async def tell(self, what: Any) -> None:
        self.told.put_nowait(what)

    async def hear(self) -> Any:
        return await self.told.get()


def started(actor: Any) -> Any:
    """A call that hangs, and is known to have begun."""
    board = Board.remote()
    ref = actor.hang.remote([board])
    assert board.hear.remote().get(timeout=T) == "began"
    return ref


# -- 38: kill ----------------------------------------------------------------------------------------------------------


def test_row38_kill_fails_running_queued_and_later_calls_at_once(tmp_path):
    actor = Actor.remote(str(tmp_path / "atexit"))
    actor.register.remote().get(timeout=T)
    running = started(actor)
    queued = [actor.pid.remote() for _ in range(10)]
    zmreg.kill(actor)
    for ref in [running, *queued, actor.pid.remote()]:
        error = ref.exception(timeout=T)
        assert isinstance(error, ActorDiedError)
        assert "killed" in str(error)
    assert not (tmp_path / "atexit").exists(), "atexit functions do not run in a killed actor"


def test_row38_trap_other_callers_are_told():
    actor, board = Actor.remote(), Board.remote()
    running = started(actor)

    @zmreg.remote
    def other(handle: Any, board: Any) -> str:
        queued = handle.pid.remote()
        board.tell.remote("queued").get(timeout=T)
        return type(queued.exception(timeout=T)).__name__

    theirs = other.remote(actor, board)
    assert board.hear.remote().get(timeout=T) == "queued"
    zmreg.kill(actor)
    assert theirs.get(timeout=T) == "ActorDiedError"
    assert isinstance(running.exception(timeout=T), ActorDiedError)


def test_row38_kill_before_the_constructor_has_run_and_twice():
    actors = [Actor.options(num_cpus=1).remote() for _ in range(6)]  # more than there are CPUs for
    refs = [actor.pid.remote() for actor in actors]
    for actor in actors:
        zmreg.kill(actor)
        zmreg.kill(actor)
    assert all(ref.exception(timeout=T) is None or isinstance(ref.exception(), ActorDiedError) for ref in refs)
    assert all(isinstance(actor.pid.remote().exception(timeout=T), ActorDiedError) for actor in actors)


def test_row38_only_handles_can_be_killed():
    for wrong in ("name", 3, zmreg.put(1), Actor):
        with pytest.raises(ValueError, match="handle"):
            zmreg.kill(wrong)


def test_row38_any_holder_may_kill():
    @zmreg.remote
    def assassin(handle: Any) -> None:
        zmreg.kill(handle)

    actor = Actor.remote()
    running = started(actor)
    assassin.remote(actor).get(timeout=T)
    assert isinstance(running.exception(timeout=T), ActorDiedError)


def test_row38_no_restart_false_restarts_within_the_budget():
    actor = Actor.options(max_restarts=1).remote()
    first = actor.pid.remote().get(timeout=T)
    running = started(actor)
    zmreg.kill(actor, no_restart=False)
    error = running.exception(timeout=T)
    assert isinstance(error, ActorUnavailableError)
    second = actor.pid.remote().get(timeout=T)
    assert second != first
    zmreg.kill(actor, no_restart=False)  # the budget is used up
    assert isinstance(actor.pid.remote().exception(timeout=T), ActorDiedError)


def test_row38_kill_frees_what_the_actor_held():
    for _ in range(4):
        pair = [Actor.options(num_cpus=1).remote() for _ in range(2)]
        zmreg.get([actor.pid.remote() for actor in pair], timeout=T)
        for actor in pair:
            zmreg.kill(actor)


# -- 39: graceful ------------------------------------------------------------------------------------------------------


def test_row39_exit_actor_runs_atexit_and_later_calls_fail(tmp_path):
    path = tmp_path / "atexit"
    actor = Actor.options(max_restarts=5).remote(str(path))
    actor.register.remote().get(timeout=T)
    error = actor.leave.remote().exception(timeout=T)
    assert isinstance(error, ActorDiedError)
    assert "exited by itself" in str(error)
    assert path.exists(), "the exiting call fails only when the process is gone, atexit and all"
    assert isinstance(actor.pid.remote().exception(timeout=T), ActorDiedError), "an intended exit never restarts"


def test_row39_terminate_comes_behind_what_was_queued(tmp_path):
    path = tmp_path / "atexit"
    actor = Actor.remote(str(path))
    before = [actor.register.remote(), *(actor.slow.remote(0.01, n) for n in range(10))]
    end, after = actor.__ray_terminate__.remote(), actor.pid.remote()
    assert zmreg.get(before, timeout=T)[1:] == list(range(10))
    assert isinstance(end.exception(timeout=T), ActorDiedError)
    assert isinstance(after.exception(timeout=T), ActorDiedError)
    assert path.exists()


def test_row39_answers_given_before_the_exit_are_never_lost():
    for _ in range(20):
        actor = Actor.options(num_cpus=0).remote()
        answered = [actor.slow.remote(0, n) for n in range(5)]
        actor.__ray_terminate__.remote()
        assert zmreg.get(answered, timeout=T) == list(range(5))


def test_row39_values_of_an_actor_that_exited_stay():
    @zmreg.remote
    class Producer:
        def make(self) -> dict[str, Any]:
            return {"small": zmreg.put("small"), "large": zmreg.put(b"x" * 300_000)}

        def big(self) -> bytes:
            return b"y" * 300_000

    producer = Producer.remote()
    big, refs = producer.big.remote(), producer.make.remote().get(timeout=T)
    producer.__ray_terminate__.remote().exception(timeout=T)
    assert refs["small"].get(timeout=T) == "small"
    assert len(refs["large"].get(timeout=T)) == len(big.get(timeout=T)) == 300_000

    @zmreg.remote
    def use(box: list[Any]) -> int:
        return len(box[0].get(timeout=T))

    assert use.remote([refs["large"]]).get(timeout=T) == 300_000


def test_row39_ray_ready_and_ray_call():
    actor = Actor.remote("here")
    assert actor.__ray_ready__.remote().get(timeout=T) is True
    assert actor.__ray_call__.remote(lambda self, x, y=0: (self.path, x, y), 1, y=2).get(timeout=T) == ("here", 1, 2)
    with pytest.raises(ZeroDivisionError):
        actor.__ray_call__.remote(lambda self: 1 / 0).get(timeout=T)


def test_row39_exit_actor_in_a_constructor():
    @zmreg.remote
    class Leaves:
        def __init__(self) -> None:
            zmreg.exit_actor()

        def m(self) -> None: ...

    assert isinstance(Leaves.remote().m.remote().exception(timeout=T), ActorDiedError)


def test_row39_exit_actor_in_a_task_is_an_error():
    @zmreg.remote
    def leave() -> None:
        zmreg.exit_actor()

    with pytest.raises(RuntimeError, match="exit_actor"):
        leave.remote().get(timeout=T)


def test_row65_sys_exit_in_a_sync_actor_is_its_death():
    for code in (0, 7):
        actor = Actor.remote()
        error = actor.quit.remote(code).exception(timeout=T)
        assert isinstance(error, ActorDiedError)
        assert f"code {code}" in str(error)


# -- fault 4 -----------------------------------------------------------------------------------------------------------


def test_fault4_kill_9_without_restarts_fails_calls_within_two_seconds():
    actor = Actor.remote()
    pid = actor.pid.remote().get(timeout=T)
    running = started(actor)
    queued = [actor.pid.remote() for _ in range(20)]
    begin = time.monotonic()
    os.kill(pid, signal.SIGKILL)
    for ref in [running, *queued]:
        error = ref.exception(timeout=T)
        assert isinstance(error, ActorDiedError)
        assert isinstance(error, ActorError)
        assert "SIGKILL" in str(error)
        assert "Actor" in str(error)
    later = actor.pid.remote().exception(timeout=T)
    assert time.monotonic() - begin < 2
    assert isinstance(later, ActorDiedError)


def test_fault4_other_actors_and_the_cluster_go_on():
    victims = [Actor.options(num_cpus=0).remote() for _ in range(3)]
    bystander = Actor.remote()
    pids = zmreg.get([victim.pid.remote() for victim in victims], timeout=T)
    for pid in pids:
        os.kill(pid, signal.SIGKILL)
    assert bystander.slow.remote(0, "fine").get(timeout=T) == "fine"
    assert all(isinstance(victim.pid.remote().exception(timeout=T), ActorDiedError) for victim in victims)


# -- C24: certainty ----------------------------------------------------------------------------------------------------


def alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_C24_with_actor_ends_it_after_its_queue():
    with Actor.options(name="scoped").remote() as actor:
        pid = actor.pid.remote().get(timeout=T)
        refs = [actor.slow.remote(0.01, n) for n in range(5)]
    assert not alive(pid)
    assert zmreg.get(refs, timeout=T) == list(range(5))
    with pytest.raises(ValueError):
        zmreg.get_actor("scoped")


def test_C24_close_kills_after_its_timeout():
    actor = Actor.remote()
    running = started(actor)
    actor.close(timeout=0.2)
    assert isinstance(running.exception(timeout=T), ActorDiedError)


def test_C24_close_ends_a_restarting_actor_too():
    actor = Actor.options(max_restarts=-1).remote()
    pid = actor.pid.remote().get(timeout=T)
    os.kill(pid, signal.SIGKILL)
    actor.close()
    assert isinstance(actor.pid.remote().exception(timeout=T), ActorDiedError)
    actor.close()  # once more is harmless


def test_C24_a_class_with_a_close_of_its_own_keeps_it():
    @zmreg.remote
    class File:
        def close(self) -> str:
            return "mine"

    assert File.remote().close.remote().get(timeout=T) == "mine"


# -- C41 ---------------------------------------------------------------------------------------------------------------


def test_C41_a_reply_never_overtakes_the_record_of_its_request():
    actor = Actor.options(num_cpus=0).remote()
    actor.pid.remote().get(timeout=T)

    def hammer(out: list[int]) -> None:
        out.append(sum(actor.slow.remote(0, n).get(timeout=T) for n in range(150)))

    sums: list[int] = []
    threads = [threading.Thread(target=hammer, args=(sums,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(T)
    assert sums == [sum(range(150))] * 4
    assert zmreg.stats()["tasks"]["pending"] == 0
