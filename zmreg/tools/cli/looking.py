"""`zmreg stack` and `zmreg memory`: where processes are at this moment, and what memory is held by whom."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import click

from zmreg.tools.cli.common import AS_JSON, asking, nbytes, say_json, table, which_cluster
from zmreg.tools.gathering import objects_of

if TYPE_CHECKING:
    from zmreg.services.setup.observer import Observer

# Longer than a node takes that has to signal one process after the other (services/node/looks.py).
ANSWER_S = 12.0
# A node of this machine that does not answer by itself is asked by the signal.
SILENT_S = 1.0
LIMIT = 20
# Below it are the frames of the process that a worker was forked from.
_FORKED = "_become_worker"


# -- stack -------------------------------------------------------------------------------------------------------------


@click.command()
@click.argument("what", metavar="[ID]", required=False)
@which_cluster
@AS_JSON
def stack(what: str | None, address: str | None, key: str | None, as_json: bool) -> None:
    """Show where the Python threads of workers, programs and nodes are. ID is a pid, or an id as lists show it.

    A process is asked, and answers by itself; one that does not in time (it is busy, or waits in C code that keeps
    Python's lock) is shown all the same, by a signal. Processes that are at the same place are shown once. Innermost
    frames first.

    Example: zmreg stack 4711
    """
    with asking(address, key) as observer:
        rows, silent = _stacks(observer, what)
    if as_json:
        say_json(rows)
    else:
        for text in _grouped(rows):
            click.echo(text)
    for node in silent:
        click.echo(f"node {node} has not answered within {ANSWER_S:g} s", err=True)


def _stacks(observer: Observer, what: str | None) -> tuple[list[dict[str, Any]], list[str]]:
    """(a row for each process, the nodes that say nothing). UsageError when there is no such process."""
    rows: list[dict[str, Any]] = []
    mine = _silent_node(observer)
    if mine is not None:  # and who else there is it alone could tell
        rows, alive = [mine], []
    else:
        alive = observer.alive()
    answers = observer.ask_much(alive, "stacks", "", ANSWER_S)
    for found in answers.values():
        rows += found
    silent = [node for node in alive if node not in answers]
    if what is not None:
        rows = [row for row in rows if str(row["Pid"]) == what or _is(row["ProcessID"], what)]
        if not rows:
            raise click.UsageError(f"no process of this cluster is {what!r}; `zmreg list workers` shows ids and pids")
    return rows, silent


def _is(full: str, what: str) -> bool:
    return len(what) >= 4 and (full.startswith(what) or full.endswith(what))


def _silent_node(observer: Observer) -> dict[str, Any] | None:
    """The row of this machine's node when it does not answer, had by the signal."""
    word = observer.word
    if observer.ask_all([word.node], "health", timeout=SILENT_S):
        return None
    from zmreg.services.machine.stacks import by_signal

    threads, why = by_signal(word.pid, word.session, SILENT_S)
    return {
        "ProcessID": word.node, "NodeID": word.node, "Pid": word.pid, "Role": "node", "Name": "node",
        "Task": "", "How": "signal", "Threads": threads, "Why": why,
    }  # fmt: skip


def _grouped(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """A text for each set of processes that are at the same place, the largest set first."""
    groups: dict[str, list[Mapping[str, Any]]] = {}
    for row in rows:
        place = repr([frames for _, frames in row["Threads"]]) if row["Threads"] else repr(row["ProcessID"])
        groups.setdefault(place, []).append(row)
    return [_text(group) for group in sorted(groups.values(), key=len, reverse=True)]


def _text(group: Sequence[Mapping[str, Any]]) -> str:
    one = group[0]
    who = ", ".join(" in ".join(filter(None, (row["Name"], row["Task"]))) + f" pid={row['Pid']}" for row in group)
    heading = f"{who}  ({one['Role']}, node {one['NodeID'][:8]}"
    heading += f"; {len(group)} at the same place)" if len(group) > 1 else ")"
    lines = [heading]
    if one["How"] == "signal" and one["Threads"]:
        lines.append("  it did not answer in time: it was at this when a signal asked")
    if not one["Threads"]:
        lines.append(f"  no stacks: {one['Why'] or 'it has not answered'}")
    for name, frames in one["Threads"]:
        lines.append(f"  {name}")
        for file, line, function in frames:
            if function == _FORKED and file.endswith("zygote.py"):
                break
            lines.append(f"    {function}  {file}:{line}")
    return "\n".join(lines) + "\n"


# -- memory ------------------------------------------------------------------------------------------------------------


@click.command()
@click.option("--sort", type=click.Choice(["size", "age"]), default="size", show_default=True, help="Which come first.")
@click.option("--limit", type=click.IntRange(0, 10_000), default=LIMIT, show_default=True, help="Objects at most.")
@which_cluster
@AS_JSON
def memory(sort: str, limit: int, address: str | None, key: str | None, as_json: bool) -> None:
    """Show what the stores hold, for whom, who reads it, and what memory the processes have.

    Of a process: what is its own and goes with it (USS), what it shares with others, and how much of the store it has
    mapped, which is nobody's own. Refs: those it has lent to others, has borrowed, and has pickled by other ways than
    zmreg's, each of which keeps its object as long as that process lives. Small values live in their owner's own
    memory, not in a store. Each node says what is so at this moment, and its --limit largest or oldest objects.

    Example: zmreg memory --sort age
    """
    with asking(address, key) as observer:
        alive = observer.alive()
        answers = observer.ask_much(alive, "memory", f"{sort} {limit}", ANSWER_S)
    found = {
        "stores": {node: answer["Store"] for node, answer in answers.items()},
        "objects": objects_of(answers, sort, limit),
        "processes": [row for answer in answers.values() for row in answer["Processes"]],
    }
    if as_json:
        say_json(found)
    else:
        click.echo(_memory_text(found))
    for node in set(alive) - set(answers):
        click.echo(f"node {node} has not answered within {ANSWER_S:g} s", err=True)


def _memory_text(found: Mapping[str, Any]) -> str:
    names = {row["ProcessID"]: f"{row['Name']} pid={row['Pid']}" for row in found["processes"]}
    stores = found["stores"].values()
    used, budget = (sum(store[name] for store in stores) for name in ("used_bytes", "budget_bytes"))
    sealed, spilled = (sum(store[name] for store in stores) for name in ("sealed", "spilled"))
    lines = [f"stores   {nbytes(used)} of {nbytes(budget)}, of {len(stores)} nodes"]
    lines.append(f"objects  {sealed}, of these {spilled} on disk")
    strays = sum(row["Refs"].get("out_of_band", 0) for row in found["processes"])
    if strays:
        lines.append(
            f"refs     {strays} pickled by other ways than zmreg's: their objects stay as long as the processes"
        )
    objects = [
        {
            "ObjectID": row["ObjectID"][-8:], "Size": nbytes(row["Bytes"]),
            "State": ",".join(dict.fromkeys(copy["State"] for copy in row["Copies"])),
            "Age": f"{row['AgeSeconds']:.0f} s", "Owner": _name(names, row["OwnerID"]),
            "MadeBy": _name(names, row["Copies"][0]["CreatorID"]),
            "ReadBy": [_name(names, reader) for copy in row["Copies"] for reader in copy["Pins"]],
            "Nodes": [copy["NodeID"][:8] for copy in row["Copies"]],
        }
        for row in found["objects"]
    ]  # fmt: skip
    if objects:
        lines += ["", table(objects, tuple(objects[0]))]
    processes = [
        {
            "Process": names[row["ProcessID"]], "NodeID": row["NodeID"][:8],
            "Own": nbytes(row["OwnBytes"]) + ("" if row["Answered"] else " or less"),
            "Shared": nbytes(row["SharedBytes"]), "OfStore": nbytes(row["StoreBytes"]),
            "Lent": row["Refs"].get("lent", 0), "Borrowed": row["Refs"].get("borrowed", 0),
            "OutOfBand": row["Refs"].get("out_of_band", 0),
        }
        for row in sorted(found["processes"], key=lambda row: -row["OwnBytes"])
    ]  # fmt: skip
    if processes:
        lines += ["", table(processes, tuple(processes[0]))]
    return "\n".join(lines)


def _name(names: Mapping[str, str], process: str) -> str:
    """A process that is not there any more is shown by its id."""
    return names.get(process, process[-8:])
