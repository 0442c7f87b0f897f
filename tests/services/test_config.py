"""Files and variables: what wins, what is refused, and where it says so."""

from __future__ import annotations

from pathlib import Path

import pytest

from zmreg.model.settings import Settings
from zmreg.services.setup import config
from zmreg.services.setup.config import ConfigError


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch, tmp_path):
    for name in config.known():
        monkeypatch.delenv(f"ZMREG_{name.upper()}", raising=False)
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")


def user(tmp_path, text: str) -> None:
    (tmp_path / "config" / "zmreg").mkdir(parents=True)
    (tmp_path / "config" / "zmreg" / "config.toml").write_text(text)


def project(tmp_path, text: str) -> None:
    (tmp_path / "here" / "zmreg.toml").write_text(text)


def test_nothing_is_set_by_nobody():
    assert config.load() == {}


def test_the_environment_wins_over_the_project_and_that_over_the_user(monkeypatch, tmp_path):
    user(tmp_path, 'num_cpus = 1\nlocs = ["user"]\naddress = "10.0.0.1:7550"')
    project(tmp_path, "num_cpus = 2\nlocs = ['project']")
    monkeypatch.setenv("ZMREG_NUM_CPUS", "3")
    found = config.load()
    assert found["num_cpus"] == (3.0, "ZMREG_NUM_CPUS")
    assert found["locs"] == (("project",), "zmreg.toml")
    assert found["address"] == ("10.0.0.1:7550", str(config.user_file()))


def test_every_setting_can_be_given_as_text(monkeypatch):
    texts = {"num_cpus": "1.5", "resources": "licence=2", "locs": "a, b", "log_to_driver": "false", "max_workers": "7"}
    for name, text in texts.items():
        monkeypatch.setenv(f"ZMREG_{name.upper()}", text)
    assert Settings(**config.values()) == Settings(
        num_cpus=1.5, resources={"licence": 2.0}, locs=("a", "b"), log_to_driver=False, max_workers=7
    )


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("num_cpu = 1", "did you mean 'num_cpus'"),
        ("qqqq = 1", "there are"),
        ("num_cpus = 'two'", "has to be a number"),
        ("num_cpus = true", "has to be a number"),
        ("locs = 'a'", "has to be a list of names"),
        ("resources = { licence = 'x' }", "has to be amounts by name"),
        ("max_workers = 1.5", "has to be a whole number"),
        ("num_cpus = ", "cannot be read"),
    ],
)
def test_a_file_with_a_slip_is_refused_with_its_name(tmp_path, text, words):
    project(tmp_path, text)
    with pytest.raises(ConfigError, match=words) as caught:
        config.load()
    assert "zmreg.toml" in str(caught.value)


def test_a_variable_with_a_slip_is_refused_with_its_name(monkeypatch):
    monkeypatch.setenv("ZMREG_MAX_WORKERS", "many")
    with pytest.raises(ConfigError, match="ZMREG_MAX_WORKERS='many' has to be a whole number"):
        config.load()


def test_other_variables_of_ours_and_those_of_kubernetes_mean_nothing(monkeypatch):
    monkeypatch.setenv("ZMREG_PORT", "tcp://10.96.0.7:7550")  # a service called zmreg
    monkeypatch.setenv("ZMREG_PORT_7550_TCP_ADDR", "10.96.0.7")
    assert config.load() == {}


def test_paths_are_meant_from_the_files_directory_on(tmp_path):
    user(tmp_path, "key = 'cluster.key'\nstate_dir = '/var/lib/zmreg'")
    found = config.values()
    assert found["key"] == str(tmp_path / "config" / "zmreg" / "cluster.key")
    assert found["state_dir"] == "/var/lib/zmreg"


@pytest.mark.parametrize(
    ("text", "nbytes"), [("100", 100), ("1k", 1024), ("2GiB", 2 << 30), ("1.5 MB", 3 << 19), ("64M", 64 << 20)]
)
def test_sizes(text, nbytes):
    assert config.size(text) == nbytes


@pytest.mark.parametrize("text", ["", "plenty", "-1", "1x", "nan", "inf"])
def test_what_is_no_size(text):
    with pytest.raises(ValueError):
        config.size(text)


@pytest.mark.parametrize("text", ["licence=2,disk=0.5", '{"licence": 2, "disk": 0.5}', " licence = 2 , disk=0.5 "])
def test_amounts(text):
    assert config.amounts(text) == {"licence": 2.0, "disk": 0.5}


@pytest.mark.parametrize("text", ["licence", "=2", "licence=many", "{", '{"licence": []}'])
def test_what_are_no_amounts(text):
    with pytest.raises((ValueError, TypeError)):
        config.amounts(text)


def test_row_70_labels_are_texts_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert config.labels("zone=a, disk=fast") == {"zone": "a", "disk": "fast"}
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ZMREG_LABELS", "zone=b")
    assert config.values()["labels"] == {"zone": "b"}
    monkeypatch.setenv("ZMREG_LABELS", "zone")
    with pytest.raises(ConfigError, match="texts by name"):
        config.values()
