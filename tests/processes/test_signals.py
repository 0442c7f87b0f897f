"""Ctrl-C, signals that user code changes, and forks: who is interrupted, and who is not."""

from __future__ import annotations

import os
import signal
import threading
import time

import pytest

import zmreg
from tests.footprint import ticks
from tests.processes.drivers import Driver

# What the promise names is 0.5 s; the machine may be loaded by others.
PROMPT_S = 0.5

WAITING = """
zmreg.init(num_cpus=3)
handler = signal.getsignal(signal.SIGINT)
@zmreg.remote
def slow(seconds):
    time.sleep(seconds)
    return seconds
@zmreg.remote
def quick(x):
    return x
quick.remote(1).get(timeout=20)
for how in ("get", "get", "wait", "as_completed", "list"):
    refs = [slow.remote(3), slow.remote(3)]
    say("waiting", how)
    try:
        if how == "get":
            refs[0].get(timeout=20)
        elif how == "wait":
            zmreg.wait(refs, num_returns=2, timeout=20)
        elif how == "as_completed":
            list(zmreg.as_completed(refs))
        else:
            zmreg.get(refs)
        say("returned", "value")
    except KeyboardInterrupt:
        say("returned", "interrupt", time.monotonic())
    assert signal.getsignal(signal.SIGINT) is handler
    assert quick.remote(7).get(timeout=20) == 7
    for ref in refs:
        ref.cancel()
assert zmreg.get([quick.remote(i) for i in range(100)], timeout=20) == list(range(100))
say("usable")
"""


def test_fault17_ctrl_c_in_get_returns_at_once_and_the_cluster_stays_usable():
    with Driver(WAITING) as driver:
        for how in ("get", "get", "wait", "as_completed", "list"):
            assert driver.after("waiting") == how
            pause_until_it_sleeps(driver)
            sent = time.monotonic()
            driver.interrupt()
            verdict, _, returned = driver.after("returned").partition(" ")
            assert verdict == "interrupt"
            assert float(returned) - sent < PROMPT_S, how
        driver.after("usable")
        assert driver.end() == 0
        told = driver.stderr().splitlines()
        assert all("go on. zmreg.cancel" in line or "goes on. zmreg.cancel" in line for line in told), (
            "and nothing else"
        )


def pause_until_it_sleeps(driver: Driver) -> None:
    """The program said that it is about to wait; give it the time to be there. Early would be an interrupt elsewhere.

    It is there when it is found asleep several times in a row: a short sleep is a wait for the GIL, or for its stdout.
    """
    asleep = 0
    for _ in ticks(time.monotonic() + 5):
        with open(f"/proc/{driver.process.pid}/syscall") as file:
            number = file.read().split()[0]
        asleep = asleep + 1 if number in ("7", "271", "202") else 0  # poll, ppoll, futex
        if asleep == 8:
            return


def test_fault17_ctrl_c_while_another_thread_pumps_and_a_follower_waits():
    source = """
    zmreg.init(num_cpus=2)
    @zmreg.remote
    def slow(seconds):
        time.sleep(seconds)
        return seconds
    other = []
    def follow():
        other.append(slow.remote(2).get(timeout=30))
    thread = threading.Thread(target=follow)
    thread.start()
    ref = slow.remote(20)
    say("waiting")
    try:
        ref.get(timeout=30)
    except KeyboardInterrupt:
        say("returned", time.monotonic())
    ref.cancel()
    thread.join()
    say("other", other)
    say("after", slow.remote(0).get(timeout=20))
    """.replace("\n    ", "\n")
    with Driver(source) as driver:
        driver.after("waiting")
        pause_until_it_sleeps(driver)
        sent = time.monotonic()
        driver.interrupt()
        assert float(driver.after("returned")) - sent < PROMPT_S
        assert driver.after("other") == "[2]", "only the main thread is interrupted"
        assert driver.after("after") == "0"
        assert driver.end() == 0


def test_fault17_ctrl_c_ends_a_program_that_does_not_catch_it_without_a_trace_of_the_cluster():
    waits = "zmreg.init(num_cpus=1); ref = zmreg.remote(time.sleep).remote(60); say('waiting'); ref.get()"
    with Driver(waits) as driver:
        driver.after("waiting")
        pause_until_it_sleeps(driver)
        driver.interrupt()
        assert driver.end(timeout=10) in (-signal.SIGINT, 1, 130)
        lines = driver.stderr().splitlines()
        assert lines[-1] == "KeyboardInterrupt"
        assert sum(line.startswith("Traceback") for line in lines) == 1
        assert driver.left(5.0) == []


