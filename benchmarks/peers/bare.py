"""The floor: no framework. What it measures is each workload's `floor`: an echo, a memcpy, a pipe of chunks."""

from __future__ import annotations

from benchmarks.peers.base import Peer


class Bare(Peer):
    """pyzmq or memcpy by hand; starts nothing itself."""

    name = "bare"
    module = "zmq"
    distribution = "pyzmq"

    def start(self, workers: int, store_bytes: int | None = None) -> None:
        del workers, store_bytes  # each floor starts what it needs

    def stop(self) -> None:
        """Nothing was started."""
