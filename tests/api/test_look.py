"""What a notebook shows of refs, actors and the rest: tables of what is known here, by which nothing waits."""

from __future__ import annotations

import logging
import time

import pytest

import zmreg
from zmreg.api.look import NodeList, amount, card, grid
from zmreg.services.seat.client import current

pytestmark = pytest.mark.near


@zmreg.remote
def makes(size):
    return b"x" * size


@zmreg.remote
def fails():
    raise ValueError("<b>a reason</b>\nand more" + "!" * 200)


@zmreg.remote
class Waits:
    def on(self, ref):
        return zmreg.get(ref[0])

    def answers(self):
        return 1


def test_a_ref_shows_state_type_size_and_holder(cluster):
    large = makes.remote(1 << 20)
    zmreg.wait([large])
    assert "stored" in repr(large) and "bytes" in repr(large)
    shown = large._repr_html_()
    for fact in ("stored", "bytes", "1.0 MiB", cluster.node_id, large.hex()):
        assert fact in shown
    small = makes.remote(3)
    small.get()
    assert "inline" in small._repr_html_()


def test_experience_1_2_a_ref_shows_how_old_it_is_as_far_as_that_is_known(cluster, monkeypatch):
    seat, now = current(), time.monotonic()
    ref = zmreg.put(1)
    assert "0 s old" in repr(ref), "just looked at, so it is known"
    generator = zmreg.remote(lambda: iter(())).options(num_returns="streaming").remote()
    assert "0 s old" in repr(generator)
    for later, text in ((7, "7 s"), (300, "5 min")):
        monkeypatch.setattr("zmreg.services.seat.ticks.time.monotonic", lambda later=later: now + later)
        seat.ticks.ages.look(seat.tasks.next_number, now + later)
        assert f", {text} old]" in repr(ref) and f"<td style='text-align:left'>{text}</td>" in ref._repr_html_()
        assert f"{text} old" in repr(generator) and f"{text}</td>" in generator._repr_html_()
        assert abs(ref.meta.age_s - later) < 1
    monkeypatch.undo()
    seat.ticks.ages._looks.clear()
    assert " old" not in repr(ref) and ref.meta.age_s is None, "nobody says what he does not know"
    assert list(generator) == []


def test_looking_at_a_failed_ref_shows_one_line_and_is_not_reading_it(cluster, caplog):
    ref = fails.remote()
    zmreg.wait([ref])
    assert "failed: ValueError: <b>a reason</b> and more!" in repr(ref) and "\n" not in repr(ref)
    assert len(repr(ref)) < 160
    shown = ref._repr_html_()
    assert "ValueError: &lt;b&gt;a reason&lt;/b&gt; and more" in shown and "fails" in shown
    with caplog.at_level(logging.ERROR, "zmreg"):
        del ref
        zmreg.get(makes.remote(1))
        current().ask("stats")
    assert "nobody read its error" in caplog.text


def test_looking_never_waits(cluster):
    gate, waits = zmreg.put(0), Waits.remote()
    late = zmreg.remote(lambda refs: zmreg.get(refs[0])).remote([waits.answers.remote()])
    with current().lock:  # as if another thread were deep in it: nothing here may ask for it
        texts = [late._repr_html_(), gate._repr_html_(), waits._repr_html_(), makes._repr_html_()]
    assert all("<table>" in text for text in texts)
    assert late.get() == 1
    assert "alive" in waits._repr_html_() and "answers, on" in waits._repr_html_()
    assert "a call takes" in makes._repr_html_()


def test_a_generator_shows_how_far_it_is(cluster):
    @zmreg.remote
    def counts():
        yield from range(3)

    generator = counts.remote()
    assert [ref.get() for ref in generator] == [0, 1, 2]
    assert "ended" in generator._repr_html_() and ">3<" in generator._repr_html_()


def test_nodes_and_the_cluster_are_tables_and_a_cluster_that_is_left_says_so(cluster):
    rows = zmreg.nodes()
    assert isinstance(rows, list) and rows == list(rows) and "<thead>" in rows._repr_html_()
    assert cluster.node_id in cluster._repr_html_() and "CPU 2" in cluster._repr_html_()
    other = type(cluster)("local", "00" * 8, "/nowhere", 1.0)
    assert "is left" in other._repr_html_()


def test_amounts_and_tables():
    assert [amount(size) for size in (0, 1023, 1536, 5 << 30)] == ["0 bytes", "1023 bytes", "1.5 KiB", "5.0 GiB"]
    assert card("<x>", [("a", ""), ("b", 0), ("c", None)]).count("<tr>") == 1 and "&lt;x&gt;" in card("<x>", [])
    many = NodeList([{"NodeName": str(number)} for number in range(60)])
    assert "and 10 more" in many._repr_html_() and "<td>59</td>" not in many._repr_html_()
    assert "<td>a, b</td>" in grid([{"Locs": ("a", "b")}], ["Locs"])
