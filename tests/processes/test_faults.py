"""Workers that die, user code that misbehaves, messages that come twice: the rows of the fault table, by number."""

from __future__ import annotations

import ctypes
import json
import os
import random
import signal
import sys
import threading
import time

import pytest

import zmreg
from tests.processes.drivers import Driver, eventually
from zmreg.model.errors import (
    SerializationError,
    TaskCancelledError,
    TaskError,
    WorkerDiedError,
)
from zmreg.services.seat.client import current

PATIENCE_S = 30


def add_line(path, text="x"):
    """Append one line in one write: safe from several processes."""
    with open(path, "a") as file:
        file.write(f"{text}\n")


def lines(path):
    """How many lines there are."""
    if not os.path.exists(path):
        return 0
    with open(path) as file:
        return len(file.readlines())


def workers():
    """{pid: ready} of the plain workers."""
    return {row["Pid"]: row["Ready"] for row in current().ask("workers") if row["Pid"]}


def square(x):
    return x * x


def test_fault1_an_idle_worker_killed_is_replaced_and_nobody_hears_of_it(cluster):
    assert zmreg.remote(square).remote(3).get(timeout=PATIENCE_S) == 9
    before = eventually(lambda: {pid for pid, ready in workers().items() if ready}, PATIENCE_S, "no worker is ready")
    for pid in before:
        os.kill(pid, signal.SIGKILL)
    eventually(lambda: any(ready and pid not in before for pid, ready in workers().items()), PATIENCE_S, "not replaced")
    assert zmreg.remote(square).remote(4).get(timeout=PATIENCE_S) == 16


def test_fault2_a_worker_killed_in_the_middle_of_a_task_means_a_retry(cluster, tmp_path):
    path = str(tmp_path / "attempts")

    @zmreg.remote
    def dies_twice():
        add_line(path)
        if lines(path) < 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return "third time"

    assert dies_twice.remote().get(timeout=PATIENCE_S) == "third time"
    assert lines(path) == 3


def test_fault2_after_three_retries_the_error_says_how_it_died(cluster, tmp_path):
    path = str(tmp_path / "attempts")

    @zmreg.remote
    def dies():
        print("my last words")
        add_line(path)
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(WorkerDiedError) as caught:
        dies.remote().get(timeout=PATIENCE_S)
    assert lines(path) == 4, "once, and three retries"
    assert caught.value.signal == signal.SIGKILL
    assert "SIGKILL" in str(caught.value) and "4 attempts" in str(caught.value)
    assert "my last words" in caught.value.log_tail


def test_fault2_tasks_that_had_not_begun_cost_no_attempt(cluster):
    """A worker is sent many short tasks ahead; when one kills it, those behind it only move.

    Those before it may have run, and their answers may have died with the worker: they need a retry.
    """

    @zmreg.remote
    def plain(x):
        return x

    @zmreg.remote(max_retries=0)
    def killer():
        os.kill(os.getpid(), signal.SIGKILL)

    zmreg.get([plain.remote(i) for i in range(200)], timeout=PATIENCE_S)
    refs = [plain.remote(i) for i in range(100)]
    bad = killer.remote()
    once = plain.options(max_retries=0)
    refs += [once.remote(i) for i in range(100, 300)]
    values = zmreg.get(refs, timeout=PATIENCE_S, return_exceptions=True)
    wrong = [value for value in values if isinstance(value, Exception)]
    assert wrong == [], f"{len(wrong)} innocent tasks failed, e.g. {wrong[:1]}"
    assert values == list(range(300))
    with pytest.raises(WorkerDiedError):
        bad.get(timeout=PATIENCE_S)


def test_fault2_workers_killed_at_random_moments_lose_nothing(cluster):
    chance = random.Random(2)

    @zmreg.remote(max_retries=-1)
    def work(i):
        time.sleep(0.002)
        return i

    refs = [work.remote(i) for i in range(400)]
    for _ in range(6):
        time.sleep(chance.random() * 0.1)
        ready = [pid for pid, is_ready in workers().items() if is_ready]
        if ready:
            os.kill(chance.choice(ready), signal.SIGKILL)
    assert zmreg.get(refs, timeout=PATIENCE_S) == list(range(400))


