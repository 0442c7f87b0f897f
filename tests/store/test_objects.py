"""The object table, rule by rule. Sizes in pages; processes a, b, c; objects by number."""

from __future__ import annotations

from typing import Any

import pytest

from zmreg.model.errors import InternalError
from zmreg.store.arena import PAGE
from zmreg.store.objects import (
    ALREADY_HERE,
    SPILL_RETRY_S,
    DropSpilled,
    Freed,
    Granted,
    Missing,
    ObjectTable,
    Pinned,
    Refused,
    StartRestore,
    StartSpill,
    demote,
    some,
)
from zmreg.store.records import MOVES, Holding, Move, State

A, B, C = b"a", b"b", b"c"


def oid(n: int) -> bytes:
    return n.to_bytes(16, "big")


def table(pages: int = 10, **options: Any) -> ObjectTable:
    return ObjectTable(pages * PAGE, **options)


def ask(store: ObjectTable, n: int, pages: int, process: bytes = A, secondary: bool = False) -> list[object]:
    return list(store.allocate(process, oid(n), pages * PAGE, 0.0, secondary))


def make(store: ObjectTable, n: int, pages: int, process: bytes = A, secondary: bool = False) -> int:
    """An object made and sealed at once; its offset."""
    (granted,) = ask(store, n, pages, process, secondary)
    assert isinstance(granted, Granted)
    assert store.seal(process, oid(n)) == []
    return granted.offset


def granted(n: int, page: int, pages: int, process: bytes = A, claimed: bool = False) -> Granted:
    return Granted(process, oid(n), page * PAGE, pages * PAGE, claimed)


def spill(n: int, page: int, pages: int) -> StartSpill:
    return StartSpill(oid(n), page * PAGE, pages * PAGE)


def missing(n: int, reason: str, process: bytes = B) -> Missing:
    return Missing(process, oid(n), reason)


def test_an_object_is_made_read_and_freed() -> None:
    store = table()
    assert ask(store, 1, 3) == [granted(1, 0, 3)]
    assert not store.contains(oid(1))
    assert store.seal(A, oid(1)) == []
    assert store.contains(oid(1))
    assert store.pin(B, oid(1)) == [Pinned(B, oid(1), 0, 3 * PAGE)]
    assert store.unpin(B, oid(1)) == []
    assert store.free(oid(1)) == [Freed(oid(1))]
    assert not store.contains(oid(1))
    assert store.statistics().used_bytes == 0
    assert store.statistics().peak_bytes == 3 * PAGE


def test_warm_pages_are_granted_again_as_claimed() -> None:
    store = table()
    assert ask(store, 1, 3) == [granted(1, 0, 3)]
    store.claimed(oid(1))
    store.seal(A, oid(1))
    store.free(oid(1))
    assert ask(store, 2, 2) == [granted(2, 0, 2, claimed=True)]
    assert ask(store, 3, 2) == [granted(3, 2, 2)]
    assert store.statistics().claimed_bytes == 3 * PAGE


def test_a_reader_waits_until_the_object_is_sealed() -> None:
    store = table()
    ask(store, 1, 1)
    assert store.pin(B, oid(1)) == []
    assert store.pin(B, oid(1)) == []
    pinned = Pinned(B, oid(1), 0, PAGE)
    assert store.seal(A, oid(1)) == [pinned, pinned]
    assert store.top(1) == [(oid(1), PAGE, "sealed", 2)]


def test_row74_the_largest_and_the_oldest_are_told_with_who_made_and_who_reads_them() -> None:
    store = table()
    for n, pages in enumerate((1, 3, 2)):
        store.allocate(A, oid(n), pages * PAGE, 10.0 + n)
        store.seal(A, oid(n))
    store.pin(B, oid(1))
    assert [(each.nbytes, each.creator, dict(each.pins)) for each in some(store, 2, oldest=False)] == [
        (3 * PAGE, A, {B: 1}), (2 * PAGE, A, {}),
    ]  # fmt: skip
    assert [each.since for each in some(store, 2, oldest=True)] == [10.0, 11.0]


