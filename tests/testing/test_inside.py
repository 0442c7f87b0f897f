"""X36: a cluster within the process does what one of processes does: the same values, the same errors."""

from __future__ import annotations

import asyncio
import contextlib
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest

import zmreg
from zmreg import errors
from zmreg.testing import InProcess

T = 20


@pytest.fixture(scope="class")
def here() -> Iterator[object]:
    with InProcess(num_cpus=2, resources={"arm": 1}) as cluster:
        yield cluster


def spread(value: Any) -> Any:
    """What an error tells that must be alike wherever it comes from."""
    if isinstance(value, BaseException):
        bases = [cls.__name__ for cls in type(value).__mro__ if cls is not object]
        return [
            bases,
            getattr(value, "exit_code", None),
            str(value).splitlines()[0] if "(task" not in str(value) else "",
        ]
    return value


def outcome(probe: Callable[[], Any]) -> Any:
    try:
        return spread(probe())
    except Exception as error:  # noqa: BLE001  it is compared
        return spread(error)


def probes() -> dict[str, Callable[[], Any]]:
    """Whatever a fake of a cluster usually gets wrong."""
    made = types_of_the_program()
    f, actor, lock = made.function, made.actor, threading.Lock()

    def mutated() -> Any:
        mine = [1, {"a": [2]}]
        theirs = f(lambda x: (x[1]["a"].append(3), x)[1]).remote(mine).get(timeout=T)
        return mine, theirs

    def class_state() -> Any:
        class Counted:
            made = 0

            def __init__(self) -> None:
                type(self).made += 1

            def count(self) -> int:
                return type(self).made

        counters = [zmreg.remote(Counted).remote() for _ in range(2)]
        return [each.count.remote().get(timeout=T) for each in counters], Counted.made

    def captured() -> Any:
        held = [1]
        reads = zmreg.remote(lambda: held)
        first = reads.remote().get(timeout=T)
        held.append(2)
        return first, reads.remote().get(timeout=T)

    def read_only() -> Any:
        def write(x: Any) -> None:
            x[0] = 1

        big = zmreg.put(np.zeros(100_000))
        return outcome(lambda: f(write).remote(big).get(timeout=T)), big.get().flags.writeable

    def own_error() -> Any:
        class Own(ValueError):
            pass

        def fails() -> None:
            raise Own("mine") from KeyError("k")

        try:
            f(fails).remote().get(timeout=T)
        except Own as error:
            return isinstance(error, errors.TaskError), repr(error.__cause__), error.args
        return "nothing"

    def too_slow() -> Any:
        ref = f(time.sleep).remote(600)
        try:
            return ref.get(timeout=0.01)
        finally:
            zmreg.cancel(ref)

    return {
        "arguments are copies": mutated,
        "attributes of a class are a process's own": class_state,
        "a function is what it was when it was sent": captured,
        "stored values are read-only": read_only,
        "an error is of my class": own_error,
        "a lock cannot be sent": lambda: f(lambda x: x).remote(threading.Lock()),
        "nor be a result": lambda: f(threading.Lock).remote().get(timeout=T),
        "nor be captured": lambda: f(lambda: lock).remote(),
        "a timeout": too_slow,
        "no such resource": lambda: f(int).options(resources={"nowhere": 1}).remote().get(timeout=T),
        "a bad option": lambda: f(int).options(num_cpus=-1),
        "an unknown option": lambda: f(int).options(cpus=1),
        "wrong arguments": lambda: f(lambda a: a).remote(1, 2),
        "sys.exit": lambda: f(lambda: sys.exit(3)).options(max_retries=0).remote().get(timeout=T),
        "os._exit": lambda: f(lambda: os._exit(4)).options(max_retries=0).remote().get(timeout=T),
        "a constructor that raises": lambda: actor(fail=True).value.remote().get(timeout=T),
        "two values": lambda: zmreg.get(f(lambda: (1, 2)).options(num_returns=2).remote(), timeout=T),
        "too few values": lambda: zmreg.get(f(lambda: 1).options(num_returns=2).remote(), timeout=T),
        "no such actor": lambda: zmreg.get_actor("nobody"),
        "nobody serves it": lambda: zmreg.call("nothing.of.the.kind", 1),
        "a ref in a ref": lambda: zmreg.put([zmreg.put(1)]).get()[0].get(),
    }


