"""The proxy is told what to do to a line, and plain sockets at its ends see it happen (faults 20, 23, 27, 31, 32)."""

from __future__ import annotations

import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from zmreg.testing.proxy import ChaosProxy

WAIT_S = 5.0
# How long "nothing comes" is watched. A byte through the proxy takes well under a millisecond.
NOTHING_S = 0.1


@pytest.fixture
def target() -> Iterator[socket.socket]:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        listening.settimeout(WAIT_S)
        yield listening


@pytest.fixture
def proxy(target: socket.socket) -> Iterator[ChaosProxy]:
    with ChaosProxy(*target.getsockname(), seed=7) as made:
        yield made


@contextmanager
def connected(proxy: ChaosProxy, target: socket.socket) -> Iterator[tuple[socket.socket, socket.socket]]:
    """Both ends of one connection through the proxy: the client's and the target's."""
    with socket.create_connection(("127.0.0.1", proxy.port), WAIT_S) as near:
        far, _ = target.accept()
        with far:
            far.settimeout(WAIT_S)
            yield near, far


def read(end: socket.socket, nbytes: int) -> bytes:
    got = b""
    while len(got) < nbytes and (more := end.recv(nbytes - len(got))):
        got += more
    return got


def hears_nothing(end: socket.socket) -> bool:
    end.settimeout(NOTHING_S)
    try:
        end.recv(1)
        return False
    except TimeoutError:
        return True
    finally:
        end.settimeout(WAIT_S)


def test_a_healthy_line_passes_everything_and_ends_in_peace(proxy: ChaosProxy, target: socket.socket) -> None:
    sent = os.urandom(3_000_000)
    with connected(proxy, target) as (near, far):
        writing = threading.Thread(target=lambda: (near.sendall(sent), near.shutdown(socket.SHUT_WR)))
        writing.start()
        assert read(far, len(sent) + 1) == sent  # and the end came behind it
        writing.join()
        far.sendall(b"answer")  # one way is closed, the other is not
        far.close()
        assert read(near, 7) == b"answer"
    assert proxy.statistics().up_bytes == len(sent) and proxy.statistics().down_bytes == 6


def test_fault_23_a_delay_holds_up_both_ways_and_keeps_order(proxy: ChaosProxy, target: socket.socket) -> None:
    with connected(proxy, target) as (near, far):
        proxy.delay(0.1, jitter_s=0.05)
        before = time.monotonic()
        for number in range(50):
            near.sendall(bytes([number]))
        assert read(far, 50) == bytes(range(50))
        far.sendall(b"x")
        assert read(near, 1) == b"x"
        assert 0.1 <= time.monotonic() - before < WAIT_S
        proxy.delay(60.0)
        near.sendall(b"late")
        assert hears_nothing(far)
        proxy.heal()
        assert read(far, 4) == b"late"


def test_a_cut_is_a_reset_at_both_ends_and_new_connections_are_welcome(
    proxy: ChaosProxy, target: socket.socket
) -> None:
    with connected(proxy, target) as (near, far):
        near.sendall(b"x")
        assert read(far, 1) == b"x"
        proxy.cut()
        for end in (near, far):
            with pytest.raises(ConnectionResetError):
                end.recv(1)
    with connected(proxy, target) as (near, far):
        near.sendall(b"again")
        assert read(far, 5) == b"again"
    assert proxy.statistics().cut == 1


def test_refusing_looks_like_a_process_that_is_gone_and_heals_on_the_same_port(
    proxy: ChaosProxy, target: socket.socket
) -> None:
    with connected(proxy, target) as (near, _):
        proxy.refuse()
        with pytest.raises(ConnectionResetError):
            near.recv(1)
    for _ in range(2):
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", proxy.port), WAIT_S)
    proxy.heal()
    with connected(proxy, target) as (near, far):
        near.sendall(b"x")
        assert read(far, 1) == b"x"


