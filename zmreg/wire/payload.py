"""Values, functions and failures as bytes. The only file of zmreg that pickles; for drivers and workers, never nodes.

Small exact built-ins take the C pickler straight (the path of nearly every call); numpy arrays the same with their
buffers out of band; everything else cloudpickle, protocol 5. cloudpickle and tblib load when first needed: they would
cost a third of `import zmreg`.
"""

from __future__ import annotations

import functools
import os
import pickle
import sys
import warnings
from _blake2 import blake2b  # hashlib has the same one, and loads OpenSSL: 3 ms of `import zmreg`
from collections.abc import Callable
from contextvars import ContextVar
from io import BytesIO
from types import TracebackType
from typing import Any, Final, cast

from zmreg.model.errors import (
    FailureOrigin,
    GetTimeoutError,
    ProtocolError,
    SerializationError,
    TaskError,
    ZmregError,
    make_task_error,
)
from zmreg.model.exceptions import has_own_pickling, portable, rebuild_exception
from zmreg.wire.chains import reduce_exception, shortened
from zmreg.wire.explain import find_culprit, type_label
from zmreg.wire.failures import MAX_BLOB_BYTES, decode_failure, describe, encode_failure
from zmreg.wire.packed import PICKLE, RAW_BYTEARRAY, RAW_BYTES, Packed, open_packed

# 64 KiB, the usual inline limit: below, a value is handed on as bytes; above, as Packed, to be written in its place.
LARGE_BYTES: Final = 64 * 1024

# 64 entries: a scan of them costs 1 us; longer containers gain nothing, as pickling dominates.
_SCAN: Final = 64

# Functions are sent once per worker. Over 10 MB somebody captured data by accident; 100 MB is refused (row 11).
DEFINITION_WARN_BYTES: Final = 10 * 1000 * 1000
DEFINITION_MAX_BYTES: Final = 100 * 1000 * 1000


# Said where numpy says only "assignment destination is read-only".
_READ_ONLY_HINT: Final = (
    "Arguments and results of zmreg are shared memory, so they are read-only: "
    "take a private copy first (x = x.copy(), or ref.get(copy=True))."
)

_dumps: Final = pickle.dumps
_loads: Final = pickle.loads
_PLAIN: Final = frozenset({int, float, str, bytes, bool, type(None)})
_ROWS: Final = frozenset({tuple, list, set, frozenset})
_all_plain: Final = _PLAIN.issuperset


# ---- values ----------------------------------------------------------------------------------------------------------


def pack(value: object, refs: list[object], *, what: str = "value") -> bytes | Packed:
    """`value` as bytes when small, else as Packed, which borrows the memory of `value`'s large buffers.

    `refs` receives every reference met inside (see `note_reference`). `what` names the value in errors.
    Raises SerializationError, naming the path to what cannot be pickled.
    """
    if _is_plain(value):
        if type(value) is bytes and len(value) >= LARGE_BYTES:
            return Packed.of_raw(value)
        data = _dumps(value, 5)
        return data if len(data) < LARGE_BYTES else Packed.of_pickle(data)
    if type(value) is bytearray and len(value) >= LARGE_BYTES:
        return Packed.of_raw(value)
    return _pack_slowly(value, refs, what)


def _is_plain(value: object) -> bool:
    """Whether the C pickler alone is right for it: exact scalars, or small containers of them, two levels deep."""
    kind = type(value)
    if kind in _PLAIN:
        return True
    items: Any = value
    if kind is dict:
        if not _all_plain(map(type, items)):
            return False
        items = items.values()
    elif kind not in _ROWS:
        return False
    if len(items) > _SCAN:
        return False
    for item in items:
        kind = type(item)
        if kind in _PLAIN or ((kind in _ROWS or kind is dict) and not item):
            continue
        if kind is dict:
            if len(item) > _SCAN or not (_all_plain(map(type, item)) and _all_plain(map(type, item.values()))):
                return False
        elif kind not in _ROWS or len(item) > _SCAN or not _all_plain(map(type, item)):
            return False
    return True


def _pack_slowly(value: object, refs: list[object], what: str) -> bytes | Packed:
    buffers: list[pickle.PickleBuffer] = []
    if _is_array(value) and not _is_time(value):
        data = _dumps(_contiguous(value), 5, buffer_callback=buffers.append)
    else:
        data = _dump(value, refs, what, buffers.append)
    if not buffers:
        return data if len(data) < LARGE_BYTES else Packed.of_pickle(data)
    packed = Packed.of_buffers(data, [buffer.raw() for buffer in buffers])
    return packed.inline() if packed.nbytes < LARGE_BYTES else packed