def test_fault17_ctrl_c_during_init_leaves_nothing():
    source = """
    try:
        say("starting")
        zmreg.init(num_cpus=1)
        say("up")
    except KeyboardInterrupt:
        say("interrupted")
    say("again", zmreg.init(num_cpus=1).num_cpus, zmreg.remote(len).remote("ab").get(timeout=20))
    """.replace("\n    ", "\n")
    with Driver(source) as driver:
        driver.after("starting")
        driver.member("node")
        driver.interrupt()
        assert driver.line() == "interrupted"
        assert driver.after("again") == "1.0 2"
        assert len(driver.member("node")) == 1
        assert driver.end() == 0


def test_fault17_the_users_own_handler_is_run_and_kept():
    source = """
    seen = []
    signal.signal(signal.SIGINT, lambda number, frame: seen.append(number))
    mine = signal.getsignal(signal.SIGINT)
    zmreg.init(num_cpus=1)
    @zmreg.remote
    def slow(seconds):
        time.sleep(seconds)
        return seconds
    ref = slow.remote(2)
    say("waiting")
    say("value", ref.get(timeout=30), seen, signal.getsignal(signal.SIGINT) is mine)
    """.replace("\n    ", "\n")
    with Driver(source) as driver:
        driver.after("waiting")
        pause_until_it_sleeps(driver)
        driver.interrupt()
        assert driver.after("value") == "2 [2] True", "a handler that does not raise does not end the wait"


def test_row66_init_leaves_signal_handlers_alone():
    source = """
    before = [signal.getsignal(number) for number in range(1, 32)]
    zmreg.init(num_cpus=1)
    zmreg.remote(len).remote("ab").get(timeout=20)
    assert before == [signal.getsignal(number) for number in range(1, 32)]
    zmreg.shutdown()
    assert before == [signal.getsignal(number) for number in range(1, 32)]
    say("same")
    """.replace("\n    ", "\n")
    with Driver(source) as driver:
        driver.after("same")
        assert driver.end() == 0


def test_fault17_ctrl_c_in_the_terminal_does_not_reach_node_or_workers():
    """The terminal sends SIGINT to the whole foreground process group."""
    with Driver(
        "os.setpgid(0, 0); zmreg.init(num_cpus=1); f = zmreg.remote(os.getpid); pid = f.remote().get(timeout=20)\n"
        "ref = zmreg.remote(time.sleep).remote(2)\nsay('waiting')\n"
        "try:\n    ref.get()\nexcept KeyboardInterrupt:\n    say('interrupted')\n"
        "ref.get(timeout=20)\nsay('same', f.remote().get(timeout=20) == pid)\n"
    ) as driver:
        driver.after("waiting")
        pause_until_it_sleeps(driver)
        os.killpg(driver.process.pid, signal.SIGINT)
        driver.after("interrupted")
        assert driver.after("same") == "True"


# -- forks ----------------------------------------------------------------------------------------------------------


def test_C45_a_forked_child_of_the_driver_gets_a_typed_error_and_can_init_itself():
    source = """
    zmreg.init(num_cpus=1)
    ref = zmreg.put(1)
    f = zmreg.remote(len)
    def call(what):
        try:
            return what()
        except Exception as error:
            return type(error).__name__
    pid = os.fork()
    if pid == 0:
        say("child", *(call(each) for each in (
            lambda: f.remote("a"), lambda: ref.get(timeout=5), lambda: zmreg.put(2), zmreg.nodes,
            lambda: zmreg.wait([ref]), zmreg.is_initialized)))
        zmreg.shutdown()
        zmreg.init(num_cpus=1)
        say("own", f.remote("abc").get(timeout=20))
        zmreg.shutdown()
        os._exit(0)
    os.waitpid(pid, 0)
    say("parent", ref.get(timeout=20), f.remote("ab").get(timeout=20))
    """.replace("\n    ", "\n")
    with Driver(source) as driver:
        assert driver.after("child") == " ".join(["ForkedContextError"] * 5 + ["False"])
        assert driver.after("own") == "3"
        assert driver.after("parent") == "1 2"
        assert driver.end() == 0
        assert driver.left(5.0) == []


