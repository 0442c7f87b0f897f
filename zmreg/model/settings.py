"""The settings of one cluster, read once when a process starts and then handed down unchanged."""

from __future__ import annotations

from dataclasses import dataclass, field

# 64 KiB: below this a copy through the socket is cheaper than two messages to the node's allocator (design.md 4).
INLINE_LIMIT_BYTES = 64 * 1024


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything a node and its workers need to know. Sizes in bytes, times in seconds."""

    num_cpus: float = 1.0
    num_gpus: float = 0.0
    resources: dict[str, float] = field(default_factory=dict)
    locs: tuple[str, ...] = ()
    labels: dict[str, str] = field(default_factory=dict)
    """What `label_selector=` asks for; for people, nothing is counted."""
    namespace: str = ""
    object_store_bytes: int = 0
    cache_bytes: int = 0
    """What copies of other nodes' objects may take of the store while nobody reads them; 0 = what is free there."""
    inline_limit_bytes: int = INLINE_LIMIT_BYTES
    max_workers: int = 0
    """Hard cap on worker processes of a node (tasks and actors together); 0 = from memory and process limits."""
    idle_worker_s: float = 10.0
    allocate_timeout_s: float = 30.0
    """How long a creator waits for room in a full store before ObjectStoreFullError."""
    memory_threshold: float = 0.95
    """Share of the machine's memory, or of a control group's limit, at which a worker is ended to save the rest; 0:
    never."""
    memory_check_s: float = 0.25
    """How often that is measured, to the next turn of 0.2 s; 0: never."""
    spill_bytes: int = 0
    """Cap of spilled bytes on disk; 0 = until 95 % of the disk is used."""
    registry_scope: str = "all"
    """Which objects' locations are told to all nodes: "all", "large" (1 MiB and more) or "owner" (none)."""
    dead_after_s: float = 10.0
    """A node that has been silent so long is declared dead by the head. The same on all nodes of a cluster."""
    drain_grace_s: float = 10.0
    """When a node leaves in peace, what runs there may take so long to finish; then it is tried again elsewhere."""
    head_timeout_s: float = 60.0
    """So long what needs a head waits for one to come back; after that it is HeadUnavailableError."""
    log_to_driver: bool = True
    log_bytes_per_s: int = 1 << 20
    log_bytes_per_worker: int = 64 << 20
    log_dedup_s: float = 5.0
    """Lines that several workers print alike within this time are shown once, and counted; 0: each is shown."""
    metrics_port: int = 0
    """Where a process beside the node serves its metrics over HTTP, on loopback; 0: nowhere."""


DEFAULT_PORT = 7550


@dataclass(frozen=True, slots=True)
class Listening:
    """How a node is one of several: where it listens, and whom it joins. Without this it has no port at all."""

    key_file: str
    """The cluster's key (services/setup/keys.py)."""
    host: str = "127.0.0.1"
    port: int = 0
    """0 = any free one."""
    pub_port: int = 0
    """0 = any free one for port 0, else the next after `port`."""
    advertise: str = ""
    """How others reach this machine, when that is not `host`."""
    contact: str = ""
    """HOST:PORT of any node of the cluster to join; empty: this node is the head."""
    state_dir: str = ""
    """Where the head keeps what survives a restart."""
    name: str = ""
    """What people call this node; by default the host's name."""
    detached: bool = False
    """Goes on when the process that started it ends."""
    advertise_port: int = 0
    """The port others reach us by, when there is something in between; 0 = `port`."""
    advertise_pub_port: int = 0
    """The same for `pub_port`."""
