"""The life of an actor, one small story each."""

from __future__ import annotations

import pytest

from zmreg.core.actor_roll import CRASHES_AT_ONCE, SOUND_S
from zmreg.core.actors import EXIT_GRACE_S, RESTART_PAUSE_S, ActorBook, ActorState
from zmreg.core.effects import (
    ActorCreated,
    ActorEffect,
    ActorRefused,
    Construct,
    HostActor,
    KillWorker,
    RetireActor,
    TellActor,
    UnhostActor,
)
from zmreg.core.lifecycle import IllegalMove
from zmreg.model.specs import ActorEntry, actor_shapes

OWNER, CALLER = b"owner--A", b"caller-B"
ACTOR = OWNER + b"actor--1"
PLACE, HOLD = actor_shapes()


def entry(
    actor_id: bytes = ACTOR, name: str = "", max_restarts: int = 0, detached: bool = False, owner: bytes = OWNER
) -> ActorEntry:
    return ActorEntry(actor_id, owner, name, "space", "Counter", PLACE, HOLD, max_restarts, detached)


def worker(number: int) -> bytes:
    return b"worker%02d" % number


def living(max_restarts: int = 0, name: str = "", detached: bool = False) -> ActorBook:
    """A book with one actor, alive on worker 1, that CALLER has subscribed to."""
    book = ActorBook()
    book.create(entry(name=name, max_restarts=max_restarts, detached=detached), now=0.0)
    book.subscribe(ACTOR, CALLER)
    revive(book, 1)
    return book


def revive(book: ActorBook, number: int) -> list[ActorEffect]:
    return book.hosted(ACTOR, worker(number)) + book.constructed(ACTOR, worker(number))


def told(effects: list[ActorEffect]) -> list[tuple[str, bytes, int, bytes]]:
    tells = [effect for effect in effects if isinstance(effect, TellActor)]
    return [(tell.state, tell.worker, tell.incarnation, tell.failure) for tell in tells]


def test_row_30_from_creation_to_life() -> None:
    book = ActorBook()
    assert book.create(entry(), now=0.0) == [ActorCreated(ACTOR), HostActor(ACTOR, PLACE, HOLD)]
    assert told(book.subscribe(ACTOR, CALLER)) == [("PENDING", b"", 0, b"")]
    hosted = book.hosted(ACTOR, worker(1))
    assert hosted[0] == Construct(ACTOR, worker(1), 1)
    assert told(hosted) == [("STARTING", worker(1), 1, b"")]
    assert told(book.constructed(ACTOR, worker(1))) == [("ALIVE", worker(1), 1, b"")]


def test_a_repeated_creation_is_answered_and_places_nothing() -> None:
    book = living()
    assert book.create(entry(), now=1.0) == [ActorCreated(ACTOR)]
    book.kill(ACTOR)
    assert book.create(entry(), now=2.0) == [ActorCreated(ACTOR)]
    assert book.state(ACTOR) is ActorState.DEAD


def test_row_30_a_constructor_that_raises_first_ends_the_actor_with_its_error() -> None:
    book = ActorBook()
    book.create(entry(max_restarts=5), now=0.0)
    book.subscribe(ACTOR, CALLER)
    book.hosted(ACTOR, worker(1))
    assert book.constructed(ACTOR, worker(1), b"packed") == [
        KillWorker(worker(1)),
        UnhostActor(ACTOR),
        TellActor(CALLER, ACTOR, "DEAD", b"", 1, b"packed", 0, init_failed=True),
    ]


def test_fault_4_without_restarts_a_crash_is_the_end() -> None:
    book = living(max_restarts=0)
    crashed = book.worker_died(worker(1), b"exit -9")
    assert UnhostActor(ACTOR) in crashed
    assert told(crashed) == [("DEAD", b"", 1, b"exit -9")]
    assert told(book.subscribe(ACTOR, b"late-one")) == [("DEAD", b"", 1, b"exit -9")]


def test_fault_5_two_restarts_then_the_end() -> None:
    book = living(max_restarts=2)
    for number in (1, 2):
        crashed = book.worker_died(worker(number), b"exit -9")
        assert told(crashed) == [("RESTARTING", b"", number, b"exit -9")]
        assert crashed.index(UnhostActor(ACTOR)) < crashed.index(HostActor(ACTOR, PLACE, HOLD))
        assert told(revive(book, number + 1))[-1] == ("ALIVE", worker(number + 1), number + 1, b"")
    assert told(book.worker_died(worker(3), b"exit -9")) == [("DEAD", b"", 3, b"exit -9")]
    assert book.statistics().restarts == 2


