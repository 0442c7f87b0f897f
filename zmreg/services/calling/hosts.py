"""The caller's side of a process that serves named functions: it lives as long as its process, and never comes back."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from zmreg.model.errors import FunctionWithdrawnError, WorkerDiedError
from zmreg.model.ids import NODE_BYTES, node_of, object_id, short
from zmreg.model.messages import ActorState, ProcessDied
from zmreg.services.calling.calls import Lane, Task
from zmreg.services.calling.peers import Peer, PeerKeeper
from zmreg.store.begun import may_have_begun

MAX_THREADS: Final = 64
"""Calls of plain functions that one host runs at once; more wait in the order they came."""
CODE_TARGET: Final = "\0code"
"""What gives the code of another target, its one argument."""


def target_of(name: str, version: str) -> str:
    """What stands in a call where an actor's method would."""
    return f"{name}\0{version}"


def targets_of(served: Iterable[str], name: str, version: str | None) -> list[str]:
    """Those of a name, in that version or in any."""
    return [
        target for target in served if target.partition("\0")[0] == name and version in (None, target[len(name) + 1 :])
    ]


class HostPeer(Peer):
    """A serving process as one caller sees it. Calls run side by side there, in no order."""

    def __init__(self, keeper: PeerKeeper, me: bytes, host: bytes, node_name: str = "") -> None:
        super().__init__(keeper, me, host, "host", ordered=False)
        self._title = f"the process {short(host)} on node {node_name or short(node_of(host)[:NODE_BYTES])}"
        self.on_state(ActorState(host, "alive", host, 0, b"", False, 0))

    def process_died(self, message: ProcessDied) -> None:
        """It does not come back. Whoever called decides whether what may have run is called again elsewhere."""
        super().process_died(message)
        self.on_state(ActorState(self.actor_id, "dead", message.process, 0, message.reason.encode(), False, 0))

    def _refuse(self, task: Task, may_have_run: bool = False) -> None:
        if may_have_run:
            super()._refuse(task, True)
        else:
            self._keeper.fail(task, FunctionWithdrawnError(f"{self._title} is gone"), unrun=True)

    def _may_have_run(self, lane: Lane, tasks: list[Task]) -> list[bool]:
        """By what the host has noted of itself (store/begun.py); all may have, when nobody could read that."""
        begun = self._died.begun if self._died is not None and self._died.process == lane.worker else b""
        return [not begun or may_have_begun(begun, object_id(self.me, task.counter)) for task in tasks]

    def _death_of(self, message: ActorState) -> WorkerDiedError:
        why = message.failure.decode(errors="replace") or "it ended"
        return WorkerDiedError(
            f"{self._title}, which was to run it, is gone ({why}); it may have run. Allow repeats with retries="
        )
