"""The rules of leasing, one small story each. A and B are owners, w1.. workers, c1 a shape of one CPU."""

from __future__ import annotations

import pytest

from zmreg.core.effects import (
    AtCap,
    CannotStart,
    Granted,
    Hosted,
    Infeasible,
    LeaseEffect,
    Recall,
    StartWorker,
    StopWorker,
)
from zmreg.core.leases import LeaseBook
from zmreg.model.specs import UNIT, Shape, actor_shapes

A, B, C = b"owner--A", b"owner--B", b"owner--C"
c0, c1, c2 = Shape.of(0), Shape.of(1), Shape.of(2)
gpu = Shape.of(1, 1)


def worker(number: int) -> bytes:
    return b"worker%02d" % number


def book(cpus: int = 2, gpus: int = 0, max_workers: int = 8, workers: int = 0, keep_idle: int = 0) -> LeaseBook:
    """A book of a node whose first `workers` workers are up."""
    made = LeaseBook({"CPU": cpus * UNIT, "GPU": gpus * UNIT}, frozenset({"here"}), max_workers, keep_idle)
    for number in range(1, workers + 1):
        assert made.worker_started(worker(number)) == []
    return made


def grants(effects: list[LeaseEffect]) -> list[bytes]:
    return [effect.owner for effect in effects if isinstance(effect, Granted)]


def recalls(effects: list[LeaseEffect]) -> list[bytes]:
    return [effect.owner for effect in effects if isinstance(effect, Recall)]


def use(leases: LeaseBook, *workers: bytes) -> None:
    """Lease these, which have to be all the idle ones, and give them back in this order: the last is the warmest."""
    assert sorted(granted_workers(leases.want(A, c0, len(workers)))) == sorted(workers)
    leases.want(A, c0, 0)
    for each in workers:
        assert leases.returned(A, each) == []


def granted_workers(effects: list[LeaseEffect]) -> list[bytes]:
    return [effect.worker for effect in effects if isinstance(effect, Granted)]


def free_cpus(leases: LeaseBook) -> float:
    return dict(leases.statistics().available)["CPU"] / UNIT


def test_a_want_starts_the_workers_that_can_be_used_and_no_more() -> None:
    leases = book(cpus=2)
    assert leases.want(A, c1, 1000) == [StartWorker(), StartWorker()]
    assert leases.want(A, c1, 1000) == []
    assert leases.worker_started(worker(1)) == [Granted(A, c1, worker(1))]
    assert leases.worker_started(worker(2)) == [Granted(A, c1, worker(2))]
    assert leases.want(A, c1, 900) == []
    assert free_cpus(leases) == 0


def test_a_want_is_a_level_not_an_edge() -> None:
    leases = book(cpus=4, workers=4)
    assert grants(leases.want(A, c1, 2)) == [A, A]
    assert leases.want(A, c1, 2) == []
    assert grants(leases.want(A, c1, 3)) == [A]
    assert leases.want(A, c1, 0) == []
    assert leases.statistics().leased == 3


def test_an_idle_worker_serves_any_owner() -> None:
    leases = book(workers=1)
    leases.want(A, c1, 1)
    leases.want(A, c1, 0)
    assert leases.returned(A, worker(1)) == []
    assert leases.want(B, c1, 1) == [Granted(B, c1, worker(1))]


def test_a_lease_comes_back_once_and_only_from_its_owner() -> None:
    leases = book(workers=1)
    leases.want(A, c1, 1)
    leases.want(A, c1, 0)
    assert leases.returned(B, worker(1)) == []
    assert leases.statistics().leased == 1
    leases.returned(A, worker(1))
    leases.returned(A, worker(1))
    assert free_cpus(leases) == 2


def test_fairness_b_gets_its_first_lease_as_soon_as_a_returns_the_recalled_one() -> None:
    leases = book(cpus=2, workers=2)
    leases.want(A, c1, 1000)
    asked = leases.want(B, c1, 10)
    assert recalls(asked) == [A]
    recalled = next(effect.worker for effect in asked if isinstance(effect, Recall))
    assert leases.want(B, c1, 10) == [], "a lease is called back once, however often B repeats itself"
    assert leases.returned(A, recalled) == [Granted(B, c1, recalled)]
    assert leases.statistics().leased == 2


