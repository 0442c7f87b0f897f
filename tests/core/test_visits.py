"""A stopped call and who comes to it: one at a time, one line at a time, and no more output than is read."""

from __future__ import annotations

from zmreg.core.visits import Visits, pieces

ME, OTHER = (b"aaaa0001", 1), (b"bbbb0001", 1)


def asked(window: int = 100) -> Visits:
    visits = Visits(window)
    assert visits.comes(ME)
    visits.asked = True
    return visits


def test_row_75_debugger_one_visitor_at_a_time_and_the_next_begins_anew():
    visits = asked()
    visits.greeted = True
    assert not visits.comes(OTHER) and visits.visitor == ME
    assert not visits.leaves(OTHER) and visits.leaves(ME) and visits.visitor is None
    assert visits.comes(OTHER) and not visits.greeted and not visits.asked


def test_row_75_debugger_a_line_is_taken_once_when_it_was_asked_for():
    visits = asked()
    assert not visits.says(OTHER, "q") and not visits.says((ME[0], 2), "q") and visits.line() is None
    assert visits.says(ME, "p x") and not visits.says(ME, "q")
    assert visits.line() == "p x" and visits.line() is None


def test_row_75_debugger_what_was_said_and_not_read_goes_with_who_said_it():
    visits = asked()
    assert visits.says(ME, "q") and visits.leaves(ME) and visits.comes(OTHER)
    assert visits.line() is None


def test_row_75_debugger_output_has_a_window():
    visits = asked(window=100)
    assert visits.fits(500)  # alone
    visits.sent(60)
    assert visits.fits(40) and not visits.fits(41)
    assert not visits.took(OTHER, 60) and not visits.took(ME, -60) and not visits.fits(41)
    assert visits.took(ME, 60) and visits.fits(500)
    visits.sent(100)
    assert visits.leaves(ME) and visits.comes(OTHER) and visits.fits(100)


def test_row_75_debugger_the_end_of_a_process_or_of_its_node_is_the_end_of_its_visit():
    visits = asked()
    assert not visits.gone(b"aaaa0002") and not visits.gone(b"bbbb")
    assert visits.gone(b"aaaa") and visits.visitor is None and not visits.gone(b"aaaa")


def test_row_75_debugger_pieces_are_all_of_it_in_order():
    assert list(pieces("abcdefg", 3)) == ["abc", "def", "g"] and list(pieces("", 3)) == []