def test_a_reader_is_told_when_the_object_will_never_be_sealed() -> None:
    store = table()
    assert store.pin(B, oid(9)) == [missing(9, "it is not in this store")]
    for n, end in ((1, lambda: store.abort(A, oid(1))), (2, lambda: store.process_died(A))):
        ask(store, n, 1)
        store.pin(B, oid(n))
        (told,) = end()
        assert isinstance(told, Missing)
    ask(store, 3, 1)
    store.pin(B, oid(3))
    assert store.pin_timed_out(B, oid(3)) == [missing(3, "it is still writing")]
    assert store.seal(A, oid(3)) == []


def test_only_the_creator_seals_and_only_once() -> None:
    store = table()
    ask(store, 1, 1)
    assert store.seal(B, oid(1)) == []
    assert not store.contains(oid(1))
    store.seal(A, oid(1))
    assert store.seal(A, oid(1)) == []
    assert store.abort(A, oid(1)) == []
    assert store.contains(oid(1))
    assert store.unpin(A, oid(1)) == store.free(oid(5)) == store.spilled(oid(1), None) == []
    assert store.claimed(oid(5)) == store.restored(oid(1), None) == []
    assert store.statistics().ignored == 8


def test_more_unpins_than_pins_are_counted_not_believed() -> None:
    store = table()
    make(store, 1, 1)
    store.pin(B, oid(1))
    store.pin(C, oid(1))
    assert store.unpin(B, oid(1), 5) == []
    assert store.statistics().ignored == 1
    assert store.statistics().pinned == 1


def test_D19_freed_while_read_stays_readable_to_the_last_reader() -> None:
    store = table()
    make(store, 1, 4)
    store.pin(B, oid(1))
    assert store.free(oid(1)) == [Freed(oid(1))]
    assert store.free(oid(1)) == []
    assert store.pin(C, oid(1)) == [missing(1, "it was freed", C)]
    assert store.statistics().used_bytes == 4 * PAGE
    assert ask(store, 2, 7, C) == []  # the block is not used again yet
    assert store.unpin(B, oid(1)) == [granted(2, 0, 7, C)]


def test_freed_while_it_is_written_or_waits() -> None:
    store = table()
    ask(store, 1, 8)
    assert ask(store, 2, 8, B) == []
    assert store.free(oid(2)) == [Refused(B, oid(2), "the object was freed before it was written")]
    assert store.free(oid(1)) == []  # it was never offered
    assert store.statistics().used_bytes == 8 * PAGE  # its creator still writes
    assert store.seal(A, oid(1)) == []
    assert not store.contains(oid(1))
    assert store.statistics().used_bytes == 0


def test_over_budget_secondary_copies_go_first_then_primaries_spill_oldest_first() -> None:
    store = table()
    make(store, 1, 3)
    make(store, 2, 3)
    make(store, 3, 3, secondary=True)
    store.pin(B, oid(1))
    store.unpin(B, oid(1))  # 1 is now younger than 2
    assert ask(store, 4, 4) == [Freed(oid(3)), granted(4, 6, 4)]
    assert store.statistics().evicted_bytes_total == 3 * PAGE
    assert ask(store, 5, 2, B) == [spill(2, 3, 3)]
    assert store.spilled(oid(2), None) == [granted(5, 3, 2, B)]
    assert store.contains(oid(2))
    assert store.statistics().spilled == 1
    assert store.statistics().spilled_bytes_total == 3 * PAGE


def test_cache_eviction_none_keeps_secondary_copies_by_spilling_them() -> None:
    store = table(evict_secondaries=False)
    make(store, 1, 8, secondary=True)
    assert ask(store, 2, 8) == [spill(1, 0, 8)]
    assert store.spilled(oid(1), None) == [granted(2, 0, 8)]
    assert store.contains(oid(1))


