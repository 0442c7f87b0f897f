"""What a request is written in: steps, and how one of them names another's value.

`Step("b", "mean", ("a",))` takes the value of the step called "a"; `Ref("a")["k"]` takes a part of it, and `Lit("a")`
is the text. Everything here is a frozen value that may be pickled; `core.graphs.plan` judges whether it makes sense.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import ClassVar

from zmreg.model.policy import Policy
from zmreg.model.record import Record, Wish


class Item(Record):
    """One segment of a path: `value[key]`, and nothing else."""

    key: object

    def __str__(self) -> str:
        return f"[{self.key!r}]"


class Field(Record):
    """One segment of a path, as text has it: the mapping's key, else the index, else the public attribute `name`."""

    name: str

    def __str__(self) -> str:
        return f".{self.name}"


Path = tuple[Item | Field, ...]


class Ref(Record):
    """The value of the step called `step`, or the part of it that `path` leads to.

    `Ref("a")["k"][0]` and `Ref("a").field("k.0")` lead to parts; only the part travels.
    """

    step: str
    path: Path = ()

    # `[...]` alone would make it a sequence without an end to whoever iterates or unpacks it.
    __iter__: ClassVar[None] = None

    def __getitem__(self, key: object) -> Ref:
        """`key` of this value, exactly: `value[key]`."""
        return Ref(self.step, (*self.path, Item(key)))

    def field(self, dotted: str) -> Ref:
        """`dotted` of this value, each name of it a mapping's key, else an index, else a public attribute."""
        return Ref(self.step, (*self.path, *map(Field, dotted.split("."))))

    def __str__(self) -> str:
        return self.step + "".join(map(str, self.path))


class Lit(Record):
    """`value` as it is: no text in it names a step."""

    value: object


class Step(Wish):
    """One call of a request: `fun`, a registered name, is called with `args` and `kwargs` where `locs` are.

    A text among the arguments that equals another step's name, also inside lists, tuples, sets and the values of dicts,
    stands for that step's value, and "name.field" for a part of it.
    """

    name: str
    fun: str
    args: Sequence[object] = ()
    kwargs: Mapping[str, object] | None = None
    locs: Collection[str] = ()
    """Names that all have to be there."""
    version: str | None = None
    """"2.1.0", or a constraint as ">=2,<3"; None: the highest there is."""
    timeout: float | None = None
    """Seconds from when its inputs are there until it has to be done; None: no limit of its own."""
    retries: int = 0
    """How often it may be called again after a call that may have run was lost with its node."""
    policy: Policy | None = None
    """`timeout` and `retries`, where they are not said here."""


RPCCommand = Step
StepLike = Step | tuple[object, ...]
"""A Step, or its first fields as a tuple; `(name, fun, args, locs)` counts as well as `(name, fun, args, kwargs)`."""
