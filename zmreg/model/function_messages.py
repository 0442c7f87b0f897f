"""Named functions: the rows of the table that every node has, and what clients and nodes say about them."""

from __future__ import annotations

from typing import ClassVar

from zmreg.model.record import Sentence


class FunctionRow(Sentence):
    """node -> every node (functions table), or inside another message: the process `host` serves calls of `name`."""

    KIND: ClassVar[int] = 132
    name: str
    version: str
    """Numbers joined by dots, without zeros at the end (core/versions.py); empty: it has none."""
    host: bytes
    locs: tuple[str, ...] = ()
    """What the function itself adds to its node's."""
    node_name: str = ""
    """Its node writes this, and `node_locs`."""
    node_locs: tuple[str, ...] = ()
    signature: str = ""
    doc: str = ""
    definition: bytes = b""
    """The digest by which its code is known; empty: its host has it already."""
    resting: bool = False
    """Its node is silent or about to leave, and gets no new calls, says the node that answers; never published."""
    actor: bytes = b""
    """The actor that the process is, if it is one: calls take its way and keep its rules."""
    actor_class: str = ""
    ordered: bool = True
    """The actor takes one caller's calls in the order of their sending."""


class RegisterFunction(Sentence):
    """client -> node of the host: `row` (an encoded FunctionRow) holds from now on. Answered by `Answer`: why not, or
    an empty text. `replace`: it takes the place of one with the same name and version."""

    KIND: ClassVar[int] = 133
    request: int
    row: bytes
    replace: bool


class WithdrawFunction(Sentence):
    """client -> node of the host: `host` serves `name` no more, in that version or (`every`) in any. Answered as above;
    the text is empty also when there was nothing."""

    KIND: ClassVar[int] = 134
    request: int
    host: bytes
    name: str
    version: str
    every: bool


class WatchFunctions(Sentence):
    """client -> its node: tell me of all named functions, now and whenever something changes."""

    KIND: ClassVar[int] = 135


class FunctionNews(Sentence):
    """node -> client that watches: rows that are there (encoded FunctionRows), and keys of rows that are not any more.

    A row that is there may have been told before, and be another now. Any number of these makes up the whole table;
    with `whole` all that the node knows has been said.
    """

    KIND: ClassVar[int] = 136
    rows: tuple[bytes, ...]
    gone: tuple[bytes, ...]
    whole: bool