def test_an_even_split_is_left_alone() -> None:
    leases = book(cpus=4, workers=4)
    leases.want(A, c1, 100)
    queue = leases.want(B, c1, 100)
    seen = 0
    while queue:
        effect = queue.pop(0)
        if isinstance(effect, Recall):
            seen += 1
            queue += leases.returned(effect.owner, effect.worker)
    assert seen == 2, "B takes two of A's four, and then nobody asks anybody"


def test_an_only_lease_is_recalled_for_someone_with_nothing_and_for_nobody_else() -> None:
    leases = book(cpus=2, workers=2)
    leases.want(A, c1, 1)
    assert recalls(leases.want(B, c1, 5)) == [], "B has one, and A has no more than that"
    assert len(recalls(leases.want(C, c1, 1))) == 1


def test_a_lease_of_which_no_more_is_wanted_is_recalled_first() -> None:
    leases = book(cpus=5, workers=5)
    leases.want(A, c1, 3)
    leases.want(B, c1, 2)
    leases.want(B, c1, 0)
    assert recalls(leases.want(A, c1, 4)) == [B]


def test_nothing_is_recalled_that_its_deeper_holder_would_get_back_at_once() -> None:
    leases = book(cpus=4, workers=4)
    leases.want(A, c1, 100, depth=2)
    (recall,) = (effect for effect in leases.want(B, c1, 100, depth=0) if isinstance(effect, Recall))
    leases.tick(1.0)
    assert recalls(leases.returned(A, recall.worker)) == [], "B has one, A keeps three: deeper tasks end sooner"


def test_two_owners_on_one_cpu_take_turns_whatever_their_depth() -> None:
    leases = book(cpus=1, workers=1)
    queue = leases.want(A, c1, 1000, depth=5) + leases.want(B, c1, 1000, depth=0)
    turns: list[bytes] = []
    while len(turns) < 8:
        effect = queue.pop(0)
        if isinstance(effect, Granted):
            turns.append(effect.owner)
        elif isinstance(effect, Recall):
            queue += leases.returned(effect.owner, effect.worker)
    assert turns == [A, B] * 4


def test_an_owners_other_shape_is_no_excuse_to_starve() -> None:
    leases = book(cpus=2, workers=2)
    leases.want(A, c1, 1000)
    assert len(recalls(leases.want(A, c2, 1))) == 2


def test_a_wide_request_is_not_overtaken_for_ever_by_narrow_ones() -> None:
    leases = book(cpus=2, workers=2)
    leases.want(A, c1, 1000)
    first, second = (effect.worker for effect in leases.want(B, c2, 1) if isinstance(effect, Recall))
    assert grants(leases.returned(A, first)) == [], "the first freed CPU is kept back for B"
    assert grants(leases.returned(A, second)) == [B]


def test_nothing_is_kept_back_for_a_request_that_waits_on_a_blocked_task() -> None:
    leases = book(cpus=1, gpus=1, workers=2)
    assert grants(leases.want(A, gpu, 1)) == [A]
    leases.want(B, gpu, 1)
    # The GPU stays with the blocked task, which waits for a child that needs one CPU: B must not stand in its way.
    assert grants(leases.blocked(worker(2)) + leases.want(C, c1, 1, depth=1)) == [C]


def test_deeper_requests_go_first() -> None:
    leases = book(cpus=1)
    leases.want(A, c1, 1, depth=0)
    leases.want(B, c1, 1, depth=3)
    assert grants(leases.worker_started(worker(1))) == [B]


def test_owners_are_served_in_turn_when_resources_come_free() -> None:
    leases = book(cpus=4)
    leases.want(A, c1, 4)
    leases.want(B, c1, 4)
    order = [owner for number in range(1, 5) for owner in grants(leases.worker_started(worker(number)))]
    assert order == [A, B, A, B]


