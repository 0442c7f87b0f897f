"""What a new head makes of the actors of the one before (reliability 3.3, row 36)."""

from __future__ import annotations

import pytest

from zmreg.core.actor_roll import Stand
from zmreg.core.actors import ActorBook, ActorState
from zmreg.core.effects import (
    ActorCreated,
    ActorEffect,
    ActorRefused,
    Construct,
    HostActor,
    KillWorker,
    RetireActor,
    TellActor,
)
from zmreg.model.specs import ActorEntry

OWNER, OTHER, WORKER, SECOND = (name + bytes(7) for name in (b"o", b"p", b"w", b"x"))
ACTOR = OWNER + bytes(8)


def restored(state: str, worker: bytes = WORKER, *, held: bool = False, **changes: object) -> ActorBook:
    """A book that knows one actor as it was written down, and a listener to it."""
    entry = ActorEntry(ACTOR, OWNER, "name", "space", "Counter", **changes)  # type: ignore[arg-type]
    book = ActorBook()
    incarnation = 0 if state == "PENDING" else 3
    book.restore(entry, Stand(ACTOR, state, worker, incarnation, 2 if incarnation else 0, False), held)
    book.subscribe(ACTOR, OTHER)
    return book


def kinds(effects: list[ActorEffect]) -> list[type[ActorEffect]]:
    return [type(each) for each in effects]


def told(effects: list[ActorEffect]) -> tuple[str, bytes, int, int]:
    (word,) = (each for each in effects if isinstance(each, TellActor))
    return word.state, word.worker, word.incarnation, word.restarts_used


def test_the_name_is_taken_from_the_first_moment_on() -> None:
    book = restored("ALIVE")
    assert book.lookup("space", "name") is not None
    (refused,) = book.create(ActorEntry(OTHER + bytes(8), OTHER, "name", "space"), 0.0)
    assert isinstance(refused, ActorRefused) and refused.taken_by == ACTOR
    assert book.create(ActorEntry(ACTOR, OWNER, "name", "space"), 0.0) == [ActorCreated(ACTOR)], "said again"


def test_a_worker_that_is_claimed_goes_on_as_it_was() -> None:
    book = restored("ALIVE")
    assert told(book.claim(ACTOR, WORKER, True)) == ("ALIVE", WORKER, 3, 2)
    assert told(book.worker_died(WORKER, b"killed"))[0] == "DEAD"


def test_a_constructor_that_has_returned_meanwhile_is_believed() -> None:
    assert told(restored("STARTING").claim(ACTOR, WORKER, True)) == ("ALIVE", WORKER, 3, 2)


def test_a_constructor_that_may_never_have_begun_is_asked_for_with_the_same_incarnation() -> None:
    effects = restored("STARTING").claim(ACTOR, WORKER, False)
    assert effects[0] == Construct(ACTOR, WORKER, 3)


@pytest.mark.parametrize("state", ["PENDING", "RESTARTING"])
def test_a_worker_that_the_last_head_had_given_and_not_written_down_is_its_own(state: str) -> None:
    book = restored(state, b"", max_restarts=5)
    effects = book.claim(ACTOR, WORKER, True)
    assert book.state(ACTOR) is ActorState.ALIVE and book.worker(ACTOR) == WORKER
    assert told(effects)[2] == (1 if state == "PENDING" else 4)


def test_a_restart_that_was_not_written_down_is_counted() -> None:
    book = restored("ALIVE", max_restarts=5)
    assert told(book.claim(ACTOR, SECOND, True)) == ("ALIVE", SECOND, 4, 3)
    assert book.worker_died(WORKER, b"that one is long gone") == []


def test_an_actor_that_is_unknown_is_killed() -> None:
    assert ActorBook().claim(ACTOR, WORKER, True) == [KillWorker(WORKER)]


def test_one_that_was_released_is_asked_to_end() -> None:
    book = ActorBook()
    book.restore(ActorEntry(ACTOR, OWNER), Stand(ACTOR, "ALIVE", WORKER, 1, 0, True), held=False)
    assert book.claim(ACTOR, WORKER, True) == [RetireActor(ACTOR, WORKER)]


def test_a_missing_actor_restarts_within_its_budget() -> None:
    book = restored("ALIVE", max_restarts=3)
    effects = book.missing(ACTOR, b"gone")
    assert HostActor in kinds(effects) and told(effects) == ("RESTARTING", b"", 3, 3)
    assert told(restored("ALIVE", max_restarts=2).missing(ACTOR, b"gone"))[0] == "DEAD"


def test_a_missing_detached_actor_is_made_again_whatever_its_budget() -> None:
    book = restored("ALIVE", detached=True)
    effects = book.missing(ACTOR, b"gone")
    assert HostActor in kinds(effects) and told(effects) == ("RESTARTING", b"", 3, 2)
    assert Construct(ACTOR, SECOND, 4) in book.hosted(ACTOR, SECOND)


def test_one_without_a_worker_is_placed_unless_it_waits_for_inputs() -> None:
    assert kinds(restored("PENDING", b"").missing(ACTOR, b"")) == [HostActor]
    held = restored("PENDING", b"", held=True)
    assert held.missing(ACTOR, b"") == []
    assert kinds(held.ready(ACTOR)) == [HostActor]


def test_the_dead_stay_dead_when_their_order_is_said_again() -> None:
    book = ActorBook()
    book.restore_end(ACTOR, b"killed")
    assert book.create(ActorEntry(ACTOR, OWNER, "name", "space"), 0.0) == [ActorCreated(ACTOR)]
    assert ACTOR not in book and book.lookup("space", "name") is None
    (word,) = book.subscribe(ACTOR, OTHER)
    assert isinstance(word, TellActor) and (word.state, word.failure) == ("DEAD", b"killed")


def test_changes_tell_each_actor_once_as_it_stands_now() -> None:
    book = ActorBook()
    book.watch_changes()
    assert book.changes() == ([], [])
    book.create(ActorEntry(ACTOR, OWNER), 0.0)
    book.hosted(ACTOR, WORKER)
    book.constructed(ACTOR, WORKER)
    assert book.changes() == ([Stand(ACTOR, "ALIVE", WORKER, 1, 0, False)], [])
    book.release(ACTOR)
    assert book.changes() == ([Stand(ACTOR, "ALIVE", WORKER, 1, 0, True)], [])
    book.kill(ACTOR)
    assert book.changes() == ([], [(ACTOR, b"killed")])
    assert book.changes() == ([], [])
