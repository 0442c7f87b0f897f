"""Parts of the arena that libzmq sends from where they lie: an object stays pinned until it has given all of them back.

It reads them when the link takes them, and lets go of them on a thread of its own. While a link stands still that may
be seconds after the transfer has ended here.
"""

from __future__ import annotations

from collections import Counter, deque
from functools import partial

from zmreg.services.node.storekeeper import Storekeeper


class Lending:
    """What one node has lent, by the key of the transfer (core/serving.py)."""

    def __init__(self, store: Storekeeper) -> None:
        self._store = store
        self._out: Counter[bytes] = Counter()
        self._back: deque[bytes] = deque()
        """Keys of parts that came back, written by any thread."""
        self._leaving: dict[bytes, bytes] = {}
        """Transfers that are over, with their objects."""

    def __len__(self) -> int:
        """How many objects stay pinned for nothing else; while there are any, `settle` has to be called."""
        return len(self._leaving)

    def lend(self, key: bytes, offset: int, nbytes: int) -> memoryview:
        """A part of a pinned object, to be handed to the mesh."""
        self._out[key] += 1
        return self._store.lend(offset, nbytes, partial(self._back.append, key))

    def unpin(self, key: bytes, object_id: bytes) -> None:
        """The transfer is over: unpin the object, at once or when its last part is back."""
        self._leaving[key] = object_id
        self.settle()

    def settle(self) -> None:
        """Take note of what has come back."""
        back, out = self._back, self._out
        while back:
            key = back.popleft()
            out[key] -= 1
            if not out[key]:
                del out[key]
        for key in [key for key in self._leaving if key not in out]:
            self._store.unpin(key, self._leaving.pop(key))
