"""Who holds an object, and that it is released once nobody does. X, Y are objects, P and Q borrowing processes."""

from __future__ import annotations

import pytest

from zmreg.core.effects import Release
from zmreg.core.references import Holds, ReferenceBook

OWNER = b"owner--A"
X, Y, Z = OWNER + b"object-X", OWNER + b"object-Y", OWNER + b"object-Z"
P, Q = b"process1", b"process2"


def book(*objects: bytes) -> ReferenceBook:
    """The objects are exported and the owner's own handles are gone; a pin keeps each until the test takes it off."""
    made = ReferenceBook()
    for object_id in objects:
        made.export(object_id)
        made.pin(object_id)
        assert made.local(object_id, False) == []
    return made


def test_row_54_the_last_hold_of_any_kind_releases_once() -> None:
    refs = book(X)
    refs.borrowed(X, P)
    assert refs.unpin(X) == []
    assert refs.released(X, P) == [Release(X)]
    assert refs.released(X, P) == []
    assert refs.local(X, False) == []
    assert not refs.is_exported(X)


def test_the_owners_own_handles_hold_it() -> None:
    refs = ReferenceBook()
    refs.export(X)
    refs.borrowed(X, P)
    assert refs.released(X, P) == []
    assert refs.local(X, False) == [Release(X)]


def test_a_ref_that_comes_home_holds_again() -> None:
    refs = book(X)
    refs.local(X, True)
    assert refs.unpin(X) == []
    assert refs.local(X, False) == [Release(X)]


def test_borrowing_is_a_state_not_a_count() -> None:
    refs = book(X)
    refs.borrowed(X, P)
    refs.borrowed(X, P)
    refs.unpin(X)
    assert refs.released(X, P) == [Release(X)]


def test_order_the_last_word_of_a_process_counts() -> None:
    refs = book(X)
    refs.borrowed(X, P)
    refs.released(X, P)
    refs.borrowed(X, P)
    assert refs.unpin(X) == [], "P took a new handle after it dropped the old one"
    assert refs.released(X, P) == [Release(X)]


def test_order_released_without_borrowed_frees_nothing_and_owes_nothing() -> None:
    refs = book(X)
    assert refs.released(X, P) == []
    refs.borrowed(X, P)
    assert refs.unpin(X) == [], "the stray word from before must not cancel this borrow"
    assert refs.released(X, P) == [Release(X)]


def test_order_a_pin_bridges_the_hand_over_between_two_processes() -> None:
    refs = book(X)
    refs.borrowed(X, P)
    refs.unpin(X)
    refs.pin(X)  # P's message to Q carries the ref; the owner holds it until Q's word was answered
    assert refs.released(X, P) == []
    refs.borrowed(X, Q)
    assert refs.unpin(X) == []
    assert refs.released(X, Q) == [Release(X)]


def test_row_54_arguments_are_pinned_once_per_task() -> None:
    refs = book(X)
    refs.pin(X)
    assert refs.unpin(X) == []
    assert refs.unpin(X) == [Release(X)]


def test_row_54_a_dead_borrower_gives_everything_back() -> None:
    refs = book(X, Y)
    refs.borrowed(X, P)
    refs.borrowed(Y, P)
    refs.borrowed(Y, Q)
    refs.unpin(X)
    refs.unpin(Y)
    assert refs.process_died(P) == [Release(X)]
    assert refs.released(Y, Q) == [Release(Y)]


def test_a_dead_process_cannot_borrow_any_more() -> None:
    refs = book(X)
    refs.process_died(P)
    refs.borrowed(X, P)
    assert refs.unpin(X) == [Release(X)]


def test_contained_objects_live_as_long_as_their_container() -> None:
    refs = book(X, Y, Z)
    refs.contained(X, Y)
    refs.contained(Y, Z)
    refs.unpin(X)
    refs.unpin(Y)
    assert refs.unpin(Z) == [Release(Z), Release(Y), Release(X)]


def test_a_container_of_another_owner_says_when_it_is_gone() -> None:
    refs = book(X)
    refs.contained(X, b"other--Bobject-Z")
    assert refs.unpin(X) == []
    assert refs.uncontained(X, b"other--Bobject-Z") == [Release(X)]
    assert refs.uncontained(X, b"other--Bobject-Z") == []


def test_a_container_that_is_exported_later_still_counts() -> None:
    refs = book(X)
    refs.contained(X, Y)
    refs.unpin(X)
    refs.export(Y)
    assert refs.local(Y, False) == [Release(Y), Release(X)]


def test_an_object_made_again_by_lineage_has_a_new_life() -> None:
    refs = book(X)
    refs.unpin(X)
    refs.export(X)
    assert refs.local(X, False) == [Release(X)]


def test_late_words_about_a_released_object_do_nothing() -> None:
    refs = book(X)
    refs.unpin(X)
    assert refs.borrowed(X, P) == refs.released(X, P) == refs.local(X, True) == []
    assert refs.process_died(P) == []


def test_the_owners_own_mistakes_are_loud() -> None:
    refs = book(X)
    refs.borrowed(X, P)
    refs.unpin(X)
    with pytest.raises(ValueError, match="no pin left"):
        refs.unpin(X)
    with pytest.raises(ValueError, match="not exported"):
        refs.pin(Y)
    with pytest.raises(ValueError, match="contain itself"):
        refs.contained(X, X)


def test_row_21_why_an_object_is_kept() -> None:
    refs = book(X, Y)
    refs.borrowed(X, P)
    refs.contained(X, Y)
    assert refs.why(X) == Holds(local=False, borrowers=(P,), pins=1, containers=(Y,))
    assert refs.why(Z) is None


def test_habit_12_repr() -> None:
    refs = book(X, Y)
    refs.borrowed(X, P)
    assert repr(refs) == "<ReferenceBook 2 exported [0 local, 1 borrowed by 1, 2 pinned, 0 contained]>"
