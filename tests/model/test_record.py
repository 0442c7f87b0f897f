"""Messages and effects are frozen records with slots, like dataclasses, but nothing is compiled when one is defined."""

from __future__ import annotations

import inspect
import typing
from typing import ClassVar

import pytest

from zmreg.model import messages
from zmreg.model.debug_messages import DebugWord
from zmreg.model.group_messages import GroupWord
from zmreg.model.lodging_messages import LodgingWord
from zmreg.model.messages import Goodbye, Hello, Message, WantLeases
from zmreg.model.record import Record, Wish
from zmreg.wire import codec


def test_fields_by_position_and_by_name_in_their_order() -> None:
    assert Hello("driver", 3) == Hello(pid=3, role="driver") == Hello("driver", pid=3)
    assert repr(Hello("driver", 3)) == "Hello(role='driver', pid=3)"
    assert Hello("driver", 3) != Hello("driver", 4) and Hello("driver", 3) != ("driver", 3)
    assert len({Hello("driver", 3), Hello("driver", 3), Goodbye(), Goodbye()}) == 2


def test_patterns_see_the_fields() -> None:
    match WantLeases((("CPU", 10_000),), (), "", 2, 1, True):
        case WantLeases(resources, locs, count=count):
            assert (resources, locs, count) == ((("CPU", 10_000),), (), 2)


@pytest.mark.parametrize(
    ("values", "named"),
    [((), {}), (("driver",), {}), (("driver", 3, 4), {}), (("driver", 3), {"pid": 3}), (("driver",), {"pit": 3})],
)
def test_wrong_fields_are_refused_with_the_right_ones(values: tuple[object, ...], named: dict[str, object]) -> None:
    with pytest.raises(TypeError, match=r"Hello\.__init__\(\)"):
        Hello(*values, **named)  # type: ignore[arg-type]


def test_frozen_and_without_a_dict() -> None:
    hello = Hello("driver", 3)
    with pytest.raises(AttributeError, match="frozen"):
        hello.pid = 4  # type: ignore[misc]
    with pytest.raises(AttributeError, match="frozen"):
        del hello.pid
    assert hello.pid == 3 and not hasattr(hello, "__dict__")


def test_all_messages_are_named_in_one_place() -> None:
    kinds = typing.get_args(Message)
    closed = (GroupWord, DebugWord, LodgingWord)  # unions that are named where they are
    by_themselves = {kind.__name__ for words in closed for kind in typing.get_args(words)}
    assert {kind.__name__ for kind in kinds} - by_themselves <= set(messages.__all__)
    assert len({kind.KIND for kind in kinds}) == len(kinds)
    assert list(codec.kinds()) == sorted(kind.KIND for kind in kinds)


class Sized(Record):
    """test -> test: with a default."""

    LIMIT: ClassVar[int] = 9
    name: str
    size: int = 1


def test_defaults_class_variables_and_but() -> None:
    assert Sized("a") == Sized("a", 1) == Sized(size=1, name="a") and Sized.LIMIT == 9
    assert Sized("a").but(size=2) == Sized("a", 2)
    with pytest.raises(TypeError, match="colour"):
        Sized("a").but(colour="red")
    assert Sized.__match_args__ == ("name", "size")


class Checked(Record):
    """Looks at what it is given."""

    size: int = 1

    def __post_init__(self) -> None:
        if self.size < 0:
            raise ValueError(f"size={self.size} is negative")


def test_values_are_looked_at_each_time_one_is_made() -> None:
    assert Checked(2).but(size=3).size == 3
    for _ in range(2):
        with pytest.raises(ValueError, match="size=-1"):
            Checked(-1)
    with pytest.raises(ValueError, match="size=-2"):
        Checked(2).but(size=-2)


def test_help_knows_the_fields_before_there_is_an_instance() -> None:
    class Fresh(Record):
        name: str
        size: int = 1

    assert str(inspect.signature(Fresh)) == "(name, size=1)"


class Asked(Wish):
    """Written by hand."""

    name: str
    depends_on: tuple[str, ...] = ()


def test_a_misspelt_field_of_what_users_write_is_answered_with_the_right_one() -> None:
    for _ in range(2):  # the first one compiles
        with pytest.raises(TypeError, match="^Asked has no argument 'depend_on'; did you mean 'depends_on'\\?$"):
            Asked("a", depend_on=("b",))  # type: ignore[call-arg]
    with pytest.raises(TypeError, match="^Asked has no argument 'colour'; there are name, depends_on$"):
        Asked("a", colour="red")  # type: ignore[call-arg]
    assert Asked("a").but(depends_on=("b",)) == Asked("a", ("b",))
    assert str(inspect.signature(Asked)) == "(name, depends_on=())"
