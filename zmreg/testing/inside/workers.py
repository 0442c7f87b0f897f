"""A worker of a cluster within one process."""

from __future__ import annotations

from zmreg.services.worker import threaded
from zmreg.testing.inside.ends import MemoryEnds


class ThreadWorker(threaded.ThreadWorker):
    """One worker, as a thread of the program."""

    ends_kind = MemoryEnds
    shares_process = True

    def _on_devices(self, devices: tuple[str, ...]) -> None:
        """The environment is the program's, and stays as it is."""
        self.devices = devices
