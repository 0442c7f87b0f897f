"""Whether there is room for all stages of a pipeline at once, and what each waits for before it begins.

They run at the same time, so one that waits for what another holds waits for ever.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from zmreg.api.cluster import cluster_resources
from zmreg.flows.pipelines.pipeline_run import Plan
from zmreg.flows.pipelines.stages import StageSpec, StageTerms
from zmreg.model.errors import UnschedulableError


def check_room(plan: Plan) -> None:
    """Raises UnschedulableError when the stages want more than the cluster has, together."""
    wanted: dict[str, float] = {}
    for segment in plan.segments:
        terms = plan.specs[segment.name].terms
        each = {"CPU": terms.num_cpus or 0, "GPU": terms.num_gpus or 0, **dict(terms.resources)}
        for name, amount in each.items():
            wanted[name] = wanted.get(name, 0) + amount * terms.concurrency
    if not any(wanted.values()):
        return
    there = cluster_resources()
    for name, amount in wanted.items():
        if amount > there.get(name, 0):
            raise UnschedulableError(
                f"the stages of the pipeline run at the same time and want {amount:g} {name} together; all nodes have "
                f"{there.get(name, 0):g}: ask for less in stage(..., num_cpus=...), or start more nodes"
            )


def held_cpus(plan: Plan) -> float:
    """Of all stages together, as long as they run."""
    terms = [plan.specs[segment.name].terms for segment in plan.segments]
    return sum((each.num_cpus or 0) * each.concurrency for each in terms)


def roomy(plan: Plan, nodes: Iterable[Mapping[str, Any]]) -> dict[str, StageSpec]:
    """The stages as they are placed. One that asks for nothing begins where a whole CPU is free, and holds none; where
    others of the pipeline hold some, and none of `nodes` (rows of `zmreg.nodes`) has one beside them, it waits for
    none: it could be for ever."""
    held = held_cpus(plan)
    if not held:
        return plan.specs
    large = [node for node in nodes if node["Alive"] and node["Resources"].get("CPU", 0) >= held + 1]

    def placed(terms: StageTerms) -> StageTerms:
        if terms.num_cpus is not None or any(terms.locs <= set(node["Locs"]) for node in large):
            return terms
        return terms.but(num_cpus=0)

    return {name: spec.but(terms=placed(spec.terms)) for name, spec in plan.specs.items()}
