"""The book of locks (core-api X10): leases, order, tokens, deaths, a second book after the first one's death."""

from __future__ import annotations

import pytest

from zmreg.core.barriers import Meeting
from zmreg.core.locks import Grant, Lease, LockBook, Wish

A, B, C = "aaaa0001", "aaaa0002", "bbbb0001"


def wish(request: str, holder: str, *keys: str) -> Wish:
    return Wish(request, holder, keys or ("k",))


def ask(book: LockBook, request: str, holder: str, *keys: str, now: float = 0.0) -> list[Grant]:
    wanted = wish(request, holder, *keys)
    return book.acquire(wanted, (1,) * len(wanted.keys), now)


def test_X10_one_holds_the_rest_wait_in_order_and_tokens_grow() -> None:
    book = LockBook(10, 100)
    assert ask(book, "1", A) == [Grant("1", 101)]
    assert ask(book, "2", B) == [] == ask(book, "3", C)
    assert ask(book, "1", A) == [Grant("1", 101)], "made again, it is the same"
    assert book.release(101, 1) == (True, [Grant("2", 102)])
    assert book.release(101, 1) == (False, [])
    assert book.withdraw("2", 2) == [Grant("3", 103)], "granted meanwhile, and given back"
    assert (book.held("k"), book.wanted("k")) == (1, 0)


def test_X10_holder_death_releases_processes_and_whole_nodes() -> None:
    book = LockBook(10, 0)
    ask(book, "1", A)
    ask(book, "2", B)
    ask(book, "3", C)
    assert book.gone(A, 0) == [Grant("2", 2)]
    assert book.gone("aaaa", 0) == [Grant("3", 3)]
    assert book.gone("bbbb", 0) == [] == list(book.leases())
    assert book.deadline() is None


def test_X10_a_lease_that_is_not_renewed_ends_and_its_holder_hears_of_it() -> None:
    book = LockBook(10, 0)
    ask(book, "1", A)
    ask(book, "2", C)
    claim = (Lease(1, "1", A, ("k",), 0.0), (1,))
    assert book.beat([claim], 9) == ([], [])
    assert book.deadline() == 19 and book.tick(18.9) == []
    assert book.tick(19) == [Grant("2", 2)]
    assert book.beat([claim], 20) == ([1], [])


def test_X10_many_keys_are_had_all_or_none_and_nobody_starves() -> None:
    book = LockBook(10, 0)
    ask(book, "1", A, "x")
    assert ask(book, "2", B, "x", "y") == []
    assert ask(book, "3", C, "y") == [], "it would overtake"
    assert ask(book, "4", C, "z") == [Grant("4", 2)], "of no concern to them"
    assert book.release(1, 0)[1] == [Grant("2", 3)]
    assert book.release(3, 0)[1] == [Grant("3", 4)]


def test_X10_a_semaphore_has_as_many_leases_as_its_limit() -> None:
    book = LockBook(10, 0)
    grants = [book.acquire(wish(str(n), A), (2,), 0) for n in range(3)]
    assert grants == [[Grant("0", 1)], [Grant("1", 2)], []]
    with pytest.raises(ValueError, match="allows 2 at a time, and not 3"):
        book.acquire(wish("9", A), (3,), 0)
    book.gone(A, 0)
    assert book.acquire(wish("9", A), (3,), 0) == [Grant("9", 3)], "what nobody uses may be made anew"


def test_X10_after_a_restart_holders_say_what_they_hold_before_anybody_is_granted_anything() -> None:
    book = LockBook(10, 5, silent_until=10)
    assert ask(book, "2", B) == [] and book.deadline() == 10
    claim = (Lease(7, "1", A, ("k",), 0.0), (1,))
    rival = (Lease(6, "0", C, ("k",), 0.0), (1,))
    assert book.beat([claim], 3) == ([], [])
    assert book.beat([rival], 4) == ([6], []), "there is one at most, whoever says so"
    assert book.tick(10) == []
    assert book.release(7, 11) == (True, [Grant("2", 8)]), "later than every token of the book before"
    assert book.beat([claim], 12) == ([7], [])


def test_X10_who_meets_goes_on_when_all_are_there_and_the_dead_do_not_count() -> None:
    meeting = Meeting(0)
    assert meeting.arrive("1", A, 3) == () == meeting.arrive("2", B, 3)
    with pytest.raises(ValueError, match="2 wait here for 3"):
        meeting.arrive("9", C, 2)
    meeting.gone("aaaa0002")
    assert meeting.arrive("3", C, 3) == ()
    meeting.leave("3")
    assert meeting.arrive("4", C, 3) == ()
    assert meeting.arrive("5", C, 3) == ("1", "4", "5") and (len(meeting), meeting.round) == (0, 1)
