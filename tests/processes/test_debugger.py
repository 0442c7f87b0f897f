"""Row 75, the debugger: breakpoint() in tasks and actors, `zmreg debug`, and errors that are held."""

from __future__ import annotations

import bdb
import os
import signal
import subprocess
import sys
import threading

import psutil
import pytest

import zmreg
from tests.processes.terminals import Terminal, stopped, until
from zmreg.api import debugging
from zmreg.api.environments import with_post_mortem
from zmreg.model.debug_messages import WINDOW_CHARS, DebugText
from zmreg.services.seat.client import current
from zmreg.services.seat.visiting import Visit
from zmreg.services.worker.breaking import POST_MORTEM, hold_s
from zmreg.services.worker.stopping import SHOWN_S

T = 40
pytestmark = pytest.mark.timeout(120)


@zmreg.remote
def outer(x: int) -> int:
    def inner(y: int) -> int:
        z = y * 2
        breakpoint()
        z += 1
        return z

    return inner(x + 1) + 100


@zmreg.remote
def stops(x: int = 7) -> int:
    breakpoint()
    return x


@zmreg.remote
def add(x: int) -> int:
    return x + 1


@zmreg.remote
def fails(x: int) -> float:
    kept = x
    return 1 / kept


@zmreg.remote
class Counter:
    def __init__(self) -> None:
        self.n = 1

    def stops(self) -> int:
        breakpoint()
        return self.n

    def value(self) -> int:
        return self.n


@zmreg.remote
class Waiting:
    async def stops(self, x: int) -> int:
        breakpoint()
        y = await self.more(x)
        return y + 1

    async def more(self, x: int) -> int:
        import asyncio

        await asyncio.sleep(0)
        return x * 10


@zmreg.remote
class Threads:
    def stops(self, x: int) -> int:
        breakpoint()
        return x


@pytest.fixture(autouse=True)
def nothing_stays_stopped(request):
    """One test that fails is to be one test that fails."""
    yield
    if "cluster" in request.fixturenames:
        for each in zmreg.breakpoints():
            os.kill(each.pid, signal.SIGKILL)


@pytest.fixture
def drive(monkeypatch, capsys):
    """A session of `zmreg.debug` in this program: (how it ended, what it has shown)."""

    def driven(*lines: str) -> tuple[str, str]:
        left = iter(lines)
        monkeypatch.setattr("builtins.input", lambda prompt: print(prompt, end="") or next(left))
        outcome = zmreg.debug(timeout=30)
        assert not list(left)
        return outcome, capsys.readouterr().out

    return driven


def holding(**options):
    """A call that is held when it raises."""
    return fails.options(runtime_env={"env_vars": {POST_MORTEM: "600"}}, **options)


def is_in(ref, function: str) -> bool:
    return any(each == function for _, _, each in zmreg.call_stack(ref))


def goes_up(terminal: Terminal) -> str:
    """Out of the function."""
    terminal.does("r")
    return terminal.does("n")


def runs_a_command(ref) -> bool:
    return any(file == "<stdin>" for file, _, _ in zmreg.call_stack(ref))


# -- a session ---------------------------------------------------------------------------------------------------------


def test_row_75_debugger_says_where_a_call_is_stopped_and_pdb_drives_it_by_pipes(cluster, capfd):
    ref = outer.remote(4)
    (found,) = stopped()
    assert (found.name, found.function, found.reason, found.state) == ("outer", "inner", "breakpoint", "open")
    assert found.file == __file__ and found.task_id == ref.hex()
    said = ""

    def told() -> bool:
        nonlocal said
        said += capfd.readouterr().err
        return f"zmreg debug {found.id}\n" in said

    until(told)
    assert f"breakpoint: inner at {__file__}:{found.line}, node {found.node_id[:8]}, pid {found.pid}: zmreg" in said
    with Terminal() as terminal:
        assert f"{__file__}({found.line})inner()\n-> z += 1\n" in terminal.reads()
        assert stopped()[0].state == "attached"
        where = terminal.does("w")
        assert "outer()" in where and "inner()" in where and "zmreg/services" not in where
        assert terminal.does("p y, z") == "(5, 10)\n"
        assert "-> return inner(x + 1) + 100" in terminal.does("up")
        assert terminal.does("p x") == "4\n"
        terminal.does("down")
        assert "-> return z" in terminal.does("n")
        terminal.does("!z = 50")
        assert terminal.does("p z") == "50\n"
        terminal.types("c")
        assert terminal.rest() == (0, "the call goes on\n")
    assert ref.get(timeout=T) == 150 and zmreg.breakpoints() == []


