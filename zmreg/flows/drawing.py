"""A request's graph as text that others draw: Mermaid and Graphviz. Arrows go from a step to who takes its value."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from zmreg.core.graph_run import StepState
from zmreg.core.graphs import Plan

COLOURS: Final[Mapping[str, str]] = {
    StepState.WAITING: "#eeeeee",
    StepState.QUEUED: "#ffe9a8",
    StepState.RUNNING: "#a8d4ff",
    StepState.DONE: "#b6e6b6",
    StepState.FAILED: "#ffb3b3",
    StepState.CANCELLED: "#c8c8c8",
}


def to_mermaid(plan: Plan, states: Mapping[str, str] | None = None) -> str:
    """`states`: {step: state}, as `Trace.states` has them; a step without one is not coloured."""
    ids = {name: f"s{number}" for number, name in enumerate(plan.steps)}
    lines = ["flowchart TD"]
    lines += [f'    {ids[name]}["{_mermaid(_label(plan, name))}"]' for name in plan.steps]
    lines += [f"    {ids[name]} --> {ids[dependant]}" for name, dependant in _edges(plan)]
    for state, names in _by_state(plan, states or {}).items():
        lines.append(f"    classDef {state} fill:{COLOURS[state]}")
        lines.append(f"    class {','.join(ids[name] for name in names)} {state}")
    return "\n".join(lines) + "\n"


def to_dot(plan: Plan, states: Mapping[str, str] | None = None) -> str:
    """As `to_mermaid`."""
    colour_of = {name: COLOURS[state] for name, state in (states or {}).items()}
    lines = ["digraph request {", "    node [shape=box, style=filled, fillcolor=white];"]
    for name in plan.steps:
        colour = f', fillcolor="{colour_of[name]}"' if name in colour_of else ""
        lines.append(f"    {_dot(name)} [label={_dot(_label(plan, name))}{colour}];")
    lines += [f"    {_dot(name)} -> {_dot(dependant)};" for name, dependant in _edges(plan)]
    return "\n".join([*lines, "}"]) + "\n"


def _edges(plan: Plan) -> list[tuple[str, str]]:
    return [(dep, name) for name, deps in plan.deps.items() for dep in deps]


def _label(plan: Plan, name: str) -> str:
    fun = plan.steps[name].fun
    return name if fun == name else f"{name}: {fun}"


def _by_state(plan: Plan, states: Mapping[str, str]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name in plan.steps:
        if name in states:
            found.setdefault(states[name], []).append(name)
    return found


def _mermaid(text: str) -> str:
    codes = {character: f"#{ord(character)};" for character in '"#<>&\n\\`'}
    return "".join(codes.get(character, character) for character in text)


def _dot(text: str) -> str:
    escaped = text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
    return f'"{escaped}"'
