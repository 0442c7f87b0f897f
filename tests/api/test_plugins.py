"""Plugins and uploaded modules in every worker, also in late ones (core-api X13)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import zmreg
from tests.processes.clusters import until
from zmreg.model.errors import MessageTooLargeError
from zmreg.services.worker import plugged
from zmreg.testing.cluster import LocalCluster
from zmreg.wire import payload

T = 30.0


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster([{"num_cpus": 1}, {"num_cpus": 1, "locs": {"far"}}]) as cluster:
        cluster.attach()
        yield cluster


pytestmark = pytest.mark.usefixtures("cluster")


class Notes:
    """Writes down in the environment what is done to it."""

    def __init__(self, text: str) -> None:
        self.text = text

    def setup(self) -> None:
        os.environ["X13"] = os.environ.get("X13", "") + f"+{self.text}"

    def teardown(self) -> None:
        os.environ["X13"] = os.environ.get("X13", "") + f"-{self.text}"


def notes() -> str:
    return os.environ.get("X13", "")


def on_all() -> set[str]:
    """Of those that did not end meanwhile."""
    found = zmreg.run_on_all(notes, timeout=T, return_exceptions=True).values()
    return {each for each in found if isinstance(each, str)}


@zmreg.remote
class Late:
    def notes(self) -> str:
        return notes()

    def use(self) -> Any:
        import x13_module

        return x13_module.value()


def test_X13_late_joining_workers_run_them_too_before_their_first_call(cluster: LocalCluster) -> None:
    assert zmreg.get([zmreg.remote(notes).options(locs=locs).remote() for locs in ((), {"far"})], timeout=T) == ["", ""]
    assert zmreg.register_worker_plugin(Notes("a"), name="notes") == "notes"
    assert on_all() == {"+a"}
    for locs in ((), {"far"}):
        assert zmreg.get(Late.options(num_cpus=0, locs=locs).remote().notes.remote(), timeout=T) == "+a"
    node = cluster.add_node(num_cpus=1, locs={"new"})
    assert zmreg.get(Late.options(locs={"new"}).remote().notes.remote(), timeout=T) == "+a"
    # The same name again replaces it, in order: the former one is torn down first.
    zmreg.register_worker_plugin(Notes("b"), name="notes")
    assert on_all() == {"+a-a+b"}
    assert zmreg.get(Late.options(num_cpus=0, locs={"new"}).remote().notes.remote(), timeout=T).endswith("+b")
    zmreg.unregister_worker_plugin("notes")
    last = zmreg.get(Late.options(num_cpus=0, locs={"far"}).remote().notes.remote(), timeout=T)
    assert last == "" or last.endswith("-b")
    assert {"+a-a+b-b"} <= on_all() <= {"+a-a+b-b", "+b-b", ""}
    cluster.end_node(node.node_id)
    until(lambda: len([row for row in zmreg.nodes() if row["Alive"]]) == 2, "the node has not left")


def test_X13_a_plugin_whose_setup_fails_is_not_registered() -> None:
    class Fails:
        def setup(self) -> None:
            raise KeyError("no such thing")

    zmreg.get(zmreg.remote(notes).remote(), timeout=T)
    with pytest.raises(KeyError, match="no such thing"):
        zmreg.register_worker_plugin(Fails())
    assert "Fails" not in zmreg.get(Late.options(num_cpus=0).remote().notes.remote(), timeout=T)
    with pytest.raises(TypeError, match="neither setup"):
        zmreg.register_worker_plugin(object())
    with pytest.raises(MessageTooLargeError, match="'large'"):
        large = Notes("x" * (33 << 20))
        zmreg.register_worker_plugin(large, name="large")


def test_X13_an_uploaded_module_is_imported_everywhere_and_replaced(tmp_path: Path) -> None:
    module = tmp_path / "x13_module.py"
    module.write_text("def value(): return 1")
    zmreg.upload_file(module)
    for locs in ((), {"far"}):
        assert zmreg.get(Late.options(num_cpus=0, locs=locs).remote().use.remote(), timeout=T) == 1
    module.write_text("def value(): return 2")
    zmreg.upload_file(module)
    assert zmreg.get(Late.options(num_cpus=0).remote().use.remote(), timeout=T) == 2


def test_X13_a_directory_is_a_package(tmp_path: Path) -> None:
    package = tmp_path / "x13_package" / "inner"
    package.mkdir(parents=True)
    (package.parent / "__init__.py").write_text("from x13_package.inner.deep import word")
    (package / "__init__.py").write_text("")
    (package / "deep.py").write_text("word = 'found'")
    zmreg.upload_file(package.parent)

    @zmreg.remote
    def use() -> str:
        import x13_package

        return str(x13_package.word)

    assert zmreg.get(use.options(locs={"far"}).remote(), timeout=T) == "found"
    with pytest.raises(FileNotFoundError):
        zmreg.upload_file(tmp_path / "nothing")


def test_X13_what_is_taken_away_before_it_was_set_up_is_not_set_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugged, "_plugged", {})
    monkeypatch.setenv("X13", "")
    plugged.unplug("notes", 2)
    plugged.begin([payload.pack(("notes", 1, Notes("old")), [])])
    assert notes() == ""
    plugged.begin([payload.pack(("notes", 3, Notes("new")), [])])
    plugged.unplug_all()
    assert notes() == "+new-new"
