"""The head's file: what was acknowledged is there after any end (faults 11, 13, 40, 43; reliability 3.3)."""

from __future__ import annotations

import fcntl
import os
import random
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path
from select import POLLIN, poll

import pytest

from tests.effort import EFFORT
from zmreg.core.actor_roll import Stand
from zmreg.model.errors import StateError, StateLockedError
from zmreg.services.head.jobs import Job
from zmreg.services.head.ledger import FILE, LOCK, Ledger, Order, _require_local, open_ledger

CLUSTER, NODE = "c0ffee", b"head\0\0\0\0"


def order(number: int, name: str = "", frame: bytes = b"frame") -> Order:
    return Order(actor_id(number), b"owner\0\0\1", name, "space", bool(name), frame)


def actor_id(number: int) -> bytes:
    return b"owner\0\0\1" + number.to_bytes(8, "big")


def stand(number: int, state: str = "ALIVE", worker: bytes = b"worker\0\1") -> Stand:
    return Stand(actor_id(number), state, worker, 1, 0, False)


def settled(ledger: Ledger) -> str:
    """Wait until all that was put is on the disk, or refused: ledger's answer."""
    answers: list[str] = []
    ledger.after(answers.append)
    waiting = poll()
    waiting.register(ledger.fd, POLLIN)
    while not answers:
        assert waiting.poll(20_000), "the ledger has not answered"
        ledger.settle()
    return answers[0]


def test_what_was_kept_is_there_for_the_next_head(tmp_path: Path) -> None:
    first = open_ledger(tmp_path, CLUSTER, NODE)
    assert (first.epoch, first.former, first.actors, first.ends) == (1, b"", [], {})
    first.order(order(1, "counter"))
    first.stand(stand(1))
    first.order(order(2))
    first.order(order(2, frame=b"with its inputs"))
    first.order(order(3))
    first.end(actor_id(3), b"killed")
    first.job(Job(b"driver\0\1", "train.py", 10.0, 0.0, "RUNNING"))
    first.node(b"a" * 8, True)
    first.node(b"b" * 8, True)
    first.node(b"b" * 8, False)
    first.group(b"group 1", b"one")
    first.group(b"group 2", b"two")
    first.group(b"group 1", b"")
    first.group(b"group 0", b"three")
    assert settled(first) == ""
    first.close()

    second = open_ledger(tmp_path, CLUSTER, b"next\0\0\0\0")
    assert second.groups == [b"two", b"three"], "in the order they came"
    assert (second.epoch, second.former) == (2, NODE)
    assert second.actors == [
        (order(1, "counter"), stand(1)),
        (order(2, frame=b"with its inputs"), Stand(actor_id(2), "PENDING", b"", 0, 0, False)),
    ]
    assert second.ends == {actor_id(3): b"killed"}
    assert second.jobs == [Job(b"driver\0\1", "train.py", 10.0, 0.0, "RUNNING")]
    assert (second.nodes, second.graves) == ([b"a" * 8], [b"b" * 8])
    second.close()


def test_what_nobody_waits_for_is_written_as_well(tmp_path: Path) -> None:
    first = open_ledger(tmp_path, CLUSTER, NODE)
    first.order(order(1))
    first.close()
    second = open_ledger(tmp_path, CLUSTER, NODE)
    assert [each.actor_id for each, _ in second.actors] == [actor_id(1)]
    second.close()


def test_a_thousand_puts_are_few_commits(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path, CLUSTER, NODE)
    for number in range(1_000):
        ledger.order(order(number))
        ledger.stand(stand(number))
    assert settled(ledger) == ""
    assert ledger.commits < 100
    ledger.close()


def test_fault_13_a_second_head_is_refused_and_told_who_has_it(tmp_path: Path) -> None:
    first = open_ledger(tmp_path, CLUSTER, NODE)
    with pytest.raises(StateLockedError, match=f"held by pid {os.getpid()}"):
        open_ledger(tmp_path, CLUSTER, NODE)
    first.close()
    third = open_ledger(tmp_path, CLUSTER, NODE)
    assert third.epoch == 2, "the one that was refused must not have counted"
    third.close()


