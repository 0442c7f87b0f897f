"""Objects whose owner has left in peace: the node answers for them until nobody holds them any more.

What their values contain lives on with them. Refs of the same owner are adopted as well; of a living owner the node is
a borrower like any other: it says `Borrow` once, holds on while a container of its own, or a hand-over not yet settled,
needs it, and then says `Unborrow`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping

from zmreg.core.loans import Loans
from zmreg.model.ids import node_of, owner_of, short
from zmreg.model.messages import (
    Adopt,
    AskKept,
    Borrow,
    BorrowSettled,
    FreeObjects,
    Holds,
    Lost,
    Message,
    Passed,
    Resolve,
    Resolved,
    Unborrow,
)
from zmreg.services.node.storekeeper import Storekeeper
from zmreg.wire import codec

OwnersMail = Resolve | Lost | Borrow | BorrowSettled | Unborrow | Holds | AskKept
"""What is said to an owner, or to who answers in its place."""


class Adoption:
    """The node in the role of an owner. Values are opaque bytes or lie in the store."""

    def __init__(
        self, me: bytes, post: Callable[[bytes, Message], object], store: Storekeeper, dropped: Callable[[bytes], None]
    ) -> None:
        """`dropped(object_id)`: nobody holds it any more; what is called so may be the lifeline of an actor."""
        self._me = me
        self._post = post
        self._dropped = dropped
        self._objects: dict[bytes, Adopt] = {}
        # Containers of ours are in this book as hand-overs to ourselves.
        self._loans = Loans()
        # Objects of living owners -> our holds on them; the first was announced by Borrow. No zeros.
        self._foreign: Counter[bytes] = Counter()
        # (object of a living owner, process we gave it to) -> holds until that owner knows the process.
        self._unsettled: Counter[tuple[bytes, bytes]] = Counter()
        self.free = store.on_free
        """Frees an object wherever it is."""
        self._heir = b""
        """The node to which all of it was given; empty while we stay."""
        self._lenders = {me}
        """Ourselves, and the nodes that have left what they answered for to us."""
        self._passed: list[tuple[bytes, OwnersMail | Adopt]] = []
        """What the heir was told by way of us, should it die before we leave."""
        self._to_settle = 0
        """Hand-overs to the heir of which the owners have not said yet that they know."""

    def adopt(self, sender: bytes, message: Adopt) -> None:
        """Take over one object of `sender` with its borrowers. Those of one owner come in any order, then it ends."""
        if self._heir:
            self._pass_on(sender, message)
            return
        object_id = message.object_id
        if sender == node_of(sender):
            self._lenders.add(sender)
        self._objects[object_id] = message
        for borrower, count in zip(message.borrowers, message.counts, strict=True):
            if borrower != self._me:
                self._loans.restate(object_id, borrower, count)
        for _ in range(self._foreign.pop(object_id, 0)):  # borrowed by us until now
            self._loans.lend(object_id, self._me)
        for inner in message.contained:
            self._hold(inner, sender)

    def owner_left(self, owner: bytes) -> None:
        """`owner` is gone, so all its Adopts are here: what nobody needs may go."""
        theirs = [object_id for object_id in self._objects if owner_of(object_id) == owner]
        self._drop([object_id for object_id in theirs if object_id not in self._loans])

    # -- what borrowers and owners say --------------------------------------------------------------------------------

    def on_message(self, sender: bytes, message: OwnersMail) -> None:
        """What borrowers say to an owner, and owners to a lender."""
        if self._heir and not isinstance(message, BorrowSettled):
            if not isinstance(message, Borrow) or not self._was_booked(message, sender):
                self._pass_on(sender, message)
            return
        match message:
            case Resolve(object_id):
                self._answer(sender, object_id)
            case Lost(object_id, reason, _):
                text = f"{reason}; its owner has left, and what it could run again left with it"
                self._post(sender, Resolved(object_id, "lost", text.encode(), 0, "", 0, ()))
            case Borrow(object_id, lender):
                if object_id in self._objects and not self._was_booked(message, sender):
                    self._loans.lend(object_id, sender)
                if lender == self._me:
                    self._settled(object_id, sender, 1)
                else:
                    self._post(lender, BorrowSettled(object_id, sender))
            case BorrowSettled(object_id, borrower):
                self._to_settle -= borrower == self._heir
                self._settled(object_id, borrower, 1)
            case AskKept(object_ids):
                unknown = tuple(each for each in object_ids if each not in self._objects)
                if unknown:
                    self._post(sender, FreeObjects(unknown))
            case Unborrow(object_ids, counts):
                pairs = zip(object_ids, counts, strict=True)
                self._drop([object_id for object_id, count in pairs if self._loans.returned(object_id, sender, count)])
            case Holds(owner, object_ids, counts, whole):
                self._restate(sender, owner, dict(zip(object_ids, counts, strict=True)), whole)

    def _was_booked(self, message: Borrow, borrower: bytes) -> bool:
        """We handed it over ourselves, or a node did whose heir we are, and as an owner does: booked in that moment. A
        borrower that had not heard yet that its owner has left says `Borrow` all the same."""
        return message.lender in self._lenders and not self._unsettled[message.object_id, borrower]

    def _restate(self, borrower: bytes, owner: bytes, holds: dict[bytes, int], whole: bool) -> None:
        for object_id in [each for each in self._objects if owner_of(each) == owner]:
            count = holds.get(object_id, 0)
            news = whole or count > self._loans.owed(object_id).get(borrower, 0)
            if news and self._loans.restate(object_id, borrower, count):
                self._drop([object_id])

    def _answer(self, borrower: bytes, object_id: bytes) -> None:
        held = self._objects.get(object_id)
        if held is None:
            reason = f"object {short(object_id)} is lost: its owner has ended, and has left nothing of it to the node"
            self._post(borrower, Resolved(object_id, "lost", reason.encode(), 0, "", 0, ()))
            return
        for inner in held.contained:
            if inner in self._objects:
                self._loans.lend(inner, borrower)
            elif inner in self._foreign and owner_of(inner) != borrower:
                self._foreign[inner] += 1
                self._unsettled[inner, borrower] += 1
        self._post(
            borrower,
            Resolved(
                object_id,
                held.state,
                held.payload,
                held.nbytes,
                held.type_name,
                held.took_us,
                held.contained,
                held.holder,
            ),
        )

    def process_died(self, process: bytes, has_heir: bool = False) -> None:
        """It holds nothing any more; and what it owned we cannot borrow any more, unless it `has_heir`."""
        for object_id in [each for each in self._foreign if owner_of(each) == process and not has_heir]:
            del self._foreign[object_id]
        for key in [key for key in self._unsettled if process == key[1] or (process == key[0][:8] and not has_heir)]:
            self._settled(*key, self._unsettled[key])
        self._drop(self._loans.process_died(process))

    def node_gone(self, prefix: bytes, has_heir: bool) -> None:
        """All processes whose ids begin so are gone."""
        known = self._loans.everybody() | {owner_of(each) for each in self._foreign}
        known |= {borrower for _, borrower in self._unsettled} | {owner_of(each) for each, _ in self._unsettled}
        for process in [each for each in known if each.startswith(prefix)]:
            self.process_died(process, has_heir)

    # -- leaving ------------------------------------------------------------------------------------------------------

    def bequeath(self, heir: bytes, places: Mapping[bytes, bytes]) -> None:
        """Give all of it to another node, which hears from now on what is said to us. `places`: where bytes are now.

        What is inside of something goes first, so that the heir knows it as its own. Once more, to another one, when
        the first has died: that one hears, too, what was passed on since.
        """
        self._heir = heir
        self._to_settle = 0
        for object_id in self._inside_out():
            held = self._objects[object_id]
            owed = {who: count for who, count in self._loans.owed(object_id).items() if who != self._me}
            self._to_settle += sum(inner in self._objects or inner in self._foreign for inner in held.contained)
            holder = places.get(object_id, held.holder)
            self._post(heir, held.but(borrowers=tuple(owed), counts=tuple(owed.values()), holder=holder))
        for sender, message in self._passed:
            self._post(heir, Passed(sender, codec.encode(message)))

    def _inside_out(self) -> list[bytes]:
        order: dict[bytes, None] = {}
        stack = list(self._objects)
        while stack:  # values are immutable, so there are no circles; chains may be long
            inner = [each for each in self._objects[stack[-1]].contained if each in self._objects and each not in order]
            if inner and stack[-1] not in order:
                stack += inner
            else:
                order[stack.pop()] = None
        return list(order)

    def is_settled(self) -> bool:
        """Whether all owners know the heir, and those to whom we have handed refs of theirs."""
        return self._to_settle <= 0 and not self._unsettled

    def _pass_on(self, sender: bytes, message: OwnersMail | Adopt) -> None:
        self._passed.append((sender, message))
        self._post(self._heir, Passed(sender, codec.encode(message)))

    # -- what our own objects contain ---------------------------------------------------------------------------------

    def _hold(self, inner: bytes, lender: bytes) -> None:
        """A container of `lender`'s that is ours now has a ref to `inner`. It leaves when all such are settled."""
        if owner_of(inner) == lender:
            self._loans.lend(inner, self._me)
        elif inner in self._objects:
            self._loans.lend(inner, self._me)
            self._post(lender, BorrowSettled(inner, self._me))
        else:
            self._foreign[inner] += 1
            if self._foreign[inner] == 1:
                self._post(owner_of(inner), Borrow(inner, lender))
            else:  # its owner knows us, or hears of us by another who leaves, and who waits for that
                self._post(lender, BorrowSettled(inner, self._me))

    def _settled(self, object_id: bytes, borrower: bytes, count: int) -> None:
        """`count` hand-overs to `borrower` need our hold no more; those we do not know of are another's."""
        key = (object_id, borrower)
        known = min(count, self._unsettled[key])
        self._unsettled[key] -= known
        if not self._unsettled[key]:
            del self._unsettled[key]
        self._drop([object_id for _ in range(known) if self._release(object_id)])

    def _release(self, inner: bytes) -> bool:
        """One hold of ours less; True when it is an object of ours that nobody holds any more."""
        if inner in self._foreign:
            self._foreign[inner] -= 1
            if not self._foreign[inner]:
                del self._foreign[inner]
                self._post(owner_of(inner), Unborrow((inner,), (1,)))
            return False
        return self._loans.returned(inner, self._me, 1)

    def _drop(self, object_ids: list[bytes]) -> None:
        """Nobody holds these any more, nor then what only they contained."""
        while object_ids:
            object_id = object_ids.pop()
            held = self._objects.pop(object_id, None)
            if held is None:
                continue
            if held.state == "stored":
                self.free(FreeObjects((object_id,)))
                if held.holder not in (b"", self._me):  # it need not be in the registry
                    self._post(held.holder, FreeObjects((object_id,)))
            self._dropped(object_id)
            object_ids += [inner for inner in held.contained if self._release(inner)]

    def __contains__(self, object_id: object) -> bool:
        return object_id in self._objects

    def __len__(self) -> int:
        return len(self._objects)
