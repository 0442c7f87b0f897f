"""R35: versions and constraints on them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmreg.core.versions import NO_VERSION, read_constraint, read_version, show_version

numbers = st.lists(st.integers(0, 12), min_size=1, max_size=4)


def written(version: list[int]) -> str:
    return ".".join(map(str, version))


def meets(constraint: str, version: str) -> bool:
    return read_constraint(constraint).met_by(read_version(version))


@pytest.mark.parametrize(
    ("constraint", "yes", "no"),
    [
        ("2.1.0", ("2.1.0", "2.1"), ("2.1.1", "2", "")),
        ("==2.1", ("2.1", "2.1.0.0"), ("2.1.1",)),
        ("!=2.1", ("2.1.1", "3"), ("2.1.0", "")),
        (">=2,<3", ("2", "2.99", "2.0.1"), ("1.9", "3", "3.0.1")),
        (" > 2 , != 2.5 ", ("2.0.1", "3"), ("2", "2.5.0")),
        ("<=2.1", ("2.1.0", "1"), ("2.1.1",)),
        ("~=2.1", ("2.1", "2.9"), ("2.0.9", "3")),
        ("~=2.1.0", ("2.1", "2.1.7"), ("2.2", "2.0")),
        ("", ("", "1"), ()),
    ],
)
def test_R35_what_meets_a_constraint(constraint: str, yes: tuple[str, ...], no: tuple[str, ...]) -> None:
    assert [version for version in yes if not meets(constraint, version)] == []
    assert [version for version in no if meets(constraint, version)] == []


@pytest.mark.parametrize("bad", ["2.x", ">=", "=2", ">=2,", "2 3", "==2.*", "~=2", "1" * 15, "1.0rc1", ">=2;<3", "-1"])
def test_R35_what_is_no_constraint_says_so(bad: str) -> None:
    with pytest.raises(ValueError, match="version="):
        read_constraint(bad)


@pytest.mark.parametrize("bad", ["v2", "2.", ".2", "2.1rc1", " 2", "2\n", "٢", "1." * 8 + "1", "-1"])
def test_R35_what_is_no_version_says_so(bad: str) -> None:
    with pytest.raises(ValueError, match="is no version"):
        read_version(bad)


@given(numbers, numbers)
def test_R35_versions_order_as_their_numbers_do(one: list[int], other: list[int]) -> None:
    length = max(len(one), len(other))
    padded = [[*each, *[0] * (length - len(each))] for each in (one, other)]
    mine, theirs = read_version(written(one)), read_version(written(other))
    assert (mine < theirs, mine == theirs) == (padded[0] < padded[1], padded[0] == padded[1])
    assert mine > NO_VERSION
    # Each pair of signs is the other's opposite.
    for sign, opposite in ((">=", "<"), ("<=", ">"), ("==", "!=")):
        assert meets(sign + written(other), written(one)) is not meets(opposite + written(other), written(one))


@given(numbers)
def test_R35_what_is_shown_is_read_as_the_same(version: list[int]) -> None:
    read = read_version(written(version))
    assert read_version(show_version(read)) == read
    assert show_version(read) == show_version(read_version(show_version(read)))
    assert meets(written(version), written([*version, 0])), "zeros at the end say nothing"


@given(numbers.filter(lambda each: len(each) > 1), numbers)
def test_R35_the_compatible_sign_is_short_for_two_others(bound: list[int], version: list[int]) -> None:
    upper = [*bound[:-2], bound[-2] + 1]
    assert meets("~=" + written(bound), written(version)) is meets(
        f">={written(bound)},<{written(upper)}", written(version)
    )


def test_R35_no_version_is_shown_as_nothing() -> None:
    assert show_version(NO_VERSION) == "" and read_version("") == NO_VERSION
    assert show_version(read_version("0.0")) == "0"
