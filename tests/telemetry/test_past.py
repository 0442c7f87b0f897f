"""What is remembered of calls, and the folds over it: rows X26 and 74 of the specs. Pure."""

from __future__ import annotations

import msgpack
import pytest

from zmreg.services.calling.history import facts_of, latest_facts, read
from zmreg.telemetry.facts import Fact, Facts, heard, latest_of, told
from zmreg.telemetry.past import CANCELLED, DONE, FAILED, MOST_FRAME_BYTES, End, Past
from zmreg.telemetry.timeline import Owned, chrome_trace, counts, spans
from zmreg.wire import batches
from zmreg.wire.failures import encode_failure

W1, W2 = b"node0001", b"node0002"
ME = b"ownerown"


def answers(past: Past, worker: bytes, now: float, *rows: list[object], name: str = "f") -> None:
    """A batch of answers of one function."""
    listed = [list(row) for row in rows]
    past.answered(worker, batches.encode_results(listed), [(listed[0][0], name)], listed, now)


def failed(text: str) -> list[object]:
    from zmreg.model.errors import FailureOrigin

    return [batches.FAILED, encode_failure(FailureOrigin("ValueError", text, "f", "", 1, "n", ())), 0, "", ()]


def test_X26_times_are_those_at_which_batches_were_submitted_sent_and_answered():
    past = Past()
    past.mark(3, 10.0)  # 1 and 2 are queued
    past.sent(W1, [[1, b"f", b""], [2, b"f", b""]], 11.0)
    past.sent(W2, [[3, b"f", b""]], 11.5)  # submitted and sent at once
    answers(past, W1, 15.0, [1, 2_000_000, b"x"], [2, 1_000_000, b"y"])
    answers(past, W2, 16.0, [3, 500, b"z"])
    first, second, third = Facts(past, read).each
    assert (first.submitted, first.sent, first.answered, first.run_us) == (10.0, 11.0, 15.0, 2_000_000)
    assert (second.submitted, second.sent) == (10.0, 11.0)
    assert (third.submitted, third.sent, third.worker) == (11.5, 11.5, W2)
    assert first.waited_s == pytest.approx(3.0) and first.state == DONE and first.attempt == 0


def test_X26_names_change_within_a_batch_and_items_of_generators_are_no_calls():
    past = Past()
    rows = [[1, 5, b""], [2, 5, b""], [900, 0, b"item"], [3, 5, b""], [4, 5, b""]]
    past.answered(W1, batches.encode_results(rows), [(1, "f"), (900, ""), (3, "f"), (4, "g")], rows, 1.0)
    assert [(fact.counter, fact.name) for fact in Facts(past, read).each] == [(1, "f"), (2, "f"), (3, "f"), (4, "g")]


def test_X26_an_error_is_remembered_in_one_line_and_an_attempt_by_what_came_before():
    past = Past()
    past.mark(2, 1.0)
    answers(past, W1, 2.0, [1, 7, [failed("no\nway")], ()])
    past.tell(1, "ValueError: no way", 2.0, 0)
    answers(past, W1, 3.0, [1, 9, [failed("never")], ()])
    first, last = Facts(past, read).each
    assert first.attempt == 0 and last.attempt == 1
    assert first.state == last.state == FAILED
    assert "no way" in first.error and "\n" not in first.error and "never" in last.error
    assert Facts(past, read).latest[1] is not None
    assert Facts(past, read).latest[1].attempt == 1


def test_X26_every_value_of_a_call_leads_to_it_and_input_lost_is_no_end():
    past = Past()
    value = [batches.OK_INLINE, b"v", 1, "int", ()]
    answers(past, W1, 2.0, [5, 7, [value, value, value], ()], [8, 0, [[batches.INPUT_LOST, b"id", 0, "gone", ()]], ()])
    answers(past, W1, 3.0, [9, 7, [[batches.CANCELLED, b"", 0, "", ()]], ()])
    latest = Facts(past, read).latest
    assert latest[5] is latest[6] is latest[7]
    assert 8 not in latest and latest[9].state == CANCELLED


