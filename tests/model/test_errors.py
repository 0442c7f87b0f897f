"""The error tree: pickling both ways, and TaskError being an instance of the user's own class."""

from __future__ import annotations

import copy
import inspect
import json
import pickle
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pytest

from zmreg.model import errors
from zmreg.model.errors import (
    ActorDiedError,
    ActorExistsError,
    FailureOrigin,
    GetTimeoutError,
    InternalError,
    OutOfMemoryError,
    TaskError,
    WorkerDiedError,
    ZmregError,
    make_task_error,
)
from zmreg.model.exceptions import with_sources

TREE = [cls for _, cls in inspect.getmembers(errors, inspect.isclass) if issubclass(cls, ZmregError)]


class TwoArguments(ValueError):
    """Keeps other arguments than it takes: plain pickle cannot load it."""

    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a}-{b}")
        self.a = a
        self.b = b

    def total(self) -> int:
        return self.a + self.b


class NewWithArguments(Exception):
    def __new__(cls, a: int, b: int) -> NewWithArguments:
        return super().__new__(cls, a)

    def __init__(self, a: int, b: int) -> None:
        self.b = b


class Slotted(KeyError):
    __slots__ = ("code",)

    def __init__(self, code: int) -> None:
        super().__init__("slotted")
        self.code = code


class ReadOnlyArgs(Exception):
    @property
    def args(self) -> tuple[str, ...]:  # type: ignore[override]
        return ("always this",)


@dataclass(frozen=True)
class FrozenError(Exception):
    code: int


class Shadowing(Exception):
    """Has attributes of its own that are called like TaskError's."""

    def __init__(self) -> None:
        super().__init__("shadow")
        self.__dict__.update(cause="mine", pid="mine")


class Final(Exception):
    def __init_subclass__(cls) -> None:
        raise TypeError("final")


class OwnReduce(Exception):
    def __init__(self, code: int) -> None:
        super().__init__("text")
        self.code = code

    def __reduce__(self) -> tuple[object, ...]:
        return OwnReduce, (self.code,)


class CodedGroup(ExceptionGroup[Exception]):
    code = 7

    def derive(self, excs: Sequence[Exception]) -> CodedGroup:  # type: ignore[override]
        return CodedGroup(self.message, excs)


def raised(make: Callable[[], object]) -> Exception:
    with pytest.raises((ValueError, ImportError, SyntaxError)) as caught:
        make()
    return caught.value


def failed(cause: BaseException) -> TaskError:
    origin = FailureOrigin(type(cause).__name__, "text", "work", "Traceback: here", 42, "n1")
    return make_task_error(origin, cause)


@pytest.mark.parametrize("cls", TREE, ids=lambda cls: cls.__name__)
def test_every_error_survives_pickling(cls: type[ZmregError]) -> None:
    error = cls("what, where, what next")
    error.add_note("a note")
    back = pickle.loads(pickle.dumps(error))
    assert type(back) is cls and back.args == error.args and back.__dict__ == error.__dict__ and str(back) == str(error)


NAMED = re.findall(r"\w+Error\b(?!\))", (errors.__doc__ or "").split("\n\n")[1])


@pytest.mark.parametrize("name", NAMED)
def test_the_docstring_names_real_classes(name: str) -> None:
    assert issubclass(getattr(errors, name), ZmregError)


def test_attributes_survive_pickling() -> None:
    died = pickle.loads(pickle.dumps(WorkerDiedError("gone", exit_code=None, signal=9, log_tail="last words")))
    assert (died.exit_code, died.signal, died.log_tail) == (None, 9, "last words") and "last words" in str(died)
    actor = pickle.loads(pickle.dumps(ActorDiedError("", ValueError("x"), init_failed=True, actor_id="ab")))
    assert actor.init_failed and actor.actor_id == "ab" and repr(actor.cause) == "ValueError('x')" and "x" in str(actor)
    assert pickle.loads(pickle.dumps(InternalError("bug", story="t+0"))).story == "t+0"


def test_builtin_bases() -> None:
    assert issubclass(GetTimeoutError, TimeoutError) and issubclass(OutOfMemoryError, MemoryError)
    assert issubclass(ActorExistsError, ValueError) and issubclass(errors.ClusterError, ConnectionError)
    assert issubclass(errors.SerializationError, TypeError) and issubclass(errors.GraphError, ValueError)
    assert issubclass(errors.FunctionNotFoundError, LookupError) and issubclass(errors.NoRouteError, LookupError)


