"""The node's side of `zmreg stack` and `zmreg memory`: it asks the processes of its machine and collects.

The node waits for nobody: a thread that lives as long as one question does, and wakes the loop with what there is.
"""

from __future__ import annotations

import logging
import os
import threading
import time
import zlib
from collections import deque
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from zmreg.model.errors import ProtocolError
from zmreg.model.look_messages import Look, Looked
from zmreg.model.messages import Answer, Ask
from zmreg.services.calling.manners import read
from zmreg.services.machine import stacks
from zmreg.services.machine.memory import own_bytes
from zmreg.services.machine.usage import usage_of
from zmreg.services.node import on_demand
from zmreg.services.seat.looked import mapped
from zmreg.store.board import described, showing
from zmreg.store.objects import some
from zmreg.wire import batches

if TYPE_CHECKING:
    from zmreg.services.node.node import Node
    from zmreg.services.node.nursery import Child

log = logging.getLogger("zmreg.looks")

STACKS: Final = "stacks"
MEMORY: Final = "memory"
METRICS: Final = "metrics"
# About calls (services/seat/asking.py); the key has this node's id in front.
CALLS: Final = "calls"
WHY: Final = "why"
QUEUED: Final = "queued"
STOPPED: Final = "stopped"
# Of stacks, again and again: the key goes on with a token, microseconds between samples and who asks.
PROFILE: Final = "profile"
_OF_CALLS: Final = (CALLS, WHY, QUEUED, STOPPED, PROFILE)
# A process that runs, and lets others run, answers in milliseconds; then the signal is tried.
ANSWER_S: Final = 1.0
SIGNAL_S: Final = 1.0
# All signals of one question together: who asks waits a little longer (tools/cli/looking.py).
SIGNALS_S: Final = 8.0
MOST_OBJECTS: Final = 10_000


class _Question:
    """One question to this node, and the answers of its processes so far."""

    def __init__(self, who: bytes, ask: Ask, asked: dict[bytes, int]) -> None:
        self.who = who
        self.ask = ask
        self.pids = asked
        self.found: dict[bytes, Any] = {}
        self.why: dict[bytes, str] = {}
        self.by_signal: set[bytes] = set()
        self.usage: dict[str, tuple[float, float, float]] = {}
        self.woke_at = 0.0
        self.all_there = threading.Event()
        if not asked:
            self.all_there.set()