def test_row_75_debugger_on_a_terminal_with_ctrl_c_and_ctrl_d(cluster):
    ref = stops.remote(3)
    with Terminal("--wait", "30", tty=True) as terminal:
        terminal.reads()
        assert "3\n" in terminal.does("p x")
        terminal.presses_until_seen(b"\x03", "--KeyboardInterrupt--")
        terminal.reads()
        terminal.types("!while True: pass")
        terminal.reads("pass")
        until(lambda: runs_a_command(ref))
        terminal.presses(b"\x03")
        assert "KeyboardInterrupt" in terminal.reads()
        terminal.presses(b"\x04")
        code, text = terminal.rest()
        assert code == 0 and "it stays stopped" in text
    assert stopped()[0].state == "open"
    with Terminal(tty=True) as terminal:
        terminal.reads()
        terminal.types("c")
        assert terminal.rest()[0] == 0
    assert ref.get(timeout=T) == 3


def test_row_75_debugger_output_far_larger_than_its_window_comes_whole_and_in_order(cluster):
    ref = stops.remote()
    with Terminal("--wait", "30") as terminal:
        terminal.reads()
        numbers = range(150_000)
        assert terminal.does(f"p list(range({len(numbers)}))") == f"{list(numbers)}\n"
        assert terminal.does("!for i in range(30000): print(i)") == "".join(f"{i}\n" for i in range(30_000))
        terminal.types("c")
        assert terminal.rest()[0] == 0
    assert ref.get(timeout=T) == 7


def test_row_75_debugger_output_that_nobody_reads_waits_and_a_cancellation_ends_it(cluster):
    ref = stops.remote()
    with Terminal("--wait", "30") as terminal:
        terminal.reads()
        terminal.types("!for i in range(10**9): print(i)")
        until(lambda: runs_a_command(ref))
        for n in range(100):  # meanwhile it would have printed megabytes
            assert add.remote(n).get(timeout=T) == n + 1
        ref.cancel()
        with pytest.raises(zmreg.errors.TaskCancelledError):
            ref.get(timeout=T)
        code, text = terminal.rest()
        assert code == 0 and text.startswith("0\n1\n2\n") and "cancelled" in text and len(text) < 1_000_000


def test_row_75_debugger_ctrl_c_reaches_commands_and_what_is_stepped_over_and_twice_leaves(cluster):
    @zmreg.remote
    def busy() -> None:
        def loops() -> None:
            i = 0
            while i >= 0:
                i += 1

        breakpoint()
        loops()
        threading.Event().wait()

    ref = busy.remote()
    with Terminal("--wait", "30") as terminal:
        terminal.reads()
        terminal.types("n")
        until(lambda: is_in(ref, "loops"))
        terminal.interrupts()
        assert "loops()" in terminal.reads()
        assert "busy()" in terminal.does("w")
        terminal.types("!threading.Event().wait()")
        until(lambda: is_in(ref, "wait"))
        terminal.interrupts()
        assert "KeyboardInterrupt" in terminal.reads()
        terminal.does("!i = -10")
        assert "-> threading.Event().wait()" in goes_up(terminal)
        terminal.types("n")
        until(lambda: is_in(ref, "wait"))
        terminal.interrupts()
        terminal.reads("once more leaves\n")
        terminal.interrupts()
        code, text = terminal.rest()
        assert code == 0 and "it was left" in text
    assert stopped()[0].state == "open"
    with Terminal() as terminal:
        terminal.reads("the call runs to its next stop; Ctrl-C stops it where it is\n")
        ref.cancel()
        with pytest.raises(zmreg.errors.TaskCancelledError):
            ref.get(timeout=T)
        assert terminal.rest()[0] == 0


