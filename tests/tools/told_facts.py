"""What a small cluster would answer to each of the dashboard's questions, and the documents that its page then gets."""

from __future__ import annotations

from typing import Any

from zmreg.tools.dashboard.copies import Copy
from zmreg.tools.dashboard.figures import Figures
from zmreg.tools.dashboard.views import VIEWS, document
from zmreg.tools.gathering import memory_of

NODE, OTHER = "a" * 16, "b" * 16
DRIVER, WORKER = "a" * 8 + "f" * 8, "a" * 8 + "0" * 7 + "1"
TASK, WAITS, OBJECT = f"{DRIVER}{1:016x}", f"{DRIVER}{2:016x}", f"{DRIVER}{3:016x}"
NOW = 1_000_000.0


def node(name: str, node_id: str, **facts: Any) -> dict[str, Any]:
    return {
        "NodeID": node_id, "Alive": True, "State": "ALIVE", "Reason": "", "NodeName": name, "Address": "127.0.0.1:1",
        "IsHead": node_id == NODE, "Resources": {"CPU": 4.0, "GPU": 2.0, "memory": 1e9, "licence": 1.0},
        "Available": {"CPU": 1.0, "GPU": 2.0, "memory": 1e9, "licence": 0.0}, "Locs": ["here"], "Labels": {}, "Pid": 7,
        "Python": "3.11.7", "Version": "0.1.0", "ObjectStoreBytes": 1000, "ObjectStoreUsedBytes": 10, "Workers": 3,
        "Waiting": 2, **facts,
    }  # fmt: skip


def family(name: str, kind: str, *samples: tuple[float, dict[str, str]]) -> dict[str, Any]:
    return {"name": name, "type": kind, "help": "", "samples": [{"labels": each, "value": v} for v, each in samples]}


def families(done: float = 5.0) -> list[dict[str, Any]]:
    return [
        family("zmreg_tasks", "gauge", (1.0, {"state": "running", "node": NODE}), (2.0, {"state": "queued"})),
        family("zmreg_tasks_finished_total", "counter", (done, {"outcome": "ok"}), (1.0, {"outcome": "failed"})),
        family("zmreg_actors", "gauge", (1.0, {"state": "alive"})),
        family("zmreg_pipeline_items_in_total", "counter", (3.0, {"stage": "parse"}), (4.0, {"stage": "parse"})),
        family("zmreg_run_under_way", "gauge", (2.0, {"phase": "signals"})),
        family("zmreg_run_phases", "gauge", (1.0, {"state": "running"}), (0.0, {"state": "done"})),
        {"name": "seconds", "type": "histogram", "help": "", "samples": [
            {"labels": {}, "buckets": {"+Inf": 2}, "sum": 3.0, "count": 2}]},
    ]  # fmt: skip


def process(name: str, process_id: str, told: Any = None) -> dict[str, Any]:
    return {"ProcessID": process_id, "NodeID": NODE, "Pid": 11, "Role": "worker", "Name": name, "Told": told}


def info(task: str, name: str) -> dict[str, Any]:
    return {"TaskID": task, "Name": name, "State": "queued", "Submitted": 3.0, "Completed": None}


def memory(name: str) -> dict[str, Any]:
    amounts = {"OwnBytes": 5, "SharedBytes": 6, "StoreBytes": 7, "Refs": {"lent": 1}, "Answered": True}
    copies = [{"ObjectID": OBJECT, "Bytes": 2048, "State": "sealed", "Primary": True, "AgeSeconds": 9.0,
               "CreatorID": WORKER, "Pins": {DRIVER: 2}}]  # fmt: skip
    store = {"used_bytes": 2048, "budget_bytes": 4096, "sealed": 1, "spilled": 0}
    return {"NodeID": NODE, "Store": store, "Objects": copies, "Processes": [{**process(name, WORKER), **amounts}]}


