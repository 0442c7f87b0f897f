"""Objects whose owner has left in peace: the node answers for them until nobody holds them any more."""

from __future__ import annotations

from collections.abc import Callable

from zmreg.core.loans import Loans
from zmreg.model.ids import short
from zmreg.model.messages import Adopt, Borrow, BorrowSettled, FreeObjects, Message, Resolve, Resolved, Unborrow
from zmreg.services.storekeeper import Storekeeper


class Adoption:
    """The node in the role of an owner. Values are opaque bytes or lie in the store."""

    def __init__(self, post: Callable[[bytes, Message], object], store: Storekeeper) -> None:
        self._post = post
        self._store = store
        self._objects: dict[bytes, Adopt] = {}
        self._loans = Loans()

    def adopt(self, message: Adopt) -> None:
        """Take over one object with its borrowers."""
        if message.borrowers:
            self._objects[message.object_id] = message
            for borrower in message.borrowers:
                self._loans.lend(message.object_id, borrower)
        else:
            self._drop(message.object_id)

    def on_message(self, sender: bytes, message: Resolve | Borrow | Unborrow) -> None:
        """What borrowers say to an owner."""
        match message:
            case Resolve(object_id):
                self._answer(sender, object_id)
            case Borrow(object_id, lender):
                if object_id in self._objects:
                    self._loans.lend(object_id, sender)
                self._post(lender, BorrowSettled(object_id, sender))
            case Unborrow(object_ids, _):
                for object_id in object_ids:  # the count began before the adoption: whoever lets go, lets go wholly
                    if self._loans.returned(object_id, sender, 1 << 30):
                        self._drop(object_id)

    def _answer(self, borrower: bytes, object_id: bytes) -> None:
        held = self._objects.get(object_id)
        if held is None:
            reason = f"object {short(object_id)} is unknown: its owner has ended, and nothing was left to the node"
            self._post(borrower, Resolved(object_id, "lost", reason.encode(), 0, ()))
        else:
            self._post(borrower, Resolved(object_id, held.state, held.payload, held.nbytes, ()))

    def process_died(self, process: bytes) -> None:
        """It holds nothing any more."""
        for object_id in self._loans.process_died(process):
            self._drop(object_id)

    def _drop(self, object_id: bytes) -> None:
        self._objects.pop(object_id, None)
        self._store.on_free(FreeObjects((object_id,)))

    def __len__(self) -> int:
        return len(self._objects)
