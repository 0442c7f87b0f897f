"""What a page shows, made of copies of what the cluster has answered. Pure: plain containers in and out.

Every list is bounded: `{"Rows": [...], "Total": n, "More": n - len(rows)}`. A view whose facts are not there yet has
empty lists.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from zmreg.tools.dashboard.copies import Copy, Key
from zmreg.tools.dashboard.findings import findings

MOST_ROWS: Final = 1_000
# A text in a list; the whole of it is behind a click.
MOST_CHARS: Final = 300

Document = dict[str, Any]
Facts = Mapping[str, Any]
"""{source: what it has answered}, of those that have."""


def bounded(rows: Sequence[Mapping[str, Any]], contains: str = "", most: int = MOST_ROWS, total: int = 0) -> Document:
    """The first `most` of the rows in which some value has the text `contains`; `total`: how many there are in truth,
    if nobody has told all."""
    wanted = contains.casefold()
    fitting = [row for row in rows if wanted in _text(row)] if wanted else list(rows)
    count = len(fitting) if wanted else max(len(fitting), total)
    shown = [{name: _short(value) for name, value in row.items()} for row in fitting[:most]]
    return {"Rows": shown, "Total": count, "More": count - len(shown)}


def _text(row: Mapping[str, Any]) -> str:
    return "\0".join(map(str, row.values())).casefold()


def _short(value: Any) -> Any:
    return f"{value[: MOST_CHARS - 3]}..." if isinstance(value, str) and len(value) > MOST_CHARS else value


# -- one for each page -------------------------------------------------------------------------------------------------


def overview(facts: Facts, contains: str, now: float) -> Document:
    """Nodes, what is used of them, and what somebody should know."""
    rows, families = facts.get("nodes", []), facts.get("metrics", {}).get("Families", [])
    alive = [row for row in rows if row["Alive"]]
    stats = facts.get("stats", {})
    return {
        "Nodes": bounded([_node(row, stats.get(row["NodeID"])) for row in rows], contains),
        "Findings": findings(rows, facts.get("health", {}), families, now),
        "Sums": {
            "Nodes": len(alive), "Gone": len(rows) - len(alive),
            "CPUs": _used(alive, "CPU"), "GPUs": _used(alive, "GPU"),
            "StoreBytes": [sum(row["ObjectStoreUsedBytes"] for row in alive),
                           sum(row["ObjectStoreBytes"] for row in alive)],
            "Workers": sum(row["Workers"] for row in alive), "Waiting": sum(row["Waiting"] for row in alive),
            "Actors": _level(families, "zmreg_actors", "alive"), "Running": _level(families, "zmreg_tasks", "running"),
            "Queued": _level(families, "zmreg_tasks", "queued"),
        },
    }  # fmt: skip


def _node(row: Mapping[str, Any], stats: Mapping[str, Any] | None) -> Document:
    memory = {} if stats is None else stats.get("memory", {})
    others = {
        name: [amount - row["Available"].get(name, 0.0), amount]
        for name, amount in row["Resources"].items()
        if name not in ("CPU", "GPU", "memory")
    }
    return {
        "NodeID": row["NodeID"], "Name": row["NodeName"], "State": row["State"], "Head": row["IsHead"],
        "Address": row["Address"], "CPU": _used([row], "CPU"), "GPU": _used([row], "GPU"),
        "MemoryBytes": [memory.get("used_bytes", 0), memory.get("limit_bytes", 0)],
        "StoreBytes": [row["ObjectStoreUsedBytes"], row["ObjectStoreBytes"]] if row["Alive"] else [0, 0],
        "Workers": row["Workers"], "Waiting": row["Waiting"], "Others": others, "Locs": row["Locs"],
        "Pid": row["Pid"], "Python": row["Python"], "Reason": row["Reason"],
    }  # fmt: skip


def _used(rows: Iterable[Mapping[str, Any]], name: str) -> list[float]:
    """[used, there are]."""
    total = free = 0.0
    for row in rows:
        total += row["Resources"].get(name, 0.0)
        free += row["Available"].get(name, 0.0)
    return [round(total - free, 4), total]


def _level(families: Iterable[Mapping[str, Any]], name: str, state: str) -> float:
    return sum(
        float(sample["value"])
        for family in families
        if family["name"] == name
        for sample in family["samples"]
        if sample["labels"].get("state") == state
    )


def actors(facts: Facts, contains: str, now: float) -> Document:
    """The newest actors, with the process that each one is, and how many calls it has not answered."""
    told = facts.get("actors", [])
    workers = {row["WorkerID"]: row for row in facts.get("workers", [])}
    pending: dict[str, int] = {}
    for row in facts.get("queued", []):
        for actor, count in ((row["Told"] or {}).get("Pending") or {}).items():
            pending[actor] = pending.get(actor, 0) + count
    names = _node_names(facts)
    rows = [
        {
            "ActorID": row["ActorID"], "State": row["State"], "Class": row["ClassName"], "Name": row["Name"],
            "Namespace": row["Namespace"], "Node": names.get(row["NodeID"], row["NodeID"][:8]),
            "NodeID": row["NodeID"], "Pid": workers.get(row["WorkerID"], {}).get("Pid"),
            "Restarts": row["NumRestarts"], "Pending": pending.get(row["ActorID"], 0), "WorkerID": row["WorkerID"],
        }
        for row in reversed(told)
    ]  # fmt: skip
    states = ("pending", "starting", "alive", "restarting")
    families = facts.get("metrics", {}).get("Families", [])
    total = int(sum(_level(families, "zmreg_actors", state) for state in states)) if len(told) >= MOST_ROWS else 0
    return {"Actors": bounded(rows, contains, total=total)}


def _node_names(facts: Facts) -> dict[str, str]:
    return {row["NodeID"]: row["NodeName"] for row in facts.get("nodes", [])}


def tasks(facts: Facts, contains: str, now: float) -> Document:
    """Calls that run, that wait (each with why), and that have ended lately."""
    names = _node_names(facts)
    told = [row["Told"] for row in facts.get("queued", []) if row["Told"] is not None]
    sent = {task: name for each in told for task, name in each["Sent"].items()}  # a node knows no function's name
    running = [
        {
            "TaskID": row["TaskID"], "State": row["State"], "Type": row["Type"],
            "Name": sent.get(row["TaskID"], row["Name"]),
            "Node": names.get(row["NodeID"], row["NodeID"][:8]), "NodeID": row["NodeID"], "Pid": row["Pid"],
            "WorkerID": row["WorkerID"],
        }
        for row in facts.get("tasks", [])
    ]  # fmt: skip
    queued: list[Document] = [
        {
            "TaskID": row["TaskID"], "Name": row["Name"], "State": row["State"], "AgeSeconds": row["Submitted"],
            "Owner": f"{process['Name']} pid={process['Pid']}", "Why": row["Text"],
        }
        for process in facts.get("queued", [])
        for row in (process["Told"] or {"Rows": ()})["Rows"]
    ]  # fmt: skip
    queued.sort(key=lambda row: -round(row["AgeSeconds"] or 0.0))  # each process has its own in their order
    calls = facts.get("calls", {"Recent": [], "ByFunction": [], "Silent": []})
    families = facts.get("metrics", {}).get("Families", [])
    waiting = int(_level(families, "zmreg_tasks", "queued"))
    return {
        "Running": bounded(running, contains), "Queued": bounded(queued, contains, total=waiting if queued else 0),
        "UnderWay": sum(each["UnderWay"] for each in told), "Recent": bounded(calls["Recent"], contains),
        "ByFunction": bounded(calls["ByFunction"], contains), "Silent": calls["Silent"][:20],
    }  # fmt: skip


def objects(facts: Facts, contains: str, now: float) -> Document:
    """The largest values in the stores, who holds them, and what memory processes have: `zmreg memory`."""
    told = facts.get("memory", {"Objects": [], "Processes": [], "Stores": []})
    processes = told["Processes"]
    names = {row["ProcessID"]: f"{row['Name']} pid={row['Pid']}" for row in processes}
    nodes = _node_names(facts)
    rows = [
        {
            "ObjectID": row["ObjectID"], "Bytes": row["Bytes"], "AgeSeconds": row["AgeSeconds"],
            "State": ", ".join(dict.fromkeys(copy["State"] for copy in row["Copies"])),
            "Owner": _who(names, row["OwnerID"]), "MadeBy": _who(names, row["Copies"][0]["CreatorID"]),
            "ReadBy": [_who(names, reader) for copy in row["Copies"] for reader in copy["Pins"]],
            "Nodes": [nodes.get(copy["NodeID"], copy["NodeID"][:8]) for copy in row["Copies"]],
        }
        for row in told["Objects"]
    ]  # fmt: skip
    sums = {
        name: sum(store[name] for store in told["Stores"])
        for name in ("used_bytes", "budget_bytes", "sealed", "spilled")
    }
    memory = [
        {
            "Process": names[row["ProcessID"]], "Role": row["Role"], "NodeID": row["NodeID"],
            "OwnBytes": row["OwnBytes"], "SharedBytes": row["SharedBytes"], "StoreBytes": row["StoreBytes"],
            "Lent": row["Refs"].get("lent", 0), "Borrowed": row["Refs"].get("borrowed", 0),
        }
        for row in sorted(processes, key=lambda row: -row["OwnBytes"])
    ]  # fmt: skip
    return {
        "Objects": bounded(rows, contains, total=sums["sealed"] if rows else 0), "Processes": bounded(memory, contains),
        "Sums": sums,
    }  # fmt: skip


def _who(names: Mapping[str, str], process: str) -> str:
    """A process that is not there any more is shown by its id."""
    return names.get(process, process[-8:])


_STAGE: Final = {
    "In": "zmreg_pipeline_items_in_total", "Out": "zmreg_pipeline_items_out_total",
    "Waiting": "zmreg_pipeline_depth", "Places": "zmreg_pipeline_lanes", "Errors": "zmreg_pipeline_errors_total",
    "Retries": "zmreg_pipeline_retries_total", "BusySeconds": "zmreg_pipeline_busy_seconds_total",
    "BlockedSeconds": "zmreg_pipeline_blocked_seconds_total",
}  # fmt: skip
_PHASE: Final = {
    "In": "zmreg_run_items_in_total", "Out": "zmreg_run_items_out_total", "UnderWay": "zmreg_run_under_way",
}  # fmt: skip


def flows(facts: Facts, contains: str, now: float) -> Document:
    """Requests, pipelines and runs, as far as others than their own program know of them; jobs and named functions."""
    families = {family["name"]: family for family in facts.get("metrics", {}).get("Families", [])}
    return {
        "Stages": bounded(_by_label(families, "stage", _STAGE), contains),
        "Phases": bounded(_by_label(families, "phase", _PHASE), contains),
        "PhaseStates": _states(families.get("zmreg_run_phases")),
        "Jobs": bounded(facts.get("jobs", []), contains), "Runs": bounded(facts.get("runs", []), contains),
        "Functions": bounded(facts.get("functions", []), contains),
    }  # fmt: skip


def _by_label(families: Mapping[str, Mapping[str, Any]], label: str, columns: Mapping[str, str]) -> list[Document]:
    rows: dict[str, Document] = {}
    for column, metric in columns.items():
        for sample in families.get(metric, {"samples": []})["samples"]:
            name = sample["labels"].get(label, "")
            row = rows.setdefault(name, {"Name": name, **dict.fromkeys(columns, 0.0)})
            row[column] += sample["value"]
    return list(rows.values())


def _states(family: Mapping[str, Any] | None) -> dict[str, float]:
    found: dict[str, float] = {}
    for sample in family["samples"] if family is not None else ():
        state = sample["labels"].get("state", "")
        found[state] = found.get(state, 0.0) + sample["value"]
    return {state: count for state, count in found.items() if count}


def logs(facts: Facts, contains: str, now: float) -> Document:
    """Whose logs there are: each node's, and each worker's."""
    names = _node_names(facts)
    rows = [
        {"Node": row["NodeName"], "NodeID": row["NodeID"], "Log": "node", "Name": "the node itself", "Pid": row["Pid"],
         "State": row["State"]}
        for row in facts.get("nodes", [])
        if row["Alive"]
    ]  # fmt: skip
    rows += [
        {"Node": names.get(row["NodeID"], row["NodeID"][:8]), "NodeID": row["NodeID"], "Log": row["WorkerID"],
         "Name": row["Name"], "Pid": row["Pid"], "State": row["State"]}
        for row in facts.get("workers", [])
    ]  # fmt: skip
    return {"Logs": bounded(rows, contains)}


def metrics(facts: Facts, contains: str, now: float) -> Document:
    """Figures of the last minutes, and the sums of all metrics at this moment."""
    told = facts.get("metrics", {"Families": [], "Lines": []})
    rows = [
        {
            "Name": family["name"], "Type": family["type"], "Series": len(family["samples"]),
            "Sum": _sum(family["samples"]), "Help": family["help"],
        }
        for family in told["Families"]
    ]  # fmt: skip
    return {"Lines": told["Lines"], "Metrics": bounded(rows, contains)}


def _sum(samples: Iterable[Mapping[str, Any]]) -> float | None:
    """Of a histogram how often something was seen."""
    values = [sample.get("value", sample.get("count")) for sample in samples]
    numbers = [value for value in values if isinstance(value, int | float)]
    return sum(numbers) if len(numbers) == len(values) else None


View = Callable[[Facts, str, float], Document]
VIEWS: Final[Mapping[str, tuple[View, tuple[str, ...]]]] = {
    "overview": (overview, ("nodes", "stats", "health", "metrics")),
    "actors": (actors, ("actors", "workers", "queued", "nodes", "metrics")),
    "tasks": (tasks, ("tasks", "queued", "calls", "nodes", "metrics")),
    "objects": (objects, ("memory", "nodes")),
    "flows": (flows, ("metrics", "jobs", "runs", "functions")),
    "logs": (logs, ("nodes", "workers")),
    "metrics": (metrics, ("metrics",)),
}
"""{page: (what makes it, the sources that it is made of)}."""


def document(
    name: str, copies: Mapping[Key, Copy], contains: str, clock: Callable[[], tuple[float, float]]
) -> Document:
    """A page's facts, with how old they are, and what could not be asked. `clock`: (the copies' time, Unix time)."""
    view, sources = VIEWS[name]
    monotonic, wall = clock()
    facts = {key[0]: copy.value for key, copy in copies.items() if copy.value is not None}
    ages = [monotonic - copy.at for copy in copies.values() if copy.value is not None]
    errors = sorted({copy.error for copy in copies.values() if copy.error})
    missing = [source for source in sources if source not in facts]
    return {
        "View": name, "Time": wall, "AgeSeconds": round(max(ages), 3) if ages else None, "Errors": errors,
        "Missing": missing, **view(facts, contains, wall),
    }  # fmt: skip