class Looks:
    """One node's open questions."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._open: dict[int, _Question] = {}
        self._asked = 0
        self._ready: deque[int] = deque()
        self._one_signal = threading.Lock()
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        node.watch(self._wake, self._answer)

    def hear(self, who: bytes, ask: Ask) -> None:
        """`stacks` of all processes here or of the one whose id is the key; `memory`: the key is `size N` or `age N`;
        `metrics`; `calls`, `queued`, `why`, `profile`: the key is our id and what each process is to be asked.

        ValueError when it is neither."""
        only = bytes.fromhex(ask.key) if ask.topic == STACKS else b""
        if ask.topic == MEMORY:
            _limit(ask.key)
        what = f"{ask.topic} {ask.key.partition(' ')[2]}" if ask.topic in _OF_CALLS else ask.topic
        if ask.topic in (CALLS, QUEUED):
            int(ask.key.partition(" ")[2])
        if ask.topic == PROFILE:
            _, _, interval_us, _ = ask.key.split(" ")
            int(interval_us)
        pids = {process: hello.pid for process, hello in self._node.clients.items() if not only or process == only}
        if ask.topic == STACKS and not only:  # a process shows those of all in it
            pids = {process: pid for process, pid in pids.items() if not self._is_lodger(process)}
        self._asked += 1
        question = self._open[self._asked] = _Question(who, ask, pids)
        for process in pids:
            self._node.post(process, Look(self._asked, what))
        threading.Thread(target=self._wait, args=(self._asked, question), name="zmreg-looks", daemon=True).start()

    def on_looked(self, sender: bytes, message: Looked) -> None:
        """A process has answered."""
        question = self._open.get(message.request)
        if question is None or sender not in question.pids:
            return
        try:
            question.found[sender] = batches.unpack_plain(message.body)
        except ProtocolError:
            self._node.protocol_errors += 1
        if len(question.found) == len(question.pids):
            question.all_there.set()

    def _wait(self, number: int, question: _Question) -> None:
        question.all_there.wait(ANSWER_S)
        deadline = time.monotonic() + SIGNALS_S
        if question.ask.topic == STACKS:
            for process, pid in question.pids.items():
                if process not in question.found:
                    self._signal(question, process, pid, min(SIGNAL_S, deadline - time.monotonic()))
        elif question.ask.topic == METRICS:
            question.usage = self._usage(question.pids)
        question.woke_at = time.monotonic()
        self._ready.append(number)
        os.eventfd_write(self._wake, 1)

    def _usage(self, pids: dict[bytes, int]) -> dict[str, tuple[float, float, float]]:
        nursery = self._node.nursery
        workers = {pid for process, pid in pids.items() if process in nursery.children}  # one may have lodgers
        return usage_of(nursery.zygote_pid, workers)

    def _signal(self, question: _Question, process: bytes, pid: int, patience_s: float) -> None:
        if patience_s <= 0:
            question.why[process] = f"too many processes do not answer; {SIGNALS_S:g} s went by with others"
            return
        with self._one_signal:
            try:
                threads, why = stacks.by_signal(pid, self._node.config["session"], patience_s)
            except OSError as error:
                threads, why = [], f"its stacks cannot be read: {error}"
        if threads:
            question.by_signal.add(process)
            question.found.setdefault(process, threads)
        else:
            question.why[process] = why

    # -- on the loop ---------------------------------------------------------------------------------------------------

    def _answer(self) -> None:
        os.eventfd_read(self._wake)
        while self._ready:
            question = self._open.pop(self._ready.popleft())
            found = self._found(question)
            body = zlib.compress(batches.pack_plain(found))  # stacks are alike: a twentieth
            self._node.post(question.who, Answer(question.ask.request, True, batches.pack_plain(body)))

    def _found(self, question: _Question) -> Any:
        if question.ask.topic == METRICS:
            return on_demand.metered(self._node).rows(question.usage, question.woke_at)
        if question.ask.topic in _OF_CALLS:
            told = question.found
            return [{**self._process(each, pid), "Told": told.get(each)} for each, pid in question.pids.items()]
        return self._stacks(question) if question.ask.topic == STACKS else self._memory(question)

    def _stacks(self, question: _Question) -> list[dict[str, Any]]:
        rows = []
        for process in question.pids:
            how = "signal" if process in question.by_signal else "asked"
            rows.append(
                {
                    **self._process(process, question.pids[process]), "How": how,
                    "Threads": question.found.get(process, []), "Why": question.why.get(process, ""),
                }
            )  # fmt: skip
        if not question.ask.key:
            threads = stacks.of_this_process()
            rows.insert(0, {**self._me(), "How": "asked", "Threads": threads, "Why": ""})
        return rows

    def _memory(self, question: _Question) -> dict[str, Any]:
        node = self._node
        oldest, limit = _limit(question.ask.key)
        now = time.monotonic()
        objects = [
            {
                "ObjectID": each.object_id.hex(), "Bytes": each.nbytes, "State": each.state.value,
                "Primary": not each.secondary, "AgeSeconds": max(0.0, now - each.since),
                "CreatorID": each.creator.hex(), "Pins": {reader.hex(): pins for reader, pins in each.pins.items()},
            }
            for each in some(node.store.table, limit, oldest)
        ]  # fmt: skip
        processes = [{**self._me(), **_amounts(mapped("self", str(node.store.arena)))}]
        for process, pid in question.pids.items():
            row = self._process(process, pid)
            told = question.found.get(process)
            if told is not None and self._is_lodger(process):  # whose memory is that of its process, which is there
                row |= {**_amounts((0, 0, 0)), "Refs": told["refs"]}
            elif told is not None:
                row |= {**_amounts((told["own"], told["shared"], told["store"])), "Refs": told["refs"]}
            else:  # it does not come to answering: what the kernel tells at once, in which other forks' pages are too
                row |= _amounts((own_bytes(pid, with_children=False), 0, 0))
            row["Answered"] = told is not None
            processes.append(row)
        store = asdict(node.store.table.statistics())
        return {"NodeID": node.me.hex(), "Store": store, "Objects": objects, "Processes": processes}

    def _me(self) -> dict[str, Any]:
        me = self._node.me.hex()
        return {
            "ProcessID": me, "NodeID": me, "Pid": os.getpid(), "Role": "node", "Name": "node", "Task": "",
            "Answered": True, "Refs": {},
        }  # fmt: skip

    def _is_lodger(self, process: bytes) -> bool:
        child = self._node.nursery.children.get(process)
        return child is not None and bool(child.house)

    def _named_call(self, child: Child | None) -> str:
        """What a worker's call is named, where its caller has named it."""
        if child is None:
            return ""
        board = Path(self._node.config["session"]) / f"{child.worker.hex()}.now"
        task_id = showing(board)
        return read(described(board, task_id)).name if task_id else ""

    def _process(self, process: bytes, pid: int) -> dict[str, Any]:
        child, hello = self._node.nursery.children.get(process), self._node.clients.get(process)
        return {
            "ProcessID": process.hex(), "NodeID": self._node.me.hex(), "Pid": pid,
            "Role": hello.role if hello is not None else "gone",
            "Name": child.name if child is not None else "driver", "Task": self._named_call(child), "Refs": {},
        }  # fmt: skip


def _amounts(found: tuple[int, int, int]) -> dict[str, int]:
    return dict(zip(("OwnBytes", "SharedBytes", "StoreBytes"), found, strict=True))


def _limit(key: str) -> tuple[bool, int]:
    """(whether the oldest, else the largest; how many). ValueError."""
    by, _, most = key.partition(" ")
    if by not in ("size", "age"):
        raise ValueError(f"sort by size or age, not {by!r}")
    return by == "age", max(0, min(int(most), MOST_OBJECTS))
