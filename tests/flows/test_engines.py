"""Processes with named globals (`zmreg.engines`): row X23 of the specs. Two nodes with two engines each."""

from __future__ import annotations

import builtins
import os
import pickle
import signal
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import zmreg
from zmreg.flows.kit.engine_imports import Watched
from zmreg.flows.kit.engines import EngineView, grouped, numbers, spans
from zmreg.model.errors import ClusterError, EngineError, GetTimeoutError
from zmreg.testing.cluster import LocalCluster, TestNode

BOUND_S = 30.0
MB = 1_000_000


@pytest.fixture(scope="module")
def nodes() -> Iterator[list[TestNode]]:
    """The head, at which the test has its seat, then two with two CPUs each."""
    with LocalCluster(nodes=[{"num_cpus": 0}, {"num_cpus": 2, "locs": ["a"]}, {"num_cpus": 2}]) as cluster:
        cluster.attach()
        yield cluster.nodes


@pytest.fixture(scope="module")
def whole(nodes: list[TestNode]) -> Iterator[EngineView]:
    with zmreg.engines(timeout=BOUND_S) as view:
        yield view


@pytest.fixture
def view(whole: EngineView) -> EngineView:
    """All four, whatever was done to the last one."""
    fresh = whole.refresh()
    fresh.timeout = BOUND_S
    return fresh


def of_main(source: str, name: str) -> Any:
    """A function as the user's own program defines it."""
    names: dict[str, Any] = {"__name__": "__main__"}
    exec(source, names)
    return names[name]


def test_X23_names_are_set_and_read_on_all_and_on_some(view: EngineView) -> None:
    assert len(view) == 4 and view.ids == (0, 1, 2, 3) and repr(view) == "<EngineView of engines 0-3>"
    view["x"] = 1
    assert view["x"] == [1, 1, 1, 1]
    view[1]["x"] = 10
    view[2:]["x"] = zmreg.put(100)
    assert view["x"] == [1, 10, 100, 100]
    assert (view[1]["x"], view[[0, 3]]["x"], view[-1]["x"], view.select("1-2")["x"]) == (10, [1, 100], 100, [10, 100])
    view.push({"y": 2, "z": "three"})
    assert view[0].pull(["x", "y", "z"]) == [1, 2, "three"] and view[:2].pull(["y", "engine"]) == [[2, 0], [2, 1]]
    del view["z"]
    with pytest.raises(IndexError, match="no engine at place 4: this view has 4"):
        view[4]
    with pytest.raises(
        EngineError, match=r"pull z failed on 4 of 4 engines:\n  \[0-3\] .*name 'z' is not defined"
    ) as info:
        view.pull("z")
    assert isinstance(info.value.errors[3], NameError)
    with pytest.raises(ValueError, match="cannot be the name"):
        view.push({"not a name": 1})


def test_X23_scatter_and_gather_keep_the_order(view: EngineView) -> None:
    view.scatter("part", list(range(10)))
    assert view["part"] == [[0, 1, 2], [3, 4, 5], [6, 7], [8, 9]]
    view.execute("part = [each * 2 for each in part]")
    assert view.gather("part") == [each * 2 for each in range(10)]
    view.scatter("array", np.arange(6))
    assert [part.tolist() for part in view["array"]] == [[0, 1], [2, 3], [4], [5]]
    assert view.gather("array").tolist() == list(range(6))
    view.scatter("few", "ab")
    assert view["few"] == ["a", "b", "", ""]


@zmreg.remote(num_cpus=0)
def came() -> int:
    """How many objects this node has fetched."""
    return sum(link["objects_received"] for link in zmreg.stats()["links"].values())


def test_X23_what_is_pushed_goes_once_to_each_node(view: EngineView, nodes: list[TestNode]) -> None:
    def received() -> list[int]:
        there = [zmreg.NodeAffinitySchedulingStrategy(node.node_id, soft=False) for node in nodes[1:]]
        asked = [came.options(scheduling_strategy=each).remote() for each in there]
        return zmreg.get(asked, timeout=BOUND_S)

    data = np.arange(MB, dtype=np.float64)
    before = received()
    view["data"] = data
    assert view.apply(of_main("def total():\n    return float(data.sum())", "total")) == [float(data.sum())] * 4
    assert [now - then for now, then in zip(received(), before, strict=True)] == [1, 1]


