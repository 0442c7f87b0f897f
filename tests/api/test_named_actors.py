"""Names, namespaces and detached actors (core-api rows 35-37)."""

from __future__ import annotations

import gc
import os
import signal
import threading
from typing import Any

import pytest

import zmreg
from zmreg.model.errors import ActorDiedError, ActorExistsError, ActorUnavailableError

pytestmark = pytest.mark.usefixtures("cluster")
T = 30


@zmreg.remote
class Store:
    def __init__(self, value: Any = None) -> None:
        self.value = value

    def get(self) -> Any:
        return self.value

    def set(self, value: Any) -> None:
        self.value = value

    def pid(self) -> int:
        return os.getpid()

    def size(self) -> int:
        return len(self.value)


def test_row35_a_name_is_unique_per_namespace():
    first = Store.options(name="one").remote(1)
    with pytest.raises(ActorExistsError, match=r"'one' is taken .* by a Store"):
        Store.options(name="one").remote(2)
    with pytest.raises(ValueError):
        Store.options(name="one").remote(2)
    other = Store.options(name="one", namespace="elsewhere").remote(3)
    assert zmreg.get_actor("one").get.remote().get(timeout=T) == 1
    assert zmreg.get_actor("one", namespace="elsewhere").get.remote().get(timeout=T) == 3
    assert first != other


def test_row35_missing_empty_and_wrong_names_are_value_errors():
    with pytest.raises(ValueError, match="nobody"):
        zmreg.get_actor("nobody")
    with pytest.raises(ValueError, match="empty"):
        zmreg.get_actor("")
    with pytest.raises(ValueError, match="empty"):
        Store.options(name="")
    with pytest.raises(ValueError, match="get_if_exists"):
        Store.options(get_if_exists=True)


def test_row35_get_if_exists_gets_or_creates():
    first = Store.options(name="shared", get_if_exists=True).remote(1)
    second = Store.options(name="shared", get_if_exists=True).remote(2)
    assert first == second
    assert second.get.remote().get(timeout=T) == 1


def test_row35_trap_get_if_exists_is_safe_under_races():
    @zmreg.remote
    def claim(n: int) -> list[Any]:
        return [Store.options(name="raced", get_if_exists=True, lifetime="detached").remote(n)]

    handles = [box[0] for box in zmreg.get([claim.remote(n) for n in range(16)], timeout=T)]
    mine: list[Any] = []
    threads = [
        threading.Thread(target=lambda: mine.append(Store.options(name="raced", get_if_exists=True).remote(-1)))
        for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(T)
    assert len({*handles, *mine}) == 1
    assert len(set(zmreg.get([handle.get.remote() for handle in handles], timeout=T))) == 1
    zmreg.kill(handles[0])


def test_row35_trap_exactly_one_of_many_wins_a_name():
    @zmreg.remote
    def claim(n: int) -> int:
        try:
            Store.options(name="prize", lifetime="detached").remote(n)
        except ActorExistsError:
            return -1
        return n

    winners = [n for n in zmreg.get([claim.remote(n) for n in range(16)], timeout=T) if n >= 0]
    assert len(winners) == 1
    prize = zmreg.get_actor("prize")
    assert prize.get.remote().get(timeout=T) == winners[0]
    zmreg.kill(prize)


def test_row35_trap_the_name_is_free_when_kill_returns():
    for n in range(20):
        actor = Store.options(name="phoenix").remote(n)
        if n % 2:
            assert actor.get.remote().get(timeout=T) == n
        zmreg.kill(actor)


def test_row35_a_name_can_be_had_before_its_actor_runs():
    @zmreg.remote
    def never_mind() -> int:
        return 7

    actor = Store.options(name="early").remote(never_mind.remote())
    found = zmreg.get_actor("early")
    assert found == actor
    assert found.get.remote().get(timeout=T) == 7


def test_row35_a_refused_actor_never_runs(tmp_path):
    @zmreg.remote
    class Marks:
        def __init__(self, path: str) -> None:
            open(path, "w").close()

    keep = Marks.options(name="marks").remote(str(tmp_path / "first"))
    assert keep.__ray_ready__.remote().get(timeout=T)
    with pytest.raises(ActorExistsError):
        Marks.options(name="marks").remote(str(tmp_path / "second"))
    assert os.listdir(tmp_path) == ["first"]


def test_row36_detached_outlives_its_creator_and_its_handles():
    @zmreg.remote
    def create() -> int:
        Store.options(name="daemon", lifetime="detached").remote("kept")
        return os.getpid()

    creator = create.remote().get(timeout=T)
    os.kill(creator, signal.SIGKILL)
    gc.collect()
    found = zmreg.get_actor("daemon")
    assert found.get.remote().get(timeout=T) == "kept"
    zmreg.kill(found)
    with pytest.raises(ValueError, match="daemon"):
        zmreg.get_actor("daemon")


def test_row36_an_actor_that_is_not_detached_dies_with_its_creator():
    @zmreg.remote
    class Parent:
        def __init__(self) -> None:
            self.child = Store.options(name="child").remote("mine")

        def pid(self) -> int:
            self.child.get.remote().get(timeout=T)
            return os.getpid()

    parent = Parent.remote()
    pid = parent.pid.remote().get(timeout=T)
    child = zmreg.get_actor("child")
    os.kill(pid, signal.SIGKILL)
    while (error := child.get.remote().exception(timeout=T)) is None:
        continue
    assert isinstance(error, ActorDiedError)
    assert "owner" in str(error)


def test_row36_trap_a_detached_actor_restarts_without_its_creator():
    blob = b"x" * 1_000_000

    @zmreg.remote
    def create(data: bytes) -> int:
        Store.options(name="durable", lifetime="detached", max_restarts=1).remote(data)
        return os.getpid()

    os.kill(create.remote(blob).get(timeout=T), signal.SIGKILL)
    durable = zmreg.get_actor("durable")
    assert durable.size.remote().get(timeout=T) == len(blob)
    pid = durable.pid.remote().get(timeout=T)
    os.kill(pid, signal.SIGKILL)
    while True:
        try:
            assert durable.size.remote().get(timeout=T) == len(blob)
            break
        except ActorUnavailableError:
            continue
    assert durable.pid.remote().get(timeout=T) != pid
    zmreg.kill(durable)


def test_row36_lifetime_takes_known_values_only():
    with pytest.raises(ValueError, match="detached"):
        Store.options(lifetime="forever")


def test_row37_the_error_names_the_namespace():
    Store.options(name="hidden", namespace="secret", lifetime="detached").remote()
    with pytest.raises(ValueError, match="'hidden' in namespace 'public'"):
        zmreg.get_actor("hidden", namespace="public")
    with pytest.raises(ActorExistsError, match="'secret'"):
        Store.options(name="hidden", namespace="secret").remote()
    zmreg.kill(zmreg.get_actor("hidden", namespace="secret"))


def test_row37_workers_are_in_their_drivers_namespace():
    actor = Store.options(name="local").remote("found")

    @zmreg.remote
    def find() -> tuple[str, str]:
        return zmreg.get_runtime_context().namespace, zmreg.get_actor("local").get.remote().get(timeout=T)

    assert find.remote().get(timeout=T) == (zmreg.get_runtime_context().namespace, "found")
    del actor