def test_C45_a_fork_while_other_threads_use_the_cluster():
    """A lock that another thread held at the fork is never released in the child: the child must not need it."""
    source = """
    zmreg.init(num_cpus=1)
    f = zmreg.remote(len)
    stop = []
    def busy():
        while not stop:
            zmreg.get([f.remote("ab") for _ in range(20)], timeout=30)
    threads = [threading.Thread(target=busy) for _ in range(2)]
    for thread in threads:
        thread.start()
    f.remote("a").get(timeout=20)
    codes = []
    for _ in range(20):
        pid = os.fork()
        if pid == 0:
            signal.alarm(10)
            try:
                f.remote("a")
            except zmreg.errors.ForkedContextError:
                os._exit(7)
            os._exit(1)
        codes.append(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]))
    stop.append(1)
    for thread in threads:
        thread.join()
    say("codes", set(codes))
    """.replace("\n    ", "\n")
    with Driver(source) as driver:
        assert driver.after("codes") == "{7}"
        assert driver.end() == 0


def in_child(action):
    """Run `action()` in a forked child; returns what it returns, as text."""
    read, write = os.pipe()
    pid = os.fork()
    if pid == 0:
        signal.alarm(20)
        try:
            answer = str(action())
        except BaseException as error:  # noqa: BLE001  whatever it is, the parent asks for its name
            answer = type(error).__name__
        os.write(write, answer.encode())
        os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        answer = pipe.read()
    os.waitpid(pid, 0)
    return answer


def test_fault62_a_forked_child_of_a_worker_gets_a_typed_error_and_the_worker_goes_on(cluster):
    @zmreg.remote
    def forks():
        return os.getpid(), in_child(lambda: zmreg.put(1)), in_child(lambda: zmreg.remote(len).remote("ab").get())

    _, *answers = forks.remote().get(timeout=30)
    assert answers == ["ForkedContextError"] * 2
    assert zmreg.remote(len).remote("ab").get(timeout=20) == 2


def test_fault62_a_forked_child_of_a_worker_may_start_a_cluster_of_its_own(cluster):
    def own():
        with zmreg.init(num_cpus=1):
            return zmreg.remote(len).remote("abcd").get(timeout=20)

    @zmreg.remote
    def forks():
        return in_child(own)

    assert forks.remote().get(timeout=40) == "4"


def test_fault62_multiprocessing_pool_inside_a_task(cluster):
    @zmreg.remote
    def pool():
        import multiprocessing

        with multiprocessing.get_context("fork").Pool(2) as workers:
            return workers.map(len, ["a", "bb", "ccc"])

    assert pool.remote().get(timeout=40) == [1, 2, 3]


def test_fault62_user_code_that_changes_signals_harms_only_itself(cluster):
    @zmreg.remote
    def deaf():
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1):
            signal.signal(number, signal.SIG_IGN)
        signal.alarm(0)
        return os.getpid()

    @zmreg.remote
    def endless():
        while True:
            time.sleep(0.01)

    assert all(pid > 0 for pid in zmreg.get([deaf.remote() for _ in range(8)], timeout=20))
    assert zmreg.get([zmreg.remote(len).remote("ab") for _ in range(8)], timeout=20) == [2] * 8
    refs = [endless.remote(), endless.remote()]
    started = zmreg.remote(len).options(num_cpus=0).remote("a")
    assert started.get(timeout=20) == 1
    for ref in refs:
        ref.cancel()
    for ref in refs:
        with pytest.raises(zmreg.errors.TaskCancelledError):
            ref.get(timeout=20)


def test_fault17_an_interrupt_of_a_thread_that_is_not_main_does_nothing(cluster):
    """SIGINT handlers run on the main thread only: a wait elsewhere is not disturbed by them."""
    values: list[int] = []
    thread = threading.Thread(target=lambda: values.append(zmreg.remote(len).remote("abc").get(timeout=20)))
    thread.start()
    thread.join(30)
    assert values == [3]


def test_fault62_a_forked_child_that_returns_or_exits_does_not_answer_for_the_worker(cluster):
    @zmreg.remote(max_retries=0)
    def forks(how):
        pid = os.fork()
        if pid == 0:
            if how == "exit":
                raise SystemExit(3)
            return "from the child"
        _, status = os.waitpid(pid, 0)
        return os.waitstatus_to_exitcode(status)

    assert forks.remote("exit").get(timeout=20) == 3
    assert forks.remote("return").get(timeout=20) == 1
    assert zmreg.remote(len).remote("ab").get(timeout=20) == 2