class types_of_the_program:
    """Made anew for each cluster."""

    def __init__(self) -> None:
        @zmreg.remote
        class Actor:
            def __init__(self, fail: bool = False) -> None:
                if fail:
                    raise LookupError("no constructor")

            def value(self) -> int:
                return 1

        self.actor = Actor.remote
        self.function = zmreg.remote


def test_X36_what_comes_out_is_what_a_cluster_of_processes_gives() -> None:
    with InProcess(num_cpus=2):
        here = {name: outcome(probe) for name, probe in probes().items()}
    with zmreg.init(address="local", num_cpus=2):
        there = {name: outcome(probe) for name, probe in probes().items()}
    assert {name: (here[name], there[name]) for name in here if here[name] != there[name]} == {}
    assert len(here) > 15 and here["arguments are copies"] == ([1, {"a": [2]}], [1, {"a": [2, 3]}])


def test_X36_neither_children_nor_sockets_and_nothing_stays() -> None:
    def sockets() -> set[str]:
        links = set()
        for each in Path("/proc/self/fd").iterdir():
            with contextlib.suppress(OSError):
                links.add(os.readlink(each))
        return {link for link in links if link.startswith("socket")}

    before = (sockets(), {each.pid for each in psutil.Process().children()}, time.sleep, os.kill, os._exit)
    threads = set(threading.enumerate())
    with InProcess(num_cpus=2) as cluster:
        assert zmreg.remote(lambda: 1).remote().get(timeout=T) == 1
        assert zmreg.init(num_cpus=64).node_id == cluster.node_id
        assert sockets() <= before[0]
        assert {each.pid for each in psutil.Process().children()} <= before[1]
        with pytest.raises(RuntimeError, match="shutdown"):
            InProcess().start()
    assert (time.sleep, os.kill, os._exit) == before[2:]
    assert set(threading.enumerate()) <= threads
    assert not zmreg.is_initialized()
    assert not Path(cluster.session).exists()


