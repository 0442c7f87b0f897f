"""Looking at calls, here and where they run: `zmreg.intercept` (core-api row 75)."""

from __future__ import annotations

import ast
import importlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

import zmreg
from zmreg.api import intercepting

pytestmark = pytest.mark.usefixtures("cluster")
T = 30


@zmreg.remote
class Board:
    """Where interceptors write, wherever they are."""

    def __init__(self) -> None:
        self.rows: list[tuple[Any, ...]] = []

    def write(self, *row: Any) -> None:
        self.rows.append(row)

    def take(self) -> list[tuple[Any, ...]]:
        rows, self.rows = self.rows, []
        return rows


class Writes(zmreg.Interceptor):
    """Each call carries a number; names of calls that begin with "no_" carry nothing."""

    def __init__(self, board: Any) -> None:
        self.board = board
        self.number = 0

    def setup(self) -> None:
        self.number = 100

    def submitting(self, call: zmreg.InterceptedCall) -> Any:
        if call.actor_class == "Board" or call.name.startswith("no_"):
            return None
        return self._submitting(call)

    @contextmanager
    def _submitting(self, call: zmreg.InterceptedCall) -> Iterator[int]:
        self.number += 1
        yield self.number
        self.board.write.remote("sent", call.kind, call.name, self.number, bool(call.task_id), bool(call.actor_id))

    @contextmanager
    def running(self, call: zmreg.InterceptedCall, carried: int) -> Iterator[None]:
        name = getattr(call.function, "__name__", "")
        try:
            yield
        except BaseException as error:
            self.board.write.remote("failed", call.name, carried, type(error).__name__).get()
            raise
        self.board.write.remote("ran", call.kind, call.name, carried, name).get()


@pytest.fixture
def board() -> Iterator[Any]:
    """Written on by an interceptor of this program's calls."""
    board = Board.options(num_cpus=0).remote()
    zmreg.intercept(Writes(board))
    try:
        yield board
    finally:
        zmreg.intercept(None)


def rows(board: Any) -> list[tuple[Any, ...]]:
    return sorted(board.take.remote().get(timeout=T))


@zmreg.remote(num_cpus=0)
def add(a: Any, b: Any = 0, *more: Any) -> Any:
    for each in (b, *more):
        a = a + each
    return a


@zmreg.remote(num_cpus=0)
class Counter:
    def __init__(self, start: int = 0) -> None:
        self.count = start

    def add(self, a: int, b: int = 0) -> int:
        self.count += a + b
        return self.count

    def asks(self) -> Any:
        return add.remote(1, 2).get()


def test_row_75_what_is_carried_is_seen_where_the_call_runs_and_arguments_are_as_they_were(board: Any):
    big = b"x" * 300_000
    assert add.remote(1, b=2).get(timeout=T) == 3
    assert add.remote(zmreg.put(1), zmreg.put(2), 3).get(timeout=T) == 6
    assert add.remote(big, b=big).get(timeout=T) == big + big
    assert add.options(num_returns=2).remote([1], [2])[1].get(timeout=T) == 2
    with pytest.raises(TypeError, match=r"add\(\): "):
        add.remote()
    with pytest.raises(zmreg.errors.SerializationError, match=r"value\[0\] is a _thread.lock"):
        add.remote(threading.Lock())
    assert rows(board) == [
        *(("ran", "task", "add", number, "add") for number in range(1, 5)),
        *(("sent", "task", "add", number, True, False) for number in range(1, 5)),
    ]


def test_row_75_actors_their_methods_and_what_they_call_are_looked_at(board: Any):
    counter = Counter.remote(5)
    assert counter.add.remote(1, b=2).get(timeout=T) == 8
    assert zmreg.get(counter.add.batch([(1,), (1, 1)]), timeout=T) == [9, 11]
    assert counter.__zmreg_call__.remote(lambda own, more: own.count + more, 4).get(timeout=T) == 15
    assert counter.add.options(name="more").remote(1).get(timeout=T) == 12
    assert rows(board) == [
        ("ran", "actor", "Counter.__init__", 1, "Counter"), ("ran", "method", "Counter.__zmreg_call__", 4, "<lambda>"),
        ("ran", "method", "Counter.add", 2, "add"), ("ran", "method", "Counter.add", 3, "add"),
        ("ran", "method", "Counter.more", 5, "add"),
        ("sent", "actor", "Counter.__init__", 1, False, True),
        ("sent", "method", "Counter.__zmreg_call__", 4, True, True),
        ("sent", "method", "Counter.add", 2, True, True), ("sent", "method", "Counter.add", 3, True, True),
        ("sent", "method", "Counter.more", 5, True, True),
    ]  # fmt: skip
    assert counter.asks.remote().get(timeout=T) == 3
    (_, _, number), *_ = [row[1:4] for row in rows(board) if row[:3] == ("ran", "task", "add")]
    assert number == 101  # counted where it was made: set up there, once


