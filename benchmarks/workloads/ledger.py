"""What an actor's creation costs more when its head keeps a ledger.

`head_x` is how decision 0013 measured it: a head in this process, between stubs of a node and its neighbours, is told
of 3,000 anonymous actors, each ordered, placed, and come to life; its CPU with a ledger, the thread that writes
included, divided by that without, each the least of several: other load on the machine only ever adds.

The others are of real ones: two clusters of two nodes, the head of one with a state directory. Actors are made in turn
here and there, some at a time, each called once, and dropped. The head hosts none of them: what its process uses is
what it decides, says and writes down. Made so slowly, nearly each change of an actor is a commit of its own. Anonymous
actors do not wait for the disk, named ones do.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from importlib import import_module
from pathlib import Path
from select import select
from time import perf_counter, process_time
from typing import Any

from benchmarks.jobs import Counter
from benchmarks.measure import median
from benchmarks.peers.base import Feature, Peer
from benchmarks.workloads.base import Context, Figure, Figures, Target, Workload

ACTORS, QUICK_ACTORS = 3_000, 300
REPEATS, QUICK_REPEATS = 9, 2
NODE = b"node\0\0\0\0"
OWNER = b"node\0\0\0\1"

BATCH = 10
TURNS, QUICK_TURNS = 12, 2
TICK_S = 1 / os.sysconf("SC_CLK_TCK")


class _Site:
    """One of the two clusters, and what its head has used."""

    def __init__(self, cluster: Any) -> None:
        self.cluster = cluster
        self.wall: list[float] = []
        self.cpu: list[float] = []

    def turn(self, lib: Any, named: bool, number: int) -> None:
        """Make a batch, call each actor once, drop them."""
        lib.init(address=self.cluster.address, key=self.cluster.key_file, log_to_driver=False)
        try:
            actor_class = lib.remote(Counter)
            cpu, began = self._cpu_s(), perf_counter()
            options = [
                {"num_cpus": 0, "resources": {"far": 0.001}, **({"name": f"actor-{number}-{place}"} if named else {})}
                for place in range(BATCH)
            ]
            actors = [actor_class.options(**each).remote() for each in options]
            lib.get([actor.inc.remote() for actor in actors])
            self.wall.append((perf_counter() - began) / BATCH)
            self.cpu.append((self._cpu_s() - cpu) / BATCH)
        finally:
            lib.shutdown()

    def _cpu_s(self) -> float:
        """Seconds that all threads of the head's process have used, to the nanosecond where the kernel tells."""
        pid = self.cluster.nodes[0].pid
        try:
            threads = Path(f"/proc/{pid}/task").iterdir()
            return sum(int((thread / "schedstat").read_text("ascii").split()[0]) for thread in threads) / 1e9
        except OSError:
            fields = Path(f"/proc/{pid}/stat").read_text("ascii").rpartition(")")[2].split()
            return (int(fields[11]) + int(fields[12])) * TICK_S


@contextmanager
def _sites() -> Iterator[tuple[_Site, _Site]]:
    """Without a ledger, and with one."""
    cluster_class = import_module("zmreg.testing").LocalCluster
    nodes = [{"num_cpus": 1}, {"num_cpus": 1, "resources": {"far": 1}}]
    with ExitStack() as stack:
        directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-ledger-"))
        without = stack.enter_context(cluster_class(nodes=nodes))
        yield _Site(without), _Site(stack.enter_context(cluster_class(nodes=nodes, state_dir=directory)))


class _Placing:
    """Has room for any actor at once."""

    def choose_for_actor(self, *_: object) -> bytes:
        """The one node."""
        return NODE


class _Node:
    """In the place of the head's node: what is to be sent is encoded, and goes nowhere."""

    me = NODE

    def __init__(self, encode: Callable[[Any], bytes]) -> None:
        self.neighbours: None = None
        self.clients: dict[bytes, object] = {}
        self.placing = _Placing()
        self.head: Any = None
        self._encode = encode

    def watch(self, *_: object) -> None:
        """The ledger is settled by hand."""

    def unwatch(self, *_: object) -> None:
        """Nothing was watched."""

    def post(self, _: bytes, message: object) -> bool:
        """To a process."""
        self._encode(message)
        return True

    def tell(self, _: bytes, message: object) -> None:
        """To a node."""
        self._encode(message)

    def other_nodes(self) -> list[bytes]:
        """None."""
        return []


