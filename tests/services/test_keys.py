"""Key files: who may read them, how they are replaced, and that what is in them is shown to nobody."""

from __future__ import annotations

import errno
import json
import os
import stat
import subprocess
import sys
import tempfile
import threading
import traceback
from pathlib import Path

import pytest

from zmreg.model.errors import AuthenticationError
from zmreg.net.curve import CurveKeys
from zmreg.services.setup import keys
from zmreg.services.setup.keys import KEY_FILE, UnsafeKeyFileError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ZMREG_HOME", str(tmp_path / "home"))
    return tmp_path / "home"


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    keys.create(tmp_path / "cluster")
    return tmp_path / "cluster"


def secrets_of(found: CurveKeys) -> list[str]:
    return [half.decode() for one in found.sets for half in (one.server_secret, one.client_secret)]


def mode_of(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


# -- making and reading ------------------------------------------------------------------------------------------------


def test_what_is_created_can_be_loaded_by_file_and_by_directory(tmp_path: Path) -> None:
    made = keys.create(tmp_path / "new" / "cluster", "ab12")
    assert made.cluster_id == "ab12" and made.stage == "settled"
    assert keys.load(tmp_path / "new" / "cluster") == made
    assert keys.load(tmp_path / "new" / "cluster" / KEY_FILE) == made


def test_files_and_directories_are_closed_to_others_whatever_the_umask(home: Path) -> None:
    before = os.umask(0)
    try:
        made = keys.create(keys.cluster_directory("ab12"))
    finally:
        os.umask(before)
    directory = home / "clusters" / "ab12"
    assert mode_of(directory / KEY_FILE) == 0o600
    assert [mode_of(path) for path in (directory, directory.parent, home)] == [0o700] * 3
    assert os.listdir(directory) == [KEY_FILE], "no temporary file is left"
    assert keys.known_clusters() == ["ab12"] and keys.load(directory) == made


def test_keys_are_never_overwritten(directory: Path) -> None:
    before = (directory / KEY_FILE).read_bytes()
    with pytest.raises(AuthenticationError, match="exists already"):
        keys.create(directory)
    assert (directory / KEY_FILE).read_bytes() == before
    assert os.listdir(directory) == [KEY_FILE]


def test_two_that_create_at_once_end_up_with_one_key(tmp_path: Path) -> None:
    made: list[keys.ClusterKey] = []
    refused: list[AuthenticationError] = []
    together = threading.Barrier(8)

    def create() -> None:
        together.wait()
        try:
            made.append(keys.create(tmp_path / "cluster"))
        except AuthenticationError as error:
            refused.append(error)

    threads = [threading.Thread(target=create) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and len(refused) == 7
    assert keys.load(tmp_path / "cluster") == made[0]


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o620, 0o666, 0o601])
def test_a_file_that_is_open_to_others_is_refused_and_the_error_names_chmod(directory: Path, mode: int) -> None:
    path = directory / KEY_FILE
    path.chmod(mode)
    with pytest.raises(UnsafeKeyFileError, match=f"mode {mode:o}.*chmod 600 {path}"):
        keys.load(directory)
    path.chmod(0o400)
    assert keys.load(directory)


def test_a_directory_that_is_open_to_others_is_refused(tmp_path: Path, directory: Path) -> None:
    open_one = tmp_path / "open"
    open_one.mkdir()
    open_one.chmod(0o755)
    with pytest.raises(UnsafeKeyFileError, match=f"chmod 700 {open_one}"):
        keys.create(open_one)
    directory.chmod(0o770)
    with pytest.raises(UnsafeKeyFileError, match="chmod 700"):
        keys.rotate(directory)


def test_a_file_of_another_user_is_refused(directory: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 12_345)
    with pytest.raises(UnsafeKeyFileError, match="you are 12345: chown"):
        keys.load(directory)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_another_user_reads_no_key() -> None:
    with tempfile.TemporaryDirectory() as reachable:
        Path(reachable).chmod(0o755)
        directory = Path(reachable) / "cluster"
        keys.create(directory)
        assert read_as_nobody(directory / KEY_FILE) == errno.EACCES
        directory.chmod(0o755)
        assert read_as_nobody(directory / KEY_FILE) == errno.EACCES
        (directory / KEY_FILE).chmod(0o644)
        assert read_as_nobody(directory / KEY_FILE) == 0, "the test can tell"


def read_as_nobody(path: Path) -> int:
    """The errno of opening it; in a forked child, as nobody may not be able to start this interpreter."""
    child = os.fork()
    if not child:
        code = 255
        try:
            os.setgroups([])
            os.setgid(65534)
            os.setuid(65534)
            os.open(path, os.O_RDONLY)
            code = 0
        except OSError as error:
            code = error.errno or 255
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def test_a_missing_file_is_named_and_how_to_get_one(tmp_path: Path) -> None:
    with pytest.raises(AuthenticationError, match=f"{tmp_path / KEY_FILE} is missing; .zmreg key export"):
        keys.load(tmp_path)


