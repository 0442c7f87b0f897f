"""`zmreg call`, `request`, `functions` and `describe`, as users type them; what serves is a program of its own."""

from __future__ import annotations

import json
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import click
import numpy
import pytest

from tests.tools.machines import PATIENCE_S, ROOT, SMALL, Machine, free_port, machine
from zmreg.model.graphs import Lit, Ref, Step
from zmreg.tools.cli.calling import arguments_of, plain, value_of
from zmreg.tools.cli.requesting import read

pytestmark = pytest.mark.timeout(120)

SERVES = '''
import os, signal, sys, threading
import zmreg

zmreg.init("auto")
gate = threading.Event()
signal.signal(signal.SIGUSR1, lambda *_: gate.set())

@zmreg.register("mean", locs={"dataset-1"}, version="2.1")
def mean(numbers, digits=3):
    """The mean of numbers.

    Rounded."""
    return round(sum(numbers) / len(numbers), digits)

def boom(x):
    raise ValueError(f"no {x}")

zmreg.register(boom)
zmreg.register("odd", lambda *args, **kwargs: {"set": {2, 1}, "args": args, "kwargs": kwargs, "bytes": b"x"})
zmreg.register("wait", lambda: gate.wait(60))
print("serves", flush=True)
zmreg.serve()
'''


@pytest.fixture(scope="module")
def here() -> Iterator[Machine]:
    with machine() as found:
        found.head("--name", "alpha")
        program = subprocess.Popen(
            [sys.executable, "-c", SERVES], env=found.environment(), cwd=found.here, stdout=subprocess.PIPE, text=True
        )
        try:
            assert program.stdout is not None and program.stdout.readline() == "serves\n"
            yield found
        finally:
            program.send_signal(signal.SIGUSR1)  # or it would wait for calls that nobody waits for any more
            program.send_signal(signal.SIGTERM)
            program.communicate(timeout=PATIENCE_S)


def file(here: Machine, name: str, text: str) -> str:
    (here.here / name).write_text(text, encoding="utf-8")
    return name


# -- call --------------------------------------------------------------------------------------------------------------


def test_call_takes_json_text_and_keywords(here):
    done = here.run("call", "mean", "[20.1, 20.5, 21.0]", "digits=2", "--locs", "dataset-1", "--version", ">=2,<3")
    assert (done.returncode, done.stdout, done.stderr) == (0, "20.53\n", "")
    done = here.run("call", "echo", "hi there!")
    assert done.stdout == "hi there!\n"
    assert here.asks("call", "odd", "-1", "a", '"b=c"', "x=null") == {
        "set": [1, 2], "args": [-1, "a", "b=c"], "kwargs": {"x": None}, "bytes": "b'x'",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("words", "code", "says"),
    [
        (("maen", "1"), 1, "did you mean 'mean'?"),
        (("mean", "[1]", "--version", ">=3"), 1, "version 2.1"),
        (("mean", "[1]", "--locs", "tpu"), 1, "tpu"),
        (("mean", "[1]", "--version", "=>3"), 2, "no constraint"),
        (("mean", "[1]", "--loc", "a"), 2, "no such option: --loc"),
        (("mean", "[1]", "timeout=3"), 2, "said by options"),
        (("boom", "3"), 1, "ValueError: no 3"),
        (("wait", "--timeout", "0.2"), 1, "not done within 0.2 s"),
        (("echo", "3", "--address", "127.0.0.1:1"), 4, "127.0.0.1:1"),
    ],
)
def test_R12_R16_R26_call_says_what_is_wrong_and_ends_with_the_code_for_it(here, words, code, says):
    done = here.run("call", *words)
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert done.stdout == ""


def test_nobody_to_call(tmp_path):
    with machine() as lonely:
        done = lonely.run("call", "echo", "1")
    assert done.returncode == 4
    assert "zmreg start --head" in done.stderr