def test_row_75_who_gives_none_or_takes_itself_out_looks_at_nothing(board: Any):
    assert add.options(name="no_add").remote(1, 2).get(timeout=T) == 3
    counter = Counter.remote()
    assert counter.add.remote(1).get(timeout=T) == 1 and rows(board)
    with pytest.raises(RuntimeError, match=r"zmreg\.intercept\(None\)"):
        zmreg.intercept(Writes(board))
    zmreg.intercept(None)
    zmreg.intercept(None)
    assert add.remote(1, 2).get(timeout=T) == 3 and counter.add.remote(1).get(timeout=T) == 2
    assert rows(board) == []


def test_row_75_actors_made_before_run_as_ever(cluster: object):
    counter = Counter.remote()
    assert counter.add.remote(1).get(timeout=T) == 1
    board = Board.options(num_cpus=0).remote()
    zmreg.intercept(Writes(board))
    try:
        assert counter.add.remote(1, b=1).get(timeout=T) == 3
        assert rows(board) == [("sent", "method", "Counter.add", 1, True, True)]
    finally:
        zmreg.intercept(None)


class Refuses(zmreg.Interceptor):
    def __init__(self, where: str) -> None:
        self.where = where

    def setup(self) -> None:
        if self.where == "setup":
            raise PermissionError("not in this worker")

    def submitting(self, call: zmreg.InterceptedCall) -> Any:
        if self.where == "submitting":
            raise PermissionError("not from here")
        return nullcontext()

    def running(self, call: zmreg.InterceptedCall, carried: None) -> None:
        if self.where == "running":
            raise PermissionError("not here")


@pytest.mark.parametrize("where", ["setup", "submitting", "running"])
def test_row_75_what_an_interceptor_raises_is_the_calls_error(where: str):
    zmreg.intercept(Refuses(where))
    try:
        with pytest.raises((PermissionError, zmreg.errors.SerializationError), match="not (from|here|in)"):
            add.remote(1).get(timeout=T)
    finally:
        zmreg.intercept(None)
    assert add.remote(1).get(timeout=T) == 1


def test_row_75_what_cannot_be_pickled_is_no_interceptor():
    wrong = Refuses("")
    wrong.lock = threading.Lock()  # type: ignore[attr-defined]
    with pytest.raises(zmreg.errors.SerializationError, match="lock"):
        zmreg.intercept(wrong)
    for other in (Refuses, 5, lambda call: None):
        with pytest.raises(TypeError, match="an instance of a zmreg.Interceptor"):
            zmreg.intercept(other)  # type: ignore[arg-type]
    assert add.remote(1).get(timeout=T) == 1


class GivesALock(zmreg.Interceptor):
    def submitting(self, call: zmreg.InterceptedCall) -> Any:
        return nullcontext(threading.Lock())


def test_row_75_what_cannot_be_sent_with_a_call_is_told_apart_from_its_arguments():
    zmreg.intercept(GivesALock())
    try:
        with pytest.raises(zmreg.errors.SerializationError, match=r"`submitting` gives with a call of add .*lock"):
            add.remote(1)
        with pytest.raises(zmreg.errors.SerializationError, match=r"cannot send add: value\[0\]"):
            add.remote(threading.Lock())
    finally:
        zmreg.intercept(None)


def test_row_75_nobody_looks_unless_asked_and_every_place_where_calls_are_submitted_is_known():
    """What submits is called straight, and by no module that `intercept` does not know of."""
    names = {"submit_task", "submit_to", "submit_actor_call", "create_actor"}
    using = set()
    root = Path(zmreg.__file__).parent
    for path in root.rglob("*.py"):
        text = path.read_text()
        if not any(name in text for name in names):
            continue
        module = ".".join(path.relative_to(root.parent).with_suffix("").parts)
        for node in ast.walk(ast.parse(text)):
            if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("zmreg.services.calling"):
                using |= {(module, each.name) for each in node.names if each.name in names}
    assert {(module.__name__, name) for module, name in intercepting.PLACES} == using
    for module, name in intercepting.PLACES:
        home = "acting" if name == "create_actor" else "submit"
        assert getattr(module, name) is getattr(importlib.import_module(f"zmreg.services.calling.{home}"), name)