def facts(name: str = "evil") -> dict[str, Any]:
    """{source: its answer}; `name` is what users have called things."""
    figures = Figures()
    for turn in range(3):
        figures.take(families(5.0 + 4 * turn), NOW - 4 + 2 * turn)
    call = {
        "TaskID": TASK, "Name": name, "State": "failed", "RunSeconds": 0.5, "WaitSeconds": None, "AgeSeconds": 2.0,
        "Attempts": 1, "Error": name, "WorkerID": WORKER, "Owner": "driver pid=1",
    }  # fmt: skip
    queued = {"UnderWay": 2, "Rows": [{**info(WAITS, name), "Text": f"waits for {name}"}], "Sent": {TASK: name},
              "Pending": {"c" * 32: 4}}  # fmt: skip
    return {
        "nodes": [node(name, NODE), node("gone", OTHER, Alive=False, State="DEAD", Reason=name, Resources={})],
        "stats": {NODE: {"memory": {"used_bytes": 5, "limit_bytes": 10}}},
        "health": {NODE: {"HeadLost": False, "Time": NOW, "Asked": NOW, "Version": "0.1.0"}},
        "metrics": {"Families": families(), "Lines": figures.lines()},
        "actors": [
            {"ActorID": "c" * 32, "ClassName": name, "Name": name, "Namespace": "", "State": "ALIVE", "NumRestarts": 1,
             "WorkerID": WORKER, "NodeID": NODE, "OwnerID": DRIVER},
            {"ActorID": "d" * 32, "ClassName": "Waits", "Name": "", "Namespace": "", "State": "PENDING",
             "NumRestarts": 0, "WorkerID": "", "NodeID": "", "OwnerID": DRIVER},
        ],
        "workers": [{"WorkerID": WORKER, "NodeID": NODE, "Pid": 11, "Name": name, "State": "actor"}],
        "tasks": [{"TaskID": TASK, "State": "RUNNING", "Type": "TASK", "Name": "worker", "NodeID": NODE, "Pid": 11,
                   "WorkerID": WORKER}],
        "queued": [process("driver", DRIVER, queued), process("silent", WORKER)],
        "calls": {"Recent": [call, call], "Silent": [], "ByFunction": [
            {"Name": name, "Calls": 1, "Failed": 1, "Cancelled": 0, "Retries": 0, "MeanSeconds": 0.5,
             "MaxSeconds": 1}]},
        "memory": memory_of({NODE: memory(name)}, 1_000),
        "jobs": [{"JobID": name, "Status": "FAILED", "Exit": None, "NodeID": "", "Submitted": NOW, "Started": 0.0,
                  "Ended": 0.0, "Command": name, "Message": name}],
        "runs": [{"Run": name, "Status": "running", "Done": 1, "Phases": 2, "Started": NOW, "Seconds": 3.0,
                  "Now": [name]}],
        "functions": [{"Name": name, "Version": "", "HostID": WORKER, "NodeID": NODE, "NodeName": name, "Locs": [],
                       "Actor": "", "Resting": False, "Signature": name}],
    }  # fmt: skip


def told(view: str, name: str = "evil", contains: str = "", **others: Any) -> dict[str, Any]:
    """One page's document."""
    found = {**facts(name), **others}
    copies = {(each,): Copy(found[each], 50.0) for each in VIEWS[view][1] if found[each] is not None}
    return document(view, copies, contains, lambda: (51.0, NOW))


def documents(name: str) -> dict[str, Any]:
    """All of them, as they come over HTTP."""
    state = {"Answers": True, "Trouble": "", "Since": NOW, "Cluster": name, "NodeID": NODE, "NodeName": name}
    found = {view: {"State": state, **told(view, name)} for view in VIEWS}
    found["log"] = {"State": state, "Errors": [], "Found": {"Text": name, "Bytes": 5000, "Whole": False}}
    found["why"] = {"State": state, "Errors": [], "Found": {
        "Lines": [name], "Info": {"Name": name, "RunSeconds": 0.12345678}, "Story": [[1.0, name]]}}  # fmt: skip
    return found