def test_a_named_pipe_does_not_hang(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / KEY_FILE, 0o600)
    with pytest.raises(AuthenticationError, match="no cluster key"):
        keys.load(tmp_path)


@pytest.mark.parametrize("name", ["", "..", "../other", "/etc", "ab/cd", "AB"])
def test_a_cluster_id_is_no_path(name: str) -> None:
    with pytest.raises(ValueError, match="hex digits"):
        keys.cluster_directory(name)


# -- damage ------------------------------------------------------------------------------------------------------------


def damaged(text: str) -> dict[str, str]:
    read = json.loads(text)
    one = read["sets"][0]
    other_key = "rq:rM>}U?@Lns47E1%kR.o@n%FcmmsL/@{H8]yf7"
    changed = {
        "empty": "",
        "cut": text[: len(text) // 2],
        "not an object": json.dumps([read]),
        "no format": json.dumps({**read, "format": None}),
        "a later format": json.dumps({**read, "format": 2}),
        "no sets": json.dumps({**read, "sets": []}),
        "three sets": json.dumps({**read, "sets": [one, one, one]}),
        "the same set twice": json.dumps({**read, "sets": [one, one]}),
        "no cluster": json.dumps({key: value for key, value in read.items() if key != "cluster"}),
        "a set that is a list": json.dumps({**read, "sets": [list(one.values())]}),
        "too large": text + " " * 20_000,
    }
    for half in ("server_public", "server_secret", "client_public", "client_secret"):
        for name, value in (("another", other_key), ("short", one[half][:-1]), ("number", 5), ("bad", "é" * 40)):
            changed[f"{half}: {name}"] = json.dumps({**read, "sets": [{**one, half: value}]})
        changed[f"no {half}"] = json.dumps({**read, "sets": [{k: v for k, v in one.items() if k != half}]})
    return changed


DAMAGES = list(damaged(json.dumps({"format": 1, "cluster": "ab", "sets": [dict.fromkeys(keys._HALVES, "")]})))


@pytest.mark.parametrize("kind", DAMAGES)
def test_a_damaged_file_is_refused_and_nothing_of_it_is_shown(directory: Path, kind: str) -> None:
    path = directory / KEY_FILE
    shown_never = secrets_of(keys.load(path).keys)
    path.write_text(damaged(path.read_text())[kind])
    with pytest.raises(AuthenticationError, match="is no cluster key") as caught:
        keys.load(path)
    told = "".join(traceback.format_exception(caught.value))
    assert str(path) in str(caught.value)
    assert not [secret for secret in shown_never if secret[:12] in told]
    assert caught.value.__cause__ is None and caught.value.__suppress_context__ or caught.value.__context__ is None


# -- a rotation --------------------------------------------------------------------------------------------------------


def test_a_rotation_keeps_both_sets_until_it_is_finished(directory: Path) -> None:
    before = keys.load(directory)
    old = before.keys.sets[0]
    rotated = keys.rotate(directory)
    new = rotated.keys.sets[1]
    assert rotated.stage == "rotated" and rotated.keys.sets == (old, new) and new.number == old.number + 1
    assert rotated.keys.server_public == old.server_public and rotated.keys.client_public == old.client_public
    assert rotated.keys.accepted == {old.client_public, new.client_public}
    assert len({old.server_public, new.server_public, old.client_public, new.client_public}) == 4
    switched = keys.switch(directory)
    assert switched.stage == "switched" and switched.keys.sets == (new, old)
    assert switched.keys.accepted == rotated.keys.accepted and switched.keys.server_secret == new.server_secret
    assert keys.switch(directory) == switched
    finished = keys.finish(directory)
    assert finished.stage == "settled" and finished.keys.sets == (new,)
    assert finished.cluster_id == before.cluster_id
    assert keys.load(directory) == finished
    assert mode_of(directory / KEY_FILE) == 0o600 and os.listdir(directory) == [KEY_FILE]


def test_after_a_theft_the_middle_step_can_be_left_out(directory: Path) -> None:
    old = keys.load(directory).keys.sets[0]
    new = keys.rotate(directory).keys.sets[1]
    assert keys.finish(directory).keys.sets == (new,)
    assert old.client_secret.decode() not in (directory / KEY_FILE).read_text()


def test_the_steps_of_a_rotation_have_an_order(directory: Path) -> None:
    for step in (keys.switch, keys.finish):
        with pytest.raises(AuthenticationError, match="rotate first"):
            step(directory)
    keys.rotate(directory)
    with pytest.raises(AuthenticationError, match="finish it first"):
        keys.rotate(directory)


def test_of_two_rotations_at_once_one_is_refused(directory: Path) -> None:
    made: list[keys.ClusterKey] = []
    refused: list[AuthenticationError] = []
    together = threading.Barrier(4)

    def rotate() -> None:
        together.wait()
        try:
            made.append(keys.rotate(directory))
        except AuthenticationError as error:
            refused.append(error)

    threads = [threading.Thread(target=rotate) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 1 and len(refused) == 3
    assert keys.load(directory) == made[0]


def test_a_reader_sees_a_whole_file_all_through_a_rotation(directory: Path) -> None:
    ended = threading.Event()
    stages: set[str] = set()

    def read() -> None:
        while not ended.is_set():
            stages.add(keys.load(directory).stage)

    reader = threading.Thread(target=read)
    reader.start()
    try:
        for _ in range(10):
            for step in (keys.rotate, keys.switch, keys.finish):
                step(directory)
    finally:
        ended.set()
        reader.join()
    assert "settled" in stages
    assert keys.load(directory).keys.sets[0].number == 11


# -- copies ------------------------------------------------------------------------------------------------------------


def test_an_export_is_a_whole_key_file_and_overwrites_nothing(directory: Path, tmp_path: Path) -> None:
    target = tmp_path / "copy.key"
    keys.export(directory, target)
    assert keys.load(target) == keys.load(directory)
    assert mode_of(target) == 0o600
    with pytest.raises(AuthenticationError, match="exists already"):
        keys.export(directory, target)
    target.unlink()
    target.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(AuthenticationError, match="exists already"):
        keys.export(directory, target)
    assert not (tmp_path / "elsewhere").exists()


# -- redaction ---------------------------------------------------------------------------------------------------------


def test_no_repr_shows_a_secret(directory: Path) -> None:
    found = keys.rotate(directory)
    for thing in (found, found.keys, *found.keys.sets, [found], {"key": found}):
        for text in (repr(thing), str(thing), f"{thing}"):
            assert not [secret for secret in secrets_of(found.keys) if secret in text]
    assert found.keys.fingerprint in repr(found)


def test_a_fingerprint_tells_sets_apart_and_is_stable(directory: Path) -> None:
    found = keys.rotate(directory)
    prints = [one.fingerprint for one in found.keys.sets]
    assert len(set(prints)) == 2 and prints == [one.fingerprint for one in keys.load(directory).keys.sets]
    assert len(prints[0]) == 19


def key_command(home: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "ZMREG_HOME": str(home)}
    command = [sys.executable, "-m", "zmreg", "key", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=50)


def test_no_command_prints_a_secret(home: Path, tmp_path: Path) -> None:
    made = keys.create(keys.cluster_directory("ab12"))
    before = secrets_of(made.keys)
    printed = ""
    for arguments in (["show"], ["show", "--json"], ["rotate"], ["export", str(tmp_path / "a.key"), "--json"]):
        run = key_command(home, *arguments)
        assert run.returncode == 0, run.stderr
        printed += run.stdout + run.stderr
    now = secrets_of(keys.load(keys.cluster_directory("ab12")).keys)
    assert len(set(before + now)) == 4
    assert not [secret for secret in before + now if secret in printed]
    assert made.keys.fingerprint in printed


def test_show_as_json_is_one_document(home: Path) -> None:
    made = keys.create(keys.cluster_directory("ab12"), "ab12")
    run = key_command(home, "show", "--json")
    assert run.stderr == "" and json.loads(run.stdout) == {
        "cluster": "ab12",
        "file": str(home / "clusters" / "ab12" / KEY_FILE),
        "stage": "settled",
        "sets": [{"number": 1, "fingerprint": made.keys.fingerprint}],
    }


def test_exit_codes_of_the_key_commands(home: Path, tmp_path: Path) -> None:
    run = key_command(home, "show")
    assert run.returncode == 5 and "starting a head makes one" in run.stderr
    path = keys.cluster_directory("ab12")
    keys.create(path)
    assert key_command(home, "rotate", "--finish").returncode == 5
    assert key_command(home, "rotate", "--finish", "--switch").returncode == 2
    assert key_command(home, "export", str(path / KEY_FILE)).returncode == 2
    assert key_command(home, "show", "--cluster", "../x").returncode == 2
    assert key_command(home, "show", "--state-dir", str(tmp_path / "nothing")).returncode == 5
    keys.create(keys.cluster_directory("cd34"))
    run = key_command(home, "show")
    assert run.returncode == 2 and "ab12, cd34" in run.stderr
    assert key_command(home, "show", "--cluster", "ab12").returncode == 0
    (path / KEY_FILE).chmod(0o644)
    run = key_command(home, "show", "--state-dir", str(path))
    assert run.returncode == 2 and f"chmod 600 {path / KEY_FILE}" in run.stderr


@pytest.mark.parametrize("name", ["show", "rotate", "export"])
def test_every_key_command_has_help_with_an_example(home: Path, name: str) -> None:
    run = key_command(home, name, "--help")
    assert run.returncode == 0 and f"Example: zmreg key {name}" in run.stdout
