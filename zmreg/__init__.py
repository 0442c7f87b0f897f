"""zmreg: actors and tasks on ZeroMQ. Values stay where they were made; refs say where that is.

Names are loaded when they are first used: nodes and the command line import rooms of this package, and must have
neither what users type nor what unpickles.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

from zmreg.model import errors

if TYPE_CHECKING:
    from zmreg import metrics
    from zmreg.api.actors import ActorClass, ActorHandle, get_actor, kill
    from zmreg.api.afterwards import CallInfo, call_info, call_stack, processing, story, summary, timeline, why
    from zmreg.api.annotating import annotate
    from zmreg.api.calling import acall, call, describe, functions
    from zmreg.api.cluster import (
        available_resources,
        cancel,
        cluster_resources,
        get,
        init,
        is_initialized,
        nodes,
        put,
        shutdown,
        stats,
        wait,
    )
    from zmreg.api.context import cancelled, exit_actor, get_gpu_ids, get_runtime_context, released
    from zmreg.api.coordination import as_completed, map, progress
    from zmreg.api.debugging import Breakpoint, breakpoints, debug
    from zmreg.api.decorator import remote
    from zmreg.api.events import Event, KeptEvent, Subscription, get_events, log_event, publish, subscribe
    from zmreg.api.everywhere import run_on_all
    from zmreg.api.executor import Executor, executor
    from zmreg.api.functions import RemoteFunction
    from zmreg.api.gathering import gather
    from zmreg.api.groups import (
        PlacementGroup,
        get_current_placement_group,
        get_placement_group,
        placement_group,
        placement_group_table,
        remove_placement_group,
    )
    from zmreg.api.intercepting import InterceptedCall, Interceptor, intercept
    from zmreg.api.listing import listing
    from zmreg.api.locations import has_what, rebalance, replicate, scatter, who_has
    from zmreg.api.logs import JsonLines, LogIds
    from zmreg.api.methods import method, typed
    from zmreg.api.named import register, serve, withdraw
    from zmreg.api.plugins import register_worker_plugin, unregister_worker_plugin, upload_file
    from zmreg.api.pool import Pool
    from zmreg.api.refs import ObjectRef
    from zmreg.api.reporting import performance_report, profile
    from zmreg.api.strategies import (
        NodeAffinitySchedulingStrategy,
        NodeLabelSchedulingStrategy,
        PlacementGroupSchedulingStrategy,
    )
    from zmreg.api.streams import ObjectRefGenerator
    from zmreg.api.upkeep import drain_node, interrupt, restart, wait_for_actors, wait_for_nodes
    from zmreg.flows.jobs.client import JobClient
    from zmreg.flows.jobs.infos import JobInfo, JobStatus
    from zmreg.flows.kit import sync
    from zmreg.flows.kit.engines import EngineView, engines
    from zmreg.flows.kit.kept import (
        KeptResult,
        forget_result,
        get_result,
        keep,
        limit_results,
        list_results,
        submit_detached,
    )
    from zmreg.flows.kit.pools import ActorPool
    from zmreg.flows.kit.queues import Queue
    from zmreg.flows.kit.variables import get_dataset, list_datasets, publish_dataset, unpublish_dataset
    from zmreg.flows.pipelines.pipeline import Pipeline
    from zmreg.flows.pipelines.pipeline_run import PipelineRun, PipelineSession
    from zmreg.flows.pipelines.stages import DeadLetter, Stage, stage
    from zmreg.flows.requests.lowering import Graph
    from zmreg.flows.requests.request import GraphResult, Run, arequest, request, start_request
    from zmreg.flows.results.collectors import DistributedResultCollector
    from zmreg.flows.results.sinks import ResultStreamer, Sink
    from zmreg.flows.runs.outputs import (
        cleanup,
        copy_output,
        get_phase_output,
        get_phase_outputs,
        phase_ref,
        store_phase_output,
    )
    from zmreg.flows.runs.phases import Phase, RunResult, arun, distribute_phases, run
    from zmreg.flows.runs.workflows import Coordinator
    from zmreg.model.graphs import Lit, Ref, RPCCommand, Step
    from zmreg.model.policy import Policy

from zmreg.model.version import VERSION

__version__ = VERSION

__all__ = [
    "ActorClass",
    "ActorHandle",
    "ActorPool",
    "Breakpoint",
    "CallInfo",
    "Coordinator",
    "DistributedResultCollector",
    "EngineView",
    "Event",
    "Executor",
    "InterceptedCall",
    "Interceptor",
    "KeptEvent",
    "KeptResult",
    "JobClient",
    "JobInfo",
    "JobStatus",
    "JsonLines",
    "LogIds",
    "NodeAffinitySchedulingStrategy",
    "NodeLabelSchedulingStrategy",
    "ObjectRef",
    "PlacementGroup",
    "PlacementGroupSchedulingStrategy",
    "ObjectRefGenerator",
    "Pool",
    "Queue",
    "RemoteFunction",
    "ResultStreamer",
    "Sink",
    "Subscription",
    "acall",
    "annotate",
    "as_completed",
    "available_resources",
    "breakpoints",
    "call",
    "call_info",
    "call_stack",
    "cancel",
    "cancelled",
    "cluster_resources",
    "debug",
    "describe",
    "drain_node",
    "engines",
    "errors",
    "executor",
    "exit_actor",
    "forget_result",
    "functions",
    "gather",
    "get",
    "get_actor",
    "get_dataset",
    "get_current_placement_group",
    "get_events",
    "get_gpu_ids",
    "get_placement_group",
    "get_result",
    "get_runtime_context",
    "has_what",
    "init",
    "intercept",
    "interrupt",
    "is_initialized",
    "keep",
    "kill",
    "limit_results",
    "list_datasets",
    "list_results",
    "listing",
    "log_event",
    "map",
    "method",
    "metrics",
    "nodes",
    "performance_report",
    "placement_group",
    "placement_group_table",
    "processing",
    "profile",
    "progress",
    "publish",
    "publish_dataset",
    "put",
    "rebalance",
    "register",
    "register_worker_plugin",
    "released",
    "remote",
    "remove_placement_group",
    "replicate",
    "restart",
    "run_on_all",
    "scatter",
    "serve",
    "shutdown",
    "stats",
    "story",
    "submit_detached",
    "subscribe",
    "summary",
    "sync",
    "timeline",
    "typed",
    "unpublish_dataset",
    "unregister_worker_plugin",
    "upload_file",
    "wait",
    "wait_for_actors",
    "wait_for_nodes",
    "who_has",
    "why",
    "withdraw",
    "Graph",
    "GraphResult",
    "Run",
    "arequest",
    "request",
    "start_request",
    "Lit",
    "Ref",
    "RPCCommand",
    "Step",
    "DeadLetter",
    "Pipeline",
    "PipelineRun",
    "PipelineSession",
    "Stage",
    "stage",
    "Phase",
    "Policy",
    "RunResult",
    "arun",
    "cleanup",
    "copy_output",
    "distribute_phases",
    "get_phase_output",
    "get_phase_outputs",
    "phase_ref",
    "run",
    "store_phase_output",
]

# Where each name lives; the same for type checkers above. A test holds the two, and __all__, together.
_HOMES = {
    "zmreg": ("metrics",),  # a module
    "zmreg.api.actors": ("ActorClass", "ActorHandle", "get_actor", "kill"),
    "zmreg.api.afterwards": (
        "CallInfo",
        "call_info",
        "call_stack",
        "processing",
        "story",
        "summary",
        "timeline",
        "why",
    ),
    "zmreg.api.annotating": ("annotate",),
    "zmreg.api.calling": ("acall", "call", "describe", "functions"),
    "zmreg.api.cluster": (
        "available_resources",
        "cancel",
        "cluster_resources",
        "get",
        "init",
        "is_initialized",
        "nodes",
        "put",
        "shutdown",
        "stats",
        "wait",
    ),
    "zmreg.api.context": ("cancelled", "exit_actor", "get_gpu_ids", "get_runtime_context", "released"),
    "zmreg.api.coordination": ("as_completed", "map", "progress"),
    "zmreg.api.debugging": ("Breakpoint", "breakpoints", "debug"),
    "zmreg.api.decorator": ("remote",),
    "zmreg.api.events": ("Event", "KeptEvent", "Subscription", "get_events", "log_event", "publish", "subscribe"),
    "zmreg.api.everywhere": ("run_on_all",),
    "zmreg.api.executor": ("Executor", "executor"),
    "zmreg.api.functions": ("RemoteFunction",),
    "zmreg.api.gathering": ("gather",),
    "zmreg.api.groups": (
        "PlacementGroup",
        "get_current_placement_group",
        "get_placement_group",
        "placement_group",
        "placement_group_table",
        "remove_placement_group",
    ),
    "zmreg.api.intercepting": ("InterceptedCall", "Interceptor", "intercept"),
    "zmreg.api.listing": ("listing",),
    "zmreg.api.logs": ("JsonLines", "LogIds"),
    "zmreg.api.locations": ("has_what", "rebalance", "replicate", "scatter", "who_has"),
    "zmreg.api.methods": ("method", "typed"),
    "zmreg.api.named": ("register", "serve", "withdraw"),
    "zmreg.api.plugins": ("register_worker_plugin", "unregister_worker_plugin", "upload_file"),
    "zmreg.api.pool": ("Pool",),
    "zmreg.api.refs": ("ObjectRef",),
    "zmreg.api.reporting": ("performance_report", "profile"),
    "zmreg.api.strategies": (
        "NodeAffinitySchedulingStrategy",
        "NodeLabelSchedulingStrategy",
        "PlacementGroupSchedulingStrategy",
    ),
    "zmreg.api.streams": ("ObjectRefGenerator",),
    "zmreg.api.upkeep": ("drain_node", "interrupt", "restart", "wait_for_actors", "wait_for_nodes"),
    "zmreg.flows.jobs.client": ("JobClient",),
    "zmreg.flows.jobs.infos": ("JobInfo", "JobStatus"),
    "zmreg.flows.kit": ("sync",),
    "zmreg.flows.results.collectors": ("DistributedResultCollector",),
    "zmreg.flows.requests.lowering": ("Graph",),
    "zmreg.flows.runs.outputs": (
        "cleanup",
        "copy_output",
        "get_phase_output",
        "get_phase_outputs",
        "phase_ref",
        "store_phase_output",
    ),
    "zmreg.flows.runs.phases": ("Phase", "RunResult", "arun", "distribute_phases", "run"),
    "zmreg.flows.pipelines.pipeline": ("Pipeline",),
    "zmreg.model.policy": ("Policy",),
    "zmreg.flows.pipelines.pipeline_run": ("PipelineRun", "PipelineSession"),
    "zmreg.flows.kit.engines": ("EngineView", "engines"),
    "zmreg.flows.kit.kept": (
        "KeptResult",
        "forget_result",
        "get_result",
        "keep",
        "limit_results",
        "list_results",
        "submit_detached",
    ),
    "zmreg.flows.kit.pools": ("ActorPool",),
    "zmreg.flows.kit.queues": ("Queue",),
    "zmreg.flows.requests.request": ("GraphResult", "Run", "arequest", "request", "start_request"),
    "zmreg.flows.results.sinks": ("ResultStreamer", "Sink"),
    "zmreg.flows.pipelines.stages": ("DeadLetter", "Stage", "stage"),
    "zmreg.flows.kit.variables": ("get_dataset", "list_datasets", "publish_dataset", "unpublish_dataset"),
    "zmreg.flows.runs.workflows": ("Coordinator",),
    "zmreg.model.graphs": ("Lit", "RPCCommand", "Ref", "Step"),
}
# Of programs that say `import zmreg as ray`: what they look for is there, or is told of there (integrations/ray).
_RAYS = frozenset({
    "DynamicObjectRefGenerator", "LoggingConfig", "actor", "air", "autoscaler", "client", "cloudpickle",
    "cluster_utils", "cross_language", "dag", "data", "exceptions", "experimental", "internal", "java_function",
    "job_config", "job_submission", "remote_function", "rllib", "runtime_context", "runtime_env", "train", "tune",
    "types", "util", "workflow", "_private",
})  # fmt: skip
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

if not TYPE_CHECKING:  # who saw it would take any name for a good one

    def __getattr__(name: str) -> object:
        home = _HOME_OF.get(name)
        if home is None:
            ray = "; Ray's modules are below zmreg.integrations.ray: import that as ray" if name in _RAYS else ""
            raise AttributeError(f"module 'zmreg' has no attribute {name!r}{ray}")
        value = import_module(f"{home}.{name}") if home == __name__ else getattr(import_module(home), name)
        globals()[name] = value
        return value


def load_ipython_extension(shell: object) -> None:
    """`%load_ext zmreg`: cells that begin with `%%zmreg` run on every worker."""
    import_module("zmreg.integrations.notebook").load(shell)


def unload_ipython_extension(shell: object) -> None:
    """`%unload_ext zmreg`."""
    import_module("zmreg.integrations.notebook").unload(shell)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
