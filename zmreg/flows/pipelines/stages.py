"""What a stage of a pipeline is: something callable, of which kind, and on what terms it is called."""

from __future__ import annotations

import dis
import inspect
import re
import traceback
from collections.abc import AsyncIterable, Callable, Collection, Hashable, Iterable, Mapping
from typing import Any, Final, TypedDict, Unpack, cast

from zmreg.api.actors import ActorHandle, ActorMethod
from zmreg.api.functions import RemoteFunction
from zmreg.core.merging import INTERLEAVE, MODES
from zmreg.flows.requests.words import preview
from zmreg.model.errors import GraphError, PipelineError
from zmreg.model.policy import FIELDS, RAISE, Policy, check, classes
from zmreg.model.record import Record

ITEM: Final = "item"
"""One item in, one out or none."""
SPREAD: Final = "spread"
"""A generator, called with each item: any number out."""
STREAM: Final = "stream"
"""A generator over the whole stream."""
SOURCE: Final = "source"
"""Makes the items itself."""

# A stage's values have nobody who would look for them again.
_SERVES: Final = tuple(field for field in FIELDS if field != "cache")
_STREAM_TYPES: Final = re.compile(r"(?:[\w.]+\.)?(?:Async)?(?:Iterator|Iterable|Generator)\b")
_STREAM_NAMES: Final = ("items", "stream")


class StageOptions(TypedDict, total=False):
    """What `zmreg.stage` takes beside the callable."""

    name: str
    """Its name in errors, metrics and outputs; by default the function's."""
    locs: Collection[str] | str
    """Names that a node needs to have to run it."""
    resources: Mapping[str, float]
    num_cpus: float
    num_gpus: float
    concurrency: int
    """How many items are worked on at a time, each by a process of its own."""
    ordered: bool
    """Whether what comes out is in the order of what came in, when several are worked on."""
    merge: str
    """How it reads several streams: "interleave" as they come, "concat" one after the other, "zip" in tuples."""
    buffer: int
    """Items of each stream that may wait before it; by default the run's."""
    rate: float
    """The most items a second."""
    timeout: float
    """Seconds for each item."""
    retries: int
    """How often an item is tried again. A generator that has given something out is not."""
    backoff: float
    """Seconds before the first retry, twice as many before each further one, 30 at most; a quarter more or less."""
    retry_on: type[Exception] | tuple[type[Exception], ...]
    """What is worth a retry; by default any Exception."""
    on_error: str
    """When retries are used up: "raise" ends the run, "skip" drops the item, "dead_letter" keeps it in the run's
    `dead_letters`."""
    policy: Policy
    """Those of the above that are its, for all that is not said here."""
    keep_none: bool
    """None goes on like any other value instead of being dropped."""
    stream: bool
    """Whether a generator takes the whole stream (True) or is called for each item (False); by default it is read off
    the function."""


class StageTerms(Record):
    """The same, whole. `num_cpus`, `num_gpus`: None where nothing is asked for."""

    locs: frozenset[str] = frozenset()
    resources: tuple[tuple[str, float], ...] = ()
    num_cpus: float | None = None
    num_gpus: float | None = None
    concurrency: int = 1
    ordered: bool = True
    merge: str = INTERLEAVE
    buffer: int | None = None
    rate: float | None = None
    timeout: float | None = None
    retries: int = 0
    backoff: float = 0.1
    retry_on: tuple[type[Exception], ...] = (Exception,)
    on_error: str = RAISE
    keep_none: bool = False


class StageSpec(Record):
    """A stage of a pipeline that was built. May be pickled, if its target may."""

    name: str
    target: Any
    kind: str
    terms: StageTerms = StageTerms()

    @property
    def is_item_wise(self) -> bool:
        """Whether an item's outputs follow from that item alone, as lanes and retries need it."""
        return self.kind in (ITEM, SPREAD)

    @property
    def calls_out(self) -> bool:
        """Whether the work is done by whoever is called: a task, an actor, a function by its name."""
        return isinstance(self.target, str | RemoteFunction | ActorHandle | ActorMethod)

    @property
    def home(self) -> Hashable | None:
        """Equal for stages that may share a process; () without wishes; None for one that shares with nobody."""
        terms = self.terms
        if terms.concurrency > 1:
            return None
        locs = frozenset() if self.calls_out else terms.locs
        wishes = (locs, terms.resources, terms.num_cpus, terms.num_gpus)
        return wishes if any(wish for wish in wishes) else ()