def test_row_5_amounts_are_taken_all_at_once_or_not_at_all() -> None:
    leases = book(cpus=4, gpus=1, workers=2)
    assert grants(leases.want(A, gpu, 2)) == [A]
    assert free_cpus(leases) == 3, "the second waits for the GPU and holds no CPU meanwhile"


def test_row_5_a_thousand_tenths_are_exactly_a_hundred() -> None:
    leases = book(cpus=100, max_workers=1000, workers=1000)
    assert len(grants(leases.want(A, Shape.of(0.1), 2000))) == 1000
    assert free_cpus(leases) == 0


def test_a_shape_without_resources_needs_only_a_worker() -> None:
    leases = book(cpus=1, workers=1)
    leases.want(A, c1, 1)
    assert leases.want(B, c0, 1) == [StartWorker()]
    assert leases.worker_started(worker(2)) == [Granted(B, c0, worker(2))]


def test_row_13_a_blocked_worker_gives_its_cpu_and_keeps_the_rest() -> None:
    leases = book(cpus=1, gpus=1, workers=2)
    leases.want(A, gpu, 1)
    leases.want(B, c1, 1)
    assert grants(leases.blocked(worker(2))) == [B]
    assert dict(leases.statistics().available) == {"CPU": 0, "GPU": 0}
    assert grants(leases.unblocked(worker(2))) == []
    assert free_cpus(leases) == -1, "oversubscribed for a while rather than stuck"
    leases.want(B, c1, 0)
    leases.returned(B, worker(1))
    assert free_cpus(leases) == 0


def test_row_13_blocked_twice_counts_once_and_a_return_clears_it() -> None:
    leases = book(workers=1)
    leases.want(A, c1, 1)
    leases.want(A, c1, 0)
    leases.blocked(worker(1))
    leases.blocked(worker(1))
    assert free_cpus(leases) == 2
    leases.returned(A, worker(1))
    assert leases.unblocked(worker(1)) == []
    assert free_cpus(leases) == 2


def test_c9_fault_55_recursion_reaches_the_cap_and_is_told_so() -> None:
    leases = book(cpus=1, max_workers=3)
    caller = A
    for depth in range(3):
        assert leases.want(caller, c1, 1, depth) == [StartWorker()]
        assert leases.worker_started(worker(depth)) == [Granted(caller, c1, worker(depth))]
        assert leases.blocked(worker(depth)) == []
        caller = worker(depth)
    assert leases.want(caller, c1, 1, 3) == [AtCap(caller, c1)]
    assert leases.tick(1.0) == [], "told once"
    assert leases.want(caller, c1, 1, 3) == [AtCap(caller, c1)], "and again to who asks again"


def test_c10_max_workers_is_absolute() -> None:
    leases = book(cpus=8, max_workers=2)
    assert leases.want(A, c0, 50) == [StartWorker(), StartWorker(), AtCap(A, c0)]
    assert leases.statistics().starting == 2
    leases.worker_started(worker(1))
    leases.worker_started(worker(2))
    # At the cap a worker is as scarce as a CPU, and is called back like one.
    assert leases.want(B, c1, 1) == [AtCap(B, c1), Recall(A, worker(1))]


@pytest.mark.parametrize("owner", [A, worker(2)], ids=["a driver", "the worker itself"])
def test_c9_who_holds_only_blocked_workers_may_ask_for_the_only_lease_of_somebody(owner: bytes) -> None:
    # A worker may be lent to itself: it has left tasks behind, has nothing else to run, and is the warmest of the idle.
    leases = book(cpus=1, max_workers=2, workers=2)
    assert leases.want(owner, c1, 1) == [Granted(owner, c1, worker(2))]
    assert leases.blocked(worker(2)) == []
    assert grants(leases.want(B, c1, 1)) == [B]
    # B may have no use for it, and nothing else will ever come back: the owner's own lease waits for just this.
    assert leases.want(owner, c1, 4) == [Recall(B, worker(1))]
    leases.want(B, c1, 0)
    assert leases.returned(B, worker(1)) == [Granted(owner, c1, worker(1))]
    assert leases.blocked(worker(1)) == [AtCap(owner, c1)]


