"""Values and definitions through pickle: what comes back, what is shared, what the errors say."""

from __future__ import annotations

import collections
import ctypes
import gc
import pickle
import sys
import threading
import time
import types
import warnings
import weakref
from dataclasses import dataclass, field
from decimal import Decimal

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmreg.model.errors import SerializationError
from zmreg.wire import payload
from zmreg.wire.packed import Packed
from zmreg.wire.payload import note_reference, pack, pack_definition, unpack, unpack_definition


@dataclass
class Point:
    x: int
    y: object = None


@dataclass
class Holder:
    lock: object = field(default_factory=threading.Lock)


class Ref:
    """Stands for an ObjectRef."""

    captured: list[bool] = []

    def __reduce__(self) -> tuple[object, ...]:
        Ref.captured.append(note_reference(self))
        return Ref, ()


def packed(value: object) -> bytes:
    data = pack(value, [])
    return data if isinstance(data, bytes) else data.inline()


def there_and_back(value: object) -> object:
    return unpack(packed(value))


SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text() | st.binary()
VALUES = st.recursive(
    SCALARS | st.builds(Decimal, st.integers()) | st.builds(Point, st.integers()),
    lambda inside: (
        st.lists(inside, max_size=5)
        | st.tuples(inside, inside)
        | st.dictionaries(st.text(max_size=5) | st.integers(), inside, max_size=5)
        | st.builds(Point, st.integers(), inside)
    ),
    max_leaves=20,
)


@given(VALUES)
def test_round_trip(value: object) -> None:
    back = there_and_back(value)
    assert back == value and type(back) is type(value)


@given(SCALARS | st.lists(SCALARS) | st.tuples(SCALARS, st.dictionaries(st.text(), SCALARS)) | st.sets(st.integers()))
def test_plain_values_are_plain_pickles(value: object) -> None:
    assert pickle.loads(packed(value)) == value


@pytest.mark.parametrize("size", [10, payload.LARGE_BYTES, 1_000_000])
@pytest.mark.parametrize("kind", [bytes, bytearray])
def test_raw_bytes_keep_their_type(kind: type, size: int) -> None:
    value = kind(b"\x80" * size)
    data = pack(value, [])
    assert isinstance(data, Packed) == (size >= payload.LARGE_BYTES)
    back = unpack(packed(value))
    assert type(back) is kind and back == value


def test_subclasses_of_builtins_stay_themselves() -> None:
    value = (collections.OrderedDict(a=1), collections.Counter("aab"), True, time.gmtime(0))
    back = there_and_back(value)
    assert back == value and isinstance(back, tuple) and [type(x) for x in back] == [type(x) for x in value]


def test_identity_inside_one_value_survives() -> None:
    shared = [1, 2]
    first, second = there_and_back([shared, shared])  # type: ignore[misc]
    assert first is second and first is not shared
    one, other = there_and_back((Point(1, shared), shared))  # type: ignore[misc]
    assert one.y is other


def test_large_plain_values_are_packed_not_inline() -> None:
    value = ["x" * 1000] * 3 + [str(n) * 100 for n in range(1000)]
    data = pack(value, [])
    assert isinstance(data, Packed)
    room = memoryview(bytearray(data.nbytes))
    data.write_into(room)
    assert unpack(room.toreadonly()) == value


@pytest.mark.parametrize("shape", [(), (0,), (3,), (600,), (1000, 100)])
@pytest.mark.parametrize("dtype", ["u1", "f8", "c16", "M8[ns]", "U3", [("a", "i4"), ("b", "f8")]])
def test_row56_arrays_come_back_equal_and_read_only(shape: tuple[int, ...], dtype: object) -> None:
    value = np.zeros(shape, dtype=dtype)
    for back in (there_and_back(value), there_and_back({"k": [value, Point(1)]})["k"][0]):  # type: ignore[index]
        assert type(back) is np.ndarray and back.dtype == value.dtype and back.shape == value.shape
        assert np.array_equal(back, value) and not back.flags.writeable


def test_row56_arrays_share_memory_with_the_view_and_keep_it_alive() -> None:
    value = {"a": np.arange(100_000), "b": np.ones((500, 500), order="F")}
    data = pack(value, [])
    assert isinstance(data, Packed)
    room = np.zeros(data.nbytes + 64, dtype="u1")
    start = -room.ctypes.data % 64
    view = memoryview(room)[start : start + data.nbytes]
    data.write_into(view)
    back = unpack(view.toreadonly())
    assert np.shares_memory(back["a"], room) and np.array_equal(back["a"], value["a"])  # type: ignore[index]
    assert back["b"].flags.f_contiguous and back["b"].ctypes.data % 64 == 0  # type: ignore[index]
    gone = weakref.ref(room)
    part = back["a"][5:10]  # type: ignore[index]
    del view, back, room
    gc.collect()
    assert gone() is not None and list(part) == [5, 6, 7, 8, 9]
    del part
    gc.collect()
    assert gone() is None