@pytest.mark.usefixtures("here")
class TestHere:
    def test_X36_actors_of_each_kind_keep_their_state(self) -> None:
        @zmreg.remote
        class Plain:
            def __init__(self) -> None:
                self.n = 0

            def add(self, n: int) -> int:
                self.n += n
                return self.n

        @zmreg.remote(max_concurrency=2)
        class Threaded:
            def __init__(self) -> None:
                self.met = threading.Barrier(2)

            def meet(self) -> int:
                return self.met.wait(T) + 1

        @zmreg.remote
        class Async:
            def __init__(self) -> None:
                self.open = asyncio.Event()

            async def wait(self) -> str:
                await self.open.wait()
                return "open"

            async def let(self) -> None:
                self.open.set()

        plain, threaded, asyncs = Plain.options(name="sum").remote(), Threaded.remote(), Async.remote()
        assert [plain.add.remote(n).get(timeout=T) for n in (1, 2)] == [1, 3]
        assert zmreg.get_actor("sum").add.remote(1).get(timeout=T) == 4
        assert sorted(zmreg.get([threaded.meet.remote() for _ in range(2)], timeout=T)) == [1, 2]
        waits = asyncs.wait.remote()
        asyncs.let.remote()
        assert waits.get(timeout=T) == "open"

    def test_X36_generators_named_functions_and_nested_calls(self) -> None:
        @zmreg.remote
        def count(n: int) -> Iterator[int]:
            yield from range(n)

        @zmreg.remote
        def fib(n: int) -> int:
            return n if n < 2 else sum(zmreg.get([fib.remote(n - 1), fib.remote(n - 2)]))

        assert [ref.get(timeout=T) for ref in count.remote(5)] == list(range(5))
        assert fib.remote(5).get(timeout=T) == 5  # the two CPUs are lent out while it waits
        zmreg.register("double", lambda x: 2 * x)
        assert zmreg.call("double", 4) == 8

    def test_X36_what_raises_is_tried_again(self, tmp_path: Path) -> None:
        @zmreg.remote(max_retries=3, retry_exceptions=[OSError])
        def third_time() -> int:
            tries = len(list(tmp_path.iterdir()))
            (tmp_path / str(tries)).touch()
            if tries < 2:
                raise OSError(f"try {tries}")
            return tries

        assert third_time.remote().get(timeout=T) == 2

    @pytest.mark.parametrize("kind", ["sleeps", "computes", "awaits", "waits for a ref"])
    def test_X36_cancel_reaches_a_running_task(self, kind: str, tmp_path: Path) -> None:
        never = zmreg.remote(num_cpus=0)(lambda: time.sleep(60))
        pending = never.remote()

        async def awaits() -> None:
            (tmp_path / "began").touch()
            await asyncio.sleep(60)

        def runs() -> None:
            (tmp_path / "began").touch()
            if kind == "sleeps":
                time.sleep(60)
            while kind == "computes":
                pass
            zmreg.get(held)

        held = [pending]
        ref = zmreg.remote(num_cpus=0)(awaits if kind == "awaits" else runs).remote()
        while not (tmp_path / "began").exists():
            time.sleep(0.005)
        zmreg.cancel(ref)
        with pytest.raises(errors.TaskCancelledError):
            ref.get(timeout=T)
        zmreg.cancel(pending)
        assert zmreg.remote(lambda: "well").remote().get(timeout=T) == "well"

    def test_X36_a_killed_actor_is_dead_at_once_whatever_it_does(self) -> None:
        @zmreg.remote
        class Busy:
            def work(self) -> None:
                while True:
                    time.sleep(60)

            def life(self) -> int:
                return int(zmreg.get_runtime_context().was_current_actor_reconstructed)

        plain, restarts = Busy.remote(), Busy.options(max_restarts=1).remote()
        works = plain.work.remote()
        zmreg.kill(plain)
        with pytest.raises(errors.ActorDiedError):
            works.get(timeout=T)
        assert restarts.life.remote().get(timeout=T) == 0
        zmreg.kill(restarts, no_restart=False)
        assert restarts.life.remote().get(timeout=T) == 1

    def test_X36_an_actor_that_waits_for_itself_is_told(self) -> None:
        @zmreg.remote
        class Loop:
            def __init__(self) -> None:
                self.me: Any = None

            def know(self, me: list[Any]) -> None:
                self.me = me[0]

            def one(self) -> int:
                return self.me.two.remote().get()

            def two(self) -> int:
                return 2

        loop = Loop.remote()
        loop.know.remote([loop]).get(timeout=T)
        with pytest.raises(errors.DeadlockError):
            loop.one.remote().get(timeout=T)

    def test_X36_a_thread_that_a_task_starts_is_its_workers(self) -> None:
        @zmreg.remote
        def ask() -> tuple[str, str]:
            told: list[str] = []
            thread = threading.Thread(target=lambda: told.append(zmreg.get_runtime_context().get_worker_id()))
            thread.start()
            thread.join()
            return told[0], zmreg.get_runtime_context().get_worker_id()

        theirs, its = ask.remote().get(timeout=T)
        assert theirs == its != zmreg.get_runtime_context().get_worker_id()

    def test_X36_an_environment_of_its_own_is_refused(self) -> None:
        task = zmreg.remote(runtime_env={"env_vars": {"ZMREG_HERE": "1"}})(lambda: 1).remote()
        with pytest.raises(errors.RuntimeEnvSetupError, match="InProcess"):
            task.get(timeout=T)
        assert "ZMREG_HERE" not in os.environ

    def test_X36_os_kill_of_the_program_by_a_workers_pid_is_an_error(self) -> None:
        pid = zmreg.remote(os.getpid).remote().get(timeout=T)
        with pytest.raises(RuntimeError, match="this very program"):
            os.kill(pid, 9)