def test_c10_workers_started_ahead_of_need_stay_under_the_cap() -> None:
    leases = book(cpus=8, max_workers=2)
    assert leases.prestart(8) == [StartWorker(), StartWorker()]
    assert leases.prestart(1) == []
    assert leases.want(A, c1, 2) == [], "those under way will do"


def test_c10_idle_workers_over_the_floor_are_trimmed_and_never_given_again() -> None:
    leases = book(cpus=4, workers=3, keep_idle=1)
    leases.tick(0.0)
    assert leases.tick(29.0) == []
    assert leases.idle_for(worker(1)) == 29.0
    stopped = leases.tick(30.0)
    assert stopped == [StopWorker(worker(1)), StopWorker(worker(2))]
    assert leases.want(A, c1, 2) == [Granted(A, c1, worker(3)), StartWorker()]


def test_fault_1_an_idle_worker_that_dies_is_replaced_up_to_the_floor() -> None:
    leases = book(keep_idle=2)
    assert leases.tick(0.0) == [StartWorker(), StartWorker()]
    leases.worker_started(worker(1))
    leases.worker_started(worker(2))
    assert leases.worker_died(worker(1)) == [StartWorker()]


def test_fault_2_a_worker_that_dies_under_a_lease_is_replaced_while_it_is_wanted() -> None:
    leases = book(workers=1)
    leases.want(A, c1, 1)
    assert leases.worker_died(worker(1)) == [StartWorker()]
    assert grants(leases.worker_started(worker(2))) == [A]


def test_fault_46_failed_starts_pause_and_then_tell_who_waits() -> None:
    leases = book()
    leases.tick(100.0)
    assert leases.want(A, c1, 1) == [StartWorker()]
    assert leases.worker_start_failed("EAGAIN") == [AtCap(A, c1)], "no second attempt in the same breath"
    assert leases.tick(100.05) == []
    assert leases.tick(100.11) == [StartWorker()]
    assert leases.worker_start_failed("EAGAIN") == []
    assert leases.tick(100.2) == []
    assert leases.tick(100.4) == [StartWorker()]
    (told,) = leases.worker_start_failed("fork: Resource temporarily unavailable")
    assert isinstance(told, CannotStart)
    assert (told.owner, told.shape) == (A, c1)
    assert "Resource temporarily unavailable" in told.reason
    assert "3 attempts" in told.reason
    assert leases.statistics().waiting == 0


def test_fault_46_others_that_may_come_free_are_worth_waiting_for() -> None:
    leases = book(cpus=2, workers=1)
    leases.want(A, c1, 1)
    leases.want(B, c1, 1)
    for _ in range(5):
        assert not any(isinstance(effect, CannotStart) for effect in leases.worker_start_failed("EAGAIN"))


def test_c13_a_dead_owners_leases_are_free_at_once_and_its_late_words_are_ignored() -> None:
    leases = book(workers=2)
    leases.want(A, c1, 2)
    assert leases.owner_died(A) == [StopWorker(worker(2)), StopWorker(worker(1))]
    assert free_cpus(leases) == 2
    assert leases.want(A, c1, 5) == []
    assert leases.want(B, c1, 1) == [StartWorker()]
    leases.worker_died(worker(1))
    leases.worker_died(worker(2))
    assert leases.statistics().workers == 0


def test_c17_an_infeasible_request_is_told_after_the_grace_time() -> None:
    leases = book(cpus=2)
    assert leases.want(A, Shape.of(64, resources={"licence": 1}), 1) == []
    assert leases.tick(10.0) == []
    assert leases.tick(11.9) == []
    (told,) = leases.tick(12.0)
    assert isinstance(told, Infeasible)
    assert (told.owner, told.actor_id) == (A, None)
    assert told.reason == "asked for [64 CPU, 1 licence], but this node has only [2 CPU, locs here] in total"
    assert leases.tick(20.0) == []