def test_fault3_killed_after_the_result_was_stored_and_before_the_answer(cluster, tmp_path):
    path = str(tmp_path / "attempts")

    @zmreg.remote
    def stores():
        add_line(path)
        if lines(path) == 1:
            worker = current()
            # The fail point: the first answer of this worker never leaves.
            worker.send = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
        return bytes(range(256)) * 2_000

    ref = stores.remote()
    assert ref.get(timeout=PATIENCE_S) == bytes(range(256)) * 2_000
    assert lines(path) == 2, "it was run again, under the same id"
    used = zmreg.stats()["store"]["sealed"]
    del ref
    eventually(lambda: zmreg.stats()["store"]["sealed"] < used, PATIENCE_S, "the object was never freed")


def test_fault3_killed_after_the_answer_left_and_before_the_node_was_told_it_is_stored(cluster):
    """Of the last two messages of a worker only the second may get out: the object must be there all the same."""

    @zmreg.remote(max_retries=0)
    def stores():
        worker = current()
        tell, send = worker.shelf._tell, worker.send
        worker.shelf._tell = lambda message: None if type(message).__name__ == "Sealed" else tell(message)

        def last_word(peer, frame):
            send(peer, frame)
            threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGKILL)).start()

        worker.send = last_word
        return bytes(200_000)

    assert stores.remote().get(timeout=PATIENCE_S) == bytes(200_000)


def test_fault24_every_message_heard_twice(cluster):
    """The driver hears each message of its workers and its node twice: every handler must be idempotent."""
    seat = current()
    plain = seat.pump._dispatch

    def twice(sender, frame):
        plain(sender, frame)
        plain(sender, frame)

    @zmreg.remote
    class Counter:
        def __init__(self):
            self.total = 0

        def add(self):
            self.total += 1
            return self.total

    seat.pump._dispatch = twice
    try:
        work = zmreg.remote(square)
        assert zmreg.get([work.remote(i) for i in range(300)], timeout=PATIENCE_S) == [i * i for i in range(300)]
        counter = Counter.remote()
        assert zmreg.get([counter.add.remote() for _ in range(100)], timeout=PATIENCE_S) == list(range(1, 101))
        kept = zmreg.put(bytes(500_000))
        assert zmreg.remote(len).remote(kept).get(timeout=PATIENCE_S) == 500_000
        assert len(kept.get(timeout=PATIENCE_S)) == 500_000
        lanes = [lane.worker for pool in seat.tasks.pools.values() for lane in pool.lanes]
        assert len(lanes) == len(set(lanes)), "one lease was booked twice"
    finally:
        seat.pump._dispatch = plain
    assert zmreg.get([work.remote(i) for i in range(50)], timeout=PATIENCE_S) == [i * i for i in range(50)]


# -- what cannot travel -----------------------------------------------------------------------------------------------


def test_fault50_an_unpicklable_argument_is_named_where_it_is_passed(cluster):
    inner = {"deep": [1, {"lock": threading.Lock()}]}
    with pytest.raises(SerializationError, match="lock"):
        zmreg.remote(len).remote(inner)
    with pytest.raises(SerializationError):
        lock = threading.Lock()
        zmreg.remote(lambda: lock).remote()
    assert zmreg.remote(len).remote("ab").get(timeout=PATIENCE_S) == 2


def test_fault51_an_unpicklable_result_fails_its_task_and_the_worker_lives(cluster):
    @zmreg.remote
    def returns(what):
        return threading.Lock() if what == "lock" else os.getpid()

    pids = {returns.remote("pid").get(timeout=PATIENCE_S) for _ in range(4)}
    with pytest.raises(SerializationError, match="result"):
        returns.remote("lock").get(timeout=PATIENCE_S)
    assert returns.remote("pid").get(timeout=PATIENCE_S) in pids | set(workers())


class TwoArguments(Exception):
    def __init__(self, a, b):
        super().__init__(f"{a} and {b}")


def test_fault52_an_exception_that_does_not_unpickle_arrives_with_text_and_type(cluster):
    class Explodes(Exception):
        def __reduce__(self):
            return (int, ("no number",))

    @zmreg.remote
    def raises(kind):
        raise TwoArguments(1, 2) if kind == "two" else Explodes("told anyway")

    with pytest.raises(TaskError, match="1 and 2") as caught:
        raises.remote("two").get(timeout=PATIENCE_S)
    assert isinstance(caught.value, TwoArguments)
    with pytest.raises(TaskError, match="told anyway") as caught:
        raises.remote("explodes").get(timeout=PATIENCE_S)
    assert "Explodes" in str(caught.value)


