"""How a node that is one of several begins: its keys, its ports, the record it shows to others."""

from __future__ import annotations

import os
import platform
import socket
from pathlib import Path
from typing import TYPE_CHECKING

from zmreg.model.errors import ClusterError
from zmreg.model.messages import NodeRecord
from zmreg.model.settings import Listening
from zmreg.model.version import VERSION
from zmreg.net.mesh import advertised
from zmreg.services.head.head import Head
from zmreg.services.network import failpoints
from zmreg.services.network.neighbours import Neighbours
from zmreg.services.setup import keys
from zmreg.services.setup.addresses import is_loopback, split_address

if TYPE_CHECKING:
    from zmreg.services.head.ledger import Ledger
    from zmreg.services.node.node import Node


def listen(node: Node, listening: Listening) -> None:
    """Open the ports; join, if there is somebody to join. Raises AuthenticationError, ClusterError."""
    key = keys.load(Path(listening.key_file))
    contact = split_address(listening.contact) if listening.contact else None
    if contact is not None and is_loopback(listening.host) and not is_loopback(contact[0]) and not listening.advertise:
        raise ClusterError(
            f"a node that listens on {listening.host} cannot be reached from {contact[0]}: give an address of this "
            "machine that can, with --host"
        )
    pub_port = listening.pub_port or (listening.port + 1 if listening.port else 0)
    ledger = _ledger(node, listening, key.cluster_id)
    mesh = failpoints.mesh_class()(node.me, key.keys, listening.host, listening.port, pub_port)
    try:
        host = listening.advertise or advertised(listening.host, contact[0] if contact else "192.0.2.1")
        first = NodeRecord(
            node.me, listening.name or socket.gethostname(), host, listening.advertise_port or mesh.port,
            listening.advertise_pub_port or mesh.pub_port, contact is None,
            platform.python_version(), VERSION, os.getpid(), tuple(sorted(node.total.items())), (),
            node.settings.locs, node.store.nbytes, 0, 0, 0,
        )  # fmt: skip
    except ClusterError:
        mesh.close()
        raise

    labels = tuple(sorted(node.settings.labels.items()))

    def record() -> NodeRecord:
        now = node.leases.statistics()
        used = node.store.used_bytes()
        draining = node.departure.draining
        epoch = node.neighbours.members.epoch if node.neighbours is not None else 0
        return first.but(
            total=node.leases.total(), available=now.available, store_used_bytes=used, workers=now.workers,
            waiting=now.waiting, draining=draining, epoch=epoch, devices=node.leases.free_devices(), labels=labels,
        )  # fmt: skip

    node.cluster = key.cluster_id
    node.neighbours = Neighbours(node, mesh, record, contact)
    if ledger is not None and isinstance(node.head, Head):
        node.neighbours.members.epoch = ledger.epoch
        for gone in ledger.graves:
            node.neighbours.members.on_declared_dead(gone, "it was gone before this head started")
        node.head.take_over(ledger)


def _ledger(node: Node, listening: Listening, cluster: str) -> Ledger | None:
    """What a head that is to survive its restarts writes into. First of all: two heads are not to meet at the port."""
    if listening.contact or not listening.state_dir:
        return None
    from zmreg.services.head.ledger import open_ledger

    return open_ledger(Path(listening.state_dir), cluster, node.me)
