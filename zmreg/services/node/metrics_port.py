"""The process beside a node that serves its metrics over HTTP, if `metrics_port` is set.

It is a visitor like any other (services/setup/metrics_door.py): whatever comes to its port, the node's
own loop has no part in.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from zmreg.services.node.node import Node

log = logging.getLogger("zmreg.metrics")

_PROGRAM: Final = "from zmreg.services.setup.metrics_door import main; main()"


def open_port(node: Node) -> None:
    """Start it. It ends by itself when this process does."""
    process = subprocess.Popen(
        # -P: as with nodes (services/setup/launch.py)
        [sys.executable, "-P", "-c", _PROGRAM, str(node.config["session"]), str(node.settings.metrics_port)],
        stdin=subprocess.DEVNULL,
        start_new_session=True,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)},
    )
    fd = os.pidfd_open(process.pid)

    def ended() -> None:
        node.unwatch(fd)
        os.close(fd)
        log.error("the process that served metrics on port %d has ended with code %d; its last words are above",
                  node.settings.metrics_port, process.wait())  # fmt: skip

    node.watch(fd, ended)
