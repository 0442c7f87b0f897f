"""Every example runs as a user would run it; each asserts what it shows."""

from __future__ import annotations

import os
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
# The slowest (the search engine) needs 4 s on two idle cores; eight processes that import scikit-learn, 15.
TIMEOUT_S = 50
LEARNING_TIMEOUT_S = 150
# Those that need more than Python are run below.
LEARNING = ROOT / "examples" / "eight_models.py"
PRICES = ROOT / "examples" / "walk_forward.py"
SPEECH = ROOT / "examples" / "speech_features.py"
RECORDINGS = Path("/usr/share/sounds/alsa")


def test_there_are_examples() -> None:
    assert len(EXAMPLES) >= 8


@pytest.mark.parametrize(
    "path", [path for path in EXAMPLES if path not in (LEARNING, PRICES, SPEECH)], ids=lambda path: path.stem
)
def test_example_runs(path: Path) -> None:
    run(path)


@pytest.mark.parametrize("name", ["eight_hosts", "six_steps"])
def test_R25_example_stays_correct_when_a_host_is_killed_in_the_middle(name: str) -> None:
    run(ROOT / "examples" / f"{name}.py", "--kill")


@pytest.mark.timeout(LEARNING_TIMEOUT_S + 30)
def test_R25_models_are_the_same_when_a_host_is_killed_in_the_middle_of_its_training() -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    run(LEARNING, "--kill", timeout=LEARNING_TIMEOUT_S)


def test_W25_real_prices_walk_forward_and_a_driver_killed_in_the_middle_goes_on(tmp_path: Path) -> None:
    for needed in ("bokeh_sampledata", "numpy", "pyarrow"):
        pytest.importorskip(needed, reason=f"{needed} is not installed")
    run(PRICES, "--kill", str(tmp_path))
    run(PRICES, str(tmp_path / "other"))
    for name in ("calls", "trials/manifest.json"):
        assert (tmp_path / name).exists() and (tmp_path / "other" / name).exists()
    assert (tmp_path / "walk_forward.png").exists() == (find_spec("matplotlib") is not None)


def test_P24_recorded_speech_over_two_nodes(tmp_path: Path) -> None:
    pytest.importorskip("numpy", reason="numpy is not installed")
    if not any(RECORDINGS.glob("*.wav")):
        pytest.skip("there are no recordings: alsa-utils is not installed")
    run(SPEECH, "--picture", str(tmp_path / "speech.png"))
    assert (tmp_path / "speech.png").exists() == (find_spec("matplotlib") is not None)


def run(path: Path, *arguments: str, timeout: float = TIMEOUT_S) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONWARNINGS": "error", "PYTHONUNBUFFERED": "1"}
    done = subprocess.run(
        [sys.executable, str(path), *arguments],
        env=environment, capture_output=True, text=True, timeout=timeout, check=False,
    )  # fmt: skip
    assert done.returncode == 0, f"{path.name} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}"
    assert done.stdout.strip(), f"{path.name} shows nothing"
    assert "Traceback" not in done.stderr, done.stderr