def test_a_spilled_object_is_restored_for_its_readers_and_leaves_again_for_nothing() -> None:
    store = table()
    make(store, 1, 8)
    ask(store, 2, 8)
    store.spilled(oid(1), None)
    store.seal(A, oid(2))
    assert store.pin(B, oid(1)) == [spill(2, 0, 8)]
    assert store.pin(C, oid(1)) == []
    assert store.spilled(oid(2), None) == [StartRestore(oid(1), 0, 8 * PAGE, False)]
    assert store.restored(oid(1), None) == [Pinned(B, oid(1), 0, 8 * PAGE), Pinned(C, oid(1), 0, 8 * PAGE)]
    store.process_died(B)
    store.unpin(C, oid(1))
    # The file is still good, so the memory is given up at once.
    assert store.pin(B, oid(2)) == [StartRestore(oid(2), 0, 8 * PAGE, False)]
    assert store.restored(oid(2), None) == [Pinned(B, oid(2), 0, 8 * PAGE)]
    assert store.free(oid(1)) == [Freed(oid(1)), DropSpilled(oid(1))]
    assert store.free(oid(2)) == [Freed(oid(2))]
    assert store.unpin(B, oid(2)) == [DropSpilled(oid(2))]
    assert store.statistics().restored_bytes_total == 16 * PAGE


def test_fault_44_a_restore_that_fails_loses_the_object_here() -> None:
    store = table()
    make(store, 1, 8)
    ask(store, 2, 8)
    store.spilled(oid(1), None)
    store.seal(A, oid(2))
    store.free(oid(2))
    store.pin(B, oid(1))
    reason = "it could not be restored from disk: checksum"
    assert store.restored(oid(1), "checksum") == [Freed(oid(1)), missing(1, reason), DropSpilled(oid(1))]
    assert not store.contains(oid(1))
    assert store.statistics().used_bytes == 0


def test_read_while_it_spills_it_stays_in_memory_and_another_one_goes() -> None:
    store = table()
    make(store, 1, 5)
    make(store, 2, 5)
    assert ask(store, 3, 5) == [spill(1, 0, 5)]
    # Nothing will come of that spill, so another one begins at once.
    assert store.pin(B, oid(1)) == [Pinned(B, oid(1), 0, 5 * PAGE), spill(2, 5, 5)]
    assert store.spilled(oid(1), None) == []
    assert store.spilled(oid(2), None) == [granted(3, 5, 5)]


def test_freed_while_a_copy_is_under_way_the_memory_and_the_file_wait_for_its_end() -> None:
    store = table()
    make(store, 1, 8)
    ask(store, 2, 8)
    assert store.free(oid(1)) == [Freed(oid(1))]
    assert store.spilled(oid(1), None) == [DropSpilled(oid(1)), granted(2, 0, 8)]
    store.seal(A, oid(2))
    ask(store, 3, 8)
    store.spilled(oid(2), None)
    store.abort(A, oid(3))
    store.pin(B, oid(2))
    assert store.free(oid(2)) == [Freed(oid(2)), missing(2, "it was freed")]
    assert store.restored(oid(2), None) == [DropSpilled(oid(2))]
    assert store.statistics().used_bytes == 0


def test_C28_creators_wait_in_order_and_are_served_in_order() -> None:
    store = table()
    ask(store, 1, 10)
    assert ask(store, 2, 6, B) == []
    assert ask(store, 3, 1, C) == []  # it would wait even if it fitted
    assert store.statistics().waiting == 2
    assert store.abort(A, oid(1)) == [granted(2, 0, 6, B), granted(3, 6, 1, C)]


def test_a_small_request_does_not_overtake_a_large_one() -> None:
    store = table()
    ask(store, 1, 6)
    assert ask(store, 2, 6, B) == []
    assert ask(store, 3, 1, C) == []
    assert store.seal(A, oid(1)) == [spill(1, 0, 6)]
    assert store.spilled(oid(1), None) == [granted(2, 0, 6, B), granted(3, 6, 1, C)]


def test_C28_who_holds_memory_may_overtake_a_request_that_waits_for_him() -> None:
    """B waits for room that A holds; A needs a little more to get on: without overtaking both would wait for ever."""
    store = table()
    make(store, 1, 6)
    store.pin(A, oid(1))
    assert ask(store, 2, 8, B) == []
    assert ask(store, 3, 2, A) == [granted(3, 6, 2)]
    store.seal(A, oid(3))
    assert store.unpin(A, oid(1)) == [spill(3, 6, 2), spill(1, 0, 6)]