def test_c17_missing_locs_are_infeasible_too() -> None:
    leases = book()
    leases.host(b"actor", Shape.of(1, locs={"elsewhere"}), c0)
    leases.tick(0.0)
    (told,) = leases.tick(2.0)
    assert isinstance(told, Infeasible)
    assert (told.owner, told.actor_id) == (None, b"actor")
    assert grants(leases.want(A, Shape.of(1, locs={"here"}), 1) + leases.worker_started(worker(1))) == [A]


def test_row_32_an_actor_needs_a_cpu_to_be_placed_and_none_to_live() -> None:
    leases = book(cpus=1, workers=3)
    place, hold = actor_shapes()
    for number in range(3):
        (told,) = leases.host(b"actor%d" % number, place, hold)
        assert isinstance(told, Hosted)
    assert free_cpus(leases) == 1
    assert leases.statistics().actors == 3


def test_row_32_an_actor_with_resources_holds_them_for_life() -> None:
    leases = book(cpus=1, gpus=1, workers=1)
    place, hold = actor_shapes(num_gpus=1)
    assert leases.host(b"actor", place, hold) == [Hosted(b"actor", worker(1), ("0",))]
    assert leases.host(b"actor", place, hold) == [], "asking twice places once"
    assert dict(leases.statistics().available) == {"CPU": 0, "GPU": 0}
    assert leases.unhost(b"actor") == [StopWorker(worker(1))]
    assert dict(leases.statistics().available) == {"CPU": UNIT, "GPU": UNIT}
    assert leases.unhost(b"actor") == []


def test_an_actor_that_waits_calls_back_a_lease() -> None:
    leases = book(cpus=1, workers=1)
    leases.want(A, c1, 100)
    assert leases.host(b"actor", *actor_shapes()) == [Recall(A, worker(1))]
    # A's worker is free, and the CPU: it is kept back, or A would have it again before the actor's worker is up.
    assert leases.returned(A, worker(1)) == [StartWorker()]
    assert leases.worker_started(worker(2)) == [Hosted(b"actor", worker(2)), Granted(A, c1, worker(1))]


def test_row_38_an_actor_gets_only_a_worker_that_was_never_leased() -> None:
    leases = book(cpus=2, workers=1)
    use(leases, worker(1))
    assert leases.host(b"actor", *actor_shapes()) == [StartWorker()]
    assert leases.host(b"actor", *actor_shapes()) == [], "one is under way"
    assert leases.want(B, c1, 1) == [Granted(B, c1, worker(1))], "tasks may have it, also meanwhile"
    assert leases.worker_started(worker(2)) == [Hosted(b"actor", worker(2))]


def test_row_38_tasks_take_the_warm_workers_and_leave_the_fresh_ones_to_actors() -> None:
    leases = book(cpus=2, workers=1)
    use(leases, worker(1))
    assert leases.worker_started(worker(2)) == []
    assert leases.want(A, c1, 1) == [Granted(A, c1, worker(1))]
    assert leases.host(b"actor", *actor_shapes()) == [Hosted(b"actor", worker(2))]
    assert leases.want(A, c1, 2) == [StartWorker()]


def test_row_38_at_the_cap_a_used_idle_worker_leaves_for_each_actor_the_coldest_first() -> None:
    leases = book(cpus=2, max_workers=3, workers=3)
    use(leases, worker(1), worker(2), worker(3))
    assert leases.host(b"actor1", *actor_shapes()) == [StopWorker(worker(1))]
    assert leases.tick(0.1) == [], "it takes its time, and no other one has to leave for the same actor"
    assert leases.host(b"actor2", *actor_shapes()) == [StopWorker(worker(2))]
    assert leases.want(A, c1, 1) == [Granted(A, c1, worker(3))]
    assert leases.worker_died(worker(1)) == [StartWorker()]
    assert leases.worker_died(worker(2)) == [StartWorker()]
    assert leases.worker_started(worker(4)) == [Hosted(b"actor1", worker(4))]
    assert leases.worker_started(worker(5)) == [Hosted(b"actor2", worker(5))]


