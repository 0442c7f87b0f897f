"""How things look in a notebook: small tables of what this process knows. Nothing here waits, fetches or asks anybody.

The one exception is a cluster, whose nodes are asked of the own node, for a fifth of a second at most.
"""

from __future__ import annotations

import html
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from zmreg.api.refs import age_of
from zmreg.model.errors import ZmregError
from zmreg.services.seat.client import current
from zmreg.services.seat.entries import STATE_NAMES, Entry, Stored, error_line
from zmreg.services.seat.ticks import old

if TYPE_CHECKING:
    from zmreg.api.actors import ActorHandle
    from zmreg.api.cluster import ClusterInfo
    from zmreg.api.functions import RemoteFunction
    from zmreg.api.streams import ObjectRefGenerator

ASK_S: Final = 0.2
_UNITS: Final = ("bytes", "KiB", "MiB", "GiB", "TiB")
_ROWS: Final = 50


def amount(size: float) -> str:
    """Bytes for people: 1.5 MiB."""
    unit = 0
    while size >= 1024 and unit < len(_UNITS) - 1:
        size, unit = size / 1024, unit + 1
    return f"{size:.0f} {_UNITS[unit]}" if not unit else f"{size:.1f} {_UNITS[unit]}"


def card(title: str, facts: Iterable[tuple[str, object]]) -> str:
    """A title, and a table of two columns. Empty facts are left out."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{html.escape(name)}</th><td style='text-align:left'>"
        f"{html.escape(str(fact))}</td></tr>"
        for name, fact in facts
        if fact not in ("", None)
    )
    return f"<div><code>{html.escape(title)}</code><table>{rows}</table></div>"


def grid(rows: Sequence[Mapping[str, Any]], columns: Sequence[str]) -> str:
    """A table with a heading; the first fifty rows."""
    head = "".join(f"<th>{html.escape(name)}</th>" for name in columns)
    body = "".join(
        "<tr>" + "".join(f"<td>{html.escape(_cell(row.get(name, '')))}</td>" for name in columns) + "</tr>"
        for row in rows[:_ROWS]
    )
    more = f"<tr><td>... and {len(rows) - _ROWS} more</td></tr>" if len(rows) > _ROWS else ""
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}{more}</tbody></table>"


def _cell(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {each:g}" for name, each in value.items() if name != "memory")
    return ", ".join(map(str, value)) if isinstance(value, (tuple, list)) else str(value)


# -- one for each kind of thing ----------------------------------------------------------------------------------------


def facts_of(entry: Entry) -> list[tuple[str, object]]:
    """State, type, size, holders, age, how long it took, and the error in one line; it does not count as read."""
    task, value = entry.task, entry.value
    holder = value.holder if isinstance(value, Stored) else b""
    return [
        ("state", STATE_NAMES[entry.state]),
        ("type", entry.type_name),
        ("size", amount(entry.nbytes) if entry.nbytes and entry.failure is None else ""),
        ("holder", holder.hex()),
        ("made by", task.template.name if task is not None else ""),
        ("age", old(age_of(entry))),
        ("ran for", f"{entry.took_us / 1e6:.3g} s" if entry.took_us else ""),
        ("error", error_line(entry)),
    ]


def of_function(function: RemoteFunction[..., Any]) -> str:
    """Its options, and what a call takes lately."""
    template = function._body.latest
    took = None if template is None else template.est_us
    options = {name: value for name, value in function._options.items() if value is not None}
    return card(
        repr(function),
        [
            ("module", getattr(function, "__module__", "")),
            ("options", ", ".join(f"{name}={value!r:.60}" for name, value in options.items())),
            ("a call takes", "" if took is None else f"{took / 1e6:.3g} s"),
        ],
    )


def of_actor(handle: ActorHandle[Any]) -> str:
    """Its state, as far as this process has heard of it by its own calls."""
    seat = current()
    peer = None if seat is None else seat.tasks.peers.get(handle._actor_id)
    return card(
        repr(handle),
        [
            ("id", handle._actor_id.hex()),
            ("state", "not called from here" if peer is None else peer.state),
            ("calls under way", "" if peer is None else peer.backlog()),
            ("restarts", "" if peer is None else peer.restarts),
            ("methods", ", ".join(sorted(handle._facts[3]))),
            ("handle", "weak" if handle._lifeline is None else "keeps it alive"),
        ],
    )


def of_generator(generator: ObjectRefGenerator[Any]) -> str:
    """How far it is."""
    stream = generator._stream
    return card(
        repr(generator),
        [
            ("state", "ended" if stream.flow.over else "running"),
            ("age", old(age_of(generator._done._entry))),
            ("items ready", len(stream.ready)),
            ("items received", stream.flow.received),
        ],
    )


class NodeList(list[dict[str, Any]]):
    """A list of nodes, which a notebook shows as a table."""

    def _repr_html_(self) -> str:
        return grid(self, ("NodeName", "NodeID", "State", "IsHead", "Resources", "Available", "Locs", "Workers"))


def of_cluster(info: ClusterInfo) -> str:
    """Where it is, and its nodes."""
    facts = card(repr(info), [("address", info.address), ("node", info.node_id), ("session", info.session)])
    seat = current()
    if seat is None or seat.closed is not None or seat.node.hex() != info.node_id:
        return facts + "<em>this cluster is left: zmreg.init() takes a seat in one</em>"
    try:
        return facts + NodeList(seat.ask("nodes", timeout=ASK_S))._repr_html_()
    except ZmregError as error:
        return facts + f"<em>{html.escape(str(error))}</em>"
