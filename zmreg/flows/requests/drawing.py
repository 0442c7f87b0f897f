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


# Of a step's box, of the way to the next level, and of the one to the next step below; in pixels.
_BOX: Final = (150, 28)
_GAP: Final = (60, 14)
# Beyond, a browser is busy and nobody sees anything.
_MOST_DRAWN: Final = 400
_LABEL_CHARS: Final = 20


def to_svg(plan: Plan, states: Mapping[str, str] | None = None) -> str:
    """The same as a picture: a column for each level. Text instead, for graphs that are too large to look at."""
    if len(plan.steps) > _MOST_DRAWN:
        return f"{len(plan.steps)} steps: too many to draw; to_dot() writes them all down"
    from html import escape  # late: for notebooks alone

    (width, height), (across, down) = _BOX, _GAP
    at = {
        name: (10 + column * (width + across), 10 + row * (height + down))
        for column, names in enumerate(plan.levels)
        for row, name in enumerate(names)
    }
    size = [max((place[axis] for place in at.values()), default=0) + 10 + _BOX[axis] for axis in (0, 1)]
    lines = [f'<svg xmlns="http://www.w3.org/2000/svg" width="{size[0]}" height="{size[1]}" font-size="11">']
    for name, dependant in _edges(plan):
        (x1, y1), (x2, y2) = at[name], at[dependant]
        ends = f'x1="{x1 + width}" y1="{y1 + height // 2}" x2="{x2}" y2="{y2 + height // 2}"'
        lines.append(f'<line {ends} stroke="#888"/>')
    for name, (x, y) in at.items():
        colour = COLOURS[states[name]] if states and name in states else "white"
        label = _label(plan, name)
        shown = label if len(label) <= _LABEL_CHARS else f"{label[: _LABEL_CHARS - 1]}…"
        lines.append(
            f'<g><title>{escape(label)}</title><rect x="{x}" y="{y}" width="{width}" height="{height}" rx="4" '
            f'fill="{colour}" stroke="#555"/><text x="{x + 8}" y="{y + 18}">{escape(shown)}</text></g>'
        )
    return "".join([*lines, "</svg>"])