def test_row_75_debugger_leaves_and_attaches_anew_and_a_second_terminal_is_refused(cluster):
    ref = stops.remote(5)
    with Terminal("--wait", "30") as first:
        first.reads()
        first.does("!x = 6")
        with Terminal() as second:
            code, text = second.rest()
            assert code == 1 and "another terminal has it" in text
        first.ends_input()
        assert first.rest()[0] == 0
    with Terminal() as third:
        assert "-> return x" in third.reads()
        assert third.does("p x") == "6\n"
        os.kill(third.process.pid, signal.SIGKILL)
    until(lambda: stopped()[0].state == "open")
    with Terminal() as fourth:
        fourth.reads()
        fourth.types("c")
        assert fourth.rest()[0] == 0
    assert ref.get(timeout=T) == 6


def test_row_75_debugger_a_script_in_a_pipe_is_read_line_by_line(cluster):
    ref = stops.remote(5)
    with Terminal("--wait", "30") as terminal:
        os.write(terminal._in, b"p x + 1\n!x = 8\nc\nnever read\n")
        terminal.ends_input()
        code, text = terminal.rest()
    assert code == 0 and "(Pdb) 6\n" in text and ref.get(timeout=T) == 8


def test_row_75_debugger_several_are_listed_and_chosen_by_id_and_their_cpus_are_free(cluster):
    refs = [stops.remote(1), stops.remote(2)]
    both = stopped(2)
    assert add.remote(1).get(timeout=T) == 2  # of two CPUs both were taken
    with Terminal() as terminal:
        code, text = terminal.rest()
        assert code == 2 and "say which" in text and all(each.id in text for each in both)
    with pytest.raises(ValueError, match="say which; there are"):
        zmreg.debug()
    with pytest.raises(ValueError, match="no stopped call is 'x'"):
        zmreg.debug("x")
    for each in both:
        with Terminal(each.id) as terminal:
            terminal.reads()
            terminal.types("c")
            assert terminal.rest()[0] == 0
    assert zmreg.get(refs, timeout=T) == [1, 2]
    with Terminal() as terminal:
        assert terminal.rest() == (1, "no call is stopped at a breakpoint\n")