class DeadLetter(Record):
    """An item that a stage with on_error="dead_letter" could not do. `index`: its place among the stage's items."""

    stage: str
    index: int
    item: Any
    error: BaseException
    node: str


class Stage:
    """A callable with the terms on which a pipeline calls it. Made by `zmreg.stage`."""

    __slots__ = ("kind", "name", "named", "target", "terms")

    def __init__(self, target: Any, kind: str, name: str, named: bool, terms: StageTerms) -> None:
        self.target = target
        self.kind = kind
        self.name = name
        self.named = named
        """Whether the name was given: another stage cannot have it too."""
        self.terms = terms

    def on(
        self, *, locs: Collection[str] | str | None = None, resources: Mapping[str, float] | None = None,
        num_cpus: float | None = None, num_gpus: float | None = None,
    ) -> Stage:  # fmt: skip
        """The same stage, elsewhere: on a node with all `locs`, and with that much room."""
        asked = {"locs": locs, "resources": resources, "num_cpus": num_cpus, "num_gpus": num_gpus}
        changes = _placement({key: value for key, value in asked.items() if value is not None})
        return Stage(self.target, self.kind, self.name, self.named, self.terms.but(**changes))

    def spec(self, name: str) -> StageSpec:
        """It as part of a pipeline, under that name."""
        return StageSpec(name, self.target, self.kind, self.terms)

    def __repr__(self) -> str:
        return f"<Stage {self.name} {self.kind}>"


def stage(target: Any, **options: Unpack[StageOptions]) -> Stage:
    """`target` as a stage: a function, `async` or not, a generator, an object (or class) with `process`, a remote
    function, an actor, or the name of a function that somebody serves.

    A generator without parameters makes the items. One that takes `items` or `stream`, or a parameter annotated as an
    Iterator or Iterable, `async` or not, or goes through its parameter by `async for`, takes the whole stream; any
    other is called for each item. `initialize()`, `flush()` and `cleanup()` of an object are called where it has them.
    Raises TypeError for what is none of these and for an option there is none of; ValueError, GraphError for options.
    """
    known = StageOptions.__annotations__
    for given in options:
        if given not in known:
            raise TypeError(f"a stage has no option {given!r}; there are {', '.join(known)}")
    kind = _kind_of(target, options.get("stream"))
    name = options.get("name") or _name_of(target)
    terms = _terms(cast("Mapping[str, Any]", options))
    _check(name, kind, terms)
    return Stage(target, kind, name, bool(options.get("name")), terms)


def failure(stage: str, index: int, item: object, error: BaseException, node: str = "") -> PipelineError:
    """What a run raises for `error` of a stage at its item `index` (-1: at none)."""
    what = preview(item) if index >= 0 else ""
    at = f" at its item {index} ({what})" if index >= 0 else ""
    where = f" on node {node}" if node else ""
    made = PipelineError(f"stage {stage!r} failed{at}{where}: {type(error).__name__}: {error}")
    frames = error.__traceback__
    while frames is not None and str(frames.tb_frame.f_globals.get("__name__")).startswith("zmreg.flows."):
        frames = frames.tb_next  # it begins with the user's own
    text = "".join(traceback.format_exception(type(error), error, frames))
    made.__dict__.update(stage=stage, index=index, preview=what, node=node, cause=error, remote_traceback=text)
    made.__cause__ = error
    return made


# -- what it is -------------------------------------------------------------------------------------------------------


def body_of(target: Any) -> Any:
    """What is called with an item, for looking at: `process` of an object or class that has one. Remote ones: what they
    wrap, None where that is not known."""
    if isinstance(target, RemoteFunction):
        return inspect.unwrap(cast("Callable[..., Any]", target))
    if isinstance(target, str | ActorHandle | ActorMethod):
        return None
    if not inspect.isroutine(target) and callable(getattr(target, "process", None)):
        return target.process
    return target


def inner_of(body: Any) -> Any:
    """The function behind a callable: of a partial, or of an object that can be called; else the callable."""
    inner = type(body).__call__
    return getattr(body, "func", inner if inspect.isfunction(inner) else body)


