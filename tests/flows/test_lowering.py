"""Graphs of functions: parameters that are named after functions, and bound calls. They run as tasks."""

from __future__ import annotations

from typing import Any

import pytest

import zmreg
from zmreg import errors
from zmreg.flows.requests.lowering import Graph, lowered


def load(path: str = "default") -> list[str]:
    return [path, path]


def clean(load: list[str], upper: bool = False) -> list[str]:
    return [each.upper() if upper else each for each in load]


def count(load: list[str], *, clean: list[str]) -> dict[str, Any]:
    return {"n": len(load), "clean": clean}


@zmreg.remote
def add(a: Any, b: Any = 0) -> Any:
    return a + b


@zmreg.remote
def listed(items: Any) -> Any:
    return list(items)


@zmreg.remote
def fails(text: str) -> None:
    raise ValueError(text)


def test_parameters_are_edges() -> None:
    graph = Graph.from_functions([count, load, clean], path="x", upper=True)
    assert repr(graph) == "<Graph [3 steps, 3 levels]>" and "s1 --> s0" in graph.to_mermaid()
    assert graph._plan.places("count") == {"args[0]": "load", "kwargs.clean": "clean"}
    assert '"load" -> "clean"' in graph.to_dot() and "<svg" in graph._repr_html_()
    with pytest.raises(errors.GraphError, match="'load'.*give its value"):
        Graph.from_functions([clean])
    with pytest.raises(errors.GraphError, match="'paht'"):
        Graph.from_functions([load], paht="x")
    with pytest.raises(errors.DuplicateStepError):
        Graph.from_functions([load, load])
    with pytest.raises(errors.GraphError, match="lambda"):
        Graph.from_functions([lambda: 1])


def test_bound_calls_are_steps_and_their_texts_are_texts() -> None:
    shared = add.bind("add", "listed")
    plan, local = lowered(listed.bind([shared, {"k": (add.bind(shared), 1)}]), ())
    assert list(plan.steps) == ["add", "add#2", "listed"] and plan.sinks == ("listed",)
    assert plan.deps == {"add": (), "add#2": ("add",), "listed": ("add", "add#2")} and set(local) == set(plan.steps)
    several = add.options(num_returns=2).bind(1)
    with pytest.raises(errors.GraphError, match="several values"):
        Graph.from_bound(several)
    chain = add.bind(0, 1)
    for _ in range(3_000):
        chain = add.bind(chain, 1)
    assert len(lowered(chain, ())[0].levels) == 3_001


@pytest.mark.usefixtures("cluster")
def test_functions_run_as_tasks() -> None:
    graph = Graph.from_functions([count, load, clean], path="x", upper=True)
    assert zmreg.request(graph) == {"count": {"n": 2, "clean": ["X", "X"]}}
    assert list(zmreg.request(graph, keep=["load"])) == ["count", "load"]
    shared = add.bind("add", "!")
    found = zmreg.request(listed.bind([shared, {"k": (add.bind(shared, "?"),)}]), return_intermediate_results=True)
    assert found == {"listed": ["add!", {"k": ("add!?",)}]} and len(found.intermediate_results) == 3
    chain = add.bind(0, 1)
    for _ in range(200):
        chain = add.bind(chain, 1)
    assert list(zmreg.request(chain).values()) == [201]


@pytest.mark.usefixtures("cluster")
def test_what_they_raise_names_the_step_and_can_be_reproduced() -> None:
    with pytest.raises(ValueError, match="bad!") as caught:
        zmreg.request(fails.bind(add.bind("bad", "!")), return_intermediate_results=True)
    error: Any = caught.value
    assert error.step == "fails" and error.arg_previews == {"args[0]": "'bad!'"}
    assert error.intermediate_results[0].level_results == {"add": "bad!"}
    with pytest.raises(ValueError, match="bad!") as again:
        error.reproduce()
    assert not isinstance(again.value, errors.TaskError)