def test_row_75_debugger_of_several_clusters_here_the_id_names_the_one_that_is_meant(cluster):
    """What is printed is what to type, also where another program runs on the machine."""
    source = "import sys, zmreg; zmreg.init('local', num_cpus=1); print('up', flush=True); sys.stdin.read()"
    ref = stops.remote(5)
    (found,) = stopped()
    with subprocess.Popen([sys.executable, "-c", source], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"up\n"
        with Terminal() as terminal:
            code, text = terminal.rest()
            assert code != 0 and "2 clusters of yours run" in text
        with Terminal(found.id) as terminal:
            terminal.reads()
            terminal.types("c")
            assert terminal.rest()[0] == 0
        other.communicate(timeout=T)
    assert ref.get(timeout=T) == 5


def test_row_75_debugger_in_this_program_by_input(cluster, drive):
    ref = stops.remote(5)
    outcome, shown = drive("p x", "interact", "x * 3", "exit()", "c")
    assert outcome == "goes on" and ref.get(timeout=T) == 5
    assert "\n-> return x\n(Pdb) 5\n" in shown and ">>> 15\n" in shown


def test_row_75_debugger_by_rays_names(cluster, drive):
    @zmreg.remote
    def rays(x: int) -> int:
        from zmreg.integrations.ray import util

        assert util.pdb is util.rpdb
        util.rpdb.set_trace()
        return x

    ref = rays.remote(5)
    outcome, shown = drive("!x += 1", "c")
    assert outcome == "goes on" and ref.get(timeout=T) == 6 and "-> return x" in shown


# -- how it ends -------------------------------------------------------------------------------------------------------


def test_row_75_debugger_quit_fails_the_call_for_good(cluster, drive):
    ref = stops.options(retry_exceptions=True, max_retries=5).remote()
    outcome, shown = drive("q")
    assert outcome == "quit" and "bdb.BdbQuit" in shown
    with pytest.raises(bdb.BdbQuit):
        ref.get(timeout=T)
    assert zmreg.breakpoints() == []


def test_row_75_debugger_a_session_ends_with_its_call_and_the_next_is_not_traced(cluster, drive):
    @zmreg.remote
    def both(x: int) -> object:
        if x:
            breakpoint()
        return os.getpid(), sys.gettrace() is None, len(bdb.Breakpoint.bplist)

    ref = both.remote(1)
    outcome, shown = drive("b bdb.Bdb.reset", "n", "n")
    assert outcome == "ended" and "--Return--" in shown
    pid, untraced, breaks = ref.get(timeout=T)
    assert not untraced and breaks == 1
    assert until(lambda: found if (found := both.remote(0).get(timeout=T))[0] == pid else None) == (pid, True, 0)


def test_row_75_debugger_cancel_ends_a_stopped_task_and_its_terminal(cluster):
    alone, attached = stops.remote(), stops.remote()
    which = next(each for each in stopped(2) if each.task_id == attached.hex())
    with Terminal(which.id) as terminal:
        terminal.reads()
        for ref in (alone, attached):
            ref.cancel()
            with pytest.raises(zmreg.errors.TaskCancelledError):
                ref.get(timeout=T)
        code, text = terminal.rest()
        assert code == 0 and "cancelled" in text
    assert add.remote(1).get(timeout=T) == 2 and zmreg.breakpoints() == []


def test_row_75_debugger_a_worker_killed_is_told_at_once_to_who_is_at_its_prompt(cluster):
    ref = stops.options(max_retries=0).remote()
    with Terminal("--wait", "30") as terminal:
        terminal.reads()
        os.kill(stopped()[0].pid, signal.SIGKILL)
        code, text = terminal.rest()
        assert code == 1 and "has died" in text
    with pytest.raises(zmreg.errors.WorkerDiedError):
        ref.get(timeout=T)


class Ends:
    """A visit that ends when it is told to."""

    def __init__(self) -> None:
        self.is_over = False
        self.when_over = lambda: None
        self.heard = [DebugText(1, 1, "(Pdb) ", True)]

    def poll(self) -> DebugText:
        if self.is_over:
            raise zmreg.errors.WorkerDiedError("it has died")
        return self.heard.pop()

    def ends(self) -> None:
        self.is_over = True
        self.when_over()


def test_row_75_debugger_an_end_between_the_prompt_and_the_read_is_seen(monkeypatch):
    """The first signal is lost: it comes when the interpreter has looked for signals, and does not sleep yet."""
    visit = Ends()

    def reads(prompt: str) -> str:
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
        visit.ends()
        assert signal.sigwait([signal.SIGINT]) == signal.SIGINT
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGINT])
        threading.Event().wait(T)
        return "nobody has come"

    monkeypatch.setattr("builtins.input", reads)
    with pytest.raises(zmreg.errors.WorkerDiedError):
        debugging.Terminal(visit).run()
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


# -- actors ------------------------------------------------------------------------------------------------------------


def test_row_75_debugger_changes_the_state_of_an_actor(cluster, drive):
    counter = Counter.remote()
    ref = counter.stops.remote()
    outcome, shown = drive("p self.n", "self.n = 5", "c")
    assert outcome == "goes on" and "(Pdb) 1\n" in shown
    assert ref.get(timeout=T) == 5 and counter.value.remote().get(timeout=T) == 5


def test_row_75_debugger_stops_a_constructor(cluster, drive):
    @zmreg.remote
    class Made:
        def __init__(self, n: int) -> None:
            breakpoint()
            self.n = n

        def value(self) -> int:
            return self.n

    made = Made.remote(1)
    assert stopped()[0].name == "__init__"
    assert drive("!n = 4", "c")[0] == "goes on" and made.value.remote().get(timeout=T) == 4


