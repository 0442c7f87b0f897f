"""Labels of nodes, and what a request says about them: `x`, `!x`, `in(a, b)`, `!in(a, b)`. Pure text."""

from __future__ import annotations

from collections.abc import Mapping

from zmreg.model.specs import LABEL, WISH, Shape


def satisfies(labels: Mapping[str, str], name: str, wanted: str) -> bool:
    """Whether the label `name` is as `wanted` says. One that is not there is equal to nothing, and so also not to x."""
    refuses = wanted.startswith("!")
    text = wanted[refuses:]
    among = text.startswith("in(") and text.endswith(")")
    values = {each.strip() for each in text[3:-1].split(",")} if among else {text}
    return (name in labels and labels[name] in values) != refuses


def fit(labels: Mapping[str, str], shape: Shape) -> bool:
    """Whether a node with these labels may serve the shape."""
    return not shape.terms or all(satisfies(labels, name, value) for name, value in _terms(shape, LABEL))


def wishes_met(labels: Mapping[str, str], shape: Shape) -> int:
    """How many of the shape's wishes such a node meets."""
    return sum(satisfies(labels, name, value) for name, value in _terms(shape, WISH)) if shape.terms else 0


def has_wishes(shape: Shape) -> bool:
    """Whether some nodes are better than others by their labels."""
    return any(name.startswith(WISH) for name, _ in shape.terms)


def _terms(shape: Shape, kind: str) -> list[tuple[str, str]]:
    return [(name.removeprefix(kind), value) for name, value in shape.terms if name.startswith(kind)]
