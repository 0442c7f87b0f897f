"""`zmreg call`, `functions` and `describe`: what is served under a name, and calling it. A program's seat, for so long.

Unlike the commands that only look, `call` and `request` have to read values, which are pickles: they are what a program
is, and trust the cluster as a program does.
"""

from __future__ import annotations

import contextlib
import json
import re
import shlex
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

import click

from zmreg.model.errors import ClusterError, ZmregError
from zmreg.tools.cli.common import AS_JSON, say_json, table, usage_errors, which_cluster

if TYPE_CHECKING:
    from zmreg.api.calling import FunctionInfo

# `zmreg.call` takes these itself.
_RESERVED: Final = ("locs", "timeout", "version", "retries", "queue_until")
_KEYWORD: Final = re.compile(r"([A-Za-z_]\w*)=(.*)", re.DOTALL)
_LONGEST_DOC: Final = 60


@contextlib.contextmanager
def seat(address: str | None, key: str | None) -> Iterator[None]:
    """Be a program of the cluster that is meant. Raises ClusterError when there is none, AuthenticationError."""
    import zmreg
    from zmreg.services.setup.finding import find

    with usage_errors():
        if find(address, key) is None:
            raise ClusterError(
                "no cluster of yours runs on this machine: give the address of one with --address, or start one with "
                "`zmreg start --head`"
            )
        zmreg.init(address, key=key, log_to_driver=False)
    try:
        yield
    finally:
        zmreg.shutdown()


@contextlib.contextmanager
def wrong_wishes() -> Iterator[None]:
    """What cannot be meant is the user's slip: exit code 2. An error of the function's own passes, though it may be a
    ValueError too."""
    try:
        yield
    except ZmregError:
        raise
    except (TypeError, ValueError) as error:
        raise click.UsageError(str(error)) from None


def split(text: str) -> tuple[str, ...]:
    """`a,b` as ("a", "b")."""
    return tuple(part.strip() for part in text.split(",") if part.strip())


# -- arguments and values as text --------------------------------------------------------------------------------------


def value_of(text: str) -> Any:
    """A word of the command line: JSON where it is, else the text. UsageError for what begins as JSON and is none."""
    try:
        return json.loads(text, parse_constant=_no_constant)
    except ValueError as error:
        if text.lstrip()[:1] not in ("[", "{", '"'):
            return text
        as_text = shlex.quote(json.dumps(text))
        raise click.UsageError(
            f"{text} begins as JSON, and is none: {error}; as a text it is given as {as_text}"
        ) from None


def _no_constant(name: str) -> None:
    raise ValueError(f"{name} is no JSON")  # NaN, which Python would take


def arguments_of(words: tuple[str, ...]) -> tuple[list[Any], dict[str, Any]]:
    """(args, kwargs) of `1 text '{"a": 2}' key=3`. UsageError for what looks like an option, and for repeated keys."""
    args: list[Any] = []
    kwargs: dict[str, Any] = {}
    for word in words:
        found = _KEYWORD.fullmatch(word)
        if found is None:
            value = value_of(word)
            if word.startswith("-") and value is word:
                raise click.UsageError(f"no such option: {word}; a text that begins with - is given as '\"{word}\"'")
            args.append(value)
            continue
        name = found[1]
        if name in _RESERVED:
            raise click.UsageError(
                f"{name}= would be an argument of zmreg.call itself: that is said by options, and an argument that the "
                "function has of this name in a file, with `zmreg request`"
            )
        if name in kwargs:
            raise click.UsageError(f"{name}= is given twice")
        kwargs[name] = value_of(found[2])
    return args, kwargs


def plain(value: Any) -> Any:
    """A value as JSON has it, as near as it gets: tuples and sets as lists, arrays as nested lists, records by their
    fields, bytes and all else as the text that Python shows; NaN and infinities as null, as JSON has none."""
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, float):
        return value if value - value == 0 else None
    if isinstance(value, Mapping):
        return {key if isinstance(key, str) else str(key): plain(each) for key, each in value.items()}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return plain(value._asdict())
    if isinstance(value, list | tuple):
        return [plain(each) for each in value]
    if isinstance(value, set | frozenset):
        return [plain(each) for each in sorted(value, key=repr)]
    as_list = getattr(value, "tolist", None)  # numpy's
    return plain(as_list()) if callable(as_list) else repr(value)


