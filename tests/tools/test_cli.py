"""The command itself: help, exit codes, clean streams. Run as users run it, in a process of its own."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest
from click.testing import CliRunner

from zmreg.model.errors import AuthenticationError, HeadUnavailableError, TaskError, ZmregError
from zmreg.tools.cli.group import COMMANDS, CommandGroup, main

ROOT = Path(__file__).parent.parent.parent


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "zmreg", *arguments]


def environment() -> dict[str, str]:
    return os.environ | {"PYTHONPATH": str(ROOT), "PYTHONUNBUFFERED": "1"}


def zmreg_command(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command(*arguments), env=environment(), capture_output=True, text=True, timeout=50, check=False
    )


@pytest.mark.parametrize("name", sorted(COMMANDS))
def test_every_command_has_help_with_an_example(name: str) -> None:
    shown = CliRunner().invoke(main, [name, "--help"])
    assert shown.exit_code == 0
    assert "Example: zmreg" in shown.output


@pytest.mark.parametrize("arguments", [["--help"], ["-h"]])
def test_help_lists_the_commands(arguments: list[str]) -> None:
    shown = CliRunner().invoke(main, arguments)
    assert shown.exit_code == 0
    assert all(name in shown.output for name in COMMANDS)


def test_help_loads_nothing_heavy() -> None:
    code = "import sys; from zmreg.tools.cli import main; main(['--help'], standalone_mode=False); print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment(), capture_output=True, text=True, timeout=50, check=True
    )
    loaded = set(done.stdout.split())
    assert not loaded & {"numpy", "pyarrow", "rich", "zmreg.tools.demo.search"}


def test_version_as_json_is_one_document() -> None:
    done = zmreg_command("version", "--json")
    assert done.returncode == 0
    assert json.loads(done.stdout)["pyzmq"]
    assert done.stderr == ""


@pytest.mark.parametrize("arguments", [["nonsense"], ["demo", "--workers", "0"], ["demo", "--root", "/nowhere/at/all"]])
def test_usage_errors_exit_2(arguments: list[str]) -> None:
    done = zmreg_command(*arguments)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Usage:" in done.stderr


def test_a_misspelt_command_is_answered_with_the_right_one() -> None:
    told = CliRunner().invoke(main, ["statsu"])
    assert told.exit_code == 2 and "No such command 'statsu'; did you mean 'status'?" in told.stderr
    told = CliRunner().invoke(main, ["xyzzy"])
    assert told.exit_code == 2 and "No such command 'xyzzy'; `zmreg --help` shows all" in told.stderr


def test_nothing_to_index_exits_1_and_says_what_next(tmp_path: Path) -> None:
    done = zmreg_command("demo", "--root", str(tmp_path))
    assert done.returncode == 1
    assert "--root" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ZmregError("broken"), 1),
        (TaskError("broken"), 1),
        (OSError("broken"), 1),
        (HeadUnavailableError("broken"), 4),
        (AuthenticationError("broken"), 5),
        (KeyboardInterrupt(), 130),
        (click.UsageError("broken"), 2),
    ],
    ids=lambda value: type(value).__name__,
)
def test_errors_become_exit_codes(error: BaseException, code: int) -> None:
    @click.group(cls=CommandGroup)
    def group() -> None:
        pass

    @group.command()
    def fails() -> None:
        raise error

    outcome = CliRunner().invoke(group, ["fails"])
    assert outcome.exit_code == code
    assert "Traceback" not in outcome.output


def test_a_return_value_is_no_exit_code() -> None:
    @click.group(cls=CommandGroup)
    def group() -> None:
        pass

    @group.command()
    def answers() -> str:
        return "a value"

    assert CliRunner().invoke(group, ["answers"]).exit_code == 0


def test_demo_answers_the_query_and_shows_the_table() -> None:
    done = zmreg_command("demo", "--files", "60", "--workers", "2", "--query", "context manager")
    assert done.returncode == 0, done.stderr
    assert '"context manager": best 5 of' in done.stdout
    assert "same answers" in done.stdout
    assert "moved to the driver" in done.stdout
    assert "\x1b" not in done.stdout + done.stderr
    assert "60/60 files" in done.stderr


def test_demo_as_json_keeps_the_bytes_in_place() -> None:
    done = zmreg_command("demo", "--files", "60", "--json", "-q", "argument parser", "-q", "zzzz")
    assert done.returncode == 0, done.stderr
    document = json.loads(done.stdout)
    first, second = document["queries"]
    assert first["same"]
    assert second["same"]
    assert any(hit["path"] == "argparse.py" for hit in first["hits"])
    assert second["hits"] == []
    # The index is larger than the source it is made from, and next to nothing of it came here.
    assert document["kept_bytes"] > document["source_bytes"]
    assert document["moved_bytes"] < document["kept_bytes"] / 20


def test_demo_interrupted_exits_130_without_a_traceback() -> None:
    with subprocess.Popen(
        command("demo", "--workers", "2"),
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            assert process.stderr is not None
            assert "Searching" in process.stderr.readline()  # the cluster is about to start
            os.killpg(process.pid, signal.SIGINT)  # what a terminal does: the whole foreground group hears Ctrl-C
            _, errors = process.communicate(timeout=40)
        finally:
            process.kill()
    assert process.returncode == 130, errors
    assert "Traceback" not in errors