def test_fault_27_mute_is_half_open_even_when_an_end_goes(proxy: ChaosProxy, target: socket.socket) -> None:
    with connected(proxy, target) as (near, far):
        proxy.mute()
        near.sendall(b"lost")
        assert hears_nothing(far)
        near.close()
        assert hears_nothing(far)
        assert proxy.statistics().swallowed_bytes == 4 and proxy.statistics().open == 1
        proxy.heal()
        with pytest.raises(ConnectionResetError):
            far.recv(1)


def test_fault_20_one_way_is_lost_and_the_other_goes_on(proxy: ChaosProxy, target: socket.socket) -> None:
    with connected(proxy, target) as (near, far):
        proxy.mute("down")
        near.sendall(b"heard")
        assert read(far, 5) == b"heard"
        far.sendall(b"not heard")
        assert hears_nothing(near)


def test_fault_18_what_was_stalled_arrives_after_healing(proxy: ChaosProxy, target: socket.socket) -> None:
    with connected(proxy, target) as (near, far):
        proxy.stall()
        near.sendall(b"patience")
        assert hears_nothing(far)
        proxy.heal()
        assert read(far, 8) == b"patience"


def test_fault_31_bits_flip_at_places_that_the_seed_decides(target: socket.socket) -> None:
    sent = bytes(10_000)

    def passed(seed: int) -> bytes:
        with ChaosProxy(*target.getsockname(), seed=seed) as proxy:
            proxy.corrupt(100, "up")
            with connected(proxy, target) as (near, far):
                near.sendall(sent)
                got = read(far, len(sent))
                assert proxy.statistics().flipped_bits == sum(byte.bit_count() for byte in got)
                return got

    first = passed(1)
    assert 50 <= sum(byte.bit_count() for byte in first) <= 200
    assert first == passed(1) != passed(2)


def test_fault_32_a_connection_ends_in_the_middle_of_a_message(proxy: ChaosProxy, target: socket.socket) -> None:
    with connected(proxy, target) as (near, far):
        near.sendall(b"whole")
        assert read(far, 5) == b"whole"
        proxy.truncate(3, "up")
        near.sendall(b"partial")
        assert read(far, 7) == b"par"
        assert proxy.statistics().truncated == 1


def test_a_narrow_line_is_slow_and_its_sender_feels_it(proxy: ChaosProxy, target: socket.socket) -> None:
    with connected(proxy, target) as (near, far):
        proxy.throttle(100_000)
        before = time.monotonic()
        near.sendall(bytes(30_000))
        assert len(read(far, 30_000)) == 30_000
        assert time.monotonic() - before >= 0.25


def test_no_target_is_a_reset() -> None:
    with socket.socket() as gone:
        gone.bind(("127.0.0.1", 0))  # and does not listen: it refuses, and nobody else gets the port
        with (
            ChaosProxy(*gone.getsockname()) as proxy,
            pytest.raises(ConnectionResetError),  # the reset may be here before the connection is ours
            socket.create_connection(("127.0.0.1", proxy.port), WAIT_S) as near,
        ):
            near.recv(1)


@pytest.mark.parametrize("fault", ["none", "mute", "stall", "refuse", "delay", "full"])
def test_closing_leaves_no_thread_and_no_descriptor(fault: str, target: socket.socket) -> None:
    open_before = len(list(Path("/proc/self/fd").iterdir()))
    threads_before = threading.active_count()
    with ChaosProxy(*target.getsockname()) as proxy, connected(proxy, target) as (near, far):
        match fault:
            case "mute" | "stall" | "refuse":
                getattr(proxy, fault)()
            case "delay":
                proxy.delay(60.0)
                near.sendall(b"never")
            case "full":  # nobody reads: the proxy's queue and both kernels' buffers fill up
                near.settimeout(NOTHING_S)
                with pytest.raises(TimeoutError):
                    while True:
                        near.sendall(bytes(1 << 20))
            case _:
                far.sendall(b"x")
                assert read(near, 1) == b"x"
        proxy.close()
        assert threading.active_count() == threads_before
    assert len(list(Path("/proc/self/fd").iterdir())) == open_before


def test_a_proxy_that_was_not_started_says_what_to_do() -> None:
    with pytest.raises(RuntimeError, match="call start"):
        ChaosProxy("127.0.0.1", 1).heal()
