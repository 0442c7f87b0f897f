"""Concurrency groups of an actor: how many calls of which methods run at once, each group by itself.

A class with groups travels as `Grouped`, so an actor without any carries and asks nothing. A call whose caller wants
another group than the method's says so behind the method's name: "name\\0@group", and "name\\0@" for the default one.
"""

from __future__ import annotations

from zmreg.model.record import Record

MARK = "\0@"


class Grouped(Record):
    """What travels in place of the class. `limits`: group -> calls at once; `methods`: method -> its group."""

    cls: type
    limits: dict[str, int]
    methods: dict[str, str]

    def group_of(self, target: str) -> str:
        """The group of a call; "" = the default one, where everything goes that names no other."""
        name, marked, group = target.partition(MARK)
        return group if marked else self.methods.get(name.partition("\0")[0], "")
