"""`zmreg config show`: every setting, its value, and where it comes from (experience.md 1.8)."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from zmreg.services.setup import config
from zmreg.services.setup.launch import filled
from zmreg.services.setup.starting import Wish, plan
from zmreg.tools.cli.group import main


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in list(os.environ):
        if name.startswith("ZMREG_") and "TEST" not in name:
            monkeypatch.delenv(name)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("ZMREG_HOME", str(tmp_path / "home"))
    (tmp_path / "config" / "zmreg").mkdir(parents=True)
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def show(*options: str) -> Result:
    return CliRunner().invoke(main, ["config", "show", *options])


def shown() -> dict[str, tuple[Any, str]]:
    done = show("--json")
    assert done.exit_code == 0, done.output
    return {row["name"]: (row["value"], row["origin"]) for row in json.loads(done.stdout)["settings"]}


def test_every_setting_is_there_once_with_its_origin() -> None:
    rows = shown()
    assert sorted(rows) == sorted(config.known())
    assert rows["dead_after_s"] == (10.0, "default")
    assert rows["num_cpus"] == (float(os.cpu_count() or 1), "this machine")
    assert rows["object_store_bytes"][1] == "this machine" and rows["object_store_bytes"][0] > 0
    assert rows["address"] == (None, "default")


def test_variables_files_and_defaults_are_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    user = tmp_path / "config" / "zmreg" / "config.toml"
    user.write_text('num_cpus = 1\nlocs = ["user"]\nkey = "cluster.key"')
    Path("zmreg.toml").write_text("num_cpus = 2\nnamespace = 'mine'")
    monkeypatch.setenv("ZMREG_NUM_CPUS", "3")
    monkeypatch.setenv("ZMREG_RESOURCES", "licence=2")
    rows = shown()
    assert rows["num_cpus"] == (3.0, "ZMREG_NUM_CPUS")
    assert rows["resources"] == ({"licence": 2.0}, "ZMREG_RESOURCES")
    assert rows["namespace"] == ("mine", "zmreg.toml")
    assert rows["locs"] == (["user"], str(user))
    assert rows["key"] == (str(user.parent / "cluster.key"), str(user))
    text = show("--origin").output
    assert any(line.split() == ["resources", "licence=2", "ZMREG_RESOURCES"] for line in text.splitlines())
    assert "zmreg.toml" not in show().output, "origins were not asked for"


def test_what_is_shown_is_what_a_node_would_start_with(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZMREG_DEAD_AFTER_S", "4")
    monkeypatch.setenv("ZMREG_MAX_WORKERS", "7")
    rows = shown()
    started = filled(plan(Wish(head=True), {}, config.values()).settings)
    for name in ("num_cpus", "num_gpus", "dead_after_s", "max_workers", "spill_bytes", "registry_scope"):
        assert rows[name][0] == getattr(started, name), name


def test_a_setting_that_does_not_exist_is_an_error_with_a_guess() -> None:
    Path("zmreg.toml").write_text("num_cpu = 3")
    done = show("--json")
    assert done.exit_code == 2 and done.stdout == ""
    assert "zmreg.toml sets 'num_cpu', which does not exist; did you mean 'num_cpus'?" in done.stderr


def test_a_value_that_no_node_would_start_with_is_an_error() -> None:
    Path("zmreg.toml").write_text("memory_threshold = 95")
    done = show()
    assert done.exit_code == 2 and "memory_threshold=95" in done.stderr


def test_a_variable_that_looks_like_a_slip_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ZMREG_NUM_CPU", "3")
    monkeypatch.setenv("ZMREG_SERVICE_HOST", "10.96.0.7")  # Kubernetes, of a service called zmreg
    monkeypatch.setenv("ZMREG_PORT_7550_TCP_PORT", "7550")
    monkeypatch.setenv("ZMREG_PORT_7550_TCP", "tcp://10.96.0.7:7550")
    done = show("--json")
    assert json.loads(done.stdout)["ignored"] == [{"variable": "ZMREG_NUM_CPU", "meant": "ZMREG_NUM_CPUS"}]
    assert "did you mean ZMREG_NUM_CPUS?" in done.stderr and done.exit_code == 0