def test_C28_several_returns_that_do_not_fit_together_are_made_one_after_the_other() -> None:
    """ray#15750: any object smaller than the store can be made, one return at a time."""
    store = table()
    for n in range(5):
        effects = ask(store, n, 9)
        if n:
            assert effects == [spill(n - 1, 0, 9)]
            effects = list(store.spilled(oid(n - 1), None))
        assert effects == [granted(n, 0, 9)]
        store.seal(A, oid(n))


def test_core_59_fragmentation_clears_the_cheapest_range_of_neighbours() -> None:
    store = table(10)
    for n in range(10):
        make(store, n, 1)
    for n in (0, 4, 9):
        store.pin(B, oid(n))
    for n in (1, 6, 8):
        store.free(oid(n))
    # Pages: pinned at 0, 4, 9; free 1, 6, 8; movable 2, 3, 5, 7. Three in a row: 1-3 costs two, 5-7 two, 6-8 one.
    assert ask(store, 20, 3, C) == [spill(7, 7, 1)]
    assert store.spilled(oid(7), None) == [granted(20, 6, 3, C)]


def test_core_59_a_range_has_all_its_blocks() -> None:
    store = table(12)
    for n, pages in enumerate((1, 2, 1, 1, 4, 1)):
        make(store, n, pages)
    for n in (0, 2, 3, 5):
        store.pin(B, oid(n))
    store.free(oid(4))
    assert ask(store, 20, 5, C) == []  # 6 pages are free, 4 of them in a row
    assert ask(store, 21, 3, B) == [granted(21, 5, 3, B)]  # B reads, so B may overtake
    assert len(store.allocate_timed_out(C, oid(20))) == 1
    store.unpin(B, oid(2))
    assert ask(store, 22, 3, C) == [spill(1, 1, 2), spill(2, 3, 1)]  # neither alone would do


def test_a_search_that_was_in_vain_is_repeated_seldom_but_on_every_tick() -> None:
    store = table(400)
    for n in range(400):
        make(store, n, 1)
    for n in range(0, 400, 2):
        store.pin(B, oid(n))
    for n in (1, 3):
        store.free(oid(n))
    assert ask(store, 1000, 2, C) == []  # every other page is pinned
    assert store.unpin(B, oid(200)) == []  # would do, but is not looked at
    tidied = store.tick(0.0)
    assert tidied == [spill(199, 199, 1), spill(200, 200, 1)]


def test_nobody_is_thrown_out_in_vain() -> None:
    store = table()
    make(store, 1, 4)
    make(store, 2, 4)
    store.pin(B, oid(1))
    assert ask(store, 3, 8, C) == []  # spilling 2 would not make room for 8
    assert store.statistics().waiting == 1
    assert store.unpin(B, oid(1)) == [spill(2, 4, 4), spill(1, 0, 4)]


def test_an_object_larger_than_the_store_is_refused_at_once() -> None:
    (refused,) = ask(table(10), 1, 11)
    assert isinstance(refused, Refused)
    assert "44.0 KiB can never fit" in refused.reason
    assert "store of 40.0 KiB" in refused.reason
    assert "object_store_bytes" in refused.reason
    assert isinstance(ask(table(10), 1, -1)[0], Refused)


def test_C28_a_creator_that_waited_too_long_is_told_the_top_holders() -> None:
    store = table()
    make(store, 1, 6)
    make(store, 2, 3)
    store.pin(B, oid(1))
    store.pin(B, oid(2))
    ask(store, 3, 4, C)
    store.pin(B, oid(3))
    refused, told = store.allocate_timed_out(C, oid(3))
    assert isinstance(refused, Refused)
    assert f"{oid(1).hex()} 24.0 KiB sealed, 1 readers; {oid(2).hex()} 12.0 KiB sealed" in refused.reason
    assert "36.0 KiB of 40.0 KiB are in use" in refused.reason
    assert oid(3).hex() not in refused.reason.split("Largest")[1]
    assert told == missing(3, "its creator found no room for it")
    assert store.allocate_timed_out(C, oid(3)) == []