def _is_array(value: object) -> bool:
    """Whether it is exactly a numpy array without objects. numpy is never imported: who has an array has it."""
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value) is not numpy.ndarray:
        return False
    array: Any = value
    return not array.dtype.hasobject


def _contiguous(value: object) -> object:
    """The array, or a copy when it is strided: numpy pickles that in band, and it would come back writable."""
    array: Any = value
    return array if array.flags.forc else array.copy()


def _is_time(value: object) -> bool:
    """Whether it is an array of datetime64 or timedelta64, which numpy cannot export as buffers."""
    array: Any = value
    return array.dtype.kind in "mM"


def _view_as(integers: object, dtype: object) -> object:
    array: Any = integers
    return array.view(dtype)


def _dump(
    value: object, refs: list[object], what: str, buffer_callback: Callable[[pickle.PickleBuffer], object] | None
) -> bytes:
    file = BytesIO()
    before = _collector.set(refs)
    try:
        _pickler_class()(file, protocol=5, buffer_callback=buffer_callback).dump(value)
    except ZmregError:
        raise
    except Exception as error:
        raise _unpicklable(value, what, error) from error
    finally:
        _collector.reset(before)
    return file.getvalue()


@functools.cache
def _pickler_class() -> Callable[..., pickle.Pickler]:
    import cloudpickle  # type: ignore[import-untyped, unused-ignore]  # late: 15 ms that a user of built-ins need not pay

    functions_and_classes = (type, type(_dump))

    class ValuePickler(cloudpickle.Pickler):  # type: ignore[misc]
        """cloudpickle; exceptions survive their own `__init__`; arrays and flat memoryviews come back read-only."""

        def reducer_override(self, obj: object) -> object:
            if isinstance(obj, functions_and_classes):
                return super().reducer_override(obj)
            if isinstance(obj, BaseException):
                return reduce_exception(obj)
            if isinstance(obj, TracebackType):
                return _reduce_traceback(obj)
            if _is_array(obj):
                return _reduce_array(obj)
            if type(obj) is memoryview and obj.format == "B" and obj.ndim == 1 and obj.contiguous:
                # Others come as bytes (cloudpickle's way): PickleBuffer would take them, but forget their shape.
                return memoryview, (pickle.PickleBuffer(obj),)
            return NotImplemented

    return ValuePickler


def by_value(module: object, yes: bool) -> None:
    """Whether functions of `module` travel as code, for those who do not have it, and not by their names."""
    import cloudpickle  # late: as above

    (cloudpickle.register_pickle_by_value if yes else cloudpickle.unregister_pickle_by_value)(module)


def warm() -> None:
    """Load the pickler now, when there is time, and not with the first function or class (15 ms)."""
    _pickler_class()


def _reduce_array(value: object) -> object:
    array: Any = _contiguous(value)
    return (_view_as, (array.view("i8"), array.dtype)) if _is_time(array) else array.__reduce_ex__(5)


def unpack(data: bytes | memoryview, *, writable: bool = False) -> object:
    """The value behind what `pack` made, in either form.

    Large buffers are read-only, zero-copy slices of `data`, which stays alive (its exporter too) as long as they do;
    with `writable` they are private copies. Raises SerializationError when the value cannot be rebuilt here.
    """
    try:
        if type(data) is memoryview and data.format != "B":
            data = data.cast("B")  # a ctypes array says "<B", and cannot be indexed
        if data[0] == PICKLE:
            return _loads(data)
        opened = open_packed(data)
        if opened.form == RAW_BYTES:
            return bytes(opened.body)
        if opened.form == RAW_BYTEARRAY:
            return bytearray(opened.body)
        buffers = [bytearray(buffer) for buffer in opened.buffers] if writable else opened.buffers
        return _loads(opened.body, buffers=buffers)
    except ZmregError:
        raise
    except Exception as error:
        raise _unloadable(error) from error


# ---- references met while pickling -----------------------------------------------------------------------------------

# A context variable: each thread has its own, and a pack inside a pack gives it back.
_collector: Final[ContextVar[list[object] | None]] = ContextVar("zmreg_refs", default=None)