def test_X26_an_end_without_an_answer_is_remembered_with_its_reason():
    past = Past()
    past.mark(2, 1.0)
    past.tell(1, "worker w died: killed", 2.0, 0)
    past.end(End(1, 3.0, "f", b"", FAILED, 1, 1, "WorkerDiedError: died on each of 2 attempts"))
    (fact,) = Facts(past, read).each
    assert (fact.state, fact.attempt, fact.answered, fact.submitted) == (FAILED, 1, 3.0, 1.0)
    assert [each.text for each in past.words] == ["worker w died: killed"]


def test_X26_the_ring_is_bounded_in_calls_and_in_bytes_whatever_the_values_are():
    past = Past(most=100)
    for number in range(1, 1_001):
        past.sent(W1, [[number, b"f", b""]], float(number))
        answers(past, W1, float(number), [number, 1, b"x"])
    facts = Facts(past, read)
    assert [fact.counter for fact in facts.each] == list(range(901, 1_001))
    assert all(fact.submitted is not None for fact in facts.each[1:])
    large = Past()
    for number in range(1, 2_001):
        answers(large, W1, 1.0, [number, 1, bytes(60_000)])
        answers(large, W1, 1.0, [10_000 + number, 1, [[batches.FAILED, bytes(MOST_FRAME_BYTES), 0, "", ()]], ()])
    assert sum(len(msgpack.packb(each.rows)) for each in large.batches()) < 3 << 20
    assert len(Facts(large, read).each) > 100


def test_row_75_dashboard_the_latest_calls_are_told_without_making_sense_of_the_others():
    past = Past()
    for batch in range(100):
        answers(past, W1, float(batch), [3 * batch + 1, 5, b""], [3 * batch + 2, 5, b""])
    past.end(End(999, 200.0, "g", b"", CANCELLED, 0, 1, ""))
    read_frames = []

    def counting(rows):
        read_frames.append(rows)
        return read(rows)

    found = Facts(past.tail(5), counting).each
    assert [fact.counter for fact in found] == [292, 293, 295, 296, 298, 299, 999] and len(read_frames) == 3
    assert [fact.counter for fact in latest_facts(past, 5).each] == [fact.counter for fact in found]
    assert len(latest_facts(past, 10_000).each) == 201 and len(latest_facts(past, 5).each) == 201, "it is there by then"
    assert past.tail(5).count == 6 and past.tail(10_000).count == past.count == 200


def test_X26_what_is_told_to_another_process_is_in_ages_and_read_by_its_clock():
    past = Past()
    past.sent(W1, [[1, b"f", b""]], 100.0)
    answers(past, W1, 103.0, [1, 2_500_000, b"x"])
    plain = batches.unpack_plain(batches.pack_plain(told(Facts(past, read).each, 110.0)))
    (fact,) = heard(plain, 5_000.0)
    assert (fact.submitted, fact.sent, fact.answered) == (4_990.0, 4_990.0, 4_993.0)
    assert (fact.name, fact.worker, fact.run_us) == ("f", W1, 2_500_000)


def fact(counter: int, answered: float, run_us: int, worker: bytes = W1, **changes: object) -> Fact:
    return Fact(counter, "f", worker, DONE, answered - 10, answered - 10, answered, run_us, 0, 1, "").but(**changes)


def test_row74_answers_that_came_together_ran_one_after_the_other_if_there_was_time():
    in_turn = [fact(1, 10.0, 1_000_000), fact(2, 20.0, 2_000_000), fact(3, 20.0, 3_000_000)]
    assert [(s.fact.counter, s.start, s.end) for s in spans([Owned(ME, in_turn)])] == [
        (1, 9.0, 10.0), (2, pytest.approx(15.0), pytest.approx(17.0)), (3, pytest.approx(17.0), 20.0),
    ]  # fmt: skip
    at_once = [fact(1, 10.0, 1_000_000), fact(2, 12.0, 2_000_000), fact(3, 12.0, 2_000_000)]
    assert [(s.start, s.end) for s in spans([Owned(ME, at_once)])] == [(9.0, 10.0), (10.0, 12.0), (10.0, 12.0)]