def test_the_same_request_twice_and_an_object_that_is_here_already() -> None:
    store = table()
    assert ask(store, 1, 6) == ask(store, 1, 6) == [granted(1, 0, 6)]
    assert ask(store, 2, 6, B) == ask(store, 2, 6, B) == []
    (refused,) = ask(store, 1, 6, B)
    assert isinstance(refused, Refused) and "is writing here under another request" in refused.reason
    store.seal(A, oid(1))
    assert ask(store, 1, 6, C) == [Refused(C, oid(1), ALREADY_HERE)]
    assert store.spilled(oid(1), None) == [granted(2, 0, 6, B)]


def test_a_dead_process_leaves_its_sealed_objects_only() -> None:
    store = table()
    make(store, 1, 2)
    make(store, 2, 2, B)
    ask(store, 3, 2)
    store.pin(A, oid(2))
    store.pin(B, oid(3))
    ask(store, 4, 9, A)
    assert store.process_died(A) == [missing(3, "the process that wrote it died")]
    stats = store.statistics()
    assert (stats.used_bytes, stats.pinned, stats.waiting, stats.sealed) == (4 * PAGE, 0, 0, 2)


def test_a_dead_reader_wants_nothing_restored() -> None:
    store = table()
    make(store, 1, 8)
    ask(store, 2, 8)
    store.spilled(oid(1), None)
    store.pin(B, oid(1))
    assert store.statistics().waiting == 1
    assert store.process_died(B) == []
    assert store.statistics().waiting == 0
    store.pin(C, oid(1))
    (told,) = store.pin_timed_out(C, oid(1))
    assert isinstance(told, Missing) and "no room" in told.reason
    assert store.statistics().waiting == 0


def test_the_objects_of_a_dead_owner_are_freed_together() -> None:
    store = table()
    mine, other = b"12345678" + bytes(8), b"abcdefgh" + bytes(8)
    for object_id in (mine, other):
        store.allocate(A, object_id, PAGE, 0.0)
        store.seal(A, object_id)
    assert store.free_owned_by(b"12345678") == [Freed(mine)]
    assert store.contains(other)


def test_fault_39_after_a_full_disk_spilling_rests_and_creators_wait() -> None:
    store = table()
    make(store, 1, 6)
    make(store, 2, 4)
    assert ask(store, 3, 6) == [spill(1, 0, 6)]
    assert store.spilled(oid(1), "disk full") == []
    assert store.contains(oid(1))
    assert store.tick(SPILL_RETRY_S / 2) == []
    assert store.tick(SPILL_RETRY_S + 1) == [spill(2, 6, 4), spill(1, 0, 6)]
    store.spilled(oid(2), "disk full")
    store.spilled(oid(1), "disk full")
    (refused,) = store.allocate_timed_out(A, oid(3))
    assert isinstance(refused, Refused) and "Nothing can be spilled: disk full." in refused.reason


def test_fault_39_a_deleted_spill_file_ends_the_rest() -> None:
    store = table()
    make(store, 1, 6)
    ask(store, 2, 6)
    store.spilled(oid(1), None)
    store.seal(A, oid(2))
    assert ask(store, 3, 6) == [spill(2, 0, 6)]
    assert store.spilled(oid(2), "disk full") == []
    assert store.free(oid(1)) == [Freed(oid(1)), DropSpilled(oid(1)), spill(2, 0, 6)]


def test_without_a_disk_primaries_stay_and_creators_wait_for_frees() -> None:
    store = table(spill=False)
    make(store, 1, 6)
    assert ask(store, 2, 6) == []
    assert store.tick(1e9) == []
    assert store.free(oid(1)) == [Freed(oid(1)), granted(2, 0, 6)]


def test_an_illegal_move_tells_the_story() -> None:
    entry = Holding(oid(7), PAGE, A, False)
    with pytest.raises(InternalError, match="is waiting, cannot restore") as caught:
        entry.move(Move.RESTORE)
    assert "<Holding 00000007 waiting 4096 bytes, 0 readers>" in str(caught.value)


def test_every_state_is_reached_and_left() -> None:
    assert {state for state, _ in MOVES} == set(State) - {State.GONE}
    assert set(MOVES.values()) == set(State) - {State.WAITING}