def test_fault53_cause_notes_and_traceback_survive(cluster):
    @zmreg.remote
    def raises():
        try:
            {}["missing"]
        except KeyError as error:
            problem = ValueError("outer")
            problem.add_note("a note")
            raise problem from error

    with pytest.raises(ValueError, match="outer") as caught:
        raises.remote().get(timeout=PATIENCE_S)
    error = caught.value
    assert isinstance(error, TaskError)
    assert any("a note" in note for note in getattr(error, "__notes__", ()))
    cause = error.cause
    assert isinstance(cause, ValueError) and isinstance(cause.__cause__, KeyError)
    assert "in raises" in str(error), "the remote traceback is told"


def test_fault54_a_value_nested_too_deep_is_a_serialization_error(cluster):
    deep: list = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(SerializationError):
        zmreg.put(deep)

    @zmreg.remote
    def nests():
        found: list = []
        for _ in range(100_000):
            found = [found]
        return found

    with pytest.raises(SerializationError):
        nests.remote().get(timeout=PATIENCE_S)


# -- user code that harms its process ----------------------------------------------------------------------------------


def die_by(how):
    if how == "segfault":
        ctypes.string_at(0)
    elif how == "os._exit":
        os._exit(7)
    elif how == "sys.exit":
        sys.exit(3)
    elif how == "abort":
        os.abort()
    elif how == "closerange":
        os.closerange(3, 1000)
        zmreg.put(bytes(200_000))
        time.sleep(20)
    elif how == "sigterm":
        os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(20)


@pytest.mark.parametrize(
    ("how", "expected"),
    [
        ("segfault", {"signal": signal.SIGSEGV}),
        ("os._exit", {"exit_code": 7}),
        ("sys.exit", {"exit_code": 3}),
        ("abort", {"signal": signal.SIGABRT}),
        ("sigterm", {"signal": signal.SIGTERM}),
        ("closerange", {}),
    ],
)
def test_fault59_a_task_that_ends_its_process(cluster, how, expected):
    with pytest.raises(WorkerDiedError) as caught:
        zmreg.remote(max_retries=0)(die_by).remote(how).get(timeout=PATIENCE_S)
    for name, value in expected.items():
        assert getattr(caught.value, name) == value
        assert str(int(value)) in str(caught.value)
    assert zmreg.remote(square).remote(5).get(timeout=PATIENCE_S) == 25


def test_row65_system_exit_is_a_worker_death_and_is_retried(cluster, tmp_path):
    path = str(tmp_path / "attempts")

    @zmreg.remote(max_retries=1)
    def leaves():
        add_line(path)
        raise SystemExit(5)

    with pytest.raises(WorkerDiedError, match="2 attempts") as caught:
        leaves.remote().get(timeout=PATIENCE_S)
    assert caught.value.exit_code == 5
    assert lines(path) == 2


def test_row65_system_exit_in_an_actor_is_the_actors_death(cluster):
    @zmreg.remote
    class Leaver:
        def leave(self):
            sys.exit(4)

        def stay(self):
            return 1

    leaver = Leaver.remote()
    assert leaver.stay.remote().get(timeout=PATIENCE_S) == 1
    with pytest.raises(zmreg.errors.ActorDiedError, match="4"):
        leaver.leave.remote().get(timeout=PATIENCE_S)
    with pytest.raises(zmreg.errors.ActorDiedError):
        leaver.stay.remote().get(timeout=PATIENCE_S)


def test_C33_a_task_that_kills_its_workers_is_told_apart_from_its_innocent_neighbours(cluster):
    bad = [zmreg.remote(max_retries=1)(die_by).remote("segfault") for _ in range(3)]
    good = [zmreg.remote(square).remote(i) for i in range(100)]
    assert zmreg.get(good, timeout=PATIENCE_S) == [i * i for i in range(100)]
    for ref in bad:
        with pytest.raises(WorkerDiedError, match="2 attempts.*SIGSEGV"):
            ref.get(timeout=PATIENCE_S)


