"""One step's arguments with places in them where other steps' values go.

What is read (`Names.find`, `read`) is read once, when a request is planned. `Template.fill` puts values in, once, and
never looks into them. A template may be pickled: it can be filled wherever the values are.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from copy import copy
from typing import Final, TypeVar

from zmreg.model.errors import GraphError
from zmreg.model.graphs import Field, Lit, Ref, Step
from zmreg.model.record import Record

# What most arguments are made of, and what nothing can be inside of.
_PLAIN: Final = frozenset({int, float, bool, type(None), bytes, complex})
_CONTAINERS: Final = (list, tuple, dict, set, frozenset)

Place = TypeVar("Place")


class Slot(Record):
    """Here goes value `number` of those that the template uses."""

    number: int


class Frame(Record):
    """A container with something to be put inside: a copy of `around`, of the same type, with `parts` in their places.

    A place is an index, a key, or the member of a set that makes way.
    """

    around: object
    parts: tuple[tuple[object, Part], ...]


Part = Slot | Lit | Frame


class Template(Record):
    """`args` and `kwargs` as the user wrote them, and what to put where. `uses`: whose values, without repetitions of
    texts."""

    args: tuple[object, ...]
    kwargs: dict[str, object]
    args_parts: tuple[tuple[int, Part], ...]
    kwargs_parts: tuple[tuple[str, Part], ...]
    uses: tuple[Ref, ...]

    def fill(self, values: Sequence[object]) -> tuple[tuple[object, ...], dict[str, object]]:
        """(args, kwargs) with `values`, in the order of `uses`. Containers that change are copies, others the user's.

        Raises GraphError for a value in a set that cannot be in one.
        """
        args = self.args
        if self.args_parts:
            filled = list(args)
            for index, part in self.args_parts:
                filled[index] = _made(part, values)
            args = tuple(filled)
        kwargs = dict(self.kwargs)
        for name, part in self.kwargs_parts:
            kwargs[name] = _made(part, values)
        return args, kwargs

    def places(self) -> dict[str, str]:
        """{place: what goes there}, as {"args[0]": "load", "kwargs.k[2]": "clean.rows"}."""
        found: dict[str, str] = {}
        for index, part in self.args_parts:
            found.update(self._below(f"args[{index}]", part))
        for name, part in self.kwargs_parts:
            found.update(self._below(f"kwargs.{name}", part))
        return found

    def _below(self, place: str, part: Part) -> Iterator[tuple[str, str]]:
        if isinstance(part, Slot):
            yield place, str(self.uses[part.number])
        elif isinstance(part, Frame):
            left, right = "{}" if isinstance(part.around, set | frozenset) else "[]"
            for key, inner in part.parts:
                yield from self._below(f"{place}{left}{key!r}{right}", inner)


def filled(args: Sequence[object], kwargs: Mapping[str, object]) -> tuple[Sequence[object], Mapping[str, object]]:
    """(args, kwargs) as a named function is called with them. When values go inside of containers, what is sent is the
    template and, behind it, the values."""
    if args and type(args[0]) is Template:
        return args[0].fill(args[1:])
    return args, kwargs


def _made(part: Part, values: Sequence[object]) -> object:
    if isinstance(part, Slot):
        return values[part.number]
    if isinstance(part, Lit):
        return part.value
    around, new = part.around, [(place, _made(inner, values)) for place, inner in part.parts]
    if isinstance(around, dict):
        made = copy(around)
        made.update(new)
        return made
    if isinstance(around, set | frozenset):
        return _made_set(around, new)
    assert isinstance(around, list | tuple)
    items = copy(around) if isinstance(around, list) else list(around)
    for place, value in new:
        assert isinstance(place, int)
        items[place] = value
    if isinstance(around, list):
        return items
    make: Callable[[Iterable[object]], object] = getattr(around, "_make", type(around))
    return make(items)


def _made_set(around: set[object] | frozenset[object], new: list[tuple[object, object]]) -> object:
    try:
        members = (around - {member for member, _ in new}) | {value for _, value in new}
    except TypeError as error:
        kinds = ", ".join(sorted({type(value).__name__ for _, value in new}))
        raise GraphError(f"a set among the arguments cannot hold what goes there ({kinds}): use a list") from error
    return members if type(members) is type(around) else type(around)(members)


class Names:
    """The steps of a request, and which of them a text stands for."""

    __slots__ = ("_longest", "_names")

    def __init__(self, names: Iterable[str]) -> None:
        self._names = frozenset(names)
        self._longest = max(map(len, self._names), default=0)

    def __contains__(self, name: str) -> bool:
        return name in self._names

    def find(self, text: str) -> Ref | None:
        """The step of this very name; else the longest name that ends at a dot, and the fields behind it; else None.

        Fields are not empty and have no space around them: "Done." and "first. Then" are prose, whoever is called so.
        """
        if text in self._names:
            return Ref(text)
        # A prefix longer than the longest name is none: this keeps it linear for texts of megabytes.
        dot = text.rfind(".", 0, self._longest + 1)
        while dot > 0:
            if text[:dot] in self._names:
                fields = text[dot + 1 :].split(".")
                worded = all(field and field == field.strip() for field in fields)
                return Ref(text[:dot], tuple(map(Field, fields))) if worded else None
            dot = text.rfind(".", 0, dot)
        return None


class Reader:
    """Reads the arguments of one step."""

    __slots__ = ("_names", "_own", "_parts", "_slots", "_uses")

    def __init__(self, own: str, names: Names) -> None:
        self._own = own
        self._names = names
        self._uses: list[Ref] = []
        self._slots: dict[str, Slot] = {}  # by text, or name
        # By identity, while the arguments live: what appears twice is read once, and what contains itself is not
        # followed around.
        self._parts: dict[int, Part | None] = {}

    def read(self, step: Step) -> Template:
        """Raises RecursionError for arguments nested too deep."""
        args, kwargs = tuple(step.args), dict(step.kwargs or {})
        args_parts = tuple(self._inside(enumerate(args)))
        kwargs_parts = tuple(self._inside(kwargs.items()))
        return Template(args, kwargs, args_parts, kwargs_parts, tuple(self._uses))

    def _inside(self, items: Iterable[tuple[Place, object]]) -> Iterator[tuple[Place, Part]]:
        for place, value in items:
            if type(value) not in _PLAIN:
                part = self._part(value)
                if part is not None:
                    yield place, part

    def _part(self, value: object) -> Part | None:
        """None: it stays as it is. Text is exactly `str`: members of an enum and the like are values."""
        if type(value) is str:
            return self._slots.get(value) or self._text(value)
        if isinstance(value, _CONTAINERS):
            return self._container(value)
        if isinstance(value, Ref):
            return self._slot(value, "" if value.path else value.step)
        return value if isinstance(value, Lit) else None

    def _text(self, text: str) -> Part | None:
        ref = self._names.find(text)
        return None if ref is None or ref.step == self._own else self._slot(ref, text)

    def _slot(self, ref: Ref, key: str) -> Slot:
        """`key`: what else would be this slot; "" for none."""
        if key in self._slots:
            return self._slots[key]
        slot = Slot(len(self._uses))
        self._uses.append(ref)
        if key:
            self._slots[key] = slot
        return slot

    def _container(self, value: object) -> Part | None:
        if id(value) in self._parts:
            return self._parts[id(value)]
        self._parts[id(value)] = None
        items: Iterable[tuple[object, object]]
        if isinstance(value, dict):
            items = value.items()
        elif isinstance(value, set | frozenset):
            items = ((member, member) for member in value)
        else:
            assert isinstance(value, list | tuple)
            items = enumerate(value)
        parts = tuple(self._inside(items))
        if parts:
            self._parts[id(value)] = Frame(value, parts)
        return self._parts[id(value)]
