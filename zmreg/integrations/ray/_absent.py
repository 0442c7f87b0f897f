"""What Ray has and zmreg does not, and what to use: told by the error that a program meets, however it asks."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Final

_HERE: Final = __package__
_OUTSIDE: Final = "out of scope here"
_IDS: Final = "ids are hex text here"
_INNER: Final = (
    "Ray's own inner modules; instead of free() drop the refs, instead of memory_summary() run `zmreg memory`, "
    "instead of global_worker ask ray.get_runtime_context()"
)
_PYTHON: Final = "zmreg is for Python alone"
_FROM_AFAR: Final = "zmreg.init('HOST:PORT', key=...) works from anywhere, without a proxy (docs/guides/clusters.md)"
_DAG: Final = (
    "functions and methods have .bind() and .execute(); a graph with inputs is a zmreg.Graph (docs/guides/requests.md) "
    "and items that go through actors again and again are a zmreg.Pipeline (docs/guides/pipelines.md)"
)
# Of paths below `ray`: a module's row counts for all that is in it.
_INSTEAD: Final = {
    "ActorClassID": _IDS, "ActorID": _IDS, "ClusterID": _IDS, "FunctionID": _IDS, "JobID": _IDS, "NodeID": _IDS,
    "ObjectID": _IDS, "PlacementGroupID": _IDS, "TaskID": _IDS, "UniqueID": _IDS, "WorkerID": _IDS,
    "DynamicObjectRefGenerator":
        "num_returns='dynamic' is deprecated in Ray, too: leave it out, and .remote() of a generator function gives an "
        "ObjectRefGenerator, with a ref an item as it comes",
    "ClientBuilder": _FROM_AFAR, "client": _FROM_AFAR, "client_builder": _FROM_AFAR,
    "Language": _PYTHON, "cpp_function": _PYTHON, "cross_language": _PYTHON, "java_actor_class": _PYTHON,
    "java_function": _PYTHON, "job_config": "init() takes runtime_env= and namespace= itself",
    "_private": _INNER, "_raylet": _INNER, "internal": _INNER, "worker": _INNER, "state": _INNER,
    "air": "use zmreg.map over configurations, or zmreg.run with a grid (docs/guides/runs.md)",
    "autoscaler": "start and stop nodes yourself: `zmreg start`, zmreg.drain_node (docs/guides/clusters.md)",
    "cluster_utils": "zmreg.testing.LocalCluster has several nodes on one machine (docs/guides/testing.md)",
    "dag": _DAG,
    "data": f"datasets are {_OUTSIDE}: zmreg.Pipeline streams items through functions and actors, zmreg.map calls one "
    "function for many (docs/guides/pipelines.md)",
    "experimental.array": _OUTSIDE,
    "experimental.channel": _DAG, "experimental.compiled_dag_ref": _DAG,
    "experimental.internal_kv": "zmreg.publish_dataset keeps a value under a name for every program",
    "experimental.locations": "zmreg.who_has",
    "experimental.state": "ray.util.state has list_actors and others",
    "llm": _OUTSIDE,
    "rllib": f"reinforcement learning is {_OUTSIDE}: environments and learners are actors (docs/guides/actors.md)",
    "serve": "zmreg.register and zmreg.serve offer functions by name, zmreg.call and zmreg.request use them "
    "(docs/guides/requests.md)",
    "train": f"training loops are {_OUTSIDE}: a placement group and an actor for each rank (docs/guides/placement.md)",
    "tune": "use zmreg.map over configurations, or zmreg.run with a grid, windows and folds (docs/guides/runs.md)",
    "util.actor_group": "make the actors, and call zmreg.get on a list of their answers",
    "util.client": _FROM_AFAR, "util.connect": _FROM_AFAR, "util.disconnect": _FROM_AFAR,
    "util.collective": f"collectives are {_OUTSIDE}: values go from process to process as refs",
    "util.horovod": _OUTSIDE, "util.lightgbm": _OUTSIDE, "util.sgd": _OUTSIDE, "util.spark": _OUTSIDE,
    "util.xgboost": _OUTSIDE, "util.tpu": _OUTSIDE,
    "util.iter": "it is gone from Ray's guides; zmreg.Pipeline streams items through functions and actors",
    "util.state.get_log": "`zmreg logs`", "util.state.list_logs": "`zmreg logs`",
    "util.state.list_jobs": "ray.job_submission.JobSubmissionClient().list_jobs()",
    "util.state.list_runtime_envs": "environments belong to their workers: list_workers()",
    "util.state.list_cluster_events": "`zmreg logs` of a node",
    "workflow": "zmreg.run keeps a journal of its phases and goes on from it (docs/guides/runs.md)",
}  # fmt: skip


def absent(path: str) -> str:
    """What to say of `ray.` + path."""
    parts = path.split(".")
    found = (_INSTEAD.get(".".join(parts[:count])) for count in range(len(parts), 0, -1))
    instead = next((each for each in found if each), "docs/guides/coming-from-ray.md says what there is")
    return f"zmreg has no counterpart of ray.{path}: {instead}"


class _Absent(MetaPathFinder):
    """Asked last for modules: all that nobody else has found here is Ray's alone. `from ... import name` comes by, too,
    when there is no such name, and would end in a shorter error."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        """None for what is not below `ray`. Raises ModuleNotFoundError."""
        if not fullname.startswith(f"{_HERE}."):
            return None
        name = fullname.removeprefix(f"{_HERE}.")
        # Under Ray's name: `from package import name` takes an error about its own for nothing of importance.
        raise ModuleNotFoundError(absent(name), name=f"ray.{name}")


def tell() -> None:
    """Have modules that are not there say what to use."""
    sys.meta_path.append(_Absent())
