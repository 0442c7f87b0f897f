"""What owners and borrowers say to each other about refs."""

from __future__ import annotations

from typing import ClassVar

from zmreg.model.record import Sentence


class Resolve(Sentence):
    """borrower -> owner: tell me when this object is there, and how to have it."""

    KIND: ClassVar[int] = 40
    object_id: bytes


class Resolved(Sentence):
    """owner -> borrower: "inline" (payload), "stored" (nbytes), "failed" (payload = failure) or "lost" (reason)."""

    KIND: ClassVar[int] = 41
    object_id: bytes
    state: str
    payload: bytes
    nbytes: int
    type_name: str
    took_us: int
    contained: tuple[bytes, ...]
    holder: bytes = b""
    """The node in whose store it was made."""


class Lost(Sentence):
    """borrower -> owner: no node gives me the bytes of this object; have them made again, and tell me as for Resolve.

    `silent`: a node that lives has them, and sends nothing.
    """

    KIND: ClassVar[int] = 107
    object_id: bytes
    reason: str
    silent: bool


class Borrow(Sentence):
    """borrower -> owner: I hold a ref of yours that `lender` gave me; tell the lender when you know."""

    KIND: ClassVar[int] = 42
    object_id: bytes
    lender: bytes


class BorrowSettled(Sentence):
    """owner -> lender: `borrower` is known to me; your own hold is no longer needed for it."""

    KIND: ClassVar[int] = 43
    object_id: bytes
    borrower: bytes


class Unborrow(Sentence):
    """borrower -> owner: I hold none of these any more; `count` says how often each had been lent to me."""

    KIND: ClassVar[int] = 44
    object_ids: tuple[bytes, ...]
    counts: tuple[int, ...]


class Adopt(Sentence):
    """worker -> node, when it leaves in peace: answer for this object of mine from now on.

    `contained`: refs inside its value, which live as long as it does; those of mine come in an Adopt of their own.
    """

    KIND: ClassVar[int] = 45
    object_id: bytes
    state: str
    payload: bytes
    nbytes: int
    type_name: str
    took_us: int
    contained: tuple[bytes, ...]
    borrowers: tuple[bytes, ...]
    counts: tuple[int, ...]
    holder: bytes = b""
    """The node in whose store it was made."""


class Holds(Sentence):
    """borrower -> heir, when it hears that `owner` left: what I hold of that one's, and how often it was lent to me.

    What was said to the owner in its last moments is lost; this makes it good. `whole`: nothing that the owner sent is
    on its way to me any more, so that I hold exactly this; before, more may still come.
    """

    KIND: ClassVar[int] = 46
    owner: bytes
    object_ids: tuple[bytes, ...]
    counts: tuple[int, ...]
    whole: bool
