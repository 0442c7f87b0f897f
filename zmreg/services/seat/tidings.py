"""What a process makes of the news its node brings: who has died, left or changed. All under the client's lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from zmreg.model.ids import NODE_BYTES, node_of
from zmreg.model.look_messages import Look
from zmreg.model.messages import AskRepeatable, HeadChanged, NodeGone, ProcessDied, Repeatable
from zmreg.services.calling.obituary import UNKNOWN, may_repeat

if TYPE_CHECKING:
    from zmreg.services.seat.station import Station


def process_died(seat: Station, message: ProcessDied) -> None:
    """A process is gone; what it had of ours, and we of its, is settled."""
    seat.ends.forget(message.process)
    seat.tasks.process_died(message)
    seat.sharing.process_died(message.process, message.reason, node_of(message.process) if message.adopted else b"")


def asked_whether_repeatable(seat: Station, node: bytes, message: AskRepeatable) -> None:
    """Memory runs short on a node. What has ended meanwhile loses nothing by its worker's end."""
    task = seat.tasks.live.get(message.counter)
    seat.post(node, Repeatable(message.worker, message.counter, task is None or may_repeat(task)))


def node_gone(seat: Station, message: NodeGone) -> None:
    """Every process on it is gone, and nobody can tell what it was at."""
    prefix = message.node[:NODE_BYTES]
    seat.tasks.gone_nodes.bury(message.node)
    seat.copying.node_gone(message.node)
    node_drains(seat, message.node)
    reason = f"its node is gone: {message.reason}"
    if message.heir:  # every process there has left before, and its heir is known to the nodes
        seat.sharing.node_left(message.node, message.heir)
    there = seat.tasks.processes_on(prefix) | (set() if message.heir else seat.sharing.processes_on(prefix))
    for process in there if message.heir else there | {message.node}:
        word = ProcessDied(process, None, None, UNKNOWN, reason, "", bool(message.heir), bool(message.heir))
        process_died(seat, word)


def node_drains(seat: Station, node: bytes) -> None:
    """A node gives no more leases: what waits for it goes elsewhere."""
    for pool in list(seat.tasks.pools.values()):  # what waits there may open another
        pool.node_gone(node)


def head_changed(seat: Station, message: HeadChanged) -> None:
    """Another head knows nothing of who listens and who asks; none for long: nobody is to wait for it."""
    seat.questions.on_head(message.reason)
    seat.tasks.on_head(seat.questions.headless)


def asked_how_it_is(seat: Station, _node: bytes, message: Look) -> None:
    """Our node wants to show our stacks, our memory or our metrics to somebody."""
    if message.what in ("metered", "metrics"):
        from zmreg.services.seat.metering import answer

        return answer(seat, message)
    if message.what.startswith("profile "):
        from zmreg.services.seat.profiled import tell as tell_profile

        return tell_profile(seat, message)
    from zmreg.services.seat.looked import look  # late: few are ever asked
    from zmreg.services.seat.remembered import tell
    from zmreg.services.seat.stopped import tell as tell_stopped

    if not (tell(seat, message) or tell_stopped(seat, message)):
        look(seat, message)