def test_row74_the_trace_has_a_process_a_node_and_a_row_for_each_that_runs_beside_another():
    facts = [
        fact(1, 10.0, 1_000_000),
        fact(2, 12.0, 2_000_000),
        fact(3, 12.0, 2_000_000),
        fact(4, 30.0, 5, b"nod20002"),
    ]
    facts.append(fact(5, 31.0, 0, b"", state=FAILED, sent=None, error="never sent"))
    events = chrome_trace([Owned(ME, facts)], {W1.hex(): "worker-1 pid=7"})["traceEvents"]
    shown = [event for event in events if event["ph"] == "X"]
    assert len(shown) == 4, "what never ran has no place in it"
    assert shown[0]["ts"] == 0.0 and shown[0]["dur"] == 1_000_000
    assert shown[1]["tid"] != shown[2]["tid"] and shown[0]["tid"] == shown[1]["tid"]
    labels = [event["args"]["name"] for event in events if event["name"] == "thread_name"]
    assert labels[:2] == ["worker-1 pid=7", "worker-1 pid=7 (2)"]
    assert {event["pid"] for event in shown} == {1, 2}
    assert shown[0]["args"]["waited_ms"] == pytest.approx(9_000)


def test_row74_counts_take_the_last_attempt_of_a_call():
    tried = [fact(1, 1.0, 100, state=FAILED), fact(1, 2.0, 300, attempt=1), fact(2, 3.0, 500, state=CANCELLED)]
    other = [fact(1, 4.0, 2_000_000, name="g")]
    slow, quick = counts([Owned(ME, tried), Owned(b"otherown", other)])
    assert (slow["Name"], slow["Calls"], slow["TotalSeconds"]) == ("g", 1, 2.0)
    assert (quick["Calls"], quick["Retries"], quick["Failed"], quick["Cancelled"]) == (2, 1, 0, 1)
    assert quick["MeanSeconds"] == pytest.approx(400e-6) and quick["MaxSeconds"] == pytest.approx(500e-6)
    assert quick["MeanWaitSeconds"] == pytest.approx(10.0, abs=0.01)


def test_X26_one_call_is_found_without_making_sense_of_the_others():
    """What is found of a number is what `Facts` has of it, and the frames of others are not read."""
    past, unread = Past(), 0
    past.mark(3000, 1.0)
    for number in range(0, 3000, 3):
        past.sent(W1, [[number, b"f", b""], [number + 1, b"f", b""]], number + 2.0)
        answers(past, W1, number + 3.0, [number, number, b"x"], [number + 1, 1, b"y"], name=f"f{number % 7}")
    answers(past, W2, 4000.0, [9, 7, [failed("no")], ()])  # once more
    past.tell(9, "tried again", 3999.0, 0)
    past.end(End(12, 4001.0, "f", W1, CANCELLED, 0, 1, ""))
    past.end(End(2, 4002.0, "f", b"", FAILED, 0, 1, "never sent"))
    copy, facts = past.copy(), Facts(past, read)
    answers(past, W2, 4003.0, [3, 7, [failed("not in the copy")], ()])
    frames: list[object] = []

    def reads(rows: object) -> object:
        frames.append(rows)
        return read(rows)

    for number in range(3000):
        packed = batches.pack_plain(number)
        found = latest_of(copy, number, reads, lambda rows, packed=packed: packed in rows)
        assert found == facts.latest.get(number), number
        if number > 128:  # the small ones are one byte, which is found elsewhere too
            unread += len(frames) <= 20
        frames.clear()
    assert unread > 2_800
    assert latest_of(past, 3, read, lambda rows: True).error.startswith("ValueError: not in the copy")


def test_X26_the_fold_of_a_copy_is_there_for_the_next_question():
    past = Past()
    answers(past, W1, 3.0, [1, 5, b"x"])
    fold = facts_of(past.copy())
    assert facts_of(past.copy()) is fold
    answers(past, W1, 4.0, [2, 5, b"x"])
    assert facts_of(past.copy()) is not fold and len(past.folds) == 1