def _kind_of(target: Any, stream: bool | None) -> str:
    if target is None or (inspect.isclass(target) and not hasattr(target, "process")):
        raise TypeError(f"{target!r} is no stage: give a function, a generator, or an object with process(item)")
    body = body_of(target)
    if body is None:
        return ITEM
    if not callable(body):
        if isinstance(body, Iterable | AsyncIterable):
            return SOURCE
        raise TypeError(f"{target!r} is no stage: it cannot be called, and has neither process(item) nor items")
    if not (inspect.isfunction(body) or inspect.ismethod(body)):
        body = inner_of(body)
    if not (inspect.isgeneratorfunction(body) or inspect.isasyncgenfunction(body)):
        if stream:
            raise ValueError(f"stream=True: {_name_of(target)} is no generator; write one that yields what goes on")
        return ITEM
    parameter = _parameter(target, body)
    if parameter is None:
        return SOURCE
    if stream is None:
        stream = not isinstance(target, RemoteFunction) and _takes_stream(body, parameter)
    return STREAM if stream else SPREAD


def _parameter(target: Any, body: Any) -> inspect.Parameter | None:
    """The one that the item or the stream goes to; None when it takes nothing."""
    whole = body_of(target)
    parameters = [
        parameter
        for parameter in inspect.signature(whole).parameters.values()
        if parameter.kind in (parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD, parameter.VAR_POSITIONAL)
    ]
    if inspect.isclass(target):
        parameters = parameters[1:]  # self
    return parameters[0] if parameters else None


def _takes_stream(body: Any, parameter: inspect.Parameter) -> bool:
    hint = parameter.annotation
    if hint is parameter.empty:
        if parameter.name in _STREAM_NAMES:
            return True
    elif _STREAM_TYPES.match(hint if isinstance(hint, str) else inspect.formatannotation(hint)):
        return True
    if not inspect.isasyncgenfunction(body):
        return False
    steps = list(dis.get_instructions(body))  # `async for` over the parameter itself: an item is hardly ever a stream
    return any(
        step.opname == "GET_AITER" and before.argval == parameter.name
        for before, step in zip(steps, steps[1:], strict=False)
    )


def _name_of(target: Any) -> str:
    if isinstance(target, str):
        return target
    if isinstance(target, ActorMethod):
        return target._name
    if isinstance(target, ActorHandle):
        return target._facts[1]
    name = getattr(target, "__name__", None) or getattr(getattr(target, "func", None), "__name__", None)
    if not isinstance(name, str):
        name = type(target).__name__
    return "lambda" if name == "<lambda>" else name


# -- on what terms ----------------------------------------------------------------------------------------------------


def _placement(asked: Mapping[str, Any]) -> dict[str, Any]:
    made = {key: asked[key] for key in ("num_cpus", "num_gpus") if key in asked}
    if "locs" in asked:
        locs = asked["locs"]
        made["locs"] = frozenset({locs} if isinstance(locs, str) else locs)
    if "resources" in asked:
        made["resources"] = tuple(sorted(asked["resources"].items()))
    return made


def _terms(options: Mapping[str, Any]) -> StageTerms:
    plain = ("concurrency", "ordered", "merge", "buffer", "rate", "timeout", "retries", "backoff", "on_error",
             "keep_none")  # fmt: skip
    if (policy := options.get("policy")) is not None:
        options = policy.said("a stage", _SERVES) | {key: value for key, value in options.items() if key != "policy"}
    given = {key: options[key] for key in plain if key in options} | _placement(options)
    if "retry_on" in options:
        given["retry_on"] = classes(options["retry_on"])
    return StageTerms(**given)


def _check(name: str, kind: str, terms: StageTerms) -> None:
    check(terms, f"stage {name!r}")
    if terms.merge not in MODES:
        raise ValueError(f"stage {name!r}: merge={terms.merge!r}: write one of {', '.join(map(repr, MODES))}")
    if kind in (ITEM, SPREAD):
        return
    for field in ("concurrency", "timeout", "retries", "on_error"):
        if getattr(terms, field) != getattr(StageTerms(), field):
            raise GraphError(
                f"stage {name!r} takes the whole stream or makes it, so {field}={getattr(terms, field)!r} has no item "
                f"to go by: let it be called for each item, stage(f, stream=False)"
            )