def test_fault58_a_storm_of_cancellations_leaves_nothing_running(cluster, tmp_path):
    path = str(tmp_path / "ran")

    @zmreg.remote
    def work(i):
        add_line(path, i)
        time.sleep(0.001)
        return i

    refs = [work.remote(i) for i in range(5_000)]
    for ref in refs:
        ref.cancel()
    outcomes = zmreg.get(refs, timeout=PATIENCE_S, return_exceptions=True)
    values = [value for value in outcomes if not isinstance(value, TaskCancelledError)]
    assert all(isinstance(value, int) for value in values)
    assert len(values) < 5_000
    ran = lines(path)
    assert zmreg.get([work.remote(-1), work.remote(-2)], timeout=PATIENCE_S) == [-1, -2]
    assert lines(path) == ran + 2, "something cancelled ran after it was acknowledged"
    assert zmreg.stats()["tasks"]["pending"] == 0


def test_fault60_a_task_that_holds_the_gil_is_slow_and_not_dead(cluster):
    @zmreg.remote(max_retries=0)
    def holds(seconds):
        ctypes.PyDLL(None).usleep(int(seconds * 1e6))  # PyDLL keeps the GIL
        return "alive"

    ref = holds.remote(2)
    assert zmreg.get([zmreg.remote(square).remote(i) for i in range(20)], timeout=PATIENCE_S) == [
        i * i for i in range(20)
    ]
    assert ref.get(timeout=PATIENCE_S) == "alive"


# -- printing ----------------------------------------------------------------------------------------------------------


def test_row73_what_workers_print_appears_on_the_drivers_stderr_with_a_prefix():
    source = """
    zmreg.init(num_cpus=1)
    @zmreg.remote
    def talk():
        print("hello from a task")
        print("an error line", file=sys.stderr)
        sys.stdout.write("in two ")
        sys.stdout.flush()
        time.sleep(0.5)
        print("parts")
        return os.getpid()
    @zmreg.remote(max_retries=0)
    def dies():
        print("last words")
        os._exit(1)
    pid = talk.remote().get(timeout=20)
    typed(lambda: dies.remote().get(timeout=20))
    say("pid", pid)
    zmreg.shutdown()
    say("down")
    """.replace("\n    ", "\n")
    with Driver(source) as driver:
        pid = driver.after("pid")
        driver.after("down")
        assert driver.end() == 0
        lines = driver.stderr().splitlines()
        assert f"(talk pid={pid}) hello from a task" in lines
        assert f"(talk pid={pid}) an error line" in lines
        assert f"(talk pid={pid}) in two parts" in lines, "a line that came in pieces is shown whole"
        assert any(line.endswith(") last words") for line in lines), "what a worker says before it dies is not lost"


def test_fault61_a_task_that_prints_a_lot_is_capped_and_harms_nobody():
    source = """
    info = zmreg.init(num_cpus=2, log_bytes_per_s=50_000, log_bytes_per_worker=4 << 20)
    @zmreg.remote
    def floods(megabytes):
        line = "x" * 1023
        for _ in range(megabytes << 10):
            print(line)
        return "done"
    @zmreg.remote
    def square(x):
        return x * x
    ref = floods.remote(100)
    say("others", zmreg.get([square.remote(i) for i in range(100)], timeout=30) == [i * i for i in range(100)])
    say("flood", ref.get(timeout=60))
    from pathlib import Path
    say("disk", sum(path.stat().st_size for path in Path(info.session, "logs").iterdir()))
    zmreg.shutdown()
    """.replace("\n    ", "\n")
    with Driver(source) as driver:
        start = time.monotonic()
        assert driver.after("others") == "True"
        assert driver.after("flood", timeout=60) == "done"
        assert int(driver.after("disk")) < 100 << 20, "the log is cut back while it grows"
        assert driver.end() == 0
        shown = len(driver.stderr())
        assert shown < 1_000_000 + 100_000 * (time.monotonic() - start), "the rate is capped"
        assert "not shown" in driver.stderr(), "what is left out is counted"