def note_reference(ref: object) -> bool:
    """Called by a reference's `__reduce__`: adds it to the value being packed on this thread.

    False when no pack is running: the user pickles by own means, and the reference must be kept alive otherwise.
    """
    refs = _collector.get()
    if refs is None:
        return False
    refs.append(ref)
    return True


# ---- definitions: functions and classes ------------------------------------------------------------------------------


def pack_definition(obj: object, refs: list[object] | None = None) -> tuple[bytes, bytes]:
    """(digest of 16 bytes, blob) of a function or class; the digest names it everywhere, so a new body is a new name.

    `refs` receives references captured in closures and globals. Warns at DEFINITION_WARN_BYTES; raises
    SerializationError at DEFINITION_MAX_BYTES, or when something captured cannot be pickled.
    """
    name = getattr(obj, "__qualname__", None) or repr(obj)
    blob = _dump(obj, [] if refs is None else refs, name, None)
    if len(blob) >= DEFINITION_MAX_BYTES:
        raise SerializationError(
            f"{name} is {len(blob) / 1e6:.0f} MB when pickled, the limit is {DEFINITION_MAX_BYTES / 1e6:.0f} MB: it "
            f"captures large data. Pass the data as an argument instead, best as a ref from zmreg.put()."
        )
    if len(blob) >= DEFINITION_WARN_BYTES:
        warnings.warn(
            f"{name} is {len(blob) / 1e6:.0f} MB when pickled: it captures large data, which every worker gets a copy "
            f"of. Pass the data as an argument instead, best as a ref from zmreg.put().",
            stacklevel=3,
        )
    return blake2b(blob, digest_size=16).digest(), blob


def unpack_definition(blob: bytes | memoryview) -> object:
    """The function or class. Raises SerializationError, naming the interpreter, when it cannot be rebuilt here."""
    try:
        return _loads(blob)
    except ZmregError:
        raise
    except Exception as error:
        raise _unloadable(error) from error


# ---- errors that name the culprit ------------------------------------------------------------------------------------


def _unpicklable(value: object, what: str, error: Exception) -> SerializationError:
    if isinstance(error, RecursionError) or isinstance(error.__cause__, RecursionError):
        return SerializationError(
            f"cannot send {what}: it is nested deeper than Python's recursion limit. Flatten it, or send it in parts."
        )
    culprit = find_culprit(value, _pickles)
    return SerializationError(
        f"cannot send {what}: {culprit.path} is a {culprit.type_name} ({type(error).__name__}: {error}). "
        f"Make it inside the task or actor, or leave it out of the state with __getstate__."
    )


class _Nowhere:
    """A file that keeps nothing: only whether pickling works is of interest."""

    def write(self, data: bytes | memoryview | pickle.PickleBuffer) -> int:
        return memoryview(data).nbytes


def _pickles(value: object) -> bool:
    try:
        _pickler_class()(_Nowhere(), protocol=5).dump(value)
    except Exception:  # noqa: BLE001  whatever it raises, the answer is no
        return False
    return True


def _unloadable(error: Exception) -> SerializationError:
    hint = ""
    if isinstance(error, ModuleNotFoundError):
        hint = f" Install or ship the module {error.name!r} there, or define the code in the script that is run."
    return SerializationError(
        f"cannot rebuild a value in process {os.getpid()} on host {os.uname().nodename} "
        f"({sys.executable}, Python {sys.version.split()[0]}): {type(error).__name__}: {error}.{hint}"
    )


# ---- failures --------------------------------------------------------------------------------------------------------


def pack_failure(
    error: BaseException,
    function: str = "",
    *,
    pid: int | None = None,
    node_id: str = "",
    refs: list[object] | None = None,
) -> bytes:
    """An exception as bytes: text that anybody can read, and the exception itself when it survives the journey.

    That is tried here, by loading it again, so that the reply can be relied on. `refs` receives references inside.
    Never raises an Exception.
    """
    if type(error) is ValueError and "read-only" in str(error) and not hasattr(error, "__notes__"):
        error.add_note(_READ_ONLY_HINT)
    origin = describe(error, function, os.getpid() if pid is None else pid, node_id)
    found: list[object] = []
    blob = _tried(error, found)
    if not blob:
        found.clear()
        spare = _without_baggage(error)
        blob = b"" if spare is None else _tried(spare, found)
    if refs is not None:
        refs.extend(found)
    return encode_failure(origin, blob)


