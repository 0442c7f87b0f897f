"""What a process tells its node about itself (`Look`): on a thread of its own, whatever its main thread is in."""

from __future__ import annotations

import threading
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from zmreg.model.look_messages import Look, Looked
from zmreg.services.machine import stacks
from zmreg.wire import batches

if TYPE_CHECKING:
    from zmreg.services.seat.station import Station

_KIB: Final = 1024


def look(station: Station, message: Look) -> None:
    """Answer our node."""
    threading.Thread(target=_answer, args=(station, message), name="zmreg-look", daemon=True).start()


def _answer(station: Station, message: Look) -> None:
    body: Any
    if message.what == "stacks":
        body = stacks.of_this_process()
    else:
        arena = station.welcome.arena if station.welcome is not None else ""
        own, shared, store = mapped("self", arena)
        body = {"own": own, "shared": shared, "store": store, "refs": station.sharing.statistics()}
    with station.lock:
        if station.closed is None:
            station.tell_node(Looked(message.request, batches.pack_plain(body)))


def mapped(pid: int | str, arena: str) -> tuple[int, int, int]:
    """Memory of a process in bytes: what is its own alone (USS), what it shares with others, pages of the store.

    Pages of the store are nobody's own, however few have them mapped: they stay when the process ends. OSError.
    """
    own = shared = store = 0
    in_store = False
    directory = str(Path(arena).parent) if arena else "\0"
    for line in Path(f"/proc/{pid}/smaps").read_text(errors="replace").splitlines():
        name, _, rest = line.partition(" ")
        if not name.endswith(":"):
            in_store = directory in rest
        elif in_store:
            if name == "Rss:":
                store += int(rest.split()[0])
        elif name in ("Private_Clean:", "Private_Dirty:"):
            own += int(rest.split()[0])
        elif name in ("Shared_Clean:", "Shared_Dirty:"):
            shared += int(rest.split()[0])
    return own * _KIB, shared * _KIB, store * _KIB