@pytest.mark.parametrize("nbytes", [0, 5, 1 << 20])
def test_row56_flat_memoryviews_travel_without_a_copy_and_come_back_read_only(nbytes: int) -> None:
    source = bytearray(range(256)) * 8 if nbytes < 1_000 else bytearray(nbytes)
    value = memoryview(source)[:nbytes]
    for back in (there_and_back(value), there_and_back({"k": [value, Point(1)]})["k"][0]):  # type: ignore[index]
        assert type(back) is memoryview and back == value and back.readonly
    data = pack(value, [])
    if nbytes > 1_000:
        assert isinstance(data, Packed)
        room = np.zeros(data.nbytes, dtype="u1")
        data.write_into(memoryview(room))
        assert np.shares_memory(np.frombuffer(unpack(memoryview(room).toreadonly()), "u1"), room)  # type: ignore[call-overload]
        copied = unpack(memoryview(room).toreadonly(), writable=True)
        assert isinstance(copied, memoryview) and not copied.readonly


def test_row56_other_memoryviews_come_as_bytes() -> None:
    data = bytes(range(24))
    for value in (memoryview(data)[::2], memoryview(data).cast("I"), memoryview(data).cast("B", (4, 6))):
        assert there_and_back(value) == value.tobytes()


def test_row56_a_memoryview_in_a_closure() -> None:
    view = memoryview(b"abc")
    function = unpack_definition(pack_definition(lambda: view)[1])
    assert function() == b"abc"  # type: ignore[operator]


@pytest.mark.parametrize("array", [np.arange(20)[::2], np.arange(1e5)[::3], np.ones((50, 50))[:, 1:7]])
def test_c22_strided_arrays_are_read_only_too(array: np.ndarray) -> None:
    for back in (there_and_back(array), there_and_back([array, Point(1)])[0]):  # type: ignore[index]
        assert np.array_equal(back, array) and not back.flags.writeable


def test_views_of_ctypes_memory_are_read() -> None:
    for value in ((1, 2), np.arange(10_000)):
        data = packed(value)
        view = memoryview((ctypes.c_ubyte * len(data)).from_buffer_copy(data)).toreadonly()
        assert np.array_equal(unpack(view), value)


def test_c22_a_private_copy_is_writable() -> None:
    for value in (np.arange(10), np.arange(100_000)):
        data = packed(value)
        copy = unpack(data, writable=True)
        copy[0] = 7  # type: ignore[index]
        assert copy[0] == 7 and unpack(data)[0] == 0  # type: ignore[index]


def test_object_arrays_are_copies() -> None:
    back = there_and_back(np.array([1, "a", None], dtype=object))
    assert list(back) == [1, "a", None]  # type: ignore[call-overload]


def test_d14_each_unpack_is_a_private_value() -> None:
    data = packed({"list": [1]})
    first, second = unpack(data), unpack(data)
    first["list"].append(2)  # type: ignore[index]
    assert second == {"list": [1]}


# ---- references ------------------------------------------------------------------------------------------------------


def test_references_inside_are_collected() -> None:
    refs: list[object] = []
    first, second = Ref(), Ref()
    pack({"a": [first], "b": Point(1, second)}, refs)
    assert refs == [first, second]


def test_row21_a_reference_pickled_by_the_user_is_not_captured() -> None:
    Ref.captured.clear()
    pickle.dumps(Ref())
    assert Ref.captured == [False]
    pack(Ref(), [])
    pickle.dumps(Ref())
    assert Ref.captured == [False, True, False]


def test_a_pack_inside_a_pack_collects_its_own() -> None:
    inner: list[object] = []
    outer: list[object] = []
    ref = Ref()

    class Nested:
        def __reduce__(self) -> tuple[object, ...]:
            return unpack, (packed_inner(),)

    def packed_inner() -> bytes:
        data = pack(Point(1, ref), inner)
        assert isinstance(data, bytes)
        return data

    last = Ref()
    pack([Nested(), last], outer)
    assert inner == [ref] and outer == [last]


