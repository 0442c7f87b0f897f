"""Coming and going: init and shutdown in any order, exits with work under way, starts that fail."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time

import pytest

import zmreg
from tests.processes.drivers import ROOT, Driver
from zmreg.model.errors import ClusterError
from zmreg.services.machine import directories
from zmreg.services.setup import launch

PATIENCE_S = 30


@zmreg.remote
def square(x):
    return x * x


@zmreg.remote
class Counter:
    def __init__(self):
        self.total = 0

    def add(self):
        self.total += 1
        return self.total


def test_row67_shutdown_is_idempotent_and_functions_work_again_after_a_new_init():
    assert not zmreg.is_initialized()
    zmreg.shutdown()
    for _ in range(3):
        zmreg.init(num_cpus=1)
        assert zmreg.is_initialized()
        assert square.remote(3).get(timeout=PATIENCE_S) == 9
        assert Counter.remote().add.remote().get(timeout=PATIENCE_S) == 1
        zmreg.shutdown()
        zmreg.shutdown()
        assert not zmreg.is_initialized()


def test_row66_init_again_with_the_same_arguments_is_harmless_with_others_an_error():
    first = zmreg.init(num_cpus=1, namespace="a")
    try:
        assert zmreg.init(num_cpus=1, namespace="a").node_id == first.node_id
        with pytest.raises(RuntimeError, match="num_cpus=1 .now 2."):
            zmreg.init(num_cpus=2, namespace="a")
        assert zmreg.init(num_cpus=2, ignore_reinit_error=True).node_id == first.node_id
        assert square.remote(3).get(timeout=PATIENCE_S) == 9
    finally:
        zmreg.shutdown()


def test_row66_the_context_manager_shuts_down():
    with zmreg.init(num_cpus=1) as cluster:
        assert cluster.num_cpus == 1
        assert square.remote(2).get(timeout=PATIENCE_S) == 4
    assert not zmreg.is_initialized()


def test_row66_the_first_api_call_starts_a_cluster():
    with Driver(
        "say('up', zmreg.is_initialized(), zmreg.remote(len).remote('abc').get(timeout=20), zmreg.is_initialized())"
    ) as driver:
        assert driver.after("up") == "False 3 True"
        assert driver.end() == 0
        assert driver.stderr() == ""
        assert driver.left(5.0) == []


def test_row66_bad_arguments_are_told_before_anything_starts():
    with pytest.raises(ValueError, match="negative"):
        zmreg.init(num_cpus=-1)
    with pytest.raises(TypeError, match="num_cpu"):
        zmreg.init(num_cpu=1)
    assert not zmreg.is_initialized()


def test_row67_refs_and_handles_of_an_earlier_session_are_told_as_such():
    zmreg.init(num_cpus=1)
    ref, counter = square.remote(3), Counter.remote()
    assert ref.get(timeout=PATIENCE_S) == 9
    assert counter.add.remote().get(timeout=PATIENCE_S) == 1
    pending = zmreg.remote(time.sleep).remote(60)
    zmreg.shutdown()
    zmreg.init(num_cpus=1)
    try:
        with pytest.raises(zmreg.errors.ZmregError):
            pending.get(timeout=5)
        with pytest.raises(zmreg.errors.ZmregError):
            counter.add.remote().get(timeout=5)
        assert square.remote(4).get(timeout=PATIENCE_S) == 16
    finally:
        zmreg.shutdown()


@pytest.mark.alone
def test_C1_import_start_and_first_result_are_fast():
    """The bounds the row names, with room for a machine that others load."""
    source = """
    import time
    begin = time.monotonic()
    import zmreg
    imported = time.monotonic()
    zmreg.init(num_cpus=1)
    up = time.monotonic()
    zmreg.remote(len).remote("ab").get(timeout=20)
    print(imported - begin, up - imported, time.monotonic() - begin)
    """.replace("\n    ", "\n")
    best = [9.0, 9.0, 9.0]
    for _ in range(3):
        run = subprocess.run(
            [sys.executable, "-c", source], capture_output=True, text=True, timeout=60, check=True,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )  # fmt: skip
        best = [min(pair) for pair in zip(best, map(float, run.stdout.split()), strict=True)]
        if best[0] < 0.3 and best[1] < 1.0 and best[2] < 1.5:
            return
    pytest.fail(f"import, init, first result took {best} s at best")


def test_C36_a_clean_shutdown_prints_nothing():
    source = """
    zmreg.init(num_cpus=2)
    @zmreg.remote
    class Actor:
        async def wait(self):
            return 1
    actor = Actor.options(name="one").remote()
    assert actor.wait.remote().get(timeout=20) == 1
    refs = [zmreg.remote(len).remote("ab") for _ in range(100)]
    assert zmreg.get(refs, timeout=20) == [2] * 100
    big = zmreg.put(bytes(1 << 20))
    view = big.get(timeout=20)
    later = zmreg.remote(time.sleep).remote(60)
    zmreg.shutdown()
    zmreg.shutdown()
    say("down")
    """.replace("\n    ", "\n")
    with Driver(source) as driver:
        driver.after("down")
        assert driver.end() == 0
        assert driver.stderr() == ""
        assert driver.left(5.0) == []


def test_C36_answers_that_come_while_a_program_leaves_are_no_error():
    source = """
    for _ in range(3):
        zmreg.init(num_cpus=2)
        work = zmreg.remote(time.sleep)
        refs = [work.remote(0.002) for _ in range(400)]
        refs[50].get(timeout=20)
        zmreg.shutdown()
    say("down")
    """.replace("\n    ", "\n")
    with Driver(source) as driver:
        driver.after("down")
        assert driver.end() == 0
        assert driver.stderr() == ""


@pytest.mark.parametrize("way", ["sys.exit(3)", "raise SystemExit(3)", "os._exit(3)", "end"])
def test_fault16_a_driver_that_exits_with_calls_in_flight(way):
    source = f"""
    zmreg.init(num_cpus=2)
    @zmreg.remote
    class Slow:
        def nap(self):
            time.sleep(60)
    slow = Slow.remote()
    refs = [zmreg.remote(time.sleep).remote(60) for _ in range(10)] + [slow.nap.remote()]
    zmreg.remote(len).options(num_cpus=0).remote("a").get(timeout=20)
    say("leaving", time.monotonic())
    {"pass" if way == "end" else way}
    """.replace("\n    ", "\n")
    with Driver(source) as driver:
        left = float(driver.after("leaving"))
        assert driver.end(timeout=20) == (0 if way == "end" else 3)
        assert time.monotonic() - left < 5
        assert driver.stderr() == ""
        assert driver.left(5.0) == []


def test_fault63_calls_from_finalizers_and_atexit_handlers_do_not_hang():
    source = """
    import atexit
    f = zmreg.remote(len)
    @atexit.register
    def late():
        say("late", typed(lambda: f.remote("abc").get(timeout=10)))
    zmreg.init(num_cpus=1)
    @atexit.register
    def early():
        say("early", typed(lambda: f.remote("ab").get(timeout=10)))
    class Final:
        def __del__(self):
            say("final", typed(lambda: f.remote("a").get(timeout=10)))
    kept = Final()
    f.remote("a").get(timeout=20)
    """.replace("\n    ", "\n")
    with Driver(source) as driver:
        assert driver.after("early") == "2"
        assert driver.end(timeout=30) == 0
        assert "Traceback" not in driver.stderr()
        assert driver.left(5.0) == []


def test_fault63_a_daemon_thread_in_a_call_does_not_hold_up_the_exit():
    source = """
    zmreg.init(num_cpus=1)
    f = zmreg.remote(time.sleep)
    thread = threading.Thread(target=lambda: typed(lambda: f.remote(60).get()), daemon=True)
    thread.start()
    zmreg.remote(len).options(num_cpus=0).remote("ab").get(timeout=20)
    say("leaving")
    """.replace("\n    ", "\n")
    with Driver(source) as driver:
        driver.after("leaving")
        assert driver.end(timeout=20) == 0
        assert driver.left(5.0) == []


def test_C43_every_kind_of_wait_ends_when_the_node_is_killed():
    source = """
    zmreg.init(num_cpus=2)
    f = zmreg.remote(time.sleep)
    @zmreg.remote
    class Slow:
        def nap(self):
            time.sleep(60)
    slow = Slow.remote()
    ref = f.remote(60)
    done = zmreg.put(bytes(1 << 20))
    waits = {
        "get": lambda: ref.get(), "list": lambda: zmreg.get([ref, f.remote(60)]),
        "actor": lambda: slow.nap.remote().get(),
        "completed": lambda: [each.get() for each in zmreg.as_completed([ref])],
        "nodes": lambda: [zmreg.nodes() for _ in range(10**6)],
        "future": lambda: ref.future().result(), "put": lambda: [zmreg.put(bytes(1 << 20)) for _ in range(10**6)],
        "exception": lambda: say("exception", type(ref.exception()).__name__),
    }
    threads = [threading.Thread(target=lambda name=name, wait=wait: say(name, typed(wait)))
               for name, wait in waits.items()]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    os.kill(json.loads(pids())["node"], signal.SIGKILL)
    for thread in threads:
        thread.join(20)
    say("after", typed(lambda: f.remote(1)), typed(lambda: done.get(timeout=5)), typed(zmreg.nodes))
    zmreg.shutdown()
    zmreg.init(num_cpus=1)
    say("again", zmreg.remote(len).remote("ab").get(timeout=20))
    """.replace("\n    ", "\n")
    with Driver(source) as driver:
        heard = {}
        while (line := driver.line()).split()[0] != "after":
            name, verdict = line.split(" ", 1)
            heard.setdefault(name, verdict)
        assert set(heard) == {"get", "list", "actor", "completed", "nodes", "future", "put", "exception"}
        assert set(heard.values()) <= {"ClusterError"}, heard
        assert line == "after ClusterError ClusterError ClusterError"
        assert driver.after("again") == "2"
        assert driver.end() == 0
        assert driver.left(5.0) == []


# -- starts that fail -------------------------------------------------------------------------------------------------


def test_C1_a_node_that_cannot_start_says_why_and_leaves_nothing(monkeypatch):
    broken = 'import sys; print("a line of the log", file=sys.stderr); sys.exit(5)'
    monkeypatch.setattr(launch, "NODE_PROGRAM", broken)
    with pytest.raises(ClusterError, match="code 5") as caught:
        zmreg.init(num_cpus=1)
    assert "a line of the log" in str(caught.value)
    assert not zmreg.is_initialized()


def test_C1_a_node_that_hangs_at_the_start_is_given_up_and_killed(monkeypatch):
    monkeypatch.setattr(launch, "NODE_PROGRAM", "import signal; signal.pause()")
    monkeypatch.setattr(launch, "START_TIMEOUT_S", 0.3)
    with pytest.raises(ClusterError, match="not ready in"):
        zmreg.init(num_cpus=1)
    assert not zmreg.is_initialized()


def test_C1_a_store_that_cannot_be_made_is_told(monkeypatch):
    with pytest.raises(ClusterError, match="could not start"):
        zmreg.init(num_cpus=1, object_store_bytes=100)
    assert not zmreg.is_initialized()


def test_a_runtime_directory_that_others_can_enter_is_refused(monkeypatch):
    directory = tempfile.mkdtemp(prefix="zr-")  # shorter than tmp_path: a socket path holds 107 characters
    monkeypatch.setenv("XDG_RUNTIME_DIR", directory)
    root = directories.runtime_root()
    root.mkdir()
    root.chmod(0o755)
    with pytest.raises(ClusterError, match="0700"):
        zmreg.init(num_cpus=1)
    assert not zmreg.is_initialized()
    shutil.rmtree(directory)
