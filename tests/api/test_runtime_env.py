"""Row 10: `runtime_env`. What user code finds around it, and that nobody else finds it."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import zmreg
from zmreg.model.errors import RuntimeEnvSetupError
from zmreg.services.machine import packages
from zmreg.testing import LocalCluster

Seen = tuple[str | None, str | None, int]


@zmreg.remote(num_cpus=0.5)
def seen() -> Seen:
    """(variable A, variable B, pid)"""
    return os.environ.get("ZT_A"), os.environ.get("ZT_B"), os.getpid()


@zmreg.remote(num_cpus=0.5)
def from_within(more: dict[str, Any] | None) -> tuple[Seen, Seen]:
    """(a child's, a child's with more)"""
    plain, with_more = seen.remote(), seen.options(runtime_env=more).remote()
    return zmreg.get(plain), zmreg.get(with_more)


@zmreg.remote(num_cpus=0.5)
class Looks:
    def seen(self) -> Seen:
        return os.environ.get("ZT_A"), os.environ.get("ZT_B"), os.getpid()

    def from_within(self) -> Seen:
        return zmreg.get(seen.remote())

    def reads(self, name: str) -> str:
        return Path(name).read_text()


def a(value: str) -> dict[str, Any]:
    return {"env_vars": {"ZT_A": value}}


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "zt_module.py").write_text("import os\nA = os.environ.get('ZT_A')\n")
    (tmp_path / "data.txt").write_text("hello")
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "old.pyc").write_text("x")
    script = tmp_path / "bin" / "run"
    script.parent.mkdir()
    script.write_text("#!/bin/sh\necho ran\n")
    script.chmod(0o755)
    return tmp_path


@pytest.fixture(scope="class")
def alone() -> Iterator[None]:
    zmreg.init(address="local", num_cpus=2)
    yield
    zmreg.shutdown()


@pytest.mark.usefixtures("alone")
class TestOneNode:
    def test_row_10_a_worker_of_one_environment_never_runs_another(self) -> None:
        kinds = [seen, seen.options(runtime_env=a("1")), seen.options(runtime_env=a("2"))]
        rows = zmreg.get([kind.remote() for _ in range(20) for kind in kinds])
        by_kind = [{row for row in rows if row[0] == value} for value in (None, "1", "2")]
        assert [len([row for row in rows if row[0] == value]) for value in (None, "1", "2")] == [20, 20, 20]
        pids = [{pid for _, _, pid in kind} for kind in by_kind]
        assert not pids[0] & pids[1] and not pids[0] & pids[2] and not pids[1] & pids[2]
        again = zmreg.get(seen.options(runtime_env=a("1")).remote())
        assert again[0] == "1" and again[2] not in pids[0] | pids[2]
        assert "ZT_A" not in os.environ

    def test_row_10_children_inherit_and_add(self) -> None:
        plain, more = zmreg.get(from_within.options(runtime_env=a("outer")).remote({"env_vars": {"ZT_B": "b"}}))
        assert plain[:2] == ("outer", None) and more[:2] == ("outer", "b")
        actor = Looks.options(runtime_env=a("actor")).remote()
        assert zmreg.get(actor.seen.remote())[:2] == ("actor", None)
        assert zmreg.get(actor.from_within.remote())[:2] == ("actor", None)

    def test_row_10_directories_and_modules(self, project: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
        @zmreg.remote(runtime_env={"working_dir": str(project), **a("early")})
        def looks() -> tuple[str, str | None, list[str]]:
            import subprocess

            import zt_module  # type: ignore[import-not-found]

            assert subprocess.check_output(["./bin/run"]) == b"ran\n"
            return Path("data.txt").read_text(), zt_module.A, sorted(os.listdir())

        before = os.getcwd()
        text, value, names = zmreg.get(looks.remote())
        assert (text, value) == ("hello", "early")
        assert {"bin", "data.txt", "zt_module.py"} <= set(names)
        assert os.getcwd() == before

        folder = tmp_path_factory.mktemp("lib") / "zt_library"
        folder.mkdir()
        (folder / "__init__.py").write_text("from zt_library.part import X\n")
        (folder / "part.py").write_text("X = 7\n")
        single = folder.parent / "zt_single.py"
        single.write_text("Y = 8\n")

        @zmreg.remote(runtime_env={"py_modules": [folder, str(single)]})
        def imports() -> tuple[int, int]:
            import zt_library  # type: ignore[import-not-found]
            import zt_single  # type: ignore[import-not-found]

            return zt_library.X, zt_single.Y

        assert zmreg.get(imports.remote()) == (7, 8)

    def test_row_10_it_is_there_before_what_a_function_is_pickled_with(self, project: Path) -> None:
        class AtImport:
            def __reduce__(self) -> tuple[Any, ...]:
                return os.getenv, ("ZT_A",)

        captured = AtImport()

        @zmreg.remote(runtime_env=a("before"))
        def tells() -> object:
            return captured

        assert zmreg.get(tells.remote()) == "before"

    def test_row_10_what_is_changed_after_it_was_given_stays_out(self) -> None:
        given = a("given")
        bare, actor = seen.options(runtime_env=given), Looks.options(runtime_env=given)
        decorated = zmreg.remote(num_cpus=0.5, runtime_env=given)(seen.__wrapped__)
        given["env_vars"]["ZT_A"] = "changed"
        given["env_vars"]["ZT_B"] = "new"
        assert [found[:2] for found in zmreg.get([bare.remote(), decorated.remote()])] == [("given", None)] * 2
        handle = actor.remote()
        assert zmreg.get(handle.seen.remote())[:2] == ("given", None)

    def test_row_10_setup_failure_is_raised_by_get_and_heals(self, project: Path) -> None:
        (project / "data.txt").write_text("other")
        wanted = {"working_dir": str(project), **a("broken")}
        where = Path(zmreg.init(address="local", ignore_reinit_error=True).session) / "packages"
        aside = where.with_name("aside")
        if where.exists():
            where.rename(aside)
        where.write_text("no directory can be made here")
        try:
            with pytest.raises(RuntimeEnvSetupError, match="could not be set up"):
                zmreg.get(seen.options(runtime_env=wanted).remote())
            actor = Looks.options(runtime_env=wanted).remote()
            with pytest.raises(zmreg.errors.ActorDiedError) as died:
                zmreg.get(actor.seen.remote())
            assert isinstance(died.value.cause, RuntimeEnvSetupError)
        finally:
            where.unlink()
            if aside.exists():
                aside.rename(where)
        assert zmreg.get(seen.options(runtime_env=wanted).remote())[0] == "broken"

    def test_row_10_a_function_that_is_sent_takes_its_directory_along(self, project: Path) -> None:
        @zmreg.remote(runtime_env={"working_dir": str(project)})
        def reads() -> str:
            return Path("data.txt").read_text()

        @zmreg.remote
        def calls(function: Any) -> str:
            shutil.rmtree(project)
            return str(zmreg.get(function.remote()))

        assert zmreg.get(calls.remote(reads)) == "hello"


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"pip": ["x"]}, ValueError, "Supported: env_vars, working_dir, py_modules"),
        ({"conda": "x"}, ValueError, "installs nothing"),
        ({"env": {}}, ValueError, "no such key"),
        ({"env_vars": {"A": 1}}, TypeError, "strings"),
        ({"env_vars": {"A=": "1"}}, ValueError, "nothing that an environment can hold"),
        ({"working_dir": "/no/such/place"}, ValueError, "there is no /no/such/place"),
        ({"py_modules": "x"}, TypeError, "a list"),
        ([], TypeError, "a dictionary"),
    ],
)
def test_row_10_what_is_not_supported_is_said_at_once(given: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        seen.options(runtime_env=given)
    with pytest.raises(error, match=says):
        Looks.options(runtime_env=given)
    with pytest.raises(error, match=says):
        zmreg.init(address="local", runtime_env=given)


def test_row_10_packages_say_their_content_and_have_a_limit(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    digest, data = packages.pack(project, ())
    os.utime(project / "data.txt", (1, 1))
    assert packages.pack(project, ()) == (digest, data), "the same for the same content"
    assert packages.pack(project, ["data.*"])[0] != digest and packages.pack(project, (), "inside")[0] != digest
    place = project.parent / "unpacked" / "here"
    packages.unpack(data, place)
    packages.unpack(data, place)
    assert sorted(str(each.relative_to(place)) for each in place.rglob("*") if each.is_file()) == [
        "bin/run", "data.txt", "zt_module.py",
    ]  # fmt: skip
    assert os.listdir(place.parent) == ["here"]
    monkeypatch.setattr(packages, "MAX_BYTES", 10)
    with pytest.raises(ValueError, match=r"largest files: .*zt_module.py.*excludes"):
        packages.pack(project, ())
    with pytest.raises(ValueError, match="no zip file"):
        packages.unpack(b"x", place.parent / "other")


def test_row_10_a_job_s_environment_reaches_other_nodes_and_goes_with_the_session(project: Path) -> None:
    with LocalCluster(nodes=[{"num_cpus": 0}, {"num_cpus": 1}]) as cluster:
        zmreg.init(cluster.address, log_to_driver=False, runtime_env={"working_dir": str(project), **a("job")})
        try:
            actor = Looks.remote()
            assert zmreg.get(actor.reads.remote("data.txt")) == "hello"
            assert zmreg.get(seen.remote())[0] == "job"
            assert zmreg.get(actor.from_within.remote())[0] == "job"
            sessions = [node.session for node in cluster.nodes]
            assert [len(list(each.glob("packages/*"))) for each in sessions] == [0, 1]
        finally:
            zmreg.shutdown()
    assert not any(each.exists() for each in sessions)