def test_row_75_debugger_steps_over_await(cluster, drive):
    waiting = Waiting.remote()
    ref = waiting.stops.remote(2)
    outcome, shown = drive("n", "p y", "c")
    assert outcome == "goes on" and ref.get(timeout=T) == 21
    assert shown.index("-> y = await self.more(x)") < shown.index("-> return y + 1") < shown.index("(Pdb) 20\n")


def test_row_75_debugger_actors_of_one_process_are_stopped_side_by_side(cluster, drive):
    house = [Counter.options(process="stopped together").remote() for _ in range(2)]
    refs = [each.stops.remote() for each in house]
    stopped(2)
    refs[1].cancel()
    with pytest.raises(zmreg.errors.TaskCancelledError):
        refs[1].get(timeout=T)
    assert drive("self.n = 5", "c")[0] == "goes on"
    assert refs[0].get(timeout=T) == 5 and house[1].value.remote().get(timeout=T) == 1


@pytest.mark.parametrize("kind", ["plain", "async", "threads"])
def test_row_75_debugger_cancel_ends_a_stopped_call_of_an_actor(cluster, kind):
    ref = {
        "plain": lambda: Counter.remote().stops.remote(),
        "async": lambda: Waiting.remote().stops.remote(1),
        "threads": lambda: Threads.options(max_concurrency=2).remote().stops.remote(1),
    }[kind]()
    stopped()
    ref.cancel()
    with pytest.raises(zmreg.errors.TaskCancelledError):
        ref.get(timeout=T)
    assert zmreg.breakpoints() == []


# -- errors that are held ----------------------------------------------------------------------------------------------


def test_row_75_debugger_post_mortem_stands_where_it_was_raised(cluster, drive):
    ref = holding().remote(0)
    (found,) = stopped()
    assert found.reason == "ZeroDivisionError: division by zero" and found.function == "fails"
    outcome, shown = drive("p kept", "q")
    assert outcome == "quit" and "-> return 1 / kept" in shown and "(Pdb) 0\n" in shown
    with pytest.raises(ZeroDivisionError):
        ref.get(timeout=T)


def test_row_75_debugger_post_mortem_is_given_up_when_nobody_comes_and_when_it_is_cancelled(cluster):
    with pytest.raises(ZeroDivisionError):
        fails.options(runtime_env={"env_vars": {POST_MORTEM: "0.2"}}).remote(0).get(timeout=T)
    ref = holding().remote(0)
    stopped()
    ref.cancel()
    with pytest.raises((zmreg.errors.TaskCancelledError, ZeroDivisionError)):
        ref.get(timeout=T)
    assert zmreg.breakpoints() == []


def test_row_75_debugger_post_mortem_is_given_up_under_a_terminal_that_reads_no_more(cluster):
    """The last line found no room any more, and the worker died of that."""
    ref = holding(max_retries=0).remote(0)
    (found,) = stopped()
    shown, asked = 0, 0
    with Visit(current(), bytes.fromhex(found.worker_id), int(found.id.rpartition("-")[2])) as visit:
        while asked < 2:
            word = visit.poll()
            if word is None:
                visit.wait(T)
            elif not word.asks:
                shown += len(word.text)
            else:
                asked += 1
                if asked == 1:
                    visit.answer(f"print('x' * {WINDOW_CHARS - 11 - shown})")
        assert shown == WINDOW_CHARS - 10
        threading.Event().wait(2 * SHOWN_S)  # so long it collects what is printed
        ref.cancel()
        with pytest.raises((zmreg.errors.TaskCancelledError, ZeroDivisionError)):
            ref.get(timeout=T)


