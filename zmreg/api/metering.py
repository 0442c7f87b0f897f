"""Counters, gauges and histograms of users: counted where the code runs, put together by the node there."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Self

from zmreg.services.seat import metering
from zmreg.services.seat.metering import Family, Meter, check_bounds, check_labels, check_name, clean


class Metric:
    """What the three have in common. Two of one name in a process are one; pickled, it is the same metric there."""

    _kind = ""

    def __init__(self, name: str, description: str, tag_keys: Sequence[str] | None, **more: Any) -> None:
        self._info_name = check_name(name)
        if name.startswith(metering.OWN):
            raise ValueError(f"{name!r}: names that begin with {metering.OWN} are zmreg's own")
        if not isinstance(description, str):
            raise TypeError(f"the description of {name!r} is text, not {type(description).__name__}")
        if isinstance(tag_keys, str):
            raise TypeError(f"tag_keys of {name!r} is a tuple of names, not one: tag_keys=({tag_keys!r},)")
        labels = check_labels(tag_keys or ())
        shown = metering.total_name(name) if self._kind == metering.COUNTER else name
        text = description[: metering.TEXT_LENGTH]
        self._family = Family(shown, self._kind, text, labels, **more)
        self._defaults: dict[str, str] = {}
        metering.metering().check(self._family)

    def set_default_tags(self, default_tags: Mapping[str, str]) -> Self:
        """Values of tags where none is given; itself. Raises ValueError for a tag it does not have, TypeError."""
        for key, value in default_tags.items():
            self._check_tag(key, value)
        self._defaults = dict(default_tags)
        return self

    @property
    def info(self) -> dict[str, Any]:
        """`name`, `description`, `tag_keys` and `default_tags`, as given."""
        return {
            "name": self._info_name, "description": self._family.text, "tag_keys": self._family.labels,
            "default_tags": dict(self._defaults),
        }  # fmt: skip

    def _labels(self, tags: Mapping[str, str] | None) -> tuple[str, ...]:
        """Values of all its tags. Raises ValueError, TypeError."""
        keys = self._family.labels
        if not keys and not tags:
            return ()
        given = {**self._defaults, **tags} if tags else self._defaults
        for key, value in given.items():
            self._check_tag(key, value)
        try:
            return tuple([clean(given[key]) for key in keys])
        except KeyError:
            missing = ", ".join(repr(key) for key in keys if key not in given)
            raise ValueError(
                f"metric {self._info_name!r} needs a value for tag {missing}: give it in tags=, or set_default_tags"
            ) from None

    def _check_tag(self, key: str, value: object) -> None:
        if key not in self._family.labels:
            has = ", ".join(map(repr, self._family.labels)) or "none"
            raise ValueError(f"metric {self._info_name!r} has no tag {key!r}; its tag_keys are {has}")
        if not isinstance(value, str):
            raise TypeError(f"the value of tag {key!r} of {self._info_name!r} is text, not {type(value).__name__}")

    def _number(self, value: object) -> float:
        if isinstance(value, bool):
            raise TypeError(f"metric {self._info_name!r} takes a number as its value, not a bool")
        if not isinstance(value, (int, float)):
            try:  # numpy's and others' numbers
                return float(value.__float__())  # type: ignore[attr-defined]
            except (AttributeError, TypeError, ValueError):
                text = f"{type(value).__name__}: {value!r:.80}"
                raise TypeError(f"metric {self._info_name!r} takes a number as its value, not {text}") from None
        return float(value)

    def _arguments(self) -> tuple[Any, ...]:
        return self._info_name, self._family.text, self._family.labels

    def __reduce__(self) -> tuple[Any, ...]:
        return _again, (type(self), self._arguments(), self._defaults)

    def __repr__(self) -> str:
        tags = f" by {', '.join(self._family.labels)}" if self._family.labels else ""
        return f"<{type(self).__name__} {self._family.name}{tags}>"


class Counter(Metric):
    """A number that only grows. `_total` is added to its name where that is missing, as Prometheus has it.

    `tag_keys`: what its values are told apart by; each combination of values is a series, of which there are 1,000 at
    most. ValueError for a name or tag that is none, or that is taken by another metric.
    """

    _kind = metering.COUNTER

    def __init__(self, name: str, description: str = "", tag_keys: Sequence[str] | None = None) -> None:
        super().__init__(name, description, tag_keys)

    def inc(self, value: float = 1.0, tags: Mapping[str, str] | None = None) -> None:
        """Add `value`. Raises ValueError unless it is above 0, and for tags that are missing or not its own."""
        amount = self._number(value)
        if not 0 < amount < float("inf"):
            raise ValueError(f"counter {self._info_name!r} only grows: the value {value} cannot be added")
        metering.metering().count(self._family, Meter.add, self._labels(tags), amount)


class Gauge(Metric):
    """A number that goes up and down. Of a process that has ended, it is gone.

    `across`: what a node tells of the processes that have set it: their "sum", "max", "min", or what was set "last".
    """

    _kind = metering.GAUGE

    def __init__(
        self, name: str, description: str = "", tag_keys: Sequence[str] | None = None, *, across: str = "sum"
    ) -> None:
        if across not in metering.ACROSS:
            raise ValueError(f"across={across!r}: {', '.join(map(repr, metering.ACROSS))} are possible")
        super().__init__(name, description, tag_keys, across=across)

    def set(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        """It is `value` now. Raises TypeError for what is no number, ValueError for tags as `Counter.inc`."""
        metering.metering().count(self._family, Meter.set, self._labels(tags), self._number(value))

    def _arguments(self) -> tuple[Any, ...]:
        return *super()._arguments(), self._family.across


class Histogram(Metric):
    """How values are distributed: how many were at most each of `boundaries`, how many in all, and their sum."""

    _kind = metering.HISTOGRAM

    def __init__(
        self,
        name: str,
        description: str = "",
        boundaries: Sequence[float] | None = None,
        tag_keys: Sequence[str] | None = None,
    ) -> None:
        """`boundaries`: upper ends, ascending, from 1 to 100 of them. ValueError."""
        if not boundaries:
            raise ValueError(f"histogram {name!r} needs boundaries: Histogram(..., boundaries=[0.01, 0.1, 1, 10])")
        super().__init__(name, description, tag_keys, bounds=check_bounds(boundaries))

    def observe(self, value: float, tags: Mapping[str, str] | None = None) -> None:
        """`value` was seen. Raises TypeError, ValueError for tags as `Counter.inc`, and for what is not a number."""
        amount = self._number(value)
        if amount != amount:
            raise ValueError(f"histogram {self._info_name!r} has no bucket for what is not a number")
        metering.metering().count(self._family, Meter.observe, self._labels(tags), amount)

    @property
    def info(self) -> dict[str, Any]:
        """As of the others, and `boundaries`."""
        return {**super().info, "boundaries": list(self._family.bounds)}

    def _arguments(self) -> tuple[Any, ...]:
        name, text, labels = super()._arguments()
        return name, text, self._family.bounds, labels


def _again(kind: type[Any], arguments: tuple[Any, ...], defaults: Mapping[str, str]) -> Metric:
    """Unpickled."""
    if kind is Gauge:
        *plain, across = arguments
        made: Metric = Gauge(*plain, across=across)
    else:
        made = kind(*arguments)
    return made.set_default_tags(defaults)


def keep_telling(source: metering.Source, forget: Callable[[], object]) -> None:
    """Of flows: have `source` say what it has counted whenever somebody asks, until this process leaves its cluster;
    then `forget` is called."""
    metering.metering().keep(source, forget)


def is_kept(source: metering.Source) -> bool:
    """Whether it is asked."""
    return metering.metering().keeps(source)


__all__ = ["Counter", "Family", "Gauge", "Histogram", "is_kept", "keep_telling"]
