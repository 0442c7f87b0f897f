"""Whom a new head has not named (fault 9)."""

from __future__ import annotations

from zmreg.core.unnamed import Unnamed


def test_fault9_the_head_is_told_once_of_those_that_it_has_not_named():
    unnamed = Unnamed(12.0)
    assert unnamed.due(100.0) == []
    unnamed.crowned([b"b", b"c", b"d"], 100.0)
    unnamed.named(b"c")
    unnamed.named(b"stranger")
    assert unnamed.due(111.9) == []
    assert unnamed.due(112.0) == [b"b", b"d"]
    assert unnamed.due(113.0) == []


def test_fault9_another_head_has_to_name_all_anew():
    unnamed = Unnamed(12.0)
    unnamed.crowned([b"b", b"c"], 100.0)
    unnamed.named(b"b")
    unnamed.crowned([b"b", b"c"], 110.0)
    assert unnamed.due(115.0) == []
    assert unnamed.due(122.0) == [b"b", b"c"]
