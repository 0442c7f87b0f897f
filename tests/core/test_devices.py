"""Row 70: which GPUs go to whom, and that the lease book gives no more of one device than there is."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given
from hypothesis import strategies as st

from zmreg.core.devices import Devices
from zmreg.core.effects import Granted, Hosted, LeaseEffect, Recall
from zmreg.core.leases import LeaseBook
from zmreg.model.specs import UNIT, Shape

HALF = UNIT // 2


def test_whole_devices_go_to_one_holder_each() -> None:
    devices = Devices.of(3 * UNIT)
    assert devices.take(2 * UNIT) == ("0", "1")
    assert devices.take(UNIT) == ("2",)
    assert not devices.fits(1)
    devices.give_back(("0", "1"), 2 * UNIT)
    assert devices.take(UNIT) == ("0",)


def test_shares_are_packed_onto_the_fullest_device_that_has_room() -> None:
    devices = Devices.of(2 * UNIT)
    assert [devices.take(amount) for amount in (3_000, HALF, HALF)] == [("0",), ("0",), ("1",)]
    assert devices.take(2_000) == ("0",), "0 has 0.2 left, 1 has 0.5"


def test_a_share_never_lies_across_two_devices() -> None:
    devices = Devices.of(2 * UNIT)
    devices.take(6_000)
    devices.take(6_000)
    assert devices.free == 8_000
    assert not devices.fits(HALF)
    with pytest.raises(ValueError, match="0.5 GPUs do not fit"):
        devices.take(HALF)


def test_one_and_a_half_is_a_device_and_a_share_of_another() -> None:
    devices = Devices.of(3 * UNIT)
    devices.take(HALF)
    assert devices.take(UNIT + HALF) == ("1", "0")
    devices.give_back(("1", "0"), UNIT + HALF)
    assert devices.free == 2 * UNIT + HALF


def test_a_node_may_offer_less_than_a_whole_device() -> None:
    devices = Devices.of(UNIT + HALF)
    assert devices.take(UNIT) == ("0",)
    assert not devices.fits(UNIT)
    assert devices.take(HALF) == ("1",)


def test_ids_are_those_of_the_environment_and_there_must_be_enough() -> None:
    assert Devices.of(2 * UNIT, ("GPU-a", "GPU-b", "GPU-c")).take(2 * UNIT) == ("GPU-a", "GPU-b")
    with pytest.raises(ValueError, match="2 GPUs, but only 1 ids"):
        Devices.of(2 * UNIT, ("7",))


def test_giving_back_twice_is_an_error() -> None:
    devices = Devices.of(UNIT)
    ids = devices.take(HALF)
    devices.give_back(ids, HALF)
    with pytest.raises(ValueError, match="more of GPU 0 is given back"):
        devices.give_back(ids, HALF)


amounts = st.one_of(st.integers(1, UNIT - 1), st.sampled_from([HALF, UNIT, 2 * UNIT, UNIT + HALF]))


@given(count=st.integers(1, 4), steps=st.lists(st.tuples(st.booleans(), amounts, st.integers(0, 20)), max_size=40))
def test_no_device_is_ever_given_away_twice(count: int, steps: list[tuple[bool, int, int]]) -> None:
    devices = Devices.of(count * UNIT)
    held: list[tuple[tuple[str, ...], int]] = []
    for is_taking, units, pick in steps:
        if is_taking and devices.fits(units):
            ids = devices.take(units)
            assert len(set(ids)) == len(ids) == -(-units // UNIT)
            held.append((ids, units))
        elif held:
            devices.give_back(*held.pop(pick % len(held)))
        use: Counter[str] = Counter()
        for ids, units in held:
            for place, name in enumerate(ids):
                use[name] += min(UNIT, units - place * UNIT)
        assert all(amount <= UNIT for amount in use.values())
        assert devices.free == count * UNIT - use.total()
        assert devices.fits(UNIT) == (len([name for name in use if use[name]]) < count)


# -- in the lease book -------------------------------------------------------------------------------------------------

A, B, C = (bytes([number]) * 8 for number in (1, 2, 3))
whole, half = Shape.of(0, 1), Shape.of(0, 0.5)


def book(gpus: int, workers: int) -> LeaseBook:
    made = LeaseBook({"CPU": 8 * UNIT, "GPU": gpus * UNIT}, frozenset(), max_workers=8)
    for number in range(workers):
        made.worker_started(bytes([100 + number]) * 8)
    return made


def given_to(effects: list[LeaseEffect]) -> list[tuple[bytes | None, tuple[str, ...] | None]]:
    return [
        (each.owner if isinstance(each, Granted) else each.actor_id, each.devices)
        for each in effects
        if isinstance(each, Granted | Hosted)
    ]


def worker_of(effects: list[LeaseEffect]) -> bytes:
    return next(each.worker for each in effects if isinstance(each, Granted | Hosted))


def test_row70_a_lease_names_its_devices() -> None:
    leases = book(gpus=2, workers=3)
    assert given_to(leases.want(A, whole, 1)) == [(A, ("0",))]
    assert given_to(leases.host(B, half, half)) == [(B, ("1",))]
    assert given_to(leases.host(C, half, half)) == [(C, ("1",))]


def test_row70_who_has_no_gpu_hears_of_it_only_on_a_worker_that_had_one() -> None:
    leases = book(gpus=1, workers=1)
    cpu = Shape.of(1)
    first = leases.want(A, cpu, 1)
    assert given_to(first) == [(A, None)], "a worker of such a node begins with none"
    leases.want(A, cpu, 0)
    leases.returned(A, worker_of(first))
    second = leases.want(A, whole, 1)
    assert given_to(second) == [(A, ("0",))]
    leases.want(A, whole, 0)
    leases.returned(A, worker_of(second))
    assert given_to(leases.want(B, cpu, 1)) == [(B, ())]


def test_row70_two_halves_on_two_devices_are_no_whole_gpu() -> None:
    leases = book(gpus=2, workers=4)
    granted = [leases.want(owner, half, 2) for owner in (A, B)]
    devices = {each.worker: each.devices for effects in granted for each in effects if isinstance(each, Granted)}
    assert sorted(devices.values(), key=str) == [("0",), ("0",), ("1",), ("1",)]
    for owner in (A, B):  # one of each owner's, such that half of each device is free
        leases.want(owner, half, 1)
    one_of_each = [next(worker for worker, ids in devices.items() if ids == (name,)) for name in ("0", "1")]
    for worker, owner in zip(one_of_each, (A, B), strict=True):
        leases.returned(owner, worker)
    assert dict(leases.statistics().available)["GPU"] == UNIT
    effects = leases.want(C, whole, 1)
    assert given_to(effects) == []
    recalled = [each for each in effects if isinstance(each, Recall)]
    assert recalled, "somebody has to make room on one device"
    served: list[tuple[bytes | None, tuple[str, ...] | None]] = []
    for each in recalled:
        leases.want(each.owner, half, 0)
        served += given_to(leases.returned(each.owner, each.worker))
    assert (C, devices[recalled[0].worker]) in served


def test_row70_a_dead_worker_gives_its_devices_back() -> None:
    leases = book(gpus=1, workers=2)
    worker = worker_of(leases.host(A, whole, whole))
    assert given_to(leases.host(B, whole, whole)) == []
    assert given_to(leases.worker_died(worker)) == [(B, ("0",))]
