"""A value copied into memory that the caller has: for those who read one after the other, and allocate once."""

from __future__ import annotations

from typing import Any, TypeVar

B = TypeVar("B")


def copy_into(value: Any, out: B) -> B:
    """`out` with the bytes of `value` in it, which is an array, or bytes-like as `out` is then.

    All or nothing. TypeError for other kinds; ValueError when `out` is read-only, or has another shape, dtype or size.
    """
    array = hasattr(value, "__array_interface__")
    if not array and not isinstance(value, (bytes, bytearray, memoryview)):
        raise TypeError(f"get_into is for arrays and bytes; the value is a {type(value).__name__}: take get()")
    if array:
        _array_into(value, out)
        return out
    try:
        whole = memoryview(out)  # type: ignore[arg-type]  # whatever has a buffer
    except TypeError:
        raise TypeError(f"get_into cannot write bytes into a {type(out).__name__}: give it a bytearray") from None
    if whole.readonly or not whole.c_contiguous:
        raise ValueError("get_into cannot write there: the memory is read-only, or not in one piece")
    with whole, whole.cast("B") as target, memoryview(value) as source:
        if target.nbytes != source.nbytes:
            raise ValueError(f"get_into: the value has {source.nbytes} bytes, the memory for it {target.nbytes}")
        target[:] = source.cast("B")
    return out


def _array_into(value: Any, out: Any) -> None:
    if not hasattr(out, "__array_interface__"):
        raise TypeError(
            f"get_into: the value is an array of {value.dtype} {value.shape}; give it one like that, not a "
            f"{type(out).__name__}"
        )
    if out.shape != value.shape or out.dtype != value.dtype:
        raise ValueError(
            f"get_into: the value is an array of {value.dtype} {value.shape}, the memory of {out.dtype} {out.shape}"
        )
    if not out.flags.writeable:
        raise ValueError("get_into cannot write there: the array is read-only")
    out[...] = value
