"""Restarts: budgets, order, at most once, unavailable or dead (core-api rows 40, 41; faults 5, 6)."""

from __future__ import annotations

import os
import signal
import threading
from pathlib import Path
from typing import Any

import pytest

import zmreg
from zmreg.model.errors import ActorDiedError, ActorUnavailableError

pytestmark = pytest.mark.usefixtures("cluster")
T = 30


@zmreg.remote
class Phoenix:
    """Writes down what it runs, so that what ran before a crash is known after it."""

    def __init__(self, path: str = "", data: bytes = b"") -> None:
        self.path = path
        self.data = data
        self.count = 0

    def pid(self) -> int:
        return os.getpid()

    def note(self, what: Any) -> Any:
        with open(self.path, "a") as log:
            log.write(f"{what}\n")
        self.count += 1
        return what

    def counted(self) -> int:
        return self.count

    def size(self) -> int:
        return len(self.data)

    def die_once(self, what: str) -> str:
        """Kills its process the first time."""
        first = not Path(f"{self.path}.{what}").exists()
        Path(f"{self.path}.{what}").touch()
        self.note(what)
        if first:
            os.kill(os.getpid(), signal.SIGKILL)
        return what

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def flaky(self, what: str) -> str:
        """Raises the first two times."""
        self.note(what)
        if Path(self.path).read_text().split().count(what) < 3:
            raise ConnectionError(what)
        return what

    def hang(self) -> None:
        self.note("hang")
        threading.Event().wait()

    def leave(self) -> None:
        zmreg.exit_actor()


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "log"
    path.touch()
    return path


def lines(log: Path) -> list[str]:
    return log.read_text().split()


def when_back(call: Any) -> Any:
    """The value of a call that is repeated while the actor restarts."""
    while True:
        try:
            return call().get(timeout=T)
        except ActorUnavailableError:
            continue


# -- 40 ----------------------------------------------------------------------------------------------------------------


def test_row40_default_is_at_most_once_and_no_restart(log):
    actor = Phoenix.remote(str(log))
    assert isinstance(actor.die_once.remote("x").exception(timeout=T), ActorDiedError)
    assert isinstance(actor.pid.remote().exception(timeout=T), ActorDiedError)
    assert lines(log) == ["x"]


def test_row40_restart_runs_the_constructor_again_and_loses_the_state(log):
    actor = Phoenix.options(max_restarts=1).remote(str(log), b"d" * 200_000)
    zmreg.get([actor.note.remote(n) for n in range(3)], timeout=T)
    first = actor.pid.remote().get(timeout=T)
    assert isinstance(actor.die.remote().exception(timeout=T), ActorUnavailableError)
    assert actor.counted.remote().get(timeout=T) == 0
    assert actor.pid.remote().get(timeout=T) != first
    assert actor.size.remote().get(timeout=T) == 200_000


def test_row40_trap_constructor_refs_stay_pinned_while_restarts_remain(log):
    actor = Phoenix.options(max_restarts=2).remote(str(log), zmreg.put(b"z" * 500_000))  # our ref is gone at once
    for _ in range(2):
        actor.die.remote()
        assert when_back(actor.size.remote) == 500_000


def test_row40_in_flight_calls_fail_as_unavailable_and_the_rest_is_sent_on(log):
    actor = Phoenix.options(max_restarts=1).remote(str(log))
    actor.pid.remote().get(timeout=T)
    died = actor.die_once.remote("x")
    behind = [actor.note.remote(n) for n in range(30)]
    error = died.exception(timeout=T)
    assert isinstance(error, ActorUnavailableError)
    assert "may or may not have run" in str(error)
    outcomes = [ref.exception(timeout=T) for ref in behind]
    # Nothing behind the call that killed the process had begun: all of it runs, once, in order.
    assert outcomes == [None] * 30
    assert lines(log) == ["x", *map(str, range(30))]


def test_row40_max_task_retries_gives_at_least_once_in_the_callers_order(log):
    actor = Phoenix.options(max_restarts=1, max_task_retries=1).remote(str(log))
    refs = [actor.note.remote("a"), actor.die_once.remote("b"), *(actor.note.remote(n) for n in range(20))]
    assert zmreg.get(refs, timeout=T) == ["a", "b", *range(20)]
    ran = lines(log)
    assert ran.count("b") == 2
    # "a" had run, but its answer may have died with the process: at least once, and in order.
    assert [line for n, line in enumerate(ran) if line not in ran[:n]] == ["a", "b", *map(str, range(20))]


