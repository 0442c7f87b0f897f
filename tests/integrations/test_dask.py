"""Dask's graphs on the cluster (core-api row 52). Its own tests: `make guests`."""

from __future__ import annotations

import pytest

dask = pytest.importorskip("dask", reason="dask is not installed: pip install 'zmreg[dask]'")

import numpy as np  # noqa: E402

import zmreg  # noqa: E402
from zmreg.integrations.dask import get, register  # noqa: E402

pytestmark = pytest.mark.usefixtures("cluster")


def inc(x):
    return x + 1


def finished():
    return zmreg.stats()["tasks"]["finished"]


def test_row52_graphs_of_any_shape():
    graph = {"x": 1, "y": (inc, "x"), "z": (sum, ["x", "y", (inc, "y")]), "same": "z"}
    assert get(graph, "z") == 6
    assert get(graph, ["z", ["x", "y"], "same"]) == (6, (1, 2), 6)
    assert get({}, []) == ()
    with pytest.raises(RuntimeError, match="Cycle"):
        get({"a": (inc, "b"), "b": (inc, "a")}, "a")


def test_row52_a_chain_is_one_task_and_what_nobody_wants_is_none():
    chain = {"n0": (inc, 1000), **{f"n{n}": (inc, f"n{n - 1}") for n in range(1, 50)}, "other": (inc, 3)}
    before = finished()
    assert get(chain, "n49") == 1050
    assert finished() - before == 1


def test_row52_what_lies_between_stays_with_the_workers():
    """A value that cannot come back here can be passed on there."""
    graph = {f"part{n}": (_OnlyThere, n) for n in range(6)}
    graph["total"] = (_total, list(graph))
    assert get(graph, "total") == 15


class _OnlyThere:
    """Can be sent from a process to another one, unless that is the driver."""

    def __init__(self, number):
        self.number = number

    def __reduce__(self):
        return _rebuilt, (self.number,)


def _rebuilt(number):
    assert zmreg.get_runtime_context().get_task_id() is not None, "it came to the driver"
    return _OnlyThere(number)


def _total(parts):
    return sum(part.number for part in parts)


def test_row52_results_are_private_copies():
    array = get({"a": (np.full, 50_000, 1.5)}, "a")
    assert array.flags.writeable and array.sum() == 75_000


def test_row52_an_error_is_the_very_exception():
    with pytest.raises(ZeroDivisionError) as caught:
        get({"a": (divmod, 1, 0), "b": (inc, "a")}, "b")
    assert type(caught.value) is ZeroDivisionError and isinstance(caught.value.__cause__, zmreg.errors.TaskError)


def test_row52_callbacks_see_every_task():
    from dask.callbacks import Callback

    begun, ended = [], []
    with Callback(
        pretask=lambda key, *_: begun.append(key), posttask=lambda key, value, *_: ended.append((key, value))
    ):
        assert get({"x": 1, "y": (inc, "x"), "z": (inc, "y"), "w": "z"}, "w") == 3
    assert begun == ["y", "z", "w"] and ended == [("y", 2), ("z", 3), ("w", 3)]


def test_row52_arrays_and_delayed_give_what_they_give_without_us():
    array = pytest.importorskip("dask.array")
    table = array.arange(40_000, chunks=5_000).reshape((200, 200)).rechunk((50, 200))
    whole = (table @ table.T).mean(axis=0)
    with register():
        assert (whole.compute() == whole.compute(scheduler="sync")).all()
        assert dask.delayed(sum)([dask.delayed(inc)(n) for n in range(200)]).compute() == sum(range(201))
