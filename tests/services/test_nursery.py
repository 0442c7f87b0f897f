"""The node asks its zygote for workers, and never waits for it."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

from zmreg.services.node import zygote as zygotes
from zmreg.services.node.nursery import Nursery

WORKERS = 3_000
"""More than the channel has room for, both ways (some 280 packets each)."""
BOUND_S = 30.0


def test_a_thousand_starts_at_once_and_a_zygote_that_answers_each_do_not_wait_for_each_other(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    nursery = Nursery(ours, 0, {"session": str(tmp_path), "node": "00" * 8}, lambda death: None)
    asked = []

    def zygote() -> None:  # as `Zygote.run`: one request after the other, and each is answered before the next
        while packet := theirs.recv(zygotes.PACKET_BYTES):
            worker = json.loads(packet)["fork"]
            asked.append(bytes.fromhex(worker))
            theirs.send(json.dumps({"forked": worker, "pid": len(asked)}).encode())

    def node() -> None:
        for _ in range(WORKERS):
            nursery.start()
        while any(not child.pid for child in nursery.children.values()):
            assert nursery.hear()

    sides = [threading.Thread(target=side, daemon=True) for side in (zygote, node)]
    for side in sides:
        side.start()
    sides[1].join(BOUND_S)
    assert not sides[1].is_alive(), "the node waits for room in a channel whose reader waits for the node"
    assert asked == list(nursery.children) and len(asked) == WORKERS
    ours.shutdown(socket.SHUT_RDWR)
    sides[0].join(BOUND_S)
    for each in (ours, theirs):
        each.close()