def test_row_40_minus_one_restarts_without_end() -> None:
    book = living(max_restarts=-1)
    for number in range(1, 50):
        book.tick(number * SOUND_S)
        assert HostActor(ACTOR, PLACE, HOLD) in book.worker_died(worker(number), b"")
        revive(book, number + 1)
    assert book.state(ACTOR) is ActorState.ALIVE


def crashes_within(book: ActorBook, seconds: int) -> list[int]:
    """When an actor restarts that crashes as soon as it lives, in tenths of a second: so often is the book asked."""
    number, starts = 1, []
    for tenth in range(seconds * 10):
        effects = book.tick(tenth / 10)
        if book.state(ACTOR) is ActorState.ALIVE:
            effects += book.worker_died(worker(number), b"exit -11")
        if HostActor(ACTOR, PLACE, HOLD) in effects:
            number += 1
            starts.append(tenth)
            revive(book, number)
    return starts


def test_X34_restarts_are_bounded_in_rate_however_large_the_budget() -> None:
    """Crashes after a constructor that returned, ten a second if it could."""
    starts = crashes_within(living(max_restarts=-1), 600)
    pauses = [later - earlier for earlier, later in zip(starts, starts[1:], strict=False)]
    assert all(pause == 1 for pause in pauses[: CRASHES_AT_ONCE - 1]), "the first ones need not wait"
    assert all(10 * RESTART_PAUSE_S <= pause <= 10 * RESTART_PAUSE_S + 3 for pause in pauses[-10:])
    assert pauses == sorted(pauses)
    assert len(starts) < 600 / RESTART_PAUSE_S + 15


def test_X34_an_actor_that_was_sound_for_a_while_restarts_at_once_again() -> None:
    book = living(max_restarts=-1)
    crashes_within(book, 60)
    book.tick(100.0)
    if book.state(ACTOR) is not ActorState.ALIVE:
        book.tick(100.0 + RESTART_PAUSE_S)
        revive(book, 98)
    now = 200.0
    book.tick(now)
    book.worker_died(worker(98), b"exit -9")
    revive(book, 99)
    book.tick(now + SOUND_S)
    assert HostActor(ACTOR, PLACE, HOLD) in book.worker_died(worker(99), b"exit -9")


def test_X34_a_restart_that_somebody_asked_for_is_no_crash() -> None:
    book = living(max_restarts=-1)
    for number in range(1, 50):
        assert HostActor(ACTOR, PLACE, HOLD) in book.kill(ACTOR, no_restart=False)
        revive(book, number + 1)


def test_fault_6_a_constructor_that_raises_on_restart_waits_and_uses_up_the_budget() -> None:
    book = living(max_restarts=2)
    book.worker_died(worker(1), b"exit 1")
    book.hosted(ACTOR, worker(2))
    failed = book.constructed(ACTOR, worker(2), b"packed")
    assert KillWorker(worker(2)) in failed
    assert not any(isinstance(effect, HostActor) for effect in failed), "no crash loop"
    assert book.tick(100.0) == []
    assert book.tick(100.0 + RESTART_PAUSE_S - 0.1) == []
    assert book.tick(100.0 + RESTART_PAUSE_S) == [HostActor(ACTOR, PLACE, HOLD)]
    book.hosted(ACTOR, worker(3))
    last = book.constructed(ACTOR, worker(3), b"packed again")
    (tell,) = (effect for effect in last if isinstance(effect, TellActor))
    assert (tell.state, tell.failure, tell.init_failed, tell.restarts_used) == ("DEAD", b"packed again", True, 2)
    assert book.tick(1e6) == []


def test_fault_6_a_start_that_crashes_waits_too() -> None:
    book = ActorBook()
    book.create(entry(max_restarts=-1), now=0.0)
    book.hosted(ACTOR, worker(1))
    assert book.worker_died(worker(1), b"exit -11") == [UnhostActor(ACTOR)]
    assert book.host_lost(ACTOR) == [], "nobody was asked yet"
    book.tick(1.0)
    assert book.tick(1.0 + RESTART_PAUSE_S) == [HostActor(ACTOR, PLACE, HOLD)]
    assert book.host_lost(ACTOR) == [HostActor(ACTOR, PLACE, HOLD)]


