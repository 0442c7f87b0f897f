"""A stopped call and who comes to it: one at a time, one line at a time, and no more output than is read."""

from __future__ import annotations

from zmreg.core.wicket import Wicket, pieces

ME, OTHER = (b"aaaa0001", 1), (b"bbbb0001", 1)


def asked(window: int = 100) -> Wicket:
    wicket = Wicket(window)
    assert wicket.comes(ME)
    wicket.asked = True
    return wicket


def test_row_75_debugger_one_visitor_at_a_time_and_the_next_begins_anew():
    wicket = asked()
    wicket.greeted = True
    assert not wicket.comes(OTHER) and wicket.visitor == ME
    assert not wicket.leaves(OTHER) and wicket.leaves(ME) and wicket.visitor is None
    assert wicket.comes(OTHER) and not wicket.greeted and not wicket.asked


def test_row_75_debugger_a_line_is_taken_once_when_it_was_asked_for():
    wicket = asked()
    assert not wicket.says(OTHER, "q") and not wicket.says((ME[0], 2), "q") and wicket.line() is None
    assert wicket.says(ME, "p x") and not wicket.says(ME, "q")
    assert wicket.line() == "p x" and wicket.line() is None


def test_row_75_debugger_what_was_said_and_not_read_goes_with_who_said_it():
    wicket = asked()
    assert wicket.says(ME, "q") and wicket.leaves(ME) and wicket.comes(OTHER)
    assert wicket.line() is None


def test_row_75_debugger_output_has_a_window():
    wicket = asked(window=100)
    assert wicket.fits(500)  # alone
    wicket.sent(60)
    assert wicket.fits(40) and not wicket.fits(41)
    assert not wicket.took(OTHER, 60) and not wicket.took(ME, -60) and not wicket.fits(41)
    assert wicket.took(ME, 60) and wicket.fits(500)
    wicket.sent(100)
    assert wicket.leaves(ME) and wicket.comes(OTHER) and wicket.fits(100)


def test_row_75_debugger_the_end_of_a_process_or_of_its_node_is_the_end_of_its_visit():
    wicket = asked()
    assert not wicket.gone(b"aaaa0002") and not wicket.gone(b"bbbb")
    assert wicket.gone(b"aaaa") and wicket.visitor is None and not wicket.gone(b"aaaa")


def test_row_75_debugger_pieces_are_all_of_it_in_order():
    assert list(pieces("abcdefg", 3)) == ["abc", "def", "g"] and list(pieces("", 3)) == []
