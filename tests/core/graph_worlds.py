"""Random requests that know their own answers: what is written for the planner, beside what it is meant to mean."""

from __future__ import annotations

import zlib
from collections import namedtuple
from collections.abc import Callable
from random import Random

from zmreg.model.graphs import Lit, Ref, Step

Pair = namedtuple("Pair", ("left", "right"))
Value = dict[str, object]
Meaning = Callable[[dict[str, Value]], object]


def value_of(name: str, args: object, kwargs: object) -> Value:
    """What a step makes: it depends on each of its arguments and on their types."""
    number = zlib.crc32(f"{name} {canonical(args)} {canonical(kwargs)}".encode())
    return {"n": number, "more": [name, {"deep": number + 1}]}


def canonical(value: object) -> str:
    """`repr`, but equal for equal sets."""
    kind = type(value).__name__
    if isinstance(value, dict):
        return f"{kind}({', '.join(f'{key!r}: {canonical(each)}' for key, each in value.items())})"
    if isinstance(value, set | frozenset):
        return f"{kind}({', '.join(sorted(map(canonical, value)))})"
    if isinstance(value, list | tuple):
        return f"{kind}({', '.join(map(canonical, value))})"
    return f"{kind} {value!r}"


class World:
    """A request of `size` steps without circles, written in some order; `expected()` is what each step makes."""

    def __init__(self, seed: int, size: int) -> None:
        self.random = random = Random(seed)
        # Some names are beginnings of others: the longest has to win.
        names = [f"s{number}" if number % 7 else f"s{number}.x" for number in range(size)]
        names += ["s1.more"] * (size > 2)
        self.names = names
        self.edges: dict[str, set[str]] = {}
        self.meanings: dict[str, tuple[Meaning, Meaning]] = {}
        self.steps: list[Step] = []
        for number, name in enumerate(names):
            self._earlier, self._own, self._edges = names[:number], name, set[str]()
            self._all = names
            args = [self._written(0) for _ in range(random.randrange(4))]
            kwargs = {f"k{index}": self._written(0) for index in range(random.randrange(2))}
            self.steps.append(Step(name, "f", tuple(each for each, _ in args), {k: w for k, (w, _) in kwargs.items()}))
            self.meanings[name] = (together(tuple, args), mapped(kwargs))
            self.edges[name] = self._edges
        random.shuffle(self.steps)

    def expected(self) -> dict[str, Value]:
        values: dict[str, Value] = {}
        for name in self.names:  # each after those it mentions
            args, kwargs = self.meanings[name]
            values[name] = value_of(name, args(values), kwargs(values))
        return values

    def _written(self, depth: int) -> tuple[object, Meaning]:
        kind = self.random.randrange(10 if depth < 3 else 5)
        if kind >= 5:
            return self._container(depth)
        if kind <= 2 and self._earlier:
            return self._reference()
        text = self.random.choice(["text", "s", "s1 ", "the s1", "s2!", "", self._own, f"{self._own}.n", "s1.", "."])
        if kind == 3:
            name = self.random.choice(self._all)
            return Lit(name), lambda _: name
        return text, lambda _: text

    def _reference(self) -> tuple[object, Meaning]:
        name = self.random.choice(self._earlier)
        self._edges.add(name)
        written, meaning = self.random.choice(REFERENCES)
        return written(name), lambda values: meaning(values[name])

    def _container(self, depth: int) -> tuple[object, Meaning]:
        kind = self.random.randrange(5)
        if kind == 4:
            return self._set()
        if kind == 2:
            pair = [self._written(depth + 1) for _ in range(2)]
            return Pair(*(written for written, _ in pair)), together(Pair._make, pair)
        parts = [self._written(depth + 1) for _ in range(self.random.randrange(4))]
        if kind == 0:
            return [written for written, _ in parts], together(list, parts)
        if kind == 1:
            return tuple(written for written, _ in parts), together(tuple, parts)
        named = {self.random.choice(self._all) + str(number): part for number, part in enumerate(parts)}
        return {key: written for key, (written, _) in named.items()}, mapped(named)

    def _set(self) -> tuple[object, Meaning]:
        numbers = [self.random.choice(self._earlier) for _ in range(2)] if self._earlier else []
        self._edges.update(numbers)
        frozen = self.random.choice([set, frozenset])
        written = frozen([f"{name}.n" for name in numbers] + ["text", 7])
        return written, lambda values: frozen([values[name]["n"] for name in numbers] + ["text", 7])


REFERENCES: list[tuple[Callable[[str], object], Callable[[Value], object]]] = [
    (lambda name: name, lambda value: value),
    (lambda name: Ref(name), lambda value: value),
    (lambda name: f"{name}.n", lambda value: value["n"]),
    (lambda name: Ref(name)["more"][0], lambda value: value["more"][0]),
    (lambda name: Ref(name).field("more.1.deep"), lambda value: value["more"][1]["deep"]),
    (lambda name: Ref(name)["more"].field("1")["deep"], lambda value: value["more"][1]["deep"]),
]


def together(make: Callable[[list[object]], object], parts: list[tuple[object, Meaning]]) -> Meaning:
    return lambda values: make([meaning(values) for _, meaning in parts])


def mapped(parts: dict[str, tuple[object, Meaning]]) -> Meaning:
    return lambda values: {key: meaning(values) for key, (_, meaning) in parts.items()}