def test_collectors_of_threads_are_apart() -> None:
    found: list[bool] = []

    class Elsewhere:
        def __reduce__(self) -> tuple[object, ...]:
            thread = threading.Thread(target=lambda: found.append(note_reference(self)))
            thread.start()
            thread.join()
            return int, ()

    pack(Elsewhere(), [])
    assert found == [False]


# ---- errors ----------------------------------------------------------------------------------------------------------


def culprit(value: object, what: str = "argument 'x' of f") -> str:
    with pytest.raises(SerializationError) as caught:
        pack(value, [], what=what)
    return str(caught.value)


def test_fault50_the_path_to_the_culprit_is_named() -> None:
    text = culprit({"model": Holder()})
    assert "argument 'x' of f: value['model'].lock is a _thread.lock" in text
    assert "value[1][2].lock is a _thread.lock" in culprit([1, (1, 2, Holder())])


def test_c26_closures_globals_defaults_and_methods_are_searched() -> None:
    lock = threading.Lock()

    def closing() -> object:
        return lock

    assert "value closure variable 'lock' is a _thread.lock" in culprit(closing)
    module = types.ModuleType("nowhere_to_import_from")
    exec("import threading\npool = threading.Lock()\ndef f():\n    return pool\n", module.__dict__)
    assert "value global 'pool' is a _thread.lock" in culprit(module.f)

    def defaulting(x: object = lock) -> object:
        return x

    assert "value default 0 is a _thread.lock" in culprit(defaulting)
    assert ".lock is a _thread.lock" in culprit(types.MethodType(lambda self: self, Holder()))


def test_what_cannot_be_pickled_itself_is_the_culprit() -> None:
    assert "value is a generator" in culprit(n for n in range(3))
    assert "value is a _thread.lock" in culprit(threading.Lock())


def test_the_search_ends_on_wide_and_cyclic_values() -> None:
    wide: list[object] = [[n] for n in range(10_000)]
    wide.append(wide)
    wide[50] = threading.Lock()
    assert "value[50] is a _thread.lock" in culprit(wide)
    wide[50] = 1
    wide.append(threading.Lock())
    assert "value is a list" in culprit(wide)


def test_fault54_deep_recursion() -> None:
    deep: list[object] = []
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(SerializationError, match="nested deeper"):
        pack(deep, [])


def test_row63_a_missing_module_and_the_interpreter_are_named() -> None:
    data = b"\x80\x05csurely_not_here\nthing\n."
    with pytest.raises(SerializationError, match="surely_not_here") as caught:
        unpack(data)
    assert sys.executable in str(caught.value)


class _RaisesOnLoad:
    def __reduce__(self) -> tuple[object, ...]:
        return int, ("not a number",)


@pytest.mark.parametrize(
    "data", [b"", b"\x80", b"\x80\x05", b"\x01", b"\x00" * 100, b"\x01" + b"\xff" * 40, packed(_RaisesOnLoad())]
)
def test_broken_bytes_are_a_serialization_error(data: bytes) -> None:
    with pytest.raises(SerializationError):
        unpack(data)


# ---- definitions -----------------------------------------------------------------------------------------------------


def definitions_with(closed_over: object) -> object:
    def f(x: object) -> object:
        return (closed_over, x)

    return f


def test_row11_same_text_other_closure_is_another_definition() -> None:
    one, blob = pack_definition(definitions_with(1))
    two, _ = pack_definition(definitions_with(2))
    again, _ = pack_definition(definitions_with(1))
    assert len(one) == 16 and one != two and one == again
    assert unpack_definition(blob)(5) == (1, 5)  # type: ignore[operator]


def test_row11_large_definitions_warn_then_fail(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(payload, "DEFINITION_WARN_BYTES", 10_000)
    monkeypatch.setattr(payload, "DEFINITION_MAX_BYTES", 100_000)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pack_definition(definitions_with(b""))
    with pytest.warns(UserWarning, match="captures large data"):
        pack_definition(definitions_with(bytes(20_000)))
    with pytest.raises(SerializationError, match="captures large data"):
        pack_definition(definitions_with(bytes(200_000)))


def test_references_in_closures_are_collected() -> None:
    ref, refs = Ref(), []
    pack_definition(definitions_with(ref), refs)
    assert refs == [ref]


def test_a_definition_with_a_lock_names_it() -> None:
    with pytest.raises(SerializationError, match=r"definitions_with.*closure variable 'closed_over' is a _thread.lock"):
        pack_definition(definitions_with(threading.Lock()))


def test_a_definition_that_needs_a_missing_module() -> None:
    with pytest.raises(SerializationError, match="surely_not_here"):
        unpack_definition(b"\x80\x05csurely_not_here\nthing\n.")