def test_row_35_a_name_is_unique_in_its_namespace_and_decided_here() -> None:
    book = living(name="hits")
    other = OWNER + b"actor--2"
    (refused,) = book.create(entry(other, name="hits"), now=1.0)
    assert isinstance(refused, ActorRefused)
    assert (refused.actor_id, refused.owner, refused.taken_by) == (other, OWNER, ACTOR)
    assert "the name 'hits' is taken in namespace 'space' by a Counter" in refused.reason
    elsewhere = ActorEntry(other, OWNER, "hits", "another", "Counter", PLACE, HOLD)
    assert book.create(elsewhere, now=1.0)[0] == ActorCreated(other)
    assert book.lookup("space", "hits") == entry(name="hits")
    assert book.names("space") == ["hits"]
    assert book.lookup("space", "misses") is None


def test_row_35_anonymous_actors_do_not_collide() -> None:
    book = living()
    assert book.create(entry(OWNER + b"actor--2"), now=1.0)[0] == ActorCreated(OWNER + b"actor--2")
    assert book.names("space") == []


def test_row_35_the_name_is_free_once_kill_is_acknowledged() -> None:
    book = living(name="hits")
    book.kill(ACTOR)
    assert book.lookup("space", "hits") is None
    assert book.create(entry(OWNER + b"actor--2", name="hits"), now=1.0)[0] == ActorCreated(OWNER + b"actor--2")


def test_row_36_detached_actors_outlive_their_owner_and_their_handles() -> None:
    book = living(detached=True)
    assert book.owner_died(OWNER) == []
    assert book.release(ACTOR) == []
    assert book.state(ACTOR) is ActorState.ALIVE
    assert KillWorker(worker(1)) in book.kill(ACTOR)


def test_actors_die_with_their_owner() -> None:
    book = living(max_restarts=-1, name="hits")
    ended = book.owner_died(OWNER)
    assert ended[:2] == [KillWorker(worker(1)), UnhostActor(ACTOR)]
    assert told(ended) == [("DEAD", b"", 1, b"its owner, process 6f776e65, died")]
    assert book.names("space") == []
    (refused,) = book.create(entry(OWNER + b"actor--2"), now=1.0)
    assert isinstance(refused, ActorRefused), "a creation still under way when its owner died must not leak"


def test_row_38_kill_ends_a_restartable_actor_too() -> None:
    book = living(max_restarts=-1)
    killed = book.kill(ACTOR)
    assert killed[:2] == [KillWorker(worker(1)), UnhostActor(ACTOR)]
    assert told(killed) == [("DEAD", b"", 1, b"killed")]
    assert book.worker_died(worker(1), b"exit -9") == []
    assert book.kill(ACTOR) == []


def test_row_38_kill_with_restart_stays_within_the_budget() -> None:
    book = living(max_restarts=1)
    killed = book.kill(ACTOR, no_restart=False)
    assert killed[0] == KillWorker(worker(1))
    assert killed[-1] == HostActor(ACTOR, PLACE, HOLD)
    assert book.worker_died(worker(1), b"exit -9") == [], "that death is accounted for already"
    revive(book, 2)
    assert told(book.kill(ACTOR, no_restart=False)) == [("DEAD", b"", 2, b"killed, restart allowed")]


def test_row_38_killing_an_actor_that_waits_for_a_place() -> None:
    book = ActorBook()
    book.create(entry(), now=0.0)
    assert book.kill(ACTOR, no_restart=False) == [], "nothing runs that could be restarted"
    assert book.kill(ACTOR) == [UnhostActor(ACTOR)]
    assert book.hosted(ACTOR, worker(1)) == [KillWorker(worker(1))], "the place came too late"


def test_row_34_without_handles_it_finishes_its_queue_and_exits() -> None:
    book = living(max_restarts=-1)
    assert book.release(ACTOR) == [RetireActor(ACTOR, worker(1))]
    assert book.release(ACTOR) == []
    assert told(book.exiting(ACTOR, worker(1))) == [("DEAD", worker(1), 1, b"exited: the last handle is gone")]


def test_row_34_a_released_actor_that_crashes_is_not_restarted() -> None:
    book = living(max_restarts=-1)
    book.release(ACTOR)
    assert told(book.worker_died(worker(1), b"exit -9")) == [("DEAD", b"", 1, b"exit -9")]


def test_row_34_a_handle_dropped_before_the_start_still_runs_the_queued_calls() -> None:
    book = ActorBook()
    book.create(entry(), now=0.0)
    assert book.release(ACTOR) == []
    assert revive(book, 1)[-1] == RetireActor(ACTOR, worker(1))


def test_row_40_an_intentional_exit_never_restarts() -> None:
    book = living(max_restarts=-1, name="hits")
    assert told(book.exiting(ACTOR, worker(1))) == [("DEAD", worker(1), 1, b"exited by itself")]
    assert book.names("space") == []
    assert book.worker_died(worker(1), b"exit 0") == []
    assert book.tick(1e6) == []


