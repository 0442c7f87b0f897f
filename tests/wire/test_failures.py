"""Failures: what the far end gets to raise, and what everybody can read."""

from __future__ import annotations

import pickle
import subprocess
import sys
import threading
import types

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmreg.model.errors import (
    ActorDiedError,
    FailureOrigin,
    GetTimeoutError,
    OutOfMemoryError,
    ProtocolError,
    TaskCancelledError,
    TaskError,
    WorkerDiedError,
)
from zmreg.wire import payload
from zmreg.wire.failures import MAX_TRACEBACK_CHARS, decode_failure, encode_failure, failure_text, shorten
from zmreg.wire.payload import note_reference, pack_failure, unpack_failure


class TwoArguments(ValueError):
    def __init__(self, a: int, b: int) -> None:
        super().__init__(f"{a}-{b}")
        self.a = a


class WillNotLoad(Exception):
    def __reduce__(self) -> tuple[object, ...]:
        return int, ("not a number",)


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError("no words")

    __repr__ = __str__


class Outer(Exception):
    def __init__(self) -> None:
        super().__init__("outer")


class Ref:
    def __reduce__(self) -> tuple[object, ...]:
        assert note_reference(self)
        return Ref, ()


def caught(error: BaseException) -> BaseException:
    """The error as `except` sees it: with a traceback."""
    try:
        raise error
    except BaseException as same:  # noqa: BLE001
        return same


def sent(error: BaseException, function: str = "work") -> BaseException:
    return unpack_failure(pack_failure(caught(error), function, pid=42, node_id="n1"))


def test_row62_the_users_class_and_the_story() -> None:
    error = sent(KeyError("k"))
    assert isinstance(error, TaskError) and isinstance(error, KeyError) and error.args == ("k",)
    for part in ("KeyError: 'k'", "work", "pid 42", "node n1", "Traceback", "in caught"):
        assert part in str(error)


def test_row62_an_error_of_a_get_inside_a_task_keeps_the_users_class() -> None:
    first = sent(TwoArguments(1, 2), "inner")
    second = sent(first, "outer")
    third = sent(pickle.loads(pickle.dumps(second)), "outermost")
    assert isinstance(third, TwoArguments) and isinstance(third, TaskError) and third.a == 1
    assert type(third.cause) is TwoArguments and third.type_name.endswith("TwoArguments") and third.message == "1-2"
    assert third.function == "outermost" and "raised by inner" in str(third) and "raised by outer" in str(third)


def test_fault52_init_with_other_arguments_keeps_its_class() -> None:
    error = sent(TwoArguments(1, 2))
    assert isinstance(error, TwoArguments) and error.a == 1 and error.args == ("1-2",)


def test_fault52_what_does_not_load_arrives_as_text() -> None:
    error = sent(WillNotLoad("boom"))
    assert type(error) is TaskError and error.cause is None
    assert error.type_name.endswith("WillNotLoad") and "boom" in str(error) and "Traceback" in str(error)


def test_fault52_unpicklable_attributes_become_text() -> None:
    error = ValueError("boom", threading.Lock())
    error.__dict__.update(lock=threading.Lock(), code=7)
    back = sent(error)
    assert isinstance(back, ValueError) and isinstance(back, TaskError)
    assert back.args[0] == "boom" and "lock" in back.args[1]
    assert back.__dict__["code"] == 7 and "lock" in back.__dict__["lock"]
    assert any("lock" in note for note in back.__notes__)


def test_row63_a_class_that_is_not_here() -> None:
    module = types.ModuleType("for_a_moment")
    sys.modules["for_a_moment"] = module
    try:
        exec("class Odd(Exception): pass", module.__dict__)
        data = pack_failure(caught(module.Odd("boom")), "work")
    finally:
        del sys.modules["for_a_moment"]
    error = unpack_failure(data)
    assert type(error) is TaskError and error.type_name == "for_a_moment.Odd" and error.message == "boom"
    assert "for_a_moment" in error.__notes__[0]


def test_row63_an_exception_without_words() -> None:
    error = sent(Unspeakable("x"))
    assert isinstance(error, TaskError) and "Unspeakable" in str(error)


def test_fault53_cause_context_notes_and_traceback_survive() -> None:
    def chained() -> BaseException:
        try:
            try:
                raise TwoArguments(1, 2)
            except TwoArguments as inner:
                raise Outer from inner
        except Outer as outer:
            outer.add_note("a note")
            try:
                raise TypeError("last")
            except TypeError as last:
                return last

    error = unpack_failure(pack_failure(chained(), "work"))
    assert isinstance(error, TypeError) and isinstance(error, TaskError)
    last = error.cause
    assert last is not None and isinstance(last.__context__, Outer) and last.__context__.__notes__ == ["a note"]
    assert isinstance(last.__context__.__cause__, TwoArguments)
    assert last.__traceback__ is not None and last.__traceback__.tb_frame.f_code.co_name == "chained"
    assert "a note" in error.remote_traceback and "1-2" in error.remote_traceback


def test_fault53_a_cycle_in_the_chain() -> None:
    first, second = ValueError("first"), TypeError("second")
    first.__context__, second.__context__ = second, first
    first.__dict__["me"] = first
    error = sent(first)
    assert isinstance(error, ValueError) and isinstance(error, TaskError)
    assert error.cause is not None and error.cause.__dict__["me"] is error.cause
    assert error.cause.__context__ is not None and error.cause.__context__.__context__ is error.cause


