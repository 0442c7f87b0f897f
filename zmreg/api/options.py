"""Options of tasks and actors: names, defaults, validation. An unknown name is an error that lists the known ones."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping
from typing import Any

from zmreg.api.environments import check_env
from zmreg.api.strategies import labels_of, selected, strategy_of
from zmreg.api.streams import ACTOR_BACKPRESSURE, BACKPRESSURE, check_returns
from zmreg.model.arguments import check_amounts, check_name
from zmreg.model.policy import Policy
from zmreg.model.record import Terms
from zmreg.model.specs import ACCELERATOR, ACCELERATOR_SHARE, LABEL, PRIORITY, Shape
from zmreg.services.calling.manners import NAME_CHARS, check_manner

TASK_OPTIONS: dict[str, Any] = {
    "num_cpus": None,
    "num_gpus": None,
    "resources": None,
    "memory": None,
    "accelerator_type": None,
    "locs": (),
    "num_returns": None,
    BACKPRESSURE: None,
    "max_retries": None,
    "max_calls": None,
    "retry_exceptions": False,
    "name": None,
    "quiet": False,
    "enable_task_events": True,
    "_labels": None,
    "version": None,
    "scheduling_strategy": None,
    "runtime_env": None,
    "label_selector": None,
    "priority": 0,
    "process": None,
    "cache": False,
    "policy": None,
}
ACTOR_OPTIONS: dict[str, Any] = {
    "num_cpus": None,
    "num_gpus": None,
    "resources": None,
    "memory": None,
    "accelerator_type": None,
    "locs": (),
    "name": None,
    "quiet": False,
    "enable_task_events": True,
    "_labels": None,
    "namespace": None,
    "get_if_exists": False,
    "lifetime": None,
    "max_restarts": 0,
    "max_task_retries": 0,
    "max_concurrency": None,
    "max_pending_calls": -1,
    BACKPRESSURE: None,
    ACTOR_BACKPRESSURE: None,
    "concurrency_groups": None,
    "allow_out_of_order_execution": None,
    "scheduling_strategy": None,
    "runtime_env": None,
    "label_selector": None,
    "priority": 0,
    "process": None,
}
METHOD_OPTIONS: dict[str, Any] = {
    "num_returns": None,
    BACKPRESSURE: None,
    "max_task_retries": None,
    "retry_exceptions": None,
    "name": None,
    "quiet": False,
    "enable_task_events": True,
    "concurrency_group": None,
    "release": False,
    "batch": None,
}
DEFAULT_MAX_RETRIES = 3
_IN_GROUP = "say scheduling_strategy=zmreg.PlacementGroupSchedulingStrategy(group, index)"
# Ray's options that have another name here, or none.
_INSTEAD = {
    "enable_tensor_transport": "arrays go through the store, leave it out",
    "fallback_strategy": "say scheduling_strategy=zmreg.NodeLabelSchedulingStrategy(soft={...})",
    "object_store_memory": "the store is the node's, leave it out; memory= is counted for the task",
    "placement_group": _IN_GROUP,
    "placement_group_bundle_index": _IN_GROUP,
    "placement_group_capture_child_tasks": _IN_GROUP,
    "tensor_transport": "arrays go through the store, leave it out",
}


def check_names(given: Iterable[str], known: Mapping[str, Any], what: str) -> None:
    """ValueError for an option that does not exist, with the nearest name and the whole list."""
    for name in given:
        if name not in known:
            import difflib  # late: only a misspelt name needs it

            near = difflib.get_close_matches(name, known, 1)
            hint = f"; did you mean {near[0]}?" if near else "."
            hint = f": {_INSTEAD[name]}." if name in _INSTEAD else hint
            raise ValueError(f"unknown option {name!r} for {what}{hint} Valid options: {', '.join(sorted(known))}")


def with_policy(options: Mapping[str, Any]) -> dict[str, Any]:
    """The same without `policy`: what it says stands where nothing else is said. TypeError for what no task can do."""
    own = {name: value for name, value in options.items() if name != "policy"}
    if (policy := options.get("policy")) is None:
        return own
    if not isinstance(policy, Policy):
        raise TypeError(f"policy must be a zmreg.Policy, not {policy!r:.80}")
    said = policy.said("a task", ("retries", "retry_on", "cache", "buffer"))
    from_it = {_BY_POLICY[name]: value for name, value in said.items()}
    if "retries" in said:
        from_it.setdefault("retry_exceptions", True)
    return {**from_it, **own}


_BY_POLICY = {"retries": "max_retries", "retry_on": "retry_exceptions", "cache": "cache", "buffer": BACKPRESSURE}


def owned(options: Mapping[str, Any]) -> dict[str, Any]:
    """The same for us to keep: whoever gave them may go on to change the dictionaries, lists and sets among them."""
    return {name: _owned(value) for name, value in options.items()}


def _owned(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _owned(each) for key, each in value.items()}
    if type(value) in (list, set):
        return type(value)(map(_owned, value))
    return value


def check_task_options(options: Mapping[str, Any]) -> None:
    """TypeError or ValueError for values no task can have."""
    check_names(options, TASK_OPTIONS, "a task")
    check_manner(options)
    _check_text(options, "name")
    shape_of(options)
    check_env(options.get("runtime_env"))
    check_process(options)
    check_returns(options)
    _check_count(options, "max_retries", least=-1)
    _check_count(options, "max_calls", least=0)
    if options.get("version"):
        from zmreg.services.calling.literals import check_version  # late: few have one

        check_version(options["version"])
    exceptions_of(options.get("retry_exceptions", False))
    if not isinstance(options.get("cache", False), bool):
        raise TypeError(f"cache must be a bool, not {options['cache']!r}")


def check_cached(options: Mapping[str, Any]) -> None:
    """ValueError for a function whose results cannot be remembered: each call has one value."""
    if options.get("num_returns") not in (None, 1):
        raise ValueError(f"cache=True is for functions with one value, and not num_returns={options['num_returns']!r}")


def check_actor_options(options: Mapping[str, Any]) -> None:
    """TypeError or ValueError for values no actor can have."""
    check_names(options, ACTOR_OPTIONS, "an actor")
    check_manner(options)
    shape_of(options)
    check_env(options.get("runtime_env"))
    check_process(options)
    check_returns(options)
    for count in ("max_restarts", "max_task_retries", "max_pending_calls"):
        _check_count(options, count, -1)
    _check_count(options, "max_concurrency", 1)
    order = options.get("allow_out_of_order_execution")
    if not isinstance(order, (bool, type(None))):
        raise TypeError(f"allow_out_of_order_execution must be a bool, not {order!r}")
    name = options.get("name")
    if name is not None and (not isinstance(name, str) or not name):
        raise ValueError(f"name={name!r}: an actor's name is a string that is not empty; leave it out for none")
    _check_text(options, "namespace")
    if options.get("get_if_exists") and not name:
        raise ValueError("get_if_exists=True needs name=...")
    if options.get("lifetime") not in (None, "detached", "non_detached"):
        raise ValueError(f"lifetime={options['lifetime']!r}: use None or 'detached'")


def check_method_options(options: Mapping[str, Any]) -> None:
    """TypeError or ValueError for values no method of an actor can have."""
    check_names(options, METHOD_OPTIONS, "an actor method")
    check_manner(options)
    check_returns(options)
    _check_count(options, "max_task_retries", -1)
    exceptions_of(options.get("retry_exceptions"))
    for name in ("name", "concurrency_group", "batch"):
        _check_text(options, name)
    if not isinstance(options.get("release", False), bool):
        raise TypeError(f"release must be a bool, not {options['release']!r:.80}")


def check_process(options: Mapping[str, Any]) -> None:
    """TypeError, ValueError for a `process` that is no name, or cannot stay."""
    name = options.get("process")
    if name is None:
        return
    if not isinstance(name, str):
        raise TypeError(f"process must be a str, not {name!r:.80}")
    if not 0 < len(name) <= NAME_CHARS or "\0" in name:
        raise ValueError(f"process={name!r:.100}: the name of a process has 1 to {NAME_CHARS} characters")
    if options.get("max_calls"):
        raise ValueError("max_calls ends the process, and process= has it stay for others: give one of them")


def _check_text(options: Mapping[str, Any], name: str) -> None:
    if not isinstance(value := options.get(name), (str, type(None))):
        raise TypeError(f"{name} must be a str, not {value!r:.80}")


def _check_count(options: Mapping[str, Any], name: str, least: int) -> None:
    value = options.get(name)
    if value is None:
        return
    if not isinstance(value, int) or isinstance(value, bool):
        raise TypeError(f"{name} must be an int, not {value!r}")
    if value < least:
        raise ValueError(f"{name}={value} is out of range; the least is {least}")


def shape_of(options: Mapping[str, Any]) -> Shape:
    """The resource shape of a task. ValueError, TypeError as core-api row 5 has them."""
    return Shape.of(
        options.get("num_cpus"), options.get("num_gpus"), resources_of(options), options.get("locs") or (),
        options.get("memory"), strategy_of(options.get("scheduling_strategy")), terms_of(options),
    )  # fmt: skip


def resources_of(options: Mapping[str, Any]) -> Mapping[str, float] | None:
    """`resources`, with a little of what nodes with that `accelerator_type` have. TypeError, ValueError."""
    resources: Mapping[str, float] | None = options.get("resources")
    if resources is not None:
        check_amounts(resources, "resources")
    if (kind := options.get("accelerator_type")) is None:
        return resources
    check_name(kind, "accelerator_type")
    return {**(resources or {}), ACCELERATOR + kind: ACCELERATOR_SHARE}


def terms_of(options: Mapping[str, Any]) -> Terms:
    """`Shape.terms` of what few options say. ValueError, TypeError for what makes no sense."""
    selector, priority = options.get("label_selector"), options.get("priority")
    strategy = options.get("scheduling_strategy")
    terms = {} if strategy is None else labels_of(strategy)
    if selector is not None:
        terms |= selected(selector, LABEL, "label_selector")
    if not isinstance(priority, int | None) or isinstance(priority, bool):
        raise TypeError(f"priority must be an int, not {priority!r:.80}")
    if priority:
        terms[PRIORITY] = str(priority)
    return tuple(sorted(terms.items()))


def exceptions_of(value: Any) -> bool | tuple[type[BaseException], ...]:
    """`retry_exceptions`: a bool, or exception classes. TypeError otherwise."""
    if isinstance(value, bool) or value is None:
        return bool(value)
    classes = tuple(value) if isinstance(value, (list, tuple, set)) else (value,)
    if not all(isinstance(each, type) and issubclass(each, Exception) for each in classes):
        raise TypeError(f"retry_exceptions must be a bool or a list of Exception classes, not {value!r}")
    return classes


def max_calls_of(options: Mapping[str, Any]) -> int:
    """After how many calls a worker ends; 0 = never. A function that uses a GPU gives its memory back each time."""
    value = options.get("max_calls")
    return int(bool(options.get("num_gpus"))) if value is None else int(value)


def max_retries_of(options: Mapping[str, Any]) -> int:
    """How often a task is run again after its worker died; -1 = always."""
    value = options.get("max_retries")
    return int(os.environ.get("ZMREG_TASK_MAX_RETRIES", DEFAULT_MAX_RETRIES)) if value is None else int(value)
