"""Lines between two processes of one node, for what is asked thousands of times a second. Not public."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from zmreg.services.calling.lines import Address, HasRefsError, Line, LineLostError, LineServer
from zmreg.services.seat.seats import client


def serve_lines(serve: Callable[..., Any]) -> LineServer:
    """Have processes of this node ask `serve(*question)`; its `address` may be sent to them. Raises OSError."""
    here = client()
    return LineServer(here.session, here.node, serve)


def line_to(address: Address) -> Line | None:
    """A line to the one that serves there; None: it is on another node, or gone."""
    if address[0] != client().node:
        return None
    try:
        return Line(address)
    except LineLostError:
        return None


__all__ = ["Address", "HasRefsError", "Line", "LineLostError", "LineServer", "line_to", "serve_lines"]