def test_row73_log_to_driver_false_keeps_quiet():
    with Driver(
        "zmreg.init(num_cpus=1, log_to_driver=False); zmreg.remote(print).remote('noise').get(timeout=20)\n"
        "time.sleep(0.5); zmreg.shutdown()"
    ) as driver:
        assert driver.end() == 0
        assert driver.stderr() == ""


# -- recursion and the cap on workers ----------------------------------------------------------------------------------


def test_fault55_recursion_far_deeper_than_there_are_cpus_does_not_deadlock(cluster):
    @zmreg.remote
    def depth(n):
        return 0 if n == 0 else 1 + depth.remote(n - 1).get(timeout=60)

    assert depth.remote(60).get(timeout=60) == 60


def test_C9_at_the_cap_a_blocked_worker_runs_its_own_child():
    source = """
    zmreg.init(num_cpus=2, max_workers=3)
    @zmreg.remote
    def depth(n):
        return 0 if n == 0 else 1 + depth.remote(n - 1).get(timeout=60)
    @zmreg.remote
    def tree(n):
        return 1 if n == 0 else sum(zmreg.get([tree.remote(n - 1), tree.remote(n - 1)], timeout=60))
    say("depth", depth.remote(25).get(timeout=60))
    say("tree", tree.remote(5).get(timeout=60))
    say("workers", len(current().ask("workers")))
    """.replace("\n    ", "\n")
    with Driver(source) as driver:
        assert driver.after("depth", timeout=60) == "25"
        assert driver.after("tree", timeout=60) == "32"
        assert int(driver.after("workers")) <= 3
        assert driver.end() == 0


def test_C10_max_workers_is_honoured_absolutely():
    source = """
    zmreg.init(num_cpus=8, max_workers=2)
    @zmreg.remote
    def who():
        time.sleep(0.05)
        return os.getpid()
    say("pids", len(set(zmreg.get([who.remote() for _ in range(40)], timeout=60))))
    say("workers", len(current().ask("workers")))
    """.replace("\n    ", "\n")
    with Driver(source) as driver:
        assert int(driver.after("pids")) <= 2
        assert int(driver.after("workers")) <= 2
        assert driver.end() == 0


def test_C17_what_can_never_run_is_an_error_soon_that_shows_request_and_node(cluster):
    start = time.monotonic()
    with pytest.raises(zmreg.errors.UnschedulableError) as caught:
        zmreg.remote(num_cpus=64)(square).remote(2).get(timeout=PATIENCE_S)
    assert time.monotonic() - start < 15
    assert "64" in str(caught.value) and "2 CPU" in str(caught.value)
    with pytest.raises(zmreg.errors.SchedulingError, match="licence"):
        zmreg.remote(resources={"licence": 1})(square).remote(2).get(timeout=PATIENCE_S)
    assert zmreg.remote(square).remote(2).get(timeout=PATIENCE_S) == 4


def test_C18_functions_redefined_in_a_loop_do_not_pile_up(cluster):
    for i in range(60):

        @zmreg.remote
        def fresh(x, i=i):
            return x + i

        assert fresh.remote(1).get(timeout=PATIENCE_S) == 1 + i
    assert len(current().tasks.templates) < 40, "definitions without a function object are forgotten"


def test_C43_a_crash_is_told_as_a_crash_with_its_exit_code(cluster):
    with pytest.raises(WorkerDiedError, match="exited with code 7"):
        zmreg.remote(max_retries=0)(die_by).remote("os._exit").get(timeout=PATIENCE_S)


def test_fault15_a_killed_driver_takes_its_running_tasks_with_it(tmp_path):
    path = tmp_path / "beats"
    source = f"""
    zmreg.init(num_cpus=1)
    @zmreg.remote
    def beats():
        while True:
            with open({str(path)!r}, "a") as file:
                file.write("x")
            time.sleep(0.01)
    ref = beats.remote()
    say("pids", pids())
    signal.pause()
    """.replace("\n    ", "\n")
    with Driver(source) as driver:
        pids = json.loads(driver.after("pids"))
        eventually(lambda: path.exists() and path.stat().st_size > 3, PATIENCE_S, "the task does not run")
        os.kill(pids["driver"], signal.SIGKILL)
        driver.end()
        assert driver.left(5.0) == []
    size = path.stat().st_size
    threading.Event().wait(0.1)
    assert path.stat().st_size == size
