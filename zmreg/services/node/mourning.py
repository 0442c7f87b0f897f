"""What a node does when a process or another node is gone: everybody is told, and what they held is let go."""

from __future__ import annotations

import select
import time
from collections.abc import Container, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from zmreg.model.ids import NODE_BYTES, node_of, owner_of
from zmreg.model.messages import AskKept, NodeGone, ProcessDied
from zmreg.store.begun import take_begun

if TYPE_CHECKING:
    from zmreg.services.node.node import Node
    from zmreg.services.node.nursery import Death

# What a worker said before it exited is in the kernel by then; our I/O thread needs this long at most to have read it.
# Waited for in vain only when user code ends a worker by sys.exit(0).
LAST_WORDS_S = 0.05
# 18 bytes each.
_ASKED_AT_ONCE = 10_000


class _Everything:
    """Contains whatever it is asked for."""

    def __contains__(self, _: object) -> bool:
        return True


EVERYTHING: Container[bytes] = _Everything()


class Mourning:
    """The deaths that one node hears of."""

    def __init__(self, node: Node) -> None:
        self._node = node

    def worker_died(self, death: Death) -> None:
        """A worker of ours is gone."""
        node, worker = self._node, death.worker
        node.spoken.last_words(death.name, death.pid, death.output)
        if not death.was_ready:
            text = f"{death.reason}\n{death.log_tail}".strip()
            leases = node.leases
            failed = leases.lodger_failed(worker, text) if death.house else leases.worker_start_failed(text)
            node.perform(failed)
            return
        if death.exit_code == 0 and not node.stopping:  # at our own end nothing follows from it
            self._hear_out(worker)
        word = ProcessDied(
            worker, death.exit_code, death.signal, death.words.running, node.guard.story_of(death), death.log_tail,
            worker in node.leaving, node.departure.draining, death.memory_bytes,
        )  # fmt: skip
        self._bury(word, death.words.sealed)
        node.perform(node.leases.worker_died(worker))
        node.restarting.worker_died(worker)

    def driver_gone(self, driver: bytes, goes_on: bool = False) -> None:
        """A driver that had a seat here has ended. If in peace, it has left to us what others need of its objects.
        `goes_on`: it has not, and may begin what it was sent."""
        left = driver in self._node.leaving
        begun = take_begun(Path(self._node.config["session"]), driver)
        self._bury(
            ProcessDied(
                driver, None, None, b"", "the driver left" if left else "the driver died", "", left,
                begun=b"" if goes_on else begun,
            )
        )  # fmt: skip

    def _bury(self, word: ProcessDied, sealed: Iterable[bytes] = ()) -> None:
        node, process = self._node, word.process
        node.adoption.owner_left(process)
        if node.named is not None:
            node.named.process_gone(process)
        if node.topics is not None:
            node.topics.gone(process)
        if node.visitors.metered is not None:
            node.visitors.metered.gone(process)
        node.leaving.discard(process)
        node.clients.pop(process, None)
        node.ends.forget(process)
        for other in node.other_nodes():
            node.post(other, word)
        self._spread(word, node.adoption if word.adopted else (), sealed)

    def far_death(self, word: ProcessDied) -> None:
        """A process of another node is gone. What that node has adopted lives on."""
        if self._node.named is not None:
            self._node.named.rows.process_gone(word.process)
        self._spread(word, EVERYTHING if word.adopted else ())
        if word.adopted:  # its node knows what is still needed of that, and we do not
            held = [
                each for each in self._node.registry.index.objects_of(self._node.me) if owner_of(each) == word.process
            ]
            for start in range(0, len(held), _ASKED_AT_ONCE):
                self._node.post(node_of(word.process), AskKept(tuple(held[start : start + _ASKED_AT_ONCE])))

    def _spread(self, word: ProcessDied, adopted: Container[bytes], sealed: Iterable[bytes] = ()) -> None:
        node, process = self._node, word.process
        for client in node.clients:
            node.post(client, word)
        node.store.process_died(process, adopted, sealed)
        node.adoption.process_died(process, word.adopted)
        if node.fetcher is not None:
            node.fetcher.process_died(process)
        node.spoken.gone(process)
        node.head.process_died(process, word.reason, adopted)
        node.placing.process_died(process)
        node.perform(node.leases.owner_died(process))

    def nobody_there(self, destination: bytes, origin: bytes, frame: bytes) -> bool:
        """A letter of a process of ours to another node, while we are the only one: told to it, as a death would be."""
        del frame
        if origin != self._node.me:
            self._node.post(origin, NodeGone(node_of(destination), "it is not a member of this cluster", False))
        return False

    def node_gone(self, word: NodeGone) -> None:
        """Another node is gone, and with it every process on it. What these owned lives on with its heir."""
        node, gone, prefix = self._node, word.node, word.node[:NODE_BYTES]
        adopted = EVERYTHING if word.heir else ()
        for client in node.clients:
            node.post(client, word)
        node.store.node_gone(gone, adopted)
        node.spoken.gone(prefix)
        node.restarting.node_gone(gone)
        node.adoption.node_gone(prefix, bool(word.heir))
        node.head.node_gone(gone, word.reason, adopted)
        node.placing.node_gone(gone)
        if node.topics is not None:
            node.topics.gone(gone)
        for owner in [each for each in node.leases.owners() if each.startswith(prefix)]:
            node.perform(node.leases.owner_died(owner))
        node.perform(node.leases.jobs_ended(prefix))
        if not word.heir and node.neighbours is not None:
            story = f"it had left, and node {gone.hex()}, which answered for what it owned, is gone: {word.reason}"
            for orphan in node.neighbours.heirs.orphaned(gone):
                self.node_gone(NodeGone(orphan, story, False))

    def _hear_out(self, worker: bytes) -> None:
        """Take the last words of a worker that may have left in peace. They were sent before it ended, but come by
        another way than the news of its end; without them an actor that ended itself would be restarted."""
        node = self._node
        poller = select.poll()
        poller.register(node.ends.door_fd, select.POLLIN)
        deadline = time.monotonic() + LAST_WORDS_S
        node.drain()
        while worker not in node.leaving and (left := deadline - time.monotonic()) > 0:
            poller.poll(left * 1e3)
            node.drain()