def test_repr_is_a_line_for_humans() -> None:
    store = table()
    make(store, 1, 3)
    assert repr(store) == "<ObjectTable [12.0 KiB/40.0 KiB | 1 objects, 0 spilled, 0 waiting]>"


def test_D5_secondary_copies_stay_within_their_bound_and_leave_oldest_first() -> None:
    store = table(10, cache_bytes=4 * PAGE)
    for n in (1, 2):
        make(store, n, 2, secondary=True)
    make(store, 3, 5)
    assert ask(store, 4, 2, secondary=True)[0] == Freed(oid(1)), "it makes room before the new one comes"
    store.seal(A, oid(4))
    assert store.statistics().cached_bytes == 4 * PAGE
    assert store.statistics().evicted_total == 1
    assert store.contains(oid(3))


def test_D5_a_copy_that_is_read_goes_when_it_is_not_read_any_more() -> None:
    store = table(10, cache_bytes=PAGE)
    make(store, 1, 2, secondary=True)
    assert store.contains(oid(1)), "whoever waited for it reads it first"
    store.pin(B, oid(1))
    make(store, 2, 1, secondary=True)
    assert store.contains(oid(1))
    assert Freed(oid(1)) in store.unpin(B, oid(1))
    assert store.statistics().cached_bytes <= PAGE


def test_X5_a_promoted_copy_is_spilled_and_never_dropped() -> None:
    store = table(4, cache_bytes=PAGE)
    make(store, 1, 2, secondary=True)
    assert store.promote(oid(1)) == []
    assert store.describe(oid(1)) == (2 * PAGE, False)
    assert store.statistics().cached_bytes == 0
    assert ask(store, 2, 4) == [spill(1, 0, 2)]
    assert store.promote(oid(9)) == []


def test_X5_a_primary_that_is_demoted_goes_at_once_or_with_its_last_reader() -> None:
    store = table(4)
    make(store, 1, 2)
    make(store, 2, 2)
    store.pin(B, oid(2))
    assert demote(store, oid(1)) == [Freed(oid(1))]
    assert demote(store, oid(2)) == [], "it is read in place"
    assert store.describe(oid(2)) == (2 * PAGE, True)
    assert demote(store, oid(2)) == demote(store, oid(9)) == []
    assert store.unpin(B, oid(2)) == [Freed(oid(2))]
    assert not store.contains(oid(2)) and store.statistics().used_bytes == 0


def test_X5_a_primary_that_is_demoted_in_use_stays_if_it_is_to_be_one_again() -> None:
    store = table(4)
    make(store, 1, 2)
    store.pin(B, oid(1))
    assert demote(store, oid(1)) == []
    assert store.promote(oid(1)) == []
    assert store.unpin(B, oid(1)) == [] and store.describe(oid(1)) == (2 * PAGE, False)


def test_X5_a_primary_on_disk_that_is_demoted_takes_its_file_along() -> None:
    store = table(2)
    make(store, 1, 2)
    assert ask(store, 2, 2) == [spill(1, 0, 2)]
    store.spilled(oid(1), None)
    assert demote(store, oid(1)) == [Freed(oid(1)), DropSpilled(oid(1))]
    assert not store.contains(oid(1))


def test_X5_a_primary_that_is_demoted_while_it_is_spilled_goes_with_its_file() -> None:
    store = table(2)
    make(store, 1, 2)
    assert ask(store, 2, 2) == [spill(1, 0, 2)]
    assert demote(store, oid(1)) == []
    assert store.spilled(oid(1), None) == [Freed(oid(1)), DropSpilled(oid(1)), granted(2, 0, 2)]
    assert not store.contains(oid(1))


def test_X5_a_primary_on_disk_that_is_demoted_goes_when_nobody_waits_to_read_it_any_more() -> None:
    store = table(2)
    make(store, 1, 2)
    assert ask(store, 2, 2) == [spill(1, 0, 2)]
    store.spilled(oid(1), None)
    store.seal(A, oid(2))
    store.pin(A, oid(2))
    assert store.pin(B, oid(1)) == []
    assert demote(store, oid(1)) == []
    _, *effects = store.pin_timed_out(B, oid(1))
    assert effects == [Freed(oid(1)), DropSpilled(oid(1))] and not store.contains(oid(1))