def shown(value: Any) -> str:
    """A value for a person: a text as it is, all else as Python shows it."""
    if isinstance(value, str):
        return value
    from pprint import pformat

    return pformat(value, width=100, sort_dicts=False)


# -- call --------------------------------------------------------------------------------------------------------------


@click.command(context_settings={"ignore_unknown_options": True})  # -1 is an argument
@click.argument("name")
@click.argument("arguments", nargs=-1, metavar="[ARGUMENT]...")
@click.option("--locs", metavar="A,B", default="", help="Only where all of these are.")
@click.option("--version", metavar="CONSTRAINT", help='Such as 2.1 or ">=2,<3"; by default the highest.')
@click.option("--timeout", type=click.FloatRange(min=0), metavar="SECONDS", help="Then the call is cancelled.")
@click.option("--retries", type=click.IntRange(min=0), default=0, metavar="N",
              help="How often to call again when the process that may have run it is gone.")  # fmt: skip
@which_cluster
@AS_JSON
def call(
    name: str, arguments: tuple[str, ...], locs: str, address: str | None, key: str | None, as_json: bool, **how: Any
) -> None:
    """Call a function by its name, and print what it returns.

    An ARGUMENT is JSON where it parses, else text; NAME=VALUE is a keyword. A text that begins as JSON does ([, {
    or ") is given in quotes: '"[draft]"'. Without --json a text is printed as it is and all else as Python shows it;
    with --json what JSON does not have becomes what is nearest to it.

    Example: zmreg call mean '[20.1, 20.5, 21.0]' digits=2 --locs dataset-1
    """
    import zmreg

    args, kwargs = arguments_of(arguments)
    with seat(address, key), wrong_wishes():
        value = zmreg.call(name, *args, locs=split(locs), **how, **kwargs)
        if as_json:
            say_json(plain(value))
        else:
            click.echo(shown(value))


# -- what there is -----------------------------------------------------------------------------------------------------


@click.command()
@which_cluster
@AS_JSON
def functions(address: str | None, key: str | None, as_json: bool) -> None:
    """Show the functions that can be called by name, from anywhere in the cluster.

    Example: zmreg functions
    """
    import zmreg

    with seat(address, key):
        found = zmreg.functions()
    if as_json:
        say_json([document(each) for each in found])
        return
    rows = [
        {
            "Name": each.name, "Signature": each.signature, "Versions": list(filter(None, each.versions)),
            "Locs": list(each.locs), "Hosts": len(each.hosts), "Nodes": len(each.nodes), "Does": first_line(each.doc),
        }
        for each in found
    ]  # fmt: skip
    click.echo(table(rows, ("Name", "Signature", "Versions", "Locs", "Hosts", "Nodes", "Does")))


@click.command()
@click.argument("name")
@which_cluster
@AS_JSON
def describe(name: str, address: str | None, key: str | None, as_json: bool) -> None:
    """Show what is known of one named function: its signature, what it says of itself, and who serves it where.

    Example: zmreg describe mean
    """
    import zmreg

    with seat(address, key):
        found = zmreg.describe(name)
    if as_json:
        say_json(document(found))
        return
    lines = [f"{found.name}{found.signature}"]
    if found.doc:
        lines += ["", *(f"    {line}".rstrip() for line in found.doc.splitlines())]
    rows = [
        {
            "Node": each.node_name or each.node[:8], "Process": each.process[-8:], "Version": each.version,
            "Locs": list(each.locs), "Actor": each.actor[-8:], "Reachable": each.reachable,
        }
        for each in found.hosts
    ]  # fmt: skip
    click.echo("\n".join([*lines, "", table(rows, ("Node", "Process", "Version", "Locs", "Actor", "Reachable"))]))


def first_line(doc: str) -> str:
    """What a table has room for."""
    line = doc.strip().partition("\n")[0]
    return line if len(line) <= _LONGEST_DOC else f"{line[: _LONGEST_DOC - 3]}..."


def document(found: FunctionInfo) -> dict[str, Any]:
    """All of it, as JSON."""
    hosts = [
        {
            "process": each.process, "node": each.node, "node_name": each.node_name, "version": each.version,
            "locs": list(each.locs), "actor": each.actor, "reachable": each.reachable,
        }
        for each in found.hosts
    ]  # fmt: skip
    return {
        "name": found.name, "signature": found.signature, "doc": found.doc, "versions": list(found.versions),
        "locs": list(found.locs), "nodes": list(found.nodes), "hosts": hosts,
    }  # fmt: skip