def test_row_38_at_the_cap_a_lease_that_was_called_back_for_an_actor_is_not_granted_again() -> None:
    leases = book(cpus=2, max_workers=1, workers=1)
    leases.want(A, c1, 100)
    assert leases.host(b"actor", *actor_shapes()) == [Recall(A, worker(1))]
    assert leases.returned(A, worker(1)) == [StopWorker(worker(1))]
    assert leases.worker_died(worker(1)) == [StartWorker()]
    assert leases.worker_started(worker(2)) == [Hosted(b"actor", worker(2))]
    assert leases.unhost(b"actor") == [StopWorker(worker(2))]
    assert leases.worker_died(worker(2)) == [StartWorker()]
    assert grants(leases.worker_started(worker(3))) == [A]


def test_row_38_at_the_cap_no_worker_has_to_leave_that_waits_for_tasks_of_its_own() -> None:
    leases = book(cpus=2, max_workers=2, workers=2)
    use(leases, worker(1), worker(2))
    busy = worker(1)  # its task has ended, and has left one behind
    assert leases.want(busy, c1, 1) == [Granted(busy, c1, worker(2))]
    # It could leave only after that task, which may wait for this very actor.
    assert leases.host(b"actor", *actor_shapes()) == [Recall(busy, worker(2))]
    leases.want(busy, c1, 0)
    assert leases.returned(busy, worker(2)) == [StopWorker(worker(1))]


def test_fault_46_an_actor_is_told_though_workers_are_left_that_have_run_tasks() -> None:
    leases = book(cpus=2, workers=1)
    use(leases, worker(1))
    assert leases.host(b"actor", *actor_shapes()) == [StartWorker()]
    assert leases.worker_start_failed("EAGAIN") == []
    assert grants(leases.want(A, c1, 1)) == [A], "tasks go on meanwhile, with what is there"
    assert leases.tick(0.2) == [StartWorker()]
    assert leases.worker_start_failed("EAGAIN") == []
    assert leases.tick(1.0) == [StartWorker()]
    (told,) = leases.worker_start_failed("EAGAIN")
    assert isinstance(told, CannotStart)
    assert told.actor_id == b"actor"
    assert leases.statistics().waiting == 0


def test_a_waiting_actor_can_be_unhosted_and_a_dead_one_hosted_again() -> None:
    leases = book(cpus=1)
    leases.host(b"actor", *actor_shapes())
    assert leases.unhost(b"actor") == []
    assert leases.worker_started(worker(1)) == []
    assert leases.host(b"actor", *actor_shapes()) == [Hosted(b"actor", worker(1))]
    leases.worker_died(worker(1))
    assert leases.statistics().actors == 0
    assert leases.host(b"actor", *actor_shapes()) == [StartWorker()]


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="0 or more"):
        book().want(A, c1, -1)
    with pytest.raises(ValueError, match="max_workers=0"):
        book(max_workers=0)


def test_habit_12_repr() -> None:
    leases = book(cpus=8, gpus=1, workers=3)
    leases.want(A, c1, 2)
    assert repr(leases) == (
        "<LeaseBook [6/8 cpu, 1/1 gpu free | 2 leased, 0 actors, 1 idle, 0 starting, 0 blocked | 0 waiting]>"
    )


def test_leases_that_take_nothing_are_bounded():
    """A projection asks for no CPU: 2,000 of them at once are not 2,000 processes."""
    book = LeaseBook({"CPU": 2 * UNIT}, frozenset(), max_workers=1_000)
    effects = book.want(b"owner--A", Shape.of(0), 2_000)
    workers = [b"worker%02d" % number for number, _ in enumerate(effects)]
    assert len(workers) == 4
    granted = [effect.worker for worker in workers for effect in book.worker_started(worker)]
    assert sorted(granted) == sorted(workers)
    assert [type(effect) for effect in book.blocked(workers[0])] == [StartWorker], "who waits does not count"
    assert book.tick(1.0) == [], "4 are used and one more is starting: time alone brings no more"
    assert book.want(A, c0, 2_000) == [], "nor does insisting, before all that may be used are there"
    assert len(granted_workers(book.worker_started(b"worker99"))) == 1
    assert book.want(A, c0, 2_000) == [StartWorker()] * 4, "long ones are not kept waiting"


