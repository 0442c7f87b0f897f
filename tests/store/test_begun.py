"""Which calls a serving process had begun, as its file tells after its death (R25 of requests.md)."""

from __future__ import annotations

import random
import threading
from pathlib import Path

from zmreg.model.ids import object_id
from zmreg.store.begun import Begun, begun_file, may_have_begun, take_begun

HOST = b"hosthost"
ME, OTHER = b"caller-1", b"caller-2"
PLACES = 512


def told(session: Path) -> bytes:
    """What the next reader makes of it; the file is gone then."""
    found = take_begun(session, HOST)
    assert not begun_file(session, HOST).exists()
    return found


def test_R25_what_has_begun_is_told_whether_it_has_ended_or_not(tmp_path: Path) -> None:
    begun = Begun(begun_file(tmp_path, HOST))
    begun.begin(object_id(ME, 7))
    begun.end(begun.begin(object_id(ME, 5)))
    words = told(tmp_path)
    assert [number for number in range(1, 10) if may_have_begun(words, object_id(ME, number))] == [5, 7]
    assert not may_have_begun(words, object_id(OTHER, 7))


def test_R25_without_a_file_nobody_can_tell(tmp_path: Path) -> None:
    assert take_begun(tmp_path, HOST) == b""
    assert may_have_begun(b"", object_id(ME, 1))


def test_R25_a_file_cut_short_tells_nothing(tmp_path: Path) -> None:
    begun_file(tmp_path, HOST).write_bytes(b"\0" * 100)
    assert may_have_begun(told(tmp_path), object_id(ME, 1))


def test_R25_more_at_once_than_there_are_places_are_all_told(tmp_path: Path) -> None:
    begun = Begun(begun_file(tmp_path, HOST))
    for number in range(1, PLACES + 11):
        begun.begin(object_id(ME, number))
    words = told(tmp_path)
    assert all(may_have_begun(words, object_id(ME, number)) for number in range(1, PLACES + 11))
    assert not may_have_begun(words, object_id(ME, PLACES + 11))


def test_R25_in_any_order_what_has_begun_is_never_taken_for_what_has_not(tmp_path: Path) -> None:
    chance = random.Random(5)
    begun, running, seen = Begun(begun_file(tmp_path, HOST)), [], set()
    numbers = list(range(1, 4001))
    for at in range(0, len(numbers), 20):  # nearly in order, as calls come
        chance.shuffle(numbers[at : at + 20])
    for number in numbers[:3000]:
        task_id = object_id(chance.choice((ME, OTHER)), number)
        seen.add(task_id)
        running.append(begun.begin(task_id))
        while len(running) > 100:
            begun.end(running.pop(chance.randrange(len(running))))
    words = told(tmp_path)
    assert all(may_have_begun(words, each) for each in seen)
    late = [object_id(caller, number) for caller in (ME, OTHER) for number in numbers[3000:]]
    assert not any(may_have_begun(words, each) for each in late), "and those behind all that have are not"


def test_R25_threads_that_begin_at_once_lose_none(tmp_path: Path) -> None:
    begun = Begun(begun_file(tmp_path, HOST))

    def work(caller: bytes) -> None:
        for number in range(1, 2001):
            begun.end(begun.begin(object_id(caller, number)))

    # Both in the same part, by their last byte.
    threads = [threading.Thread(target=work, args=(caller,)) for caller in (b"caller-a", b"callEr-a")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    words = told(tmp_path)
    for caller in (b"caller-a", b"callEr-a"):
        assert all(may_have_begun(words, object_id(caller, number)) for number in range(1, 2001))