LEDGER: list[str] = []


def test_X36_modules_by_value_share_no_globals() -> None:
    with InProcess(num_cpus=1, by_value=[sys.modules[__name__]]):
        assert zmreg.remote(noted).remote("a").get(timeout=T) == ["a"]
        assert LEDGER == []


def noted(word: str) -> list[str]:
    LEDGER.append(word)
    return LEDGER


def test_X36_a_bad_setting_is_refused() -> None:
    with pytest.raises(TypeError, match="num_cpu"):
        InProcess(num_cpu=1)  # type: ignore[call-arg]  # as a user mistypes it
    with pytest.raises(ValueError, match="num_cpus"):
        InProcess(num_cpus=-1)


TESTS = """
import threading
import zmreg

@zmreg.remote
def name():
    return threading.current_thread().name

def test_one(zmreg_local):
    assert name.remote().get(timeout=20).startswith("zmreg-worker") == {local}

def test_two(zmreg_local):
    assert zmreg_local.num_cpus == 3
"""


@pytest.mark.parametrize("local", [True, False], ids=["threads", "processes"])
def test_pytest_row_the_fixture_is_one_cluster_for_the_run(tmp_path: Path, local: bool) -> None:
    (tmp_path / "test_mine.py").write_text(TESTS.replace("{local}", str(local)))
    (tmp_path / "pytest.ini").write_text("[pytest]\nzmreg_num_cpus = 3\n")
    options = ["--zmreg-in-process"] if local else []
    run_pytest(tmp_path, *options, passed=2)


def test_pytest_row_fixtures_for_one_test_each(tmp_path: Path) -> None:
    (tmp_path / "test_mine.py").write_text(
        "import zmreg\n"
        "def test_one(zmreg_in_process):\n"
        "    assert zmreg.get(zmreg.put(1)) == 1\n"
        "def test_two(zmreg_in_process):\n"
        "    assert zmreg_in_process.num_cpus == 2\n"
        "def test_three(zmreg_chaos):\n"
        "    zmreg_chaos.attach()\n"
        "    first, second, third = zmreg_chaos.nodes\n"
        "    zmreg_chaos.link(first.node_id, second.node_id)\n"
        "    zmreg_chaos.kill_node(third.node_id)\n"
    )
    run_pytest(tmp_path, passed=3)


def run_pytest(directory: Path, *options: str, passed: int) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-p", "zmreg.testing.pytest_plugin", "-p", "no:cacheprovider"]
    bare = {**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # others take seconds to load
    done = subprocess.run([*command, *options], cwd=directory, env=bare, capture_output=True, text=True, timeout=60)
    assert f"{passed} passed" in done.stdout, done.stdout + done.stderr


class TestNamedProcess:
    def test_X33_what_is_of_one_name_is_together_here_too(self, here: object) -> None:
        @zmreg.remote(process="model")
        def worker() -> str:
            return str(zmreg.get_runtime_context().get_worker_id())

        class Member:
            def ask(self, other: Any) -> str:
                return str(zmreg.get(other.answer.remote(), timeout=T)) if other is not None else ""

            def answer(self) -> str:
                return "here"

        made = zmreg.remote(process="model")(Member)
        first, second = made.remote(), made.remote()
        assert zmreg.get(first.ask.remote(second), timeout=T) == "here"
        assert len(set(zmreg.get([worker.remote() for _ in range(9)], timeout=T))) == 1
        zmreg.kill(first)
        with pytest.raises(errors.ActorDiedError):
            zmreg.get(first.answer.remote(), timeout=T)
        assert zmreg.get(second.answer.remote(), timeout=T) == "here"
