"""Who is retried, how often, and what is said when it ends."""

from __future__ import annotations

import pytest

from zmreg.core.tasks import Death, Fail, Retry, RetryPolicy

KILLED = Death(-9, "node-1", "line 1\nline 2\n")


def test_row_6_system_failures_have_three_retries_by_default() -> None:
    policy = RetryPolicy()
    assert [policy.decide("system", used) for used in (1, 2, 3)] == [Retry(1), Retry(2), Retry(3)]
    last = policy.decide("system", 4)
    assert isinstance(last, Fail)
    assert last.reason == "4 attempts made, max_retries=3 used up"


def test_row_6_user_exceptions_are_retried_only_on_request() -> None:
    assert isinstance(RetryPolicy().decide("user", 1, KeyError("x")), Fail)
    assert RetryPolicy(retry_exceptions=True).decide("user", 1, KeyError("x")) == Retry(1)
    assert RetryPolicy(retry_exceptions=True).decide("user", 1, None) == Retry(1)


def test_row_6_an_allow_list_takes_subclasses_and_nothing_else() -> None:
    policy = RetryPolicy(retry_exceptions=(LookupError,))
    assert policy.decide("user", 1, KeyError("x")) == Retry(1)
    assert isinstance(policy.decide("user", 1, ValueError("x")), Fail)
    assert isinstance(policy.decide("user", 1, None), Fail)


def test_row_6_an_exit_is_no_exception_to_retry() -> None:
    assert isinstance(RetryPolicy(retry_exceptions=True).decide("user", 1, SystemExit(1)), Fail)


def test_row_6_both_reasons_share_one_budget() -> None:
    policy = RetryPolicy(max_retries=1, retry_exceptions=True)
    assert policy.decide("system", 1) == Retry(1)
    assert isinstance(policy.decide("user", 2, KeyError("x")), Fail)


def test_row_6_cancelled_tasks_are_never_retried() -> None:
    assert isinstance(RetryPolicy(max_retries=-1, retry_exceptions=True).decide("cancelled", 1), Fail)


def test_row_6_minus_one_is_without_end() -> None:
    assert RetryPolicy(max_retries=-1).decide("system", 10_000) == Retry(10_000)


def test_fault_2_the_end_carries_the_exit_codes() -> None:
    ended = RetryPolicy(max_retries=1).decide("system", 2, deaths=[Death(1), KILLED])
    assert isinstance(ended, Fail)
    assert ended.quarantined
    assert ended.deaths == (Death(1), KILLED)
    assert ended.reason == (
        "2 attempts made, max_retries=1 used up; the task killed 2 workers: exit 1, exit -9 (SIGKILL) on node-1; "
        "last lines:\n  | line 1\n  | line 2"
    )


def test_c33_a_poison_task_is_quarantined_even_when_retried_without_end() -> None:
    policy = RetryPolicy(max_retries=-1, quarantine_after=3)
    assert policy.decide("system", 50, deaths=[KILLED] * 2) == Retry(50), "lost nodes are not its fault"
    ended = policy.decide("system", 51, deaths=[KILLED] * 3)
    assert isinstance(ended, Fail)
    assert ended.quarantined
    assert "the task killed 3 workers: exit -9 (SIGKILL) on node-1 x3" in ended.reason


@pytest.mark.parametrize(
    ("death", "text"),
    [
        (Death(-11), "exit -11 (SIGSEGV)"),
        (Death(3), "exit 3"),
        (Death(None), "exit unknown"),
        (Death(-99), "exit -99 (signal 99)"),
    ],
)
def test_fault_59_how_a_worker_ended(death: Death, text: str) -> None:
    assert str(death) == text


def test_wrong_use_is_refused() -> None:
    with pytest.raises(ValueError, match="max_retries=-2"):
        RetryPolicy(max_retries=-2)
    with pytest.raises(ValueError, match="quarantine_after=0"):
        RetryPolicy(quarantine_after=0)
    with pytest.raises(ValueError, match="attempts_used=0"):
        RetryPolicy().decide("system", 0)


def test_fault47_ends_for_want_of_memory_have_a_budget_of_their_own() -> None:
    starved, crash = Death(-9, for_memory=True), Death(-9)
    policy = RetryPolicy(max_retries=2)
    assert policy.decide("memory", 1, deaths=[starved]) == Retry(0), "no attempt is charged"
    assert policy.decide("memory", 2, deaths=[crash, starved, starved]) == Retry(1)
    assert isinstance(policy.decide("memory", 1, deaths=[starved] * 3), Fail)
    assert policy.decide("system", 2, deaths=[starved, starved, crash, crash]) == Retry(2)
    assert isinstance(RetryPolicy(max_retries=0).decide("memory", 1, deaths=[starved]), Fail)


def test_fault47_without_end_to_its_retries_it_is_told_in_the_end_and_not_quarantined_before() -> None:
    starved = Death(-9, for_memory=True)
    policy = RetryPolicy(max_retries=-1, quarantine_after=3)
    assert policy.decide("memory", 1, deaths=[starved] * 3) == Retry(0)
    assert isinstance(policy.decide("memory", 1, deaths=[starved] * 4), Fail)
    assert policy.decide("system", 1, deaths=[starved] * 3 + [Death(1)]) == Retry(1)