def test_X23_code_runs_among_the_names_and_its_output_is_grouped(
    view: EngineView, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    printed = view.execute("x = engine % 2\nprint('odd' if x else 'even')\nawait __import__('asyncio').sleep(0)")
    assert printed == {0: "even\n", 1: "odd\n", 2: "even\n", 3: "odd\n"}
    assert capsys.readouterr().out == "[0, 2] even\n[1, 3] odd\n"
    file = tmp_path / "program.py"
    file.write_text("def twice(n):\n    return 2 * n\n\ny = twice(x)\nif engine == 3:\n    raise KeyError('three')\n")
    with pytest.raises(EngineError, match=r"program.py failed on 1 of 4 engines:\n  \[3\]") as info:
        view.run(file)
    assert list(info.value.errors) == [3] and isinstance(info.value.errors[3], KeyError)
    assert set(info.value.results) == {0, 1, 2}
    assert f'File "{file}", line 6' in str(info.value.errors[3])
    assert view["y"] == [0, 2, 0, 2], "the others have gone on to their end, and so has this one to its error"
    with pytest.raises(EngineError):
        view[0].execute("print('before')\n1 / 0")
    assert capsys.readouterr().out == "[0] before\n"
    assert view[0].execute("print('quiet')", show=False) == {0: "quiet\n"} and not capsys.readouterr().out


def test_X23_functions_are_called_and_those_of_the_program_see_the_names(view: EngineView) -> None:
    assert view.apply(divmod, 7, 4) == [(1, 3)] * 4 and view[0].apply(divmod, 7, 4) == (1, 3)
    assert view[2].apply(max, zmreg.put([1, 5]), key=abs) == 5
    view["x"] = 3
    source = """
def helper():
    return {}

def times(n, *, more=0):
    global seen
    seen = n
    return n * x + helper() + more
"""
    assert view.apply(of_main(source.format(1), "times"), 10) == [31] * 4
    assert view.apply(of_main(source.format(2), "times"), 10, more=5) == [37] * 4, "helper has changed since"
    assert view["seen"] == [10] * 4
    view.execute("def helper():\n    return 100")
    assert view.apply(of_main(source.format(3), "times"), 1) == [103] * 4, "what is defined there comes first"
    assert len(set(view.apply(zmreg.remote(os.getpid)))) == 4


def test_X23_errors_are_collected_and_travel(view: EngineView) -> None:
    check = of_main("def check(n):\n    if engine % 2:\n        raise ValueError(f'no {n}')\n    return n", "check")
    with pytest.raises(EngineError) as info:
        view.apply(check, 5)
    error = info.value
    assert str(error).splitlines()[0] == "check failed on 2 of 4 engines:"
    assert str(error).splitlines()[1].startswith("  [1, 3] ") and "no 5" in str(error)
    assert error.results == {0: 5, 2: 5} and set(error.errors) == {1, 3}
    assert isinstance(error.__cause__, ValueError)
    copied = pickle.loads(pickle.dumps(error))
    assert copied.results == error.results and isinstance(copied.errors[1], ValueError)


def test_X23_imports_are_repeated_on_the_engines(view: EngineView) -> None:
    with view.sync_imports():
        import collections.abc
        import json as j
        from math import hypot
        from os import path as where

    assert (j.dumps(1), hypot(3, 4), where.basename("a/b"), collections.abc.Sized) is not None
    found = view.apply(
        of_main("def f():\n    return j.dumps([]), hypot(3, 4), where.basename('a/b'), collections.abc.Sized", "f")
    )
    assert found == [("[]", 5.0, "b", collections.abc.Sized)] * 4
    with pytest.raises(EngineError, match="no_such_module"), view.sync_imports():
        sys.modules["no_such_module"] = types.ModuleType("no_such_module")
        import no_such_module  # type: ignore[import-not-found]  # noqa: F401
    del sys.modules["no_such_module"]


def test_X23_a_star_takes_what_is_public() -> None:
    names: dict[str, Any] = {"__name__": "__main__", "watch": Watched}
    lines = "import sys", "kept = __import__", "with watch(sys._getframe()) as watched:", "    from textwrap import *"
    exec("\n".join([*lines, "    import os.path", "    from sys import maxsize as most, flags"]), names)
    found = {name: (module, part) for name, module, part in names["watched"].found()}
    assert found["dedent"] == ("textwrap", "dedent") and found["os"] == ("os", "")
    assert found["most"] == ("sys", "maxsize") and found["flags"] == ("sys", "flags")
    assert not found.keys() & {"__builtins__", "watched", "kept"}
    assert builtins.__import__ is names["kept"]


def test_X23_an_engine_that_dies_is_named_and_replaced(view: EngineView) -> None:
    view["kept"] = 1
    with pytest.raises(EngineError, match=r"failed on 1 of 4 engines:\n  \[2\] ActorDiedError") as info:
        view.execute(f"import os\nif engine == 2:\n    os.kill(os.getpid(), {int(signal.SIGKILL)})")
    assert list(info.value.errors) == [2]
    with pytest.raises(ClusterError, match="engine 2 is gone"):
        view.pull("kept")
    anew = view.refresh()
    assert anew.ids == (0, 1, 2, 3)
    assert anew[[0, 1, 3]]["kept"] == [1, 1, 1]
    with pytest.raises(EngineError, match=r"\[2\]"):
        anew.pull("kept")


def test_X23_a_timeout_interrupts_what_runs(view: EngineView) -> None:
    one = view[0]
    one.timeout = 0.5
    with pytest.raises(GetTimeoutError):
        one.execute("import threading\nthreading.Event().wait(600)")
    one.timeout = BOUND_S
    assert one.execute("print('here')", show=False) == {0: "here\n"}


def test_X23_engines_where_they_are_wanted(nodes: list[TestNode]) -> None:
    _, a, b = nodes

    def places(view: EngineView) -> list[str]:
        with view:
            return list(view.apply(lambda: zmreg.get_runtime_context().get_node_id()))

    assert places(zmreg.engines(locs={"a"}, timeout=BOUND_S)) == [a.node_id] * 2
    assert places(zmreg.engines(3, nodes=b.node_id, timeout=BOUND_S)) == [b.node_id] * 3
    assert sorted(places(zmreg.engines(2, timeout=BOUND_S))) == sorted([a.node_id, b.node_id])
    with pytest.raises(ClusterError, match="no living node"):
        zmreg.engines(1, locs={"nowhere"})
    with pytest.raises(ValueError, match="n=0"):
        zmreg.engines(0)


def test_X22_workers_with_the_same_output_are_shown_together() -> None:
    same = {"text": "a\n", "forms": [], "error": ""}
    other = {"text": "b\n", "forms": [], "error": ""}
    assert [group for group, _ in grouped({0: same, 1: other, 2: same, 3: same})] == [[0, 2, 3], [1]]
    assert spans([5, 0, 1, 2]) == "0-2, 5" and spans([]) == ""
    assert numbers("0,2-3", range(4)) == [0, 2, 3] and numbers("", range(2)) == [0, 1]
    with pytest.raises(ValueError, match="no worker 9; they are 0-3"):
        numbers("9", range(4))