def test_a_flood_of_what_takes_nothing_starts_few_workers_however_long_it_lasts():
    """Workers that are not there yet are no reason for more of them, and used ones only when their owner says so."""
    leases = book(cpus=2, max_workers=1_000)
    effects = leases.want(A, c0, 8_192)
    for second in range(100):
        effects += leases.tick(float(second))
    assert effects == [StartWorker()] * 4
    for number in range(4):
        effects += leases.worker_started(worker(number))
    for second in range(100, 200):
        effects += leases.tick(float(second))
        effects += leases.want(A, c0, 8_192 + second)  # more than before: it has submitted still more
    assert len(effects) == 8 and leases.statistics().leased == 4


def test_those_who_take_nothing_and_wait_for_each_other_get_on():
    """Blocked ones do not count, however many: a chain of 300 on one CPU."""
    leases = book(cpus=1, max_workers=1_000)
    born = 0
    owner = A
    for _ in range(300):
        effects = leases.want(owner, c0, 1)
        while StartWorker() in effects:
            effects.remove(StartWorker())
            effects += leases.worker_started(worker(born := born + 1))
        (granted,) = granted_workers(effects)
        owner = granted
        assert granted_workers(leases.blocked(granted)) == []
    assert leases.statistics().blocked == 300


def test_only_some_workers_start_at_a_time_and_none_for_the_dead():
    leases = book(cpus=2, max_workers=10_000)
    begun = [effect for number in range(500) for effect in leases.host(b"actor%03d" % number, c0, c0)]
    begun += [effect for number in range(500) for effect in leases.want(b"owner%03d" % number, c0, 4)]
    assert begun == [StartWorker()] * 8
    assert leases.worker_started(worker(1))[1:] == [StartWorker()], "one is up, and the next one starts"
    assert sum(effect == StartWorker() for effect in leases.worker_start_failed("EAGAIN")) == 0, "there is a pause"
    for number in range(500):
        leases.owner_died(b"owner%03d" % number)
        leases.unhost(b"actor%03d" % number)
    assert leases.tick(60.0) == []
    effects = [effect for number in range(2, 9) for effect in leases.worker_started(worker(number))]
    assert effects == [], "those under way come up, and no others"


def test_row71_a_node_that_is_drained_calls_everything_back_and_gives_nothing():
    book = LeaseBook({"CPU": 2 * UNIT}, frozenset(), max_workers=4, keep_idle=2)
    book.prestart(2)
    book.worker_started(b"worker01")
    granted = [effect for effect in book.want(b"owner001", Shape.of(), 2) if isinstance(effect, Granted)]
    assert [effect.worker for effect in granted] == [b"worker01"]
    effects = book.drain()
    assert effects == [Recall(b"owner001", b"worker01")]
    assert book.worker_started(b"worker02") == [StopWorker(b"worker02")], "it came too late"
    assert book.want(b"owner001", Shape.of(), 4) == [] and book.tick(10.0) == []
    assert book.unserved() == [(b"owner001", Shape.of(), 3)], "others may serve it"
    assert book.returned(b"owner001", b"worker01") == [StopWorker(b"worker01")]


def test_row73_the_holder_of_a_worker_is_its_leases_owner_or_its_actors_owner() -> None:
    leases = book(workers=2)
    assert leases.holder(worker(1)) == b"" and leases.holder(b"unknown") == b""
    (leased,) = granted_workers(leases.want(A, c1, 1))
    (hosted,) = leases.host(B + bytes(8), c1, c0)
    assert isinstance(hosted, Hosted)
    assert leases.holder(leased) == A and leases.holder(hosted.worker) == B