def test_the_state_of_another_cluster_is_refused(tmp_path: Path) -> None:
    open_ledger(tmp_path, CLUSTER, NODE).close()
    with pytest.raises(StateError, match=f"of cluster {CLUSTER}, and the key is of cluster 0ther"):
        open_ledger(tmp_path, "0ther", NODE)
    open_ledger(tmp_path, CLUSTER, NODE).close()  # and the lock is free


def test_a_directory_open_to_others_is_refused(tmp_path: Path) -> None:
    tmp_path.chmod(0o750)
    with pytest.raises(StateError, match="chmod 700"):
        open_ledger(tmp_path, CLUSTER, NODE)


def test_files_are_the_users_own(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path / "new" / "deep", CLUSTER, NODE)
    ledger.order(order(1))
    assert settled(ledger) == ""
    assert {path.stat().st_mode & 0o077 for path in (tmp_path / "new" / "deep").iterdir()} == {0}
    assert (tmp_path / "new" / "deep").stat().st_mode & 0o777 == 0o700
    ledger.close()


def test_a_network_file_system_is_refused(tmp_path: Path) -> None:
    mounts = tmp_path / "mounts"
    mounts.write_text(f"/dev/sda / ext4 rw 0 0\nserver:/x {tmp_path / 'far'} nfs4 rw 0 0\n")
    (tmp_path / "far" / "state").mkdir(parents=True)
    _require_local(tmp_path, mounts)
    with pytest.raises(StateError, match="nfs4"):
        _require_local(tmp_path / "far" / "state", mounts)


def test_a_damaged_file_is_an_error_that_says_what_to_do(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path, CLUSTER, NODE)
    for number in range(200):
        ledger.order(order(number, frame=bytes(1_000)))
    ledger.close()
    path = tmp_path / FILE
    with path.open("r+b") as file:
        file.seek(4096)
        file.write(os.urandom(8192))
    with pytest.raises(StateError, match="bring back a copy, or move it away"):
        open_ledger(tmp_path, CLUSTER, NODE)


# -- fault 40: the disk is full ----------------------------------------------------------------------------------------


def limit_pages(ledger: Ledger, pages: int) -> int:
    """sqlite says SQLITE_FULL beyond that, as it does on a full disk."""
    return int(ledger._database.execute(f"PRAGMA max_page_count = {pages}").fetchone()[0])


def test_fault_40_a_full_disk_refuses_with_the_reason_and_writes_when_there_is_room(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path, CLUSTER, NODE)
    ledger.order(order(1, "kept"))
    assert settled(ledger) == ""
    limit_pages(ledger, 1)  # fewer than are in use: as many as there are
    ledger.order(order(2, "too much", bytes(100_000)))
    assert "full" in settled(ledger)
    assert "full" in ledger.refused
    ledger.end(actor_id(2), b"refused")
    assert "full" in settled(ledger) or ledger.refused == ""
    limit_pages(ledger, 1 << 20)
    while settled(ledger):
        pass
    assert ledger.refused == ""
    ledger.order(order(3, "fits again", bytes(100_000)))
    assert settled(ledger) == ""
    ledger.close()
    after = open_ledger(tmp_path, CLUSTER, NODE)
    assert [each.name for each, _ in after.actors] == ["kept", "fits again"]
    assert after.ends == {actor_id(2): b"refused"}
    after.close()


def test_fault_40_what_nobody_waits_for_is_written_by_itself_when_there_is_room(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path, CLUSTER, NODE)
    limit_pages(ledger, 1)
    ledger.order(order(1, frame=bytes(100_000)))
    assert "full" in settled(ledger)
    limit_pages(ledger, 1 << 20)
    ledger.close()
    after = open_ledger(tmp_path, CLUSTER, NODE)
    assert [each.actor_id for each, _ in after.actors] == [actor_id(1)]
    after.close()


# -- faults 11 and 43: killed while it writes --------------------------------------------------------------------------

