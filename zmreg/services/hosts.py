"""The caller's side of a process that serves named functions: it lives as long as its process, and never comes back."""

from __future__ import annotations

from collections import deque
from typing import Final

from zmreg.model.errors import FunctionWithdrawnError, WorkerDiedError
from zmreg.model.ids import NODE_BYTES, node_of, short
from zmreg.model.messages import ActorState, ProcessDied
from zmreg.services.calls import Task
from zmreg.services.peers import Peer, PeerKeeper

MAX_THREADS: Final = 64
"""Calls of plain functions that one host runs at once; more wait in the order they came."""
CODE_TARGET: Final = "\0code"
"""What gives the code of another target, its one argument."""


class HostPeer(Peer):
    """A serving process as one caller sees it. Calls run side by side there, in no order."""

    def __init__(self, keeper: PeerKeeper, me: bytes, host: bytes, node_name: str = "") -> None:
        super().__init__(keeper, me, host, "host", ordered=False)
        self._title = f"the process {short(host)} on node {node_name or short(node_of(host)[:NODE_BYTES])}"
        self.on_state(ActorState(host, "alive", host, 0, b"", False, 0))

    def place(self, task: Task) -> None:
        """Send a call."""
        if self.state == "dead":
            self._keeper.fail(task, FunctionWithdrawnError(f"{self._title} is gone"))
            return
        super().place(task)

    def process_died(self, message: ProcessDied) -> None:
        """What was sent may have run. Whoever called decides whether it is called again elsewhere."""
        queue, self.queue = self.queue, deque()
        for task in queue:
            self._keeper.fail(task, FunctionWithdrawnError(f"{self._title} is gone"))
        super().process_died(message)
        self.on_state(ActorState(self.actor_id, "dead", message.process, 0, message.reason.encode(), False, 0))

    def _death_of(self, message: ActorState) -> WorkerDiedError:
        why = message.failure.decode(errors="replace") or "it ended"
        return WorkerDiedError(
            f"{self._title}, which was to run it, is gone ({why}); it may have run. Allow repeats with retries="
        )
