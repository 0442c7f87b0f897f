"""X34: wait until crashed actors live again; those that never will are an error."""

from __future__ import annotations

import gc
import os
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

import zmreg
from zmreg.model.errors import ActorDiedError, ActorUnavailableError, GetTimeoutError

pytestmark = pytest.mark.usefixtures("cluster")
T = 30


@zmreg.remote(num_cpus=0, max_restarts=3)
class Gated:
    """Comes to life when its gate is there; may come to life badly."""

    def __init__(self, gate: str = "", bad: str = "") -> None:
        deadline = time.monotonic() + T
        while gate and not Path(gate).exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        if bad and Path(bad).exists():
            raise LookupError("nothing there")

    def pid(self) -> int:
        return os.getpid()

    def die(self) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    def hold(self, gate: str) -> int:
        Path(gate).with_suffix(".held").touch()
        Gated.__wrapped__(gate)
        return os.getpid()


@pytest.fixture(autouse=True)
def nobody_is_left() -> Iterator[None]:
    yield
    gc.collect()  # an error that was caught holds the frames it went through, and they hold handles
    zmreg.wait_for_actors(timeout=T)  # what a test has ended on purpose counts for nothing


def crash(actor: zmreg.ActorHandle) -> int:
    """The pid that it had."""
    pid: int = actor.pid.remote().get(timeout=T)
    assert isinstance(actor.die.remote().exception(timeout=T), ActorUnavailableError)
    return pid


@pytest.mark.parametrize("named", [True, False], ids=["by handle", "all"])
def test_X34_waits_until_crashed_actors_live_again(tmp_path: Path, named: bool):
    gate = tmp_path / "gate"
    gate.touch()
    actors = [Gated.remote(str(gate)) for _ in range(3)]
    zmreg.wait_for_actors(actors, timeout=T)
    zmreg.get([each.pid.remote() for each in actors], timeout=T)
    gate.unlink()
    pids = [crash(each) for each in actors[:2]]
    wanted = actors if named else None
    with pytest.raises(GetTimeoutError, match=r"2 of the actors did not live after 0.05 s: Gated \w+ \((re)?starting"):
        zmreg.wait_for_actors(wanted, timeout=0.05)
    zmreg.wait_for_actors(actors[2:], timeout=0)
    gate.touch()
    zmreg.wait_for_actors(wanted, timeout=T)
    zmreg.wait_for_actors(wanted, timeout=0)
    assert not {each.pid.remote().get(timeout=T) for each in actors} & set(pids)
    for each in actors:
        zmreg.kill(each)


def test_X34_actors_that_nobody_has_called_are_waited_for_too(tmp_path: Path):
    gate = tmp_path / "gate"
    actor = Gated.options(max_concurrency=2).remote(str(gate))
    with pytest.raises(GetTimeoutError, match="Gated"):
        zmreg.wait_for_actors(timeout=0)
    gate.touch()
    zmreg.wait_for_actors(timeout=T)
    later = tmp_path / "later"
    held = actor.hold.remote(str(later))
    assert actor.pid.remote().get(timeout=T), "it runs calls side by side, as before"
    later.touch()
    assert held.get(timeout=T)
    zmreg.kill(actor)


def test_X34_an_actor_that_runs_a_long_call_lives(tmp_path: Path):
    gate = tmp_path / "gate.long"
    actor = Gated.remote()
    held = actor.hold.remote(str(gate))
    zmreg.wait_for_actors([actor], timeout=T)
    assert not held.done()
    gate.touch()
    assert held.get(timeout=T)
    zmreg.kill(actor)


@pytest.mark.parametrize("called", [True, False], ids=["called", "never called"])
def test_X34_who_never_comes_back_is_an_error_at_once(tmp_path: Path, called: bool):
    gate, bad = tmp_path / "gate", tmp_path / "bad"
    bad.touch()
    actor = Gated.remote(str(gate), str(bad))
    ref = actor.pid.remote() if called else None
    with pytest.raises(GetTimeoutError):
        zmreg.wait_for_actors(timeout=0)
    gate.touch()
    with pytest.raises(ActorDiedError, match="LookupError: nothing there") as caught:
        zmreg.wait_for_actors(timeout=T)
    assert caught.value.init_failed and isinstance(caught.value.cause, LookupError)
    with pytest.raises(ActorDiedError):
        zmreg.wait_for_actors([actor], timeout=T)
    if ref is not None:
        assert isinstance(ref.exception(timeout=T), ActorDiedError)
    del actor, ref  # who holds no handle to it has no more to do with it


def test_X34_whose_end_was_wanted_is_no_error_unless_asked_for():
    killed, left, lives = (Gated.remote() for _ in range(3))
    zmreg.get([each.pid.remote() for each in (killed, left, lives)], timeout=T)
    zmreg.kill(killed)
    left.close(T)
    zmreg.wait_for_actors(timeout=T)
    with pytest.raises(ActorDiedError, match="killed"):
        zmreg.wait_for_actors([lives, killed], timeout=T)
    zmreg.kill(lives)


def test_X34_a_budget_that_is_used_up_is_told():
    actor = Gated.options(max_restarts=1).remote()
    crash(actor)
    zmreg.wait_for_actors([actor], timeout=T)
    actor.die.remote().exception(timeout=T)
    with pytest.raises(ActorDiedError, match="is dead"):
        zmreg.wait_for_actors(timeout=T)
    del actor


def test_X34_in_a_task_for_somebody_elses_actor():
    actor = Gated.remote()
    crash(actor)

    @zmreg.remote(num_cpus=0)
    def wait(boxed: list[zmreg.ActorHandle]) -> int:
        zmreg.wait_for_actors(boxed, timeout=T)
        zmreg.wait_for_actors(timeout=0)  # it has made none
        return boxed[0].pid.remote().get(timeout=T)

    assert wait.remote([actor]).get(timeout=T) == actor.pid.remote().get(timeout=T)
    zmreg.kill(actor)


def test_X34_only_handles():
    with pytest.raises(TypeError, match="actor handles, not int"):
        zmreg.wait_for_actors([3])


def test_an_actor_whose_constructor_failed_is_forgotten_with_its_last_handle(tmp_path: Path):
    """A fault: the error of its end kept the frames it was unpacked in, with its calls in them, and they the actor."""
    from zmreg.services.seat.seats import client

    bad = tmp_path / "bad"
    bad.touch()

    def use() -> None:
        actor = Gated.remote("", str(bad))
        refs = [actor.pid.remote() for _ in range(3)]
        assert all(isinstance(ref.exception(timeout=T), ActorDiedError) for ref in refs)

    before = set(client().tasks.peers)
    gc.collect()
    gc.disable()
    try:
        use()
        client().ask("actor", "\0")
        assert set(client().tasks.peers) <= before
    finally:
        gc.enable()