def test_exception_groups() -> None:
    group = ExceptionGroup("several", [TwoArguments(1, 2), ExceptionGroup("in", [KeyError(1)])])
    error = sent(group)
    assert isinstance(error, ExceptionGroup) and isinstance(error, TaskError)
    hit, rest = error.split(TwoArguments)
    assert hit is not None and rest is not None and hit.exceptions[0].args == ("1-2",)


def test_a_thousand_frames() -> None:
    def down() -> None:
        down()

    with pytest.raises(RecursionError) as caught_here:
        down()
    error = unpack_failure(pack_failure(caught_here.value, "down"))
    assert isinstance(error, RecursionError) and isinstance(error, TaskError)
    assert len(error.remote_traceback) < MAX_TRACEBACK_CHARS + 100


@pytest.mark.parametrize(
    "error",
    [
        WorkerDiedError("gone", signal=9),
        TaskCancelledError(),
        ActorDiedError("", TwoArguments(1, 2), init_failed=True),
    ],
)
def test_our_own_errors_arrive_as_they_are(error: Exception) -> None:
    back = sent(error)
    assert type(back) is type(error) and back.args == error.args and "work" in back.__notes__[-1]
    bare = unpack_failure(pack_failure(error))
    assert not hasattr(bare, "__notes__") and type(bare) is type(error)


def test_our_own_error_with_a_cause_that_cannot_travel() -> None:
    back = sent(ActorDiedError("dead", WillNotLoad("boom"), init_failed=True))
    assert isinstance(back, ActorDiedError) and back.init_failed and "boom" in str(back.cause)


def test_a_timeout_inside_the_task_is_not_the_callers() -> None:
    back = sent(GetTimeoutError("slow", 1.0))
    assert isinstance(back, GetTimeoutError) and isinstance(back, TaskError)


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt(), StopIteration(5)])
def test_what_would_steer_the_caller_is_wrapped(error: BaseException) -> None:
    back = sent(error)
    assert type(back) is TaskError and type(back.cause) is type(error)


def test_references_in_exceptions_are_collected() -> None:
    ref, refs = Ref(), []
    pack_failure(ValueError(ref), refs=refs)
    assert refs == [ref]


def test_the_workers_own_frames_are_left_out() -> None:
    module = types.ModuleType("zmreg.services.pretended")
    exec("def run(f):\n    return f()\n", module.__dict__)
    with pytest.raises(ZeroDivisionError) as caught_here:
        module.run(lambda: 1 // 0)
    trace = caught_here.value.with_traceback(caught_here.value.__traceback__.tb_next)  # type: ignore[union-attr]
    text = decode_failure(pack_failure(trace, "f"))[0].remote_traceback
    assert "pretended" not in text and ", in run" not in text and "<lambda>" in text


def test_failures_are_read_without_pickle() -> None:
    """What nodes and the command line may import: they must never unpickle."""
    code = "import sys; import zmreg.wire.failures, zmreg.wire.codec; print('zmreg.wire.payload' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
    text = failure_text(pack_failure(caught(ValueError("boom")), "work", pid=3, node_id="n7"))
    assert "ValueError: boom" in text and "work" in text and "n7" in text and "Traceback" in text


def test_texts_are_bounded() -> None:
    data = encode_failure(FailureOrigin("T", "x" * 10**6, "f", "y" * 10**6), bytes(10**7))
    origin, blob = decode_failure(data)
    assert len(data) < 200_000 and blob == b"" and "left out" in origin.text and "left out" in origin.remote_traceback
    assert shorten("abc", 3) == "abc"


def test_a_large_exception_goes_as_text() -> None:
    back = sent(ValueError("x" * 3_000_000))
    assert isinstance(back, TaskError) and "left out" in back.message


def test_lone_surrogates_travel() -> None:
    assert "\udcff" in failure_text(pack_failure(ValueError("name \udcff"), "f"))


@given(st.binary(max_size=60))
def test_fault31_bytes_that_are_no_failure(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_failure(data)


@given(st.data())
def test_fault31_changed_failures(data: st.DataObject) -> None:
    whole = bytearray(encode_failure(FailureOrigin("T", "text", "f", "trace", 1, "n"), b"blob"))
    for _ in range(data.draw(st.integers(1, 4))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        decode_failure(bytes(whole))
    except ProtocolError:
        pass


def test_a_blob_that_is_no_exception_is_a_protocol_error() -> None:
    with pytest.raises(ProtocolError, match="carries a int"):
        unpack_failure(encode_failure(FailureOrigin("T"), pickle.dumps(5)))


def test_c22_writing_into_shared_memory_gets_a_hint() -> None:
    array = np.zeros(3)
    array.flags.writeable = False
    with pytest.raises(ValueError, match="read-only") as caught_here:
        array[0] = 1
    error = unpack_failure(pack_failure(caught_here.value, "f"))
    assert isinstance(error, ValueError) and "x.copy()" in str(error)


def test_the_usual_failure_needs_no_search_for_culprits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each attempt of the search is one more pickling; a task that fails often must not pay that."""
    calls: list[object] = []
    monkeypatch.setattr(payload, "find_culprit", calls.append)
    sent(ValueError("boom"))
    assert not calls


def test_fault47_what_is_a_memory_error_too_travels_as_what_it_is():
    """Named reproduction: `MemoryError.__new__` refuses classes that have it as their second base."""
    found = unpack_failure(pack_failure(OutOfMemoryError("full", rss_bytes=7)))
    assert type(found) is OutOfMemoryError and found.rss_bytes == 7 and str(found) == "full"


def test_fault47_a_users_memory_error_is_caught_as_one():
    found = unpack_failure(pack_failure(MemoryError("no"), "f"))
    assert isinstance(found, TaskError) and isinstance(found, MemoryError)
