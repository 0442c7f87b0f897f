"""Faults inside one node that no proxy can make, because the traffic is encrypted: for tests and soak runs only.

    ZMREG_FAILPOINTS=letters.duplicate:0.1,letters.drop:0.05,chunks.drop:0.05,delta.drop:0.05  ZMREG_FAILPOINTS_SEED=7

Each is a kind of message and what befalls it, with a probability; what makes no sense ends the node at its start, since
a test with a slip in it would test nothing. Without the variable none of this is in anybody's way: the mesh is the
plain one.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Sequence
from random import Random
from typing import Final

from zmreg.net.curve import CurveKeys
from zmreg.net.mesh import Mesh

VARIABLE: Final = "ZMREG_FAILPOINTS"
SEED_VARIABLE: Final = "ZMREG_FAILPOINTS_SEED"
# Kinds of messages by their first bytes. Acks are those of letters; words are control messages, Fetch... among them.
_KINDS: Final = {
    b"ZL": "letters", b"ZW": "letters", b"ZP": "letters", b"ZA": "acks", b"ZN": "acks", b"ZC": "chunks", b"ZR": "words"
}  # fmt: skip
_DELTA: Final = "delta"
"""What another node has published: records, batches and beacons of the replicated tables."""
_DEEDS: Final = ("drop", "duplicate")


class FaultyMesh(Mesh):
    """A mesh that loses and doubles what is sent, and loses what is published, as it was told."""

    def __init__(self, me: bytes, keys: CurveKeys, host: str, port: int, pub_port: int) -> None:
        super().__init__(me, keys, host, port, pub_port)
        self._chances = parse(os.environ[VARIABLE])
        self._random = Random(f"{os.environ.get(SEED_VARIABLE, '0')}/{port}")
        self.done: Counter[str] = Counter()

    def _happens(self, kind: str, deed: str) -> bool:
        chance = self._chances.get(f"{kind}.{deed}", 0.0)
        happens = bool(chance) and self._random.random() < chance
        self.done[f"{kind}.{deed}"] += happens
        return happens

    def send(self, node: bytes, frames: Sequence[bytes | memoryview]) -> bool:
        """As the plain one says it, or not at all, or twice."""
        kind = _KINDS.get(bytes(frames[0][:2]), "")
        if self._happens(kind, "drop"):
            return True
        if self._happens(kind, "duplicate"):
            super().send(node, frames)
        return super().send(node, frames)

    def overhear(self) -> bytes | None:
        """The next one that is not lost."""
        frame = super().overhear()
        while frame is not None and self._happens(_DELTA, "drop"):
            frame = super().overhear()
        return frame


def parse(text: str) -> dict[str, float]:
    """{"letters.drop": 0.05, ...}. Raises ValueError, naming the part, for what is none."""
    known = {f"{kind}.{deed}" for kind in {*_KINDS.values()} for deed in _DEEDS} | {f"{_DELTA}.drop"}
    found: dict[str, float] = {}
    for part in filter(None, (each.strip() for each in text.split(","))):
        name, _, chance = part.partition(":")
        try:
            found[name] = float(chance)
        except ValueError:
            found[name] = -1.0
        if name not in known or not 0.0 <= found[name] <= 1.0:
            raise ValueError(f"{VARIABLE}: {part!r} is not NAME:PROBABILITY; names are {', '.join(sorted(known))}")
    return found


def mesh_class() -> Callable[[bytes, CurveKeys, str, int, int], Mesh]:
    """What makes the mesh of a node."""
    return FaultyMesh if os.environ.get(VARIABLE) else Mesh
