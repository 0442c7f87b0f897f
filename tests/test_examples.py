"""Every example runs as a user would run it; each asserts what it shows."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
# The slowest (the search engine) needs 4 s on two idle cores; eight processes that import scikit-learn, 15.
TIMEOUT_S = 50
LEARNING_TIMEOUT_S = 150
# One that needs more than Python, and takes longer: it is run once, below.
LEARNING = ROOT / "examples" / "eight_models.py"


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 8


@pytest.mark.parametrize("path", [path for path in EXAMPLES if path != LEARNING], ids=lambda path: path.stem)
def test_example_runs(path: Path) -> None:
    run(path)


@pytest.mark.parametrize("name", ["eight_hosts", "six_steps"])
def test_R25_example_stays_correct_when_a_host_is_killed_in_the_middle(name: str) -> None:
    run(ROOT / "examples" / f"{name}.py", "--kill")


@pytest.mark.timeout(LEARNING_TIMEOUT_S + 30)
def test_R25_models_are_the_same_when_a_host_is_killed_in_the_middle_of_its_training() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    run(LEARNING, "--kill", timeout=LEARNING_TIMEOUT_S)


def run(path: Path, *arguments: str, timeout: float = TIMEOUT_S) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(
        [sys.executable, str(path), *arguments],
        env=environment, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{path.name} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    assert done.stdout.strip(), f"{path.name} shows nothing"
    assert "Traceback" not in done.stderr, done.stderr