def unpack_failure(data: bytes | memoryview) -> BaseException:
    """The error to raise: a TaskError that is also an instance of the user's class, or one of zmreg's own as it was.

    A plain TaskError with the text when the exception cannot be rebuilt here. Raises ProtocolError when `data` is none.
    """
    origin, blob = decode_failure(data)
    error = _rebuilt_failure(origin, blob)
    try:
        if origin.notes:  # not add_note(): a frozen dataclass as exception refuses assignment
            error.__dict__["__notes__"] = [*error.__dict__.get("__notes__", ()), *origin.notes]
        return error
    finally:
        del error  # see _rebuilt_failure


def _rebuilt_failure(origin: FailureOrigin, blob: bytes) -> BaseException:
    if not blob:
        return make_task_error(origin, None)
    try:
        error = _loads(blob)
    except Exception as reason:  # noqa: BLE001  a foreign class may object in any way; the text still says it all
        plain = make_task_error(origin, None)
        plain.add_note(f"(the exception itself could not be rebuilt here: {_unloadable(reason)})")
        return plain
    try:
        return _ours_or_task_error(origin, error)
    finally:
        # The frames of a rebuilt traceback lead back to whoever loads it. Were the error in one of those, it would be
        # in a cycle, and everything in the frames of the caller of get() would live until a garbage collection.
        del error


def _ours_or_task_error(origin: FailureOrigin, error: object) -> BaseException:
    if not isinstance(error, BaseException):
        raise ProtocolError(f"a failure carries a {type_label(type(error))} where an exception belongs")
    if _is_ours(error):
        if origin.function:
            error.add_note(f"(from {origin.function}, pid {origin.pid}, node {origin.node_id or 'unknown'})")
        return error
    if isinstance(error, TaskError):
        return make_task_error(origin, error.cause)
    return make_task_error(origin, error)


def _is_ours(error: BaseException) -> bool:
    # Not the two that would mislead: a timeout inside the task is not a timeout of the caller's own get().
    return type(error).__module__ == ZmregError.__module__ and not isinstance(error, (TaskError, GetTimeoutError))


def _travels(value: object) -> bool:
    try:
        data = _dump(value, [], "part of an exception", None)
        _loads(data)
    except Exception:  # noqa: BLE001  whatever it raises, the answer is no
        return False
    return len(data) < LARGE_BYTES


def _tried(error: BaseException, refs: list[object]) -> bytes:
    """The pickled exception, or b"" when it does not come back as what it was."""
    try:
        blob = _dump(error, refs, "exception", None)
        if len(blob) > MAX_BLOB_BYTES:  # it drags its data along: an AttributeError has the whole object in `obj`
            return b""
        back = _loads(blob)
    except Exception:  # noqa: BLE001  whatever the reason, the text travels instead
        return b""
    whole = isinstance(back, BaseException) and type(back).__name__ == type(error).__name__
    # The frames of its rebuilt traceback lead back to this one: a cycle, which would keep the arguments of the task
    # that failed, and their pins, until the next garbage collection.
    del back
    return blob if whole else b""


_Parts = tuple[type[BaseException], tuple[object, ...], dict[str, object], dict[str, object]]


def _without_baggage(error: BaseException) -> BaseException | None:
    """A copy of the same class in which text stands for what does not pickle, without its chain; None if impossible."""
    own = isinstance(error, ZmregError)
    if has_own_pickling(type(error)) and not own:
        return None
    cls, args, fields, state = cast(_Parts, portable(error)[1])
    lost = [name for name, part in state.items() if not _travels(part)]
    try:
        kept = {name: repr(part) if name in lost else part for name, part in state.items()}
        sent = tuple(arg if _travels(arg) else repr(arg) for arg in args)
        spare = rebuild_exception(cls, sent, {name: part for name, part in fields.items() if _travels(part)}, kept)
        spare.__traceback__ = error.__traceback__
        what = ", ".join(lost) or "arguments"
        BaseException.add_note(spare, f"(sent as text or left out, too large or not picklable: {what})")
    except Exception:  # noqa: BLE001  a foreign class may object in any way
        return None
    return spare


def _reduce_traceback(trace: TracebackType) -> tuple[object, ...]:
    from tblib.pickling_support import pickle_traceback  # late: only failures need it

    return cast(tuple[object, ...], pickle_traceback(shortened(trace)))
