"""Row 5 and row 32: what users may ask for, in exact amounts."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmreg.model.specs import ENV, UNIT, ActorEntry, Shape, actor_shapes, to_units


def test_row_5_a_task_asks_for_one_cpu_by_default() -> None:
    assert Shape.of() == Shape((("CPU", UNIT),))
    assert Shape.of(0) == Shape()


def test_row_5_amounts_are_integers_sorted_and_without_zeros() -> None:
    shape = Shape.of(0.5, 1, {"b": 2, "a": 0.0001, "none": 0}, {"y", "x"}, memory=1 << 30)
    assert shape.resources == (("CPU", 5000), ("GPU", UNIT), ("a", 1), ("b", 2 * UNIT), ("memory", UNIT << 30))
    assert shape.locs == ("x", "y")
    assert shape.to_floats() == {"CPU": 0.5, "GPU": 1, "a": 0.0001, "b": 2, "memory": 1 << 30}
    assert shape == Shape.of(0.5, 1, {"a": 0.0001, "b": 2}, ["x", "y", "x"], 2**30)


def test_row_5_float_noise_is_forgiven_and_numpy_numbers_are_numbers() -> None:
    assert to_units("num_cpus", 0.1 + 0.2) == 3000
    assert to_units("num_cpus", np.float64(0.5)) == to_units("num_cpus", np.float32(0.5)) == 5000
    assert to_units("num_cpus", np.int64(2)) == 2 * UNIT


@pytest.mark.parametrize("amount", [-1, -0.5, 0.00005, 1.00001, float("nan"), float("inf")])
def test_row_5_amounts_that_are_refused(amount: float) -> None:
    with pytest.raises(ValueError, match="num_cpus"):
        Shape.of(amount)
    with pytest.raises(ValueError, match="licence"):
        Shape.of(1, resources={"licence": amount})


@pytest.mark.parametrize(("name", "argument"), [("CPU", "num_cpus"), ("GPU", "num_gpus"), ("memory", "memory")])
def test_row_5_cpu_and_gpu_have_arguments_of_their_own(name: str, argument: str) -> None:
    with pytest.raises(ValueError, match=f"use the argument {argument}="):
        Shape.of(1, resources={name: 1})


def test_row_5_what_is_no_number_or_no_set() -> None:
    with pytest.raises(TypeError, match="num_cpus must be a number, not str"):
        Shape.of("2")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="locs must be a set of names"):
        Shape.of(1, locs="gpu-box")


def test_row_5_fits_is_all_or_nothing() -> None:
    shape = Shape.of(1, 1)
    assert shape.fits({"CPU": UNIT, "GPU": UNIT})
    assert not shape.fits({"CPU": UNIT})
    assert not shape.fits({"CPU": UNIT - 1, "GPU": UNIT})
    assert Shape().fits({"CPU": -UNIT})


@given(st.dictionaries(st.sampled_from("abc"), st.integers(0, 10**6)))
def test_row_5_floats_and_back(units: dict[str, int]) -> None:
    shape = Shape.of_units(units)
    assert Shape.of(0, resources=shape.to_floats()) == shape
    assert shape.fits(units)
    assert {name: shape.amount(name) for name in "abc"} == {name: units.get(name, 0) for name in "abc"}


def test_row_32_actor_shapes() -> None:
    assert actor_shapes() == (Shape.of(1), Shape())
    assert actor_shapes(locs={"x"}) == (Shape.of(1, locs={"x"}), Shape((), ("x",)))
    assert actor_shapes(num_cpus=0) == (Shape(), Shape())
    assert actor_shapes(num_cpus=2) == (Shape.of(2), Shape.of(2))
    assert actor_shapes(resources={"licence": 1}) == (Shape.of(1, resources={"licence": 1}),) * 2


def test_habit_12_repr() -> None:
    assert repr(Shape.of(0.5, 1, {"licence": 2}, {"x"})) == "<Shape 0.5 CPU, 1 GPU, 2 licence, locs x>"
    assert str(Shape()) == "nothing"
    assert ActorEntry(b"a", b"o").max_restarts == 0


def test_a_shape_in_words_is_what_the_call_asked_for_and_readable():
    shape = Shape.of(num_cpus=2, memory=17_693_560_013, locs={"lab"}, terms=((ENV, "c389bfed9d71bbe2"),))
    assert str(shape) == "2 CPU, 16.5 GiB memory, locs lab"