def head_alone_us(count: int, directory: str | None) -> float:
    """CPU of one actor, in microseconds, of a head with a ledger in that directory, or without one."""
    heads, messages, codec = (
        import_module(f"zmreg.{name}") for name in ("services.head.head", "model.messages", "wire.codec")
    )
    node = _Node(codec.encode)
    head = node.head = heads.Head(node)
    ledger = None
    if directory is not None:
        ledger = import_module("zmreg.services.head.ledger").open_ledger(Path(directory), "bench", NODE)
        head.take_over(ledger)
        head.homecoming.over = True
    said = []
    for number in range(count):
        actor, worker = OWNER + number.to_bytes(8, "big"), NODE[:4] + (number + 100).to_bytes(4, "big")
        order = messages.CreateActor(
            actor,
            "",
            "",
            "Counter",
            (("CPU", 10_000),),
            (),
            (),
            0,
            False,
            0,
            b"c" * 800,
            b"a" * 200,
            b"",
            b"h" * 200,
            False,
        )
        rest = (messages.ActorHosted(actor, worker), messages.Constructed(actor, b""))
        senders = (OWNER, NODE, worker)
        said.append(list(zip(senders, map(codec.encode, (order, *rest)), strict=True)))
    began = process_time()
    for number, words in enumerate(said):
        for sender, frame in words:
            head.hears(sender, codec.decode(frame))
        if ledger is not None and number % 50 == 0:
            ledger.settle()
    if ledger is not None:
        answers: list[str] = []
        ledger.after(answers.append)
        while not answers:
            select([ledger.fd], [], [], 5)
            ledger.settle()
    used = process_time() - began
    if ledger is not None:
        head.close()
    return 1e6 * used / count


def head_alone(quick: bool) -> Figures:
    """The ratio of the least of each, and the least with a ledger."""
    count, repeats = (QUICK_ACTORS, QUICK_REPEATS) if quick else (ACTORS, REPEATS)
    without, with_one = [], []
    head_alone_us(count // 10, None)
    for _ in range(repeats):
        without.append(head_alone_us(count, None))
        with tempfile.TemporaryDirectory(prefix="bench-ledger-") as directory:
            with_one.append(head_alone_us(count, directory))
    return {"head_x": min(with_one) / min(without), "head_us": min(with_one)}


def run(peer: Peer, context: Context) -> Figures:
    """All of it; medians of the ratios of neighbouring turns, and of what one actor takes with a ledger."""
    figures: dict[str, float] = {**head_alone(context.quick)}
    turns = QUICK_TURNS if context.quick else TURNS
    with _sites() as sites:
        for named in (False, True):
            for site in sites:
                site.turn(peer.lib, named, -1)  # zygotes, definitions
                site.wall.clear()
                site.cpu.clear()
            for number in range(turns):
                for site in sites if number % 2 else reversed(sites):
                    site.turn(peer.lib, named, number)
            without, with_one = sites
            kind = "named_" if named else ""
            figures[f"{kind}cpu_x"] = median([a / b for a, b in zip(with_one.cpu, without.cpu, strict=True)])
            figures[f"{kind}wall_x"] = median([a / b for a, b in zip(with_one.wall, without.wall, strict=True)])
            figures[f"{kind}cpu_us"] = 1e6 * median(with_one.cpu)
            figures[f"{kind}wall_ms"] = 1e3 * median(with_one.wall)
    return figures


WORKLOAD = Workload(
    name="ledger",
    title=(
        "creation of actors with a ledger against without: CPU of a head alone (head_x); in a cluster, ten at a time, "
        "time until all are called (wall_x), CPU of the head's process (cpu_x); and what one takes with it"
    ),
    figures=(
        Figure("head_x", digits=2),
        Figure("head_us"),
        Figure("wall_x", digits=2),
        Figure("cpu_x", digits=2),
        Figure("named_wall_x", digits=2),
        Figure("named_cpu_x", digits=2),
        Figure("wall_ms"),
        Figure("cpu_us", digits=0),
        Figure("named_wall_ms"),
        Figure("named_cpu_us", digits=0),
    ),
    run=run,
    needs=frozenset({Feature.LEDGER}),
    targets=(Target("head_x", 1.2), Target("wall_x", 1.2)),
    self_started=True,
    max_rounds=3,
    timeout_s=180.0,
)