def test_row40_trap_a_chain_of_calls_over_a_crash(log):
    actor = Phoenix.options(max_restarts=1, max_task_retries=-1).remote(str(log))
    ref = actor.die_once.remote("first")
    for _ in range(10):
        ref = actor.note.remote(ref)
    assert ref.get(timeout=T) == "first"


def test_row40_a_chain_whose_head_fails_in_a_crash_fails_and_does_not_hang(log):
    actor = Phoenix.options(max_restarts=1).remote(str(log))
    actor.pid.remote().get(timeout=T)
    head = actor.die.remote()
    tail = actor.note.remote(head)
    after = actor.note.remote("after")
    assert isinstance(head.exception(timeout=T), ActorUnavailableError)
    assert isinstance(tail.exception(timeout=T), ActorUnavailableError)
    assert after.get(timeout=T) == "after"


def test_row40_per_method_retries_and_retry_exceptions(log):
    actor = Phoenix.remote(str(log))
    with pytest.raises(ConnectionError):
        actor.flaky.remote("one").get(timeout=T)
    again = actor.flaky.options(max_task_retries=5, retry_exceptions=[ConnectionError]).remote("two")
    assert again.get(timeout=T) == "two"
    assert lines(log) == ["one", "two", "two", "two"]
    other = actor.flaky.options(max_task_retries=5, retry_exceptions=[KeyError]).remote("three")
    assert isinstance(other.exception(timeout=T), ConnectionError)
    assert lines(log).count("three") == 1


def test_row40_a_retried_failure_reaches_no_call_that_rode_behind_it(log):
    actor = Phoenix.remote(str(log))
    head = actor.flaky.options(max_task_retries=5, retry_exceptions=True).remote("head")
    assert actor.note.remote(head).get(timeout=T) == "head"


def test_row40_an_intended_exit_never_restarts(log):
    actor = Phoenix.options(max_restarts=-1).remote(str(log))
    assert isinstance(actor.leave.remote().exception(timeout=T), ActorDiedError)
    assert isinstance(actor.pid.remote().exception(timeout=T), ActorDiedError)


def test_row40_infinite_restarts_and_the_count_is_shown(log):
    actor = Phoenix.options(max_restarts=-1, max_task_retries=-1, name="endless").remote(str(log))
    for n in range(4):
        assert actor.die_once.remote(f"x{n}").get(timeout=T) == f"x{n}"
    count = actor.__ray_call__.remote(lambda self: zmreg.get_runtime_context().actor_restarts).get(timeout=T)
    assert count == 4
    assert zmreg.get_actor("endless").pid.remote().get(timeout=T), "a named actor keeps its name over restarts"
    zmreg.kill(actor)


def test_row40_an_async_actor_restarts_too():
    @zmreg.remote(max_restarts=1)
    class Async:
        async def pid(self) -> int:
            return os.getpid()

        async def die(self) -> None:
            os._exit(9)

    actor = Async.remote()
    first = actor.pid.remote().get(timeout=T)
    error = actor.die.remote().exception(timeout=T)
    assert isinstance(error, ActorUnavailableError)
    assert "code 9" in str(error)
    assert when_back(actor.pid.remote) != first


def test_row40_other_callers_keep_their_order_over_a_restart(log):
    actor = Phoenix.options(max_restarts=2, max_task_retries=-1).remote(str(log))

    @zmreg.remote
    def caller(handle: Any, name: str) -> list[str]:
        refs = [handle.note.remote(f"{name}{n}") for n in range(30)]
        return zmreg.get(refs, timeout=T)

    theirs = [caller.options(num_cpus=0.5).remote(actor, name) for name in "pq"]
    mine = [actor.note.remote(f"m{n}") for n in range(10)]
    crash = actor.die_once.remote("crash")
    mine += [actor.note.remote(f"m{n}") for n in range(10, 20)]
    assert zmreg.get(mine, timeout=T) == [f"m{n}" for n in range(20)]
    assert crash.get(timeout=T) == "crash"
    assert zmreg.get(theirs, timeout=T) == [[f"{name}{n}" for n in range(30)] for name in "pq"]
    for name in "mpq":
        first_seen = list(dict.fromkeys(line for line in lines(log) if line.startswith(name)))
        assert first_seen == sorted(first_seen, key=lambda line: int(line[1:]))