ORDINARY = [
    ValueError("boom"),
    TwoArguments(1, 2),
    NewWithArguments(1, 2),
    Slotted(5),
    ReadOnlyArgs(),
    FrozenError(3),
    OwnReduce(4),
    KeyError("k"),
    FileNotFoundError(2, "no such file", "name"),
    raised(lambda: b"\xff".decode()),
    raised(lambda: json.loads("{")),
    raised(lambda: __import__("surely_not_here")),
    raised(lambda: compile("x x", "file", "exec")),
    ExceptionGroup("several", [ValueError(1), TypeError(2)]),
    CodedGroup("several", [ValueError(1)]),
    GetTimeoutError("inner", 2.0),
]


@pytest.mark.parametrize("cause", ORDINARY, ids=lambda cause: type(cause).__name__)
def test_row62_dual_class(cause: Exception) -> None:
    for error in (failed(cause), pickle.loads(pickle.dumps(failed(cause))), copy.copy(failed(cause))):
        assert isinstance(error, TaskError) and isinstance(error, type(cause))
        assert type(error.cause) is type(cause)
        assert (error.function, error.pid, error.node_id) == ("work", 42, "n1")
        for part in (type(cause).__name__, "text", "work", "42", "n1", "Traceback: here"):
            assert part in str(error)


def test_row62_attributes_are_reachable() -> None:
    error = pickle.loads(pickle.dumps(failed(TwoArguments(1, 2))))
    assert (error.a, error.b, error.total(), error.args) == (1, 2, 3, ("1-2",))
    assert pickle.loads(pickle.dumps(failed(Slotted(5)))).code == 5
    assert pickle.loads(pickle.dumps(failed(FrozenError(3)))).code == 3
    missing = pickle.loads(pickle.dumps(failed(FileNotFoundError(2, "no such file", "name"))))
    assert (missing.errno, missing.strerror, missing.filename) == (2, "no such file", "name")
    decode = pickle.loads(pickle.dumps(failed(raised(lambda: b"\xff".decode()))))
    assert decode.object == b"\xff" and decode.reason == "invalid start byte"


def test_row62_our_names_win_over_the_users() -> None:
    error = failed(Shadowing())
    assert isinstance(error.cause, Shadowing) and error.pid == 42 and error.cause.__dict__["pid"] == "mine"


@pytest.mark.parametrize(
    "cause", [Final("x"), SystemExit(3), KeyboardInterrupt(), StopIteration(1), StopAsyncIteration()], ids=repr
)
def test_row62_plain_wrapper_where_a_dual_would_harm_or_cannot_be(cause: BaseException) -> None:
    error = pickle.loads(pickle.dumps(failed(cause)))
    assert type(error) is TaskError and type(error.cause) is type(cause)


def test_row62_exception_group_still_splits() -> None:
    error = failed(CodedGroup("several", [ValueError(1), TypeError(2)]))
    assert isinstance(error, ExceptionGroup)
    hit, miss = error.split(ValueError)
    assert isinstance(hit, CodedGroup) and [str(e) for e in hit.exceptions] == ["1"]
    assert miss is not None and [str(e) for e in miss.exceptions] == ["2"]
    try:
        raise failed(ExceptionGroup("several", [ValueError(1)]))
    except* ValueError as group:
        assert len(group.exceptions) == 1


def test_dual_class_is_made_once_and_notes_survive() -> None:
    first, second = failed(ValueError(1)), failed(ValueError(2))
    assert type(first) is type(second)
    first.add_note("an input could not be computed")
    first.step = "load"
    back = pickle.loads(pickle.dumps(first))
    assert back.__notes__ == ["an input could not be computed"] and back.step == "load"


def test_task_error_without_cause() -> None:
    error = make_task_error(FailureOrigin("lib.Odd", "text"), None)
    assert type(error) is TaskError and error.cause is None and error.type_name == "lib.Odd" and error.message == "text"
    assert "lib.Odd: text" in str(error) and repr(error) == "TaskError('text', function='', pid=0)"


def test_a_traceback_is_told_with_the_lines_that_only_its_reader_has(tmp_path):
    here = tmp_path / "cell.py"
    here.write_text("def f():\n    raise ValueError(1)\n")
    frames = f'  File "{here}", line 2, in f\n  File "/nowhere.py", line 1, in g\n  File "{here}", line 1, in h\n'
    text = f"Traceback:\n{frames}    kept\n"
    assert with_sources(text).splitlines()[1:] == [
        f'  File "{here}", line 2, in f',
        "    raise ValueError(1)",
        '  File "/nowhere.py", line 1, in g',
        f'  File "{here}", line 1, in h',
        "    kept",
    ]
    assert with_sources("") == ""