def test_row_39_an_exit_that_hangs_in_atexit_is_ended() -> None:
    book = living()
    book.exiting(ACTOR, worker(1))
    assert book.tick(10.0) == []
    assert book.tick(10.0 + EXIT_GRACE_S) == [KillWorker(worker(1))]
    assert book.tick(99.0) == []


def test_an_unplaceable_actor_dies_with_the_reason() -> None:
    book = ActorBook()
    book.create(entry(max_restarts=3, name="hits"), now=0.0)
    book.subscribe(ACTOR, CALLER)
    assert told(book.unplaceable(ACTOR, b"asked for 64 CPU")) == [("DEAD", b"", 0, b"asked for 64 CPU")]
    assert book.names("space") == []


def test_subscribers_are_told_until_they_die() -> None:
    book = living(max_restarts=-1)
    book.subscribe(ACTOR, b"caller-C")
    book.process_died(CALLER)
    tells = [effect for effect in book.worker_died(worker(1), b"") if isinstance(effect, TellActor)]
    assert [tell.process for tell in tells] == [b"caller-C"]


def test_row_38_a_handle_from_an_earlier_session_gets_a_clear_answer() -> None:
    (tell,) = ActorBook().subscribe(b"nobody--nothing-", CALLER)
    assert isinstance(tell, TellActor)
    assert tell.state == "DEAD"
    assert b"earlier session" in tell.failure


def test_facts_about_a_worker_it_no_longer_has_are_ignored() -> None:
    book = living(max_restarts=-1)
    book.worker_died(worker(1), b"")
    revive(book, 2)
    assert book.constructed(ACTOR, worker(1), b"late") == []
    assert book.exiting(ACTOR, worker(1)) == []
    assert book.worker_died(worker(1), b"") == []
    assert book.hosted(ACTOR, worker(2)) == []
    assert book.hosted(ACTOR, worker(3)) == [KillWorker(worker(3))]


def test_habit_6_an_illegal_move_tells_the_story() -> None:
    book = living()
    life = book._actors[ACTOR].life
    with pytest.raises(IllegalMove, match=r"actor 722d2d31|Counter is ALIVE, cannot take 'constructed'") as caught:
        life.move(next(event for _, event in life._moves if event == "constructed"))
    assert "PENDING -> STARTING  hosted: worker" in str(caught.value)
    assert len(book.story(ACTOR)) == 2


def test_habit_12_repr() -> None:
    assert repr(living(name="hits")) == "<ActorBook [1 alive, 0 starting, 0 restarting, 0 dead | 1 names, 0 restarts]>"


def test_row_71_an_actor_of_a_drained_node_moves_without_a_charge() -> None:
    book = living(max_restarts=1)
    effects = book.leave_node(ACTOR)
    assert told(effects) == [("MOVING", worker(1), 1, b"")]
    assert RetireActor(ACTOR, worker(1), True) in effects
    assert book.leave_node(ACTOR) == [], "said twice"
    gone = book.worker_died(worker(1), b"exited with code 0")
    assert HostActor(ACTOR, PLACE, HOLD) in gone and told(gone)[0][0] == "RESTARTING"
    assert book.restarts(ACTOR) == 0
    assert told(revive(book, 2))[-1][:2] == ("ALIVE", worker(2))
    assert HostActor(ACTOR, PLACE, HOLD) in book.worker_died(worker(2), b"crash"), "its one restart is still there"
    assert book.restarts(ACTOR) == 1


def test_row_71_a_detached_actor_moves_and_one_that_may_not_restart_ends_with_its_calls() -> None:
    detached = living(detached=True)
    assert RetireActor(ACTOR, worker(1), True) in detached.leave_node(ACTOR)
    assert HostActor(ACTOR, PLACE, HOLD) in detached.worker_died(worker(1), b"exited with code 0")
    book = living()
    effects = book.leave_node(ACTOR)
    assert RetireActor(ACTOR, worker(1)) in effects and not any(isinstance(each, KillWorker) for each in effects)
    state, where, _, why = told(effects)[0]
    assert (state, where) == ("DEAD", worker(1)) and b"drained" in why, "its worker still answers"


def test_row_71_an_actor_that_ends_itself_while_it_moves_is_dead() -> None:
    book = living(max_restarts=1)
    book.leave_node(ACTOR)
    assert told(book.exiting(ACTOR, worker(1)))[0][0] == "DEAD"
    assert book.worker_died(worker(1), b"") == []
