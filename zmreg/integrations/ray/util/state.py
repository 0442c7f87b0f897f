"""`ray.util.state`: what there is, as Ray's lists and summaries have it, from `zmreg.listing` and `zmreg.timeline`."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import zmreg
from zmreg.integrations.ray._absent import absent

LIMIT: Final = 100
_MOST: Final = 10_000
# Ray's words for states that have another here.
_ACTOR: Final = {"PENDING": "PENDING_CREATION", "STARTING": "PENDING_CREATION"}
_CALL: Final = {"done": "FINISHED", "failed": "FAILED", "cancelled": "FAILED"}


class StateRow:
    """One row: `row.state` and `row["state"]`. What Ray has beyond that is not known here: AttributeError, KeyError."""

    def __init__(self, **values: Any) -> None:
        self.__dict__.update(values)

    def __getitem__(self, name: str) -> Any:
        return self.__dict__[name]

    def get(self, name: str, default: Any = None) -> Any:
        """Or `default`."""
        return self.__dict__.get(name, default)

    def keys(self) -> list[str]:
        """What is known."""
        return list(self.__dict__)

    def __iter__(self) -> Iterator[str]:
        return iter(self.__dict__)

    def asdict(self) -> dict[str, Any]:
        """The same as a dictionary."""
        return dict(self.__dict__)

    def __repr__(self) -> str:
        return f"StateRow({', '.join(f'{name}={value!r}' for name, value in self.__dict__.items())})"


Filters = Iterable[tuple[str, str, Any]] | None


def _chosen(rows: Iterable[StateRow], filters: Filters, limit: int) -> list[StateRow]:
    """ValueError for a filter by what is not known, and for anything but = and !=."""
    found = list(rows)
    for name, relation, value in filters or ():
        if relation not in ("=", "!="):
            raise ValueError(f"filter {(name, relation, value)}: use '=' or '!='")
        if found and name not in found[0]:
            raise ValueError(f"filter {(name, relation, value)}: there are {', '.join(found[0].keys())}")
        found = [row for row in found if (str(row[name]) == str(value)) == (relation == "=")]
    return found[:limit]


def _actors() -> Iterator[StateRow]:
    pids = {row["WorkerID"]: row["Pid"] for row in zmreg.listing("workers")}
    for row in zmreg.listing("actors"):
        yield StateRow(
            actor_id=row["ActorID"], class_name=row["ClassName"], state=_ACTOR.get(row["State"], row["State"]),
            name=row["Name"], node_id=row["NodeID"], pid=pids.get(row["WorkerID"], 0),
            ray_namespace=row["Namespace"], num_restarts=row["NumRestarts"],
        )  # fmt: skip


def _nodes() -> Iterator[StateRow]:
    for row in zmreg.nodes():
        yield StateRow(
            node_id=row["NodeID"], node_ip=row["NodeManagerAddress"], is_head_node=row["IsHead"],
            state="ALIVE" if row["Alive"] else "DEAD", state_message=row["Reason"], node_name=row["NodeName"],
            resources_total=row["Resources"], labels=row["Labels"],
        )  # fmt: skip


def _tasks() -> Iterator[StateRow]:
    """Those that run, then those that are over (the latest 10,000 of each process)."""
    over = [event for event in zmreg.timeline() or () if event["ph"] == "X"]
    ended = {event["args"]["task"] for event in over}
    for row in zmreg.listing("tasks"):
        if row["TaskID"] not in ended:
            yield StateRow(
                task_id=row["TaskID"], name=row["Name"], func_or_class_name=row["Name"], state="RUNNING",
                type="ACTOR_TASK" if row["Type"] == "ACTOR_TASK" else "NORMAL_TASK", attempt_number=0,
                node_id=row["NodeID"], worker_id=row["WorkerID"], worker_pid=row["Pid"], error_message="",
            )  # fmt: skip
    for event in over:
        call = event["args"]
        yield StateRow(
            task_id=call["task"], name=event["name"], func_or_class_name=event["name"],
            state=_CALL.get(call["state"], call["state"].upper()),
            type="ACTOR_TASK" if "." in event["name"] else "NORMAL_TASK", attempt_number=call["attempt"],
            node_id=None, worker_id=None, worker_pid=None, error_message=call.get("error", ""),
        )  # fmt: skip


def _objects() -> Iterator[StateRow]:
    for row in zmreg.listing("objects"):
        yield StateRow(
            object_id=row["ObjectID"], object_size=row["Bytes"], task_status=row["State"], node_id=row["NodeID"],
            pins=row["Pins"],
        )  # fmt: skip


def _workers() -> Iterator[StateRow]:
    for row in zmreg.listing("workers"):
        yield StateRow(
            worker_id=row["WorkerID"], is_alive=True, worker_type="WORKER", node_id=row["NodeID"], pid=row["Pid"],
            state=row["State"],
        )  # fmt: skip


def _placement_groups() -> Iterator[StateRow]:
    for group_id, row in zmreg.placement_group_table().items():
        yield StateRow(
            placement_group_id=group_id, name=row["name"], state=row["state"], strategy=row["strategy"],
            bundles=row["bundles"],
        )  # fmt: skip


def _lists(
    rows: Callable[[], Iterable[StateRow]], what: str
) -> tuple[Callable[..., list[StateRow]], Callable[..., StateRow | None]]:
    """(`list_...`, `get_...`) of one kind; ids are in the first field of its rows."""

    def all_of(
        address: str | None = None, filters: Filters = None, limit: int = LIMIT, **_options: Any
    ) -> list[StateRow]:
        return _chosen(rows(), filters, limit)

    def one_of(id: str, address: str | None = None, **_options: Any) -> StateRow | None:
        return next((row for row in rows() if next(iter(row.asdict().values())) == id), None)

    all_of.__doc__ = f"""The {what} of this program's cluster that fit all `filters`, `limit` at most. Ray's further
    keywords (detail, timeout, ...) are taken and not used."""
    one_of.__doc__ = f"""The one of the {what} with this id, or None."""
    return all_of, one_of


list_actors, get_actor = _lists(_actors, "actors")
list_nodes, get_node = _lists(_nodes, "nodes")
list_objects, _get_object = _lists(_objects, "objects in stores")
list_placement_groups, get_placement_group = _lists(_placement_groups, "placement groups")
list_tasks, get_task = _lists(_tasks, "calls")
list_workers, get_worker = _lists(_workers, "workers")


def get_objects(id: str, address: str | None = None, **_options: Any) -> list[StateRow]:
    """The copies of one object that stores have."""
    return [row for row in _objects() if row["object_id"] == id]


def summarize_tasks(address: str | None = None, **_options: Any) -> dict[str, Any]:
    """How many calls of each function are in which state."""
    rows = list(_tasks())
    summary = _counted(rows, "func_or_class_name")
    for name, row in summary.items():
        row["type"] = next(each["type"] for each in rows if each["func_or_class_name"] == name)
    of_actors = sum(row["type"] == "ACTOR_TASK" for row in rows)
    totals = {"total_tasks": len(rows) - of_actors, "total_actor_tasks": of_actors, "summary_by": "func_name"}
    return {"cluster": {"summary": summary, **totals}}


def summarize_actors(address: str | None = None, **_options: Any) -> dict[str, Any]:
    """How many actors of each class are in which state."""
    rows = list(_actors())
    return {
        "cluster": {
            "summary": _counted(rows, "class_name"), "total_actors": len(rows), "summary_by": "class"
        }
    }  # fmt: skip


def _counted(rows: Iterable[StateRow], by: str) -> dict[str, dict[str, Any]]:
    counts: dict[str, dict[str, Any]] = {}
    for row in rows:
        states = counts.setdefault(row[by], {by: row[by], "state_counts": {}})["state_counts"]
        states[row["state"]] = states.get(row["state"], 0) + 1
    return counts


def __getattr__(name: str) -> Any:
    raise AttributeError(absent(f"util.state.{name}"))


__all__ = [
    "StateRow",
    "get_actor",
    "get_node",
    "get_objects",
    "get_placement_group",
    "get_task",
    "get_worker",
    "list_actors",
    "list_nodes",
    "list_objects",
    "list_placement_groups",
    "list_tasks",
    "list_workers",
    "summarize_actors",
    "summarize_tasks",
]
