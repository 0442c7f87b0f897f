"""`zmreg request`: the steps of a file, run as one request. Progress goes to stderr, values to stdout."""

from __future__ import annotations

import contextlib
import json
import os
import sys
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from zmreg.tools.cli.calling import plain, seat, shown, split, wrong_wishes
from zmreg.tools.cli.common import AS_JSON, colour, say_json, which_cluster

if TYPE_CHECKING:
    from zmreg.api.events import Subscription
    from zmreg.flows.requests.request import Run
    from zmreg.model.graphs import Step

_OPTIONS: Final = ("timeout", "keep", "request_id", "bind_timeout", "queue_until")
_FIELDS: Final = ("name", "fun", "args", "kwargs", "locs", "version", "timeout", "retries")
_COLOURS: Final = {"DONE": "green", "FAILED": "red", "CANCELLED": "yellow"}


# -- files -------------------------------------------------------------------------------------------------------------


def read(path: str) -> tuple[list[Step], dict[str, Any]]:
    """(steps, options) of a file, or of "-", which is JSON. UsageError for what is none, naming the place."""
    try:
        text = sys.stdin.read() if path == "-" else Path(path).read_text(encoding="utf-8")
        found = tomllib.loads(text) if path.endswith(".toml") else json.loads(text)
    except (OSError, ValueError) as error:  # also what is no TOML, no JSON or no UTF-8
        raise click.UsageError(f"{path}: {error}") from None
    try:
        return _parts(found)
    except (TypeError, ValueError) as error:
        raise click.UsageError(f"{path}: {error}") from None


def _parts(found: Any) -> tuple[list[Step], dict[str, Any]]:
    options: dict[str, Any] = {}
    if isinstance(found, Mapping):
        options = {name: value for name, value in found.items() if name != "steps"}
        _known(options, _OPTIONS, "a request")
        found = found.get("steps")
    if isinstance(found, Mapping):
        found = [{"name": name, **_a(Mapping, step, f"step {name!r}")} for name, step in found.items()]
    if not isinstance(found, list):
        raise ValueError("it has no steps: write a list of them, or {name: step}, under 'steps'")
    return [_step(step, place) for place, step in enumerate(found)], options


def _step(found: Any, place: int) -> Step:
    from zmreg.model.graphs import Step

    if isinstance(found, list):  # name, fun, args, and kwargs or locs
        if not 2 <= len(found) <= 4:
            raise ValueError(f"step {place} is a list of {len(found)}: write [name, fun, args, kwargs or locs]")
        last = found[3] if len(found) == 4 else {}
        found = dict(zip(_FIELDS, found[:3], strict=False)) | {"kwargs" if isinstance(last, Mapping) else "locs": last}
    what = f"step {_a(Mapping, found, f'step {place}').get('name', place)!r}"
    _known(found, _FIELDS, what)
    if not isinstance(found.get("fun"), str) or not isinstance(found.get("name"), str):
        raise ValueError(f"{what} has no name, or no fun that it calls")
    args, kwargs = _a(list, found.get("args", []), f"args of {what}"), found.get("kwargs", {})
    rest = {name: value for name, value in found.items() if name not in ("args", "kwargs", "locs")}
    return Step(
        **rest,
        args=tuple(map(_argument, args)),
        kwargs={name: _argument(value) for name, value in _a(Mapping, kwargs, f"kwargs of {what}").items()},
        locs=tuple(_a(list, found.get("locs", []), f"locs of {what}")),
    )


def _argument(value: Any) -> Any:
    """With `{"$ref": "step", "path": ["key", 0]}` and `{"$lit": value}` as what they stand for."""
    from zmreg.model.graphs import Lit, Ref

    if isinstance(value, list):
        return [_argument(each) for each in value]
    if not isinstance(value, Mapping):
        return value
    if set(value) == {"$lit"}:
        return Lit(value["$lit"])
    if "$ref" in value and set(value) <= {"$ref", "path"}:
        ref = Ref(value["$ref"])
        for key in _a(list, value.get("path", []), "path of a $ref"):
            ref = ref[key]
        return ref
    return {name: _argument(each) for name, each in value.items()}


def _a(kind: Any, found: Any, what: str) -> Any:
    if not isinstance(found, kind):
        wanted = "a list" if kind is list else "a table of names and values"
        raise ValueError(f"{what} should be {wanted}, and is {found!r:.60}")
    return found


def _known(given: Iterable[str], known: tuple[str, ...], what: str) -> None:
    for name in given:
        if name not in known:
            raise ValueError(f"{what} has no {name!r}; there are {', '.join(known)}")