def test_words_of_the_command_line():
    assert [value_of(text) for text in ("1", "-1.5", "true", "null", "NaN", "abc", '"1"', '"[1"', '{"a": [1]}')] == [
        1, -1.5, True, None, "NaN", "abc", "1", "[1", {"a": [1]},
    ]  # fmt: skip
    assert arguments_of(("1", "k=v=w", "9=8", "")) == ([1, "9=8", ""], {"k": "v=w"})
    with pytest.raises(click.UsageError, match="twice"):
        arguments_of(("a=1", "a=2"))


def test_what_begins_as_json_and_is_none_is_refused_with_the_place():
    for text, why in (
        ("[1", "line 1 column 3"),
        ('{"a": 1,}', "column 9"),
        ('"a', "column 1"),
        ("[NaN]", "NaN is no JSON"),
    ):
        with pytest.raises(click.UsageError, match="begins as JSON, and is none") as told:
            arguments_of((f"key={text}",))
        assert told.value.exit_code == 2 and why in told.value.message
        (as_text,) = shlex.split(told.value.message.rpartition(" given as ")[2])
        assert value_of(as_text) == text


def test_values_as_json():
    value = {1: (float("nan"), numpy.arange(3), numpy.float64(0.5)), "path": Path("a")}
    assert json.loads(json.dumps(plain(value), allow_nan=False)) == {
        "1": [None, [0, 1, 2], 0.5], "path": "PosixPath('a')",
    }  # fmt: skip


# -- what there is -----------------------------------------------------------------------------------------------------


def test_R36_functions_and_describe(here):
    shown = here.run("functions").stdout
    assert [line.split()[0] for line in shown.splitlines()] == ["Name", "boom", "echo", "echos", "mean", "odd", "wait"]
    row = next(each for each in here.asks("functions") if each["name"] == "mean")
    assert row == here.asks("describe", "mean")
    assert (row["signature"], row["versions"], row["locs"]) == ("(numbers, digits=3)", ["2.1"], ["dataset-1"])
    assert [host["node_name"] for host in row["hosts"]] == ["alpha"]
    text = here.run("describe", "mean").stdout
    assert text.startswith("mean(numbers, digits=3)\n") and "    Rounded." in text and "alpha" in text
    assert here.run("describe", "maen").returncode == 1


# -- request -----------------------------------------------------------------------------------------------------------

CHAIN = """
[steps.values]
fun = "echo"
args = [[20.1, 20.5, 21.0]]
[steps.average]
fun = "mean"
args = ["values"]
kwargs = {digits = 4}
locs = ["dataset-1"]
version = "2.1"
timeout = 30
[steps.all]
fun = "echos"
args = [{"$lit" = "values"}, {"$ref" = "values", path = [1]}, {nested = ["average"]}]
"""


