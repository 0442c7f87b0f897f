"""Somebody who only asks: a command's short visit to a node, and by letters to all others. Unpickles nothing."""

from __future__ import annotations

import contextlib
import os
import select
import time
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType
from typing import Any, Final

from zmreg.model.errors import ClusterError, ProtocolError
from zmreg.model.ids import new_driver_id
from zmreg.model.messages import Answer, Ask, Goodbye, Hello, Message
from zmreg.model.settings import Settings
from zmreg.net.sockets import Ends
from zmreg.services.network.leaving import VISITOR as VISITOR
from zmreg.services.setup import sessions
from zmreg.services.setup.finding import find, only_one
from zmreg.services.setup.sessions import Word
from zmreg.wire import batches, codec

ANSWER_S: Final = 5.0
_LEAVE_S: Final = 5.0
# A node that joins to ask has no room for anybody's objects.
_STORE_BYTES: Final = 1 << 20


class Observer:
    """A seat for questions at a node of this machine; a context manager."""

    def __init__(self, word: Word) -> None:
        """Raises ClusterError when the node is gone."""
        self.word = word
        try:
            self._pidfd = os.pidfd_open(word.pid)
        except ProcessLookupError:
            raise ClusterError(f"node {word.title()} is gone; `zmreg clusters` shows which are up") from None
        try:
            self._ends = Ends(Path(word.session), new_driver_id(word.node_id))
        except BaseException:
            os.close(self._pidfd)
            raise
        self._asked = 0
        self._say(word.node_id, Hello("observer", os.getpid()))

    def ask(self, topic: str, key: str = "", timeout: float = ANSWER_S) -> Any:
        """The node's answer, None when there is no such thing. ClusterError when none comes in time."""
        found = self.ask_all([self.word.node], topic, key, timeout)
        if self.word.node not in found:
            raise ClusterError(f"node {self.word.title()} did not answer a question about {topic!r} in {timeout:g} s")
        return found[self.word.node]

    def ask_all(self, nodes: Iterable[str], topic: str, key: str = "", timeout: float = ANSWER_S) -> dict[str, Any]:
        """{node id: its answer} of those that answer within `timeout` seconds. ClusterError when our node is gone."""
        open_questions: dict[int, str] = {}
        for node in nodes:
            self._asked += 1
            open_questions[self._asked] = node
            self._say(bytes.fromhex(node), Ask(self._asked, topic, key))
        answers: dict[str, Any] = {}
        deadline = time.monotonic() + timeout
        poller = select.poll()
        poller.register(self._ends.door_fd, select.POLLIN)
        poller.register(self._pidfd, select.POLLIN)
        while open_questions:
            while self._ends.pending():
                answer = self._hear()
                if answer is not None and answer.request in open_questions:
                    node = open_questions.pop(answer.request)
                    answers[node] = batches.unpack_plain(answer.body) if answer.found else None
            left = deadline - time.monotonic()
            if not open_questions or left <= 0:
                break
            if any(fd == self._pidfd for fd, _ in poller.poll(left * 1e3)):
                raise ClusterError(f"node {self.word.title()} ended while it was asked about {topic!r}")
        return answers

    def ask_much(self, nodes: Iterable[str], topic: str, key: str, timeout: float) -> dict[str, Any]:
        """As `ask_all`, for what nodes answer compressed (services/node/looks.py); without those that have no
        answer."""
        answers = self.ask_all(nodes, topic, key, timeout)
        found = {node: body for node, body in answers.items() if body is not None}
        return {node: batches.unpack_plain(zlib.decompress(body)) for node, body in found.items()}

    def alive(self) -> list[str]:
        """The ids of the nodes that live, the one we visit first."""
        return [row["NodeID"] for row in self.ask("nodes") if row["Alive"] and row["NodeName"] != VISITOR]

    def _hear(self) -> Answer | None:
        _, frame = self._ends.receive()
        with contextlib.suppress(ProtocolError):
            message = codec.decode(frame)
            return message if isinstance(message, Answer) else None
        return None

    def _say(self, peer: bytes, message: Message) -> None:
        self._ends.send(peer, codec.encode(message))

    def close(self) -> None:
        """Leave. Idempotent."""
        if self._pidfd >= 0:
            self._say(self.word.node_id, Goodbye())
            self._ends.close(clean=True)
            os.close(self._pidfd)
            self._pidfd = -1

    def __enter__(self) -> Observer:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()


def of_a_program() -> Word:
    """The node of a program of its own, if just one runs here. ClusterError otherwise."""
    word = only_one(sessions.running())
    if word is None:
        raise ClusterError(
            "no cluster of yours runs on this machine: give the address of one with --address, or start one with "
            "`zmreg start --head`"
        )
    return word


@contextlib.contextmanager
def observe(address: str | None, key: str | None = None) -> Iterator[Observer]:
    """Visit a node of the cluster that is meant (see finding.py). On a machine that has none, one joins for so long.

    Raises ClusterError when there is no cluster or it does not answer, AuthenticationError.
    """
    found = find(address, key) or of_a_program()
    if isinstance(found, Word):
        with Observer(found) as observer:
            yield observer
        return
    from zmreg.services.setup.launch import launch  # late: few have no node on their machine

    launched = launch(Settings(num_cpus=0.0, object_store_bytes=_STORE_BYTES), found.listening(VISITOR))
    try:
        with Observer(sessions.read_word(launched.session)) as observer:
            yield observer
    finally:
        launched.process.terminate()
        launched.wait_end(_LEAVE_S)