def test_row_75_debugger_post_mortem_is_asked_for(monkeypatch):
    assert [hold_s(text) for text in ("", "0", "false", "1", "True", "30")] == [0, 0, 0, 600, 600, 30]
    for wrong in ("soon", "-1", "inf", "nan"):
        with pytest.raises(ValueError, match="ZMREG_POST_MORTEM"):
            hold_s(wrong)
    monkeypatch.delenv(POST_MORTEM, raising=False)
    assert with_post_mortem(None, None) is None and with_post_mortem(None, False) is None
    assert with_post_mortem(None, True) == {"env_vars": {POST_MORTEM: "True"}}
    monkeypatch.setenv(POST_MORTEM, "1")
    assert with_post_mortem({"env_vars": {"A": "b"}}, None) == {"env_vars": {"A": "b", POST_MORTEM: "1"}}
    assert with_post_mortem(None, False) == {"env_vars": {POST_MORTEM: "False"}}


# -- whose breakpoint() it is ------------------------------------------------------------------------------------------


def test_row_75_debugger_a_setting_of_the_users_wins_and_a_worker_loads_no_pdb_before(cluster):
    @zmreg.remote
    def loaded() -> bool:
        return "pdb" in sys.modules or "bdb" in sys.modules

    @zmreg.remote
    def own() -> str:
        before, sys.breakpointhook = sys.breakpointhook, lambda: "mine"
        try:
            return breakpoint()
        finally:
            sys.breakpointhook = before

    assert own.remote().get(timeout=T) == "mine"
    off = {"env_vars": {"PYTHONBREAKPOINT": "0"}}
    assert stops.options(runtime_env=off).remote(4).get(timeout=T) == 4
    assert not loaded.options(runtime_env={"env_vars": {"FRESH": "1"}}).remote().get(timeout=T)
    assert sys.breakpointhook is sys.__breakpointhook__
    assert current() is not None


def test_row_75_debugger_in_a_cluster_within_the_process_it_is_pythons_own():
    from zmreg.testing import InProcess

    zmreg.shutdown()  # the module's
    with InProcess():
        assert add.remote(1).get(timeout=T) == 2
        assert sys.breakpointhook is sys.__breakpointhook__ and zmreg.breakpoints() == []


# -- several nodes -----------------------------------------------------------------------------------------------------

PROGRAM = """
import sys, zmreg
zmreg.init(sys.argv[1])
@zmreg.remote(locs={"far"})
def orphan():
    breakpoint()
print(orphan.remote().hex(), flush=True)
sys.stdin.read()
"""


def test_row_75_debugger_on_another_node_and_what_ends_there():
    from zmreg.testing import LocalCluster

    zmreg.shutdown()  # the module's
    alike = {"dead_after_s": 3.0}
    with LocalCluster(nodes=[{"num_cpus": 0, **alike}, {"num_cpus": 2, "locs": {"far"}, **alike}]) as nodes:
        zmreg.init(nodes.address)
        far = next(row["NodeID"] for row in zmreg.nodes() if "far" in row["Locs"])
        ref = outer.remote(4)
        with Terminal("--wait", "30", "--address", nodes.address) as terminal:
            terminal.reads()
            (found,) = stopped()
            assert found.node_id == far and found.state == "attached"
            assert terminal.does("p z") == "10\n"
            assert terminal.does("p 'x' * 600_000") == f"{'x' * 600_000!r}\n"
            os.kill(terminal.process.pid, signal.SIGKILL)
        until(lambda: stopped()[0].state == "open")
        with Terminal("--address", nodes.address) as terminal:
            assert "-> z += 1" in terminal.reads()
            terminal.types("c")
            assert terminal.rest()[0] == 0
        assert ref.get(timeout=T) == 111
        program = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, nodes.address], stdin=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        with Terminal("--wait", "30", "--address", nodes.address) as terminal:
            terminal.reads()
            (found,) = stopped()
            program.kill()
            program.communicate()
            code, text = terminal.rest()
            assert code == 1 and "has died" in text
        assert until(lambda: not psutil.pid_exists(found.pid)) and zmreg.breakpoints() == []
        ref = stops.remote()
        with Terminal("--wait", "30", "--address", nodes.address) as terminal:
            terminal.reads()
            nodes.kill_node(far)
            code, text = terminal.rest()
            assert code == 1 and "node is gone" in text
        zmreg.shutdown()