WRITER = """
import os, sys
from pathlib import Path
from select import POLLIN, poll
from zmreg.core.actor_roll import Stand
from zmreg.services.head.ledger import Order, open_ledger
ledger = open_ledger(Path(sys.argv[1]), "c0ffee", b"head0000")
first = int(sys.argv[2])
waiting = poll()
waiting.register(ledger.fd, POLLIN)
os.write(1, b"epoch %d\\n" % ledger.epoch)
number = first
while True:
    for number in range(number, number + 7):
        actor_id = b"owner\\0\\0\\1" + number.to_bytes(8, "big")
        ledger.order(Order(actor_id, b"owner\\0\\0\\1", f"n{number}", "space", True, bytes(number % 500)))
        ledger.stand(Stand(actor_id, "ALIVE", b"worker\\0\\1", 1, 0, False))
        def told(why, number=number):
            assert not why, why
            os.write(1, b"%d\\n" % number)
        ledger.after(told)
    number += 1
    waiting.poll()
    ledger.settle()
"""


@pytest.mark.timeout(120)
def test_fault_11_and_43_nothing_acknowledged_is_lost_by_twenty_kills_while_writing(tmp_path: Path) -> None:
    chance = random.Random(11)
    acknowledged: set[int] = set()
    for life in range(1, 21):
        writer = subprocess.Popen(
            [sys.executable, "-c", WRITER, str(tmp_path), str(life * 100_000)], stdout=subprocess.PIPE
        )
        assert writer.stdout is not None
        fcntl.fcntl(writer.stdout, fcntl.F_SETPIPE_SZ, 4096)  # it does not run far ahead of us
        assert writer.stdout.readline() == b"epoch %d\n" % life
        for _ in range(chance.randrange(1, 60)):
            acknowledged.add(int(writer.stdout.readline()))
        writer.send_signal(signal.SIGKILL)
        rest = writer.stdout.read().splitlines(keepends=True)
        acknowledged |= {int(line) for line in rest if line.endswith(b"\n")}
        writer.wait()
        writer.stdout.close()
    ledger = open_ledger(tmp_path, CLUSTER, NODE)
    assert ledger.epoch == 21
    kept = {int(each.name[1:]): (each, at) for each, at in ledger.actors}
    assert acknowledged <= kept.keys() and len(acknowledged) > 200
    for number in acknowledged:
        each, at = kept[number]
        assert len(each.frame) == number % 500 and at.state == "ALIVE"
    ledger.close()


def test_fault_43_a_torn_last_record_at_every_byte_recovers_to_the_last_commit(tmp_path: Path) -> None:
    source = tmp_path / "source"
    ledger = open_ledger(source, CLUSTER, NODE)
    ledger.order(order(1, "before"))
    assert settled(ledger) == ""
    wal = source / f"{FILE}-wal"
    whole_before = wal.stat().st_size
    ledger.order(order(2, "torn"))
    assert settled(ledger) == ""
    whole = wal.stat().st_size
    assert whole > whole_before
    database, log = (source / FILE).read_bytes(), wal.read_bytes()
    copy = tmp_path / "copy"
    for size in torn(whole_before, whole):
        copy.mkdir(mode=0o700)
        (copy / FILE).write_bytes(database)
        (copy / wal.name).write_bytes(log[:size])
        assert names(copy) == (["before", "torn"] if size == whole else ["before"]), size
        if size % 512 in (0, 1, 511) or size == whole:  # the whole way in takes longer
            again = open_ledger(copy, CLUSTER, NODE)  # with its check of the whole file
            assert again.epoch == 2
            again.close()
        for path in copy.iterdir():
            path.unlink()
        copy.rmdir()
    ledger.close()


def torn(before: int, whole: int) -> list[int]:
    """Where the last record may end: every byte with effort, otherwise every one near the end of something."""
    frame = 24 + 4096  # SQLite's header and page; its log begins with 32 bytes
    wanted = {whole, *range(before, whole, 16)}
    for size in range(before, whole):
        at = (size - 32) % frame
        if EFFORT > 1 or at <= 24 + 8 or at >= frame - 8 or size % 512 in (0, 1, 511):
            wanted.add(size)
    return sorted(wanted)


def names(directory: Path) -> list[str]:
    database = sqlite3.connect(directory / FILE)
    try:
        database.execute("PRAGMA synchronous=OFF")  # of what closing writes back: the files are a copy, soon removed
        return [name for (name,) in database.execute("SELECT name FROM actors ORDER BY rowid")]
    finally:
        database.close()


def test_the_lock_says_who_holds_it(tmp_path: Path) -> None:
    ledger = open_ledger(tmp_path, CLUSTER, NODE)
    assert (tmp_path / LOCK).read_text() == f"{os.getpid()}\n"
    ledger.close()