# -- the command -------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("file", metavar="FILE", type=click.Path(exists=True, dir_okay=False, allow_dash=True))
@click.option("-w", "--watch", is_flag=True, help="Say on stderr what becomes of each step and level, as it does.")
@click.option("--keep", metavar="A,B", default="", help='Print these steps\' values too; "all" of them.')
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Then the request is cancelled.")
@click.option("--report", is_flag=True, help="Say on stderr what each level gave and how long it took.")
@which_cluster
@AS_JSON
def request(
    file: str, watch: bool, keep: str, report: bool, address: str | None, key: str | None, as_json: bool, **how: Any
) -> None:
    """Run the steps of a JSON or TOML file as one request, and print the values that no other step takes.

    A step has a name, the fun it calls, and if need be args, kwargs, locs, version, timeout and retries. A text among
    the arguments that is another step's name stands for that step's value. FILE may be -, for JSON from stdin.

    When a step fails, what was done before is said on stderr.

    Example: zmreg request steps.toml --watch
    """
    import zmreg

    steps, options = read(file)
    options |= {name: value for name, value in how.items() if value is not None}
    if keep:
        options["keep"] = "all" if keep == "all" else split(keep)
    options.setdefault("request_id", os.urandom(8).hex())
    with seat(address, key), wrong_wishes(), contextlib.ExitStack() as open_:
        events = open_.enter_context(_events(options["request_id"])) if watch else None
        try:
            run = zmreg.start_request(steps, **options)
        except zmreg.errors.GraphError as error:
            raise click.UsageError(f"{file}: {error}") from None
        try:
            if events is not None:
                _watch(run, events)
            result = run.result()
        except KeyboardInterrupt:
            run.cancel()
            raise
        except BaseException:
            if not watch:
                _look_back(run)
            raise
        if report:
            click.echo(run.report(), err=True)
        if as_json:
            say_json(plain(dict(result)))
        else:
            for name, value in result.items():
                text = shown(value)
                click.echo(f"{name} ={chr(10) if chr(10) in text else ' '}{text}")


def _events(request_id: str) -> Subscription:
    from zmreg.api.events import subscribe
    from zmreg.flows.requests.telling import run_topic

    return subscribe(f"{run_topic(request_id)}.#")


def _watch(run: Run, events: Subscription) -> None:
    """Until its end, say what becomes of it. An event says that there is news, and what it is the run's trace knows: an
    event that did not get through is told with the next one, or at the end."""
    from zmreg.model.errors import ClusterError, GetTimeoutError

    told: set[tuple[Any, ...]] = set()
    run.when_done(events.close)
    for _ in events:
        with contextlib.suppress(GetTimeoutError, ClusterError):  # all that has come, or the end
            while True:
                events.get(0)
        _tell(run, told)
    _tell(run, told)


def _tell(run: Run, told: set[tuple[Any, ...]]) -> None:
    for line in _news(run, told):
        click.echo(line, err=True)


def _look_back(run: Run) -> None:
    """What was done by the time it failed, and what was not; nothing when it had not begun."""
    rows = {row["step"]: row for row in run.timeline()}
    for name, state in run.states().items() if rows else ():
        ended = name in rows and state in ("DONE", "FAILED")
        took = f" in {_ms(rows[name]):.1f} ms on {rows[name]['node']}" if ended else ""
        click.echo(f"{colour(state.lower().ljust(9), _COLOURS.get(state, 'white'))} {name}{took}", err=True)


def _news(run: Run, told: set[tuple[Any, ...]]) -> Iterator[str]:
    """Lines about what is not in `told`, in the order in which it happened."""
    news: list[tuple[float, tuple[Any, ...], str]] = []
    records = list(run.trace.records) if run.trace is not None else []
    ended: dict[str, float] = {}
    for row in run.timeline():
        step, number = row["step"], row["attempt"]
        if row["started_s"] is not None:
            again = " again" if number else ""
            news.append((row["started_s"], (step, number, "began"), f"{step} began{again} on {row['node']}"))
        if row["ended_s"] is not None:
            state, ended[step] = row["state"], row["ended_s"]
            word = colour(state.lower(), _COLOURS.get(state, "white"))
            news.append((row["ended_s"], (step, number, "ended"), f"{step} {word}, {_ms(row):.1f} ms"))
    at = 0.0
    for record in records:  # taken before the rows: what they need is in these
        at = max([at, *(ended[step] for step in record.levels[-1])])
        whole = f"level {record.level_index} of {record.total_levels} is whole ({record.progress_percentage:.0f} %)"
        news.append((at, ("level", record.level_index), whole))
    for at, what, line in sorted(news, key=lambda each: each[0]):  # a level that is whole stands behind its last step
        if what not in told:
            told.add(what)
            yield f"{at:9.3f} s  {line}"


def _ms(row: Mapping[str, Any]) -> float:
    began: float = row["queued_s"] if row["started_s"] is None else row["started_s"]
    ended: float | None = row["ended_s"]
    return 0.0 if ended is None else 1000 * (ended - began)