def test_R3_R9_request_prints_the_sinks(here):
    path = file(here, "chain.toml", CHAIN)
    done = here.run("request", path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "all = ['values', 20.5, {'nested': [20.5333]}]\n"
    assert here.asks("request", path, "--keep", "average") == {
        "average": 20.5333, "all": ["values", 20.5, {"nested": [20.5333]}],
    }  # fmt: skip


def test_watch_tells_steps_and_levels_on_stderr_as_they_come(here):
    done = here.run("request", file(here, "watched.toml", CHAIN), "--watch", "--json")
    assert json.loads(done.stdout) == {"all": ["values", 20.5, {"nested": [20.5333]}]}
    lines = [line.split(" s  ")[1] for line in done.stderr.splitlines()]
    assert [line.partition(",")[0] for line in lines if "began" not in line] == [
        "values done", "level 0 of 3 is whole (33 %)", "average done", "level 1 of 3 is whole (67 %)", "all done",
        "level 2 of 3 is whole (100 %)",
    ]  # fmt: skip
    assert "average began on alpha" in lines


def test_I7_a_failed_request_shows_what_was_done_before(here):
    path = file(here, "fails.json", '[["a", "echo", [1]], ["b", "boom", ["a"]], ["c", "echo", ["b"]]]')
    done = here.run("request", path)
    assert (done.returncode, done.stdout) == (1, "")
    first = [line.split()[:2] for line in done.stderr.splitlines()[:3]]
    assert first == [["done", "a"], ["failed", "b"], ["cancelled", "c"]]
    assert "ValueError: no 1" in done.stderr
    watched = here.run("request", path, "--watch")
    assert watched.returncode == 1 and "b failed" in watched.stderr


def test_I8_a_request_that_takes_too_long_shows_what_was_done_before(here):
    done = here.run("request", file(here, "long.json", '[["a", "echo", [1]], ["b", "wait"]]'), "--timeout", "0.5")
    assert done.returncode == 1
    assert done.stderr.startswith("done      a in ") and "not done within 0.5 s" in done.stderr


def test_ctrl_c_ends_a_request_with_130(here):
    path = file(here, "waits.json", '[["a", "echo", [1]], ["b", "wait", []]]')
    running = subprocess.Popen(
        [sys.executable, "-m", "zmreg", "request", path, "--watch"], env=here.environment(), cwd=here.here,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert running.stderr is not None
    said = next(line for line in running.stderr if "b began" in line)
    assert "alpha" in said
    running.send_signal(signal.SIGINT)
    out, left = running.communicate(timeout=PATIENCE_S)
    assert (running.returncode, out) == (130, ""), left
    assert "Traceback" not in left


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ('{"steps": [["a", "echo", ["b"]], ["b", "echo", ["a"]]]}', "a -> b -> a"),
        ('[["a", "echo"], ["a", "echo"]]', "'a'"),
        ('[{"name": "a", "fun": "echo", "arg": [1]}]', "has no 'arg'; there are name, fun, args"),
        ('{"steps": [], "timout": 3}', "has no 'timout'"),
        ('{"timeout": 3}', "no steps"),
        ('[{"name": "a"}]', "no fun"),
        ('[["a", "echo", 3]]', "args of step 'a' should be a list, and is 3"),
        ("[1]", "step 0"),
        ("{", "Expecting"),
    ],
)
def test_R10_R11_a_file_with_a_slip_is_named_and_nothing_runs(here, text, says):
    done = here.run("request", file(here, "slip.json", text))
    assert done.returncode == 2, done.stderr
    assert "slip.json" in done.stderr and says in done.stderr


def test_files_say_all_that_steps_can(tmp_path):
    path = tmp_path / "all.json"
    path.write_text(
        json.dumps(
            {
                "timeout": 3,
                "steps": [
                    ["a", "f", [{"$ref": "b"}], ["m1"]],
                    ["b", "f", [], {"k": [{"$lit": {"$ref": 1}}]}],
                    {"name": "c", "fun": "g", "args": ["a"], "version": ">=2", "timeout": 1.5, "retries": 2},
                ],
            }
        )
    )
    steps, options = read(str(path))
    assert options == {"timeout": 3}
    assert steps == [
        Step("a", "f", (Ref("b"),), {}, ("m1",)),
        Step("b", "f", (), {"k": [Lit({"$ref": 1})]}),
        Step("c", "g", ("a",), {}, (), ">=2", 1.5, 2),
    ]


# -- other machines ----------------------------------------------------------------------------------------------------


def test_R33_a_machine_without_a_node_calls_what_a_loaded_process_serves():
    with machine() as there, machine() as away:
        (there.here / "mymodels.py").write_text(
            "import zmreg\n\ndef setup():\n    zmreg.register('total', lambda *numbers: sum(numbers))\n"
        )
        _, head = there.up(
            "--head", "--port", str(free_port()), *SMALL, "--locs", "edge-1", "--load", "mymodels:setup",
            PYTHONPATH=f"{ROOT}:{there.here}",
        )  # fmt: skip
        words = ("1", "2", "3", "--locs", "edge-1", "--address", head["address"])
        assert away.run("call", "total", *words).returncode == 5  # without the key
        shutil.copy(head["key_file"], away.here / "cluster.key")
        assert away.asks("call", "total", *words, "--key", "cluster.key") == 6