# -- 41 ----------------------------------------------------------------------------------------------------------------


def test_row41_unavailable_is_for_now_and_died_is_for_good(log):
    actor = Phoenix.options(max_restarts=1).remote(str(log))
    pid = actor.pid.remote().get(timeout=T)
    hanging = actor.hang.remote()
    while "hang" not in lines(log):
        assert not hanging.done()
    os.kill(pid, signal.SIGKILL)
    assert isinstance(hanging.exception(timeout=T), ActorUnavailableError)
    second = actor.pid.remote().get(timeout=T)
    os.kill(second, signal.SIGKILL)
    error = None
    while error is None:
        error = actor.pid.remote().exception(timeout=T)
    assert isinstance(error, ActorDiedError)
    assert issubclass(ActorDiedError, zmreg.errors.ActorError) and issubclass(
        ActorUnavailableError, zmreg.errors.ActorError
    )


def test_row41_trap_a_silent_actor_is_not_dead(log):
    actor = Phoenix.remote(str(log))
    pid = actor.pid.remote().get(timeout=T)
    os.kill(pid, signal.SIGSTOP)
    try:
        call = actor.note.remote("late")
        with pytest.raises(zmreg.errors.GetTimeoutError):
            call.get(timeout=1.0)
    finally:
        os.kill(pid, signal.SIGCONT)
    assert call.get(timeout=T) == "late"


# -- faults 5 and 6 ----------------------------------------------------------------------------------------------------


def test_fault5_three_kills_two_restarts_order_kept_then_an_error(log):
    actor = Phoenix.options(max_restarts=2, max_task_retries=-1).remote(str(log))
    sent = 0
    for _ in range(2):
        refs = [actor.note.remote(n) for n in range(sent, sent + 50)]
        os.kill(actor.pid.remote().get(timeout=T), signal.SIGKILL)
        assert zmreg.get(refs, timeout=T) == list(range(sent, sent + 50))
        sent += 50
    assert list(dict.fromkeys(lines(log))) == [str(n) for n in range(sent)]
    os.kill(when_back(actor.pid.remote), signal.SIGKILL)
    error = None
    while error is None:
        error = actor.pid.remote().exception(timeout=T)
    assert isinstance(error, ActorDiedError)
    assert "SIGKILL" in str(error)


def test_fault6_constructor_raises_on_restart(tmp_path):
    flag = tmp_path / "broken"

    @zmreg.remote(max_restarts=1)
    class Fragile:
        def __init__(self) -> None:
            if flag.exists():
                raise OSError("the device is gone")

        def die(self) -> None:
            os._exit(1)

        def m(self) -> int:
            return 1

    actor = Fragile.remote()
    assert actor.m.remote().get(timeout=T) == 1
    flag.touch()
    # Unavailable while it restarts; dead if that is over when the answer is due.
    assert isinstance(actor.die.remote().exception(timeout=T), ActorUnavailableError | ActorDiedError)
    error = actor.m.remote().exception(timeout=T)
    assert isinstance(error, ActorDiedError)
    assert error.init_failed
    assert isinstance(error.cause, OSError)
    assert 'raise OSError("the device is gone")' in str(error)


def test_fault6_a_constructor_that_crashes_is_paced_and_then_given_up(tmp_path):
    starts = tmp_path / "starts"

    @zmreg.remote(max_restarts=1)
    class Crashes:
        def __init__(self) -> None:
            with open(starts, "a") as log:
                log.write("start\n")
            os._exit(5)

        def m(self) -> None: ...

    error = Crashes.remote().m.remote().exception(timeout=T)
    assert isinstance(error, ActorDiedError)
    assert "code 5" in str(error)
    assert starts.read_text().count("start") == 2


def test_fault6_a_constructor_that_raises_at_first_is_not_tried_again(tmp_path):
    starts = tmp_path / "starts"

    @zmreg.remote(max_restarts=-1)
    class Raises:
        def __init__(self) -> None:
            with open(starts, "a") as log:
                log.write("start\n")
            raise ValueError("always")

        def m(self) -> None: ...

    error = Raises.remote().m.remote().exception(timeout=T)
    assert isinstance(error, ActorDiedError) and error.init_failed
    assert starts.read_text().count("start") == 1
