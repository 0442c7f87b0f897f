"""`zmreg start`: a node of this machine, as the head of a cluster or as one more member."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from zmreg.tools.cli.common import AS_JSON, say_json, usage_errors

if TYPE_CHECKING:
    from zmreg.services.setup.sessions import Word
    from zmreg.services.setup.starting import Plan, Wish

# Jobs of a batch system start in any order.
ADDRESS_FILE_S = 120.0


def _amounts(_: click.Context, __: click.Parameter, text: str | None) -> dict[str, float] | None:
    from zmreg.services.setup.config import amounts

    try:
        return None if text is None else amounts(text)
    except (ValueError, TypeError) as error:
        raise click.BadParameter(f'{error}; write licence=2,disk=1 or {{"licence": 2}}') from None


def _labels(_: click.Context, __: click.Parameter, text: str | None) -> dict[str, str] | None:
    from zmreg.services.setup.config import labels

    try:
        return None if text is None else labels(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}; write zone=a,disk=fast") from None


def _size(_: click.Context, __: click.Parameter, text: str | None) -> int | None:
    from zmreg.services.setup.config import size

    try:
        return None if text is None else size(text)
    except ValueError as error:
        raise click.BadParameter(f"{error}; write bytes, or 2GiB") from None


PORT = click.IntRange(1, 65_535)
POSITIVE = click.FloatRange(min=0)


@click.command()
@click.option("--head", "is_head", is_flag=True, help="Be the head of a cluster.")
@click.option("--worker", "is_worker", is_flag=True, help="Join the cluster at --address.")
@click.option("--address", metavar="HOST:PORT", help="Any node of the cluster to join.")
@click.option(
    "--address-file",
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="FILE",
    help="The head leaves its address there, workers wait for it.",
)
@click.option("--key", metavar="FILE", help="The cluster's key file; by default the only one there is.")
@click.option("--host", metavar="ADDRESS", help="What to listen on: 127.0.0.1, for others 0.0.0.0 or one address.")
@click.option("--port", type=PORT, help="TCP port for messages; 7550 for a head, any free one for a worker.")
@click.option("--pub-port", type=PORT, help="TCP port for the tables; the next one by default.")
@click.option("--advertise", metavar="ADDRESS", help="How others reach this machine, if not by --host.")
@click.option("--state-dir", metavar="DIR", help="Where a head keeps its key and its state; ~/.zmreg/clusters/ID.")
@click.option("--name", metavar="NAME", help="What people call the node; by default the machine's name.")
@click.option(
    "--num-cpus", type=POSITIVE, metavar="N", help="Tasks of one CPU at a time; by default the CPUs there are."
)
@click.option("--num-gpus", type=POSITIVE, metavar="N", help="GPUs to hand out.")
@click.option("--accelerator-type", metavar="KIND", help="What accelerator_type= asks for; found out for NVIDIA's.")
@click.option("--resources", callback=_amounts, metavar="AMOUNTS", help='licence=2,disk=1 or {"licence": 2}.')
@click.option("--locs", metavar="NAMES", help="Names this machine has, e.g. gpu-box,model-a.")
@click.option("--labels", callback=_labels, metavar="PAIRS", help="What label_selector= finds: zone=a,disk=fast.")
@click.option(
    "--load",
    "loads",
    multiple=True,
    metavar="MODULE:SETUP",
    help="Run a process that calls SETUP, which registers functions, and serves them.",
)
@click.option("--object-store-bytes", callback=_size, metavar="SIZE", help="Size of the store, e.g. 2GiB.")
@click.option("--detach", is_flag=True, help="Return when the node is up; it goes on until `zmreg stop`.")
@AS_JSON
def start(**options: Any) -> None:
    """Start a node on this machine: the first of a cluster with --head, each other one with --worker.

    It runs in the foreground until Ctrl-C or SIGTERM, and ends in order then. A node that the head took for dead is
    started anew. The head makes the cluster's key on its first start and finds it there on every later one; who has a
    copy of that file may join, and run code on every machine of the cluster.

    Example: zmreg start --head --host 0.0.0.0
    """
    from zmreg.services.setup import config
    from zmreg.services.setup.starting import plan

    if options["is_head"] == options["is_worker"]:
        raise click.UsageError("say --head for the first node of a cluster or --worker for another one")
    with usage_errors():
        known = config.values()
        wish = _wish(options, known)
        planned = plan(wish, _settings(options), known)
    if options["detach"]:
        _detached(planned, options)
    else:
        sys.exit(_run(planned, options, lambda word: _tell(planned, word, options["as_json"])))


def _wish(options: dict[str, Any], known: dict[str, Any]) -> Wish:
    from zmreg.services.setup.starting import Wish, await_address

    address = options["address"] or ""
    if options["is_head"]:
        if address:
            raise click.UsageError("--address is for --worker; --host and --port say where a head listens")
        known.pop("address", None)  # of the cluster that programs use, perhaps of this very head
    elif options["address_file"] and not address:
        address = await_address(options["address_file"], ADDRESS_FILE_S)
    elif not address and not known.get("address"):
        raise click.UsageError("say which cluster to join: --address HOST:PORT of any of its nodes")
    return Wish(
        options["is_head"], address, options["key"] or "", options["state_dir"] or "", options["host"] or "",
        options["port"] or 0, options["pub_port"] or 0, options["advertise"] or "", options["name"] or "",
        tuple(options["loads"]),
    )  # fmt: skip


def _settings(options: dict[str, Any]) -> dict[str, Any]:
    from zmreg.model.specs import ACCELERATOR
    from zmreg.services.setup.config import names

    given = {name: options[name] for name in ("num_cpus", "num_gpus", "resources", "labels", "object_store_bytes")}
    if (kind := options["accelerator_type"]) is not None:
        given["resources"] = {**(given["resources"] or {}), ACCELERATOR + kind: 1.0}
    given["locs"] = None if options["locs"] is None else names(options["locs"])
    return {name: value for name, value in given.items() if value is not None}


def _run(planned: Plan, options: dict[str, Any], ready: Callable[[Word], None]) -> int:
    """Watch over the node until it ends; its exit code."""
    from zmreg.services.setup.starting import Supervisor, leave_address

    def up(word: Word) -> None:
        if options["is_head"] and options["address_file"]:
            leave_address(options["address_file"], word.address)
        ready(word)

    return Supervisor(planned, up, lambda text: click.echo(f"zmreg: {text}", err=True)).run()


# -- what is said ------------------------------------------------------------------------------------------------------


def _tell(planned: Plan, word: Word, as_json: bool) -> None:
    facts = _facts(planned, word)
    if as_json:
        say_json(facts)
    else:
        click.echo(_text(facts, word))
    sys.stdout.flush()


def _facts(planned: Plan, word: Word) -> dict[str, Any]:
    """What bound where, and what others need to know."""
    from zmreg.services.setup import keys

    listening = planned.listening
    key = keys.load(Path(word.key_file))
    contact = word.address if word.is_head else word.contact
    return {
        "node": word.node, "name": word.name, "head": word.is_head, "pid": word.pid, "cluster": word.cluster,
        "address": word.address, "listens": [f"{listening.host}:{port}" for port in (word.port, word.pub_port)],
        "key_file": word.key_file, "fingerprint": key.keys.fingerprint, "session": word.session,
        "join": f"zmreg start --worker --address {contact} --key {keys.KEY_FILE}",
        "init": f'zmreg.init(address="{contact}")',
    }  # fmt: skip


def _text(facts: dict[str, Any], word: Word) -> str:
    from zmreg.services.setup.addresses import is_loopback, split_address

    here = is_loopback(split_address(word.address)[0])
    ports = " and ".join(facts["listens"])
    what = "Head" if facts["head"] else "Worker"
    lines = [
        f"{what} {facts['name']} ({facts['node'][:8]}) of cluster {facts['cluster']} is up.",
        f"  listens on   {ports} (TCP, encrypted)",
        f"  key file     {facts['key_file']}",
        f"  fingerprint  {facts['fingerprint']}",
        "",
        "In a program, on this machine or another with a node:",
        f"  {facts['init']}",
    ]
    if facts["head"]:
        same = facts["join"].rpartition(" --key")[0]
        lines += ["", "One more node on this machine:", f"  {same}", ""]
        if here:
            lines += ["Other machines cannot reach this one: it listens on loopback. --host 0.0.0.0 opens it to them."]
        else:
            lines += ["On another machine: bring a copy of the key file (mode 0600), then", f"  {facts['join']}"]
    return "\n".join(lines)


# -- in the background -------------------------------------------------------------------------------------------------


def _detached(planned: Plan, options: dict[str, Any]) -> None:
    """Have a process of its own session watch over the node; return when the node is up. Raises what it failed with."""
    read, write = os.pipe()
    sys.stdout.flush()
    sys.stderr.flush()
    child = os.fork()  # there is no thread and no socket yet
    if child == 0:
        os.close(read)
        _background(planned, options, write)
    os.close(write)
    try:
        with open(read, "rb") as pipe:
            said = json.loads(pipe.read() or b"{}")
    except BaseException:
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, 15)
        raise
    if "word" in said:
        from zmreg.services.setup.sessions import Word

        _tell(planned, Word(**said["word"]), options["as_json"])
        return
    from zmreg.model import errors

    kind = getattr(errors, said.get("error", ""), errors.ClusterError)
    raise kind(said.get("text", "the process that was to watch over the node ended without a word"))


def _background(planned: Plan, options: dict[str, Any], write: int) -> None:
    """The child's life."""
    from zmreg.model.errors import ZmregError

    told: list[bool] = []

    def say(document: dict[str, Any]) -> None:
        if not told:
            told.append(True)
            os.write(write, json.dumps(document).encode())
            os.close(write)

    def ready(word: Word) -> None:
        say({"word": {name: getattr(word, name) for name in type(word).__match_args__}})

    code = 1
    try:
        os.setsid()
        null = os.open(os.devnull, os.O_RDWR)
        for fd in (0, 1, 2):
            os.dup2(null, fd)
        code = _run(planned, options, ready)
    except (ZmregError, OSError) as error:
        say({"error": type(error).__name__, "text": str(error)})
    finally:
        os._exit(code)
