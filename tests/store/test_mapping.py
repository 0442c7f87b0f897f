"""The real shared-memory file: lifetimes of views, two processes, sweeping."""

from __future__ import annotations

import gc
import os
import pickle
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from zmreg.model.errors import InternalError
from zmreg.store.arena import PAGE, Mapping, copy_bytes, sweep_arenas

CAPACITY = 64 << 20
SHM = Path("/dev/shm") if Path("/dev/shm").is_dir() else None


@pytest.fixture
def arena(tmp_path: Path) -> Iterator[Mapping]:
    base = SHM or tmp_path
    mapping = Mapping.create(base / f"zmreg-test-{os.getpid()}.arena", CAPACITY)
    yield mapping
    mapping.close()
    mapping.unlink()


class Pin:
    """Counts releases."""

    def __init__(self) -> None:
        self.released = 0

    def __call__(self) -> None:
        self.released += 1


def fill(arena: Mapping, offset: int, data: bytes) -> None:
    arena.claim(offset, len(data))
    copy_bytes(arena.writable(offset, len(data)), data)


def test_written_bytes_are_read_and_the_file_is_private_and_sparse(arena: Mapping) -> None:
    fill(arena, PAGE, b"hello")
    with arena.view(PAGE, 5, Pin()) as view:
        assert bytes(view) == b"hello"
        assert view.readonly and view.format == "B" and view[0] == ord("h")
    stat = arena.path.stat()
    assert stat.st_mode & 0o777 == 0o600
    assert stat.st_size == CAPACITY
    assert stat.st_blocks * 512 == PAGE


HOLDERS: dict[str, Callable[[memoryview], object]] = {
    "the view": lambda view: view,
    "a slice": lambda view: view[10:20],
    "frombuffer": lambda view: np.frombuffer(view, np.uint8),
    "a slice of frombuffer": lambda view: np.frombuffer(view, np.float64)[3:5],
    "a reshaped, transposed slice": lambda view: np.frombuffer(view, np.float32).reshape(10, -1).T[1:3, ::2],
    "a re-wrapped array": lambda view: np.asarray(memoryview(np.frombuffer(view, np.uint8)))[5:],
    "a view of a view": lambda view: np.frombuffer(view, np.uint8).view(np.int64)[1:].view(np.uint8),
    "a pickle's buffer": lambda view: pickle.loads(PICKLED, buffers=[view])[7:9],
    "an iterator": lambda view: iter(np.frombuffer(view, np.uint8)),
}
NBYTES = 4000
_buffers: list[pickle.PickleBuffer] = []
PICKLED = pickle.dumps(np.zeros(NBYTES // 8), protocol=5, buffer_callback=_buffers.append)


@pytest.mark.parametrize("name", HOLDERS)
def test_core_56_the_pin_lives_as_long_as_the_last_reader(arena: Mapping, name: str) -> None:
    pin = Pin()
    view = arena.view(0, NBYTES, pin)
    holder = HOLDERS[name](view)
    del view
    gc.collect()
    assert pin.released == 0
    del holder
    assert pin.released == 1
    gc.collect()
    assert pin.released == 1


def test_core_56_two_arrays_of_one_view_hold_it_together(arena: Mapping) -> None:
    pin = Pin()
    view = arena.view(0, NBYTES, pin)
    first, second = np.frombuffer(view, np.uint8)[:10], np.frombuffer(view, np.uint8)[20:]
    del view, first
    assert pin.released == 0
    assert second.sum() == 0
    del second
    assert pin.released == 1


def test_C22_arrays_are_read_only_and_cannot_be_made_writable(arena: Mapping) -> None:
    array = np.frombuffer(arena.view(0, NBYTES, Pin()), np.uint8)
    assert not array.flags.writeable
    with pytest.raises(ValueError, match="read-only"):
        array[0] = 1
    with pytest.raises(ValueError, match="WRITEABLE"):
        array.flags.writeable = True


@pytest.mark.parametrize("nbytes", [0, 1, 4095, 4097, 1_000_003, CAPACITY - 1, CAPACITY])
def test_views_have_their_exact_size_up_to_the_end_of_the_arena(arena: Mapping, nbytes: int) -> None:
    for offset in {0, CAPACITY - nbytes}:
        assert arena.view(offset, nbytes, Pin()).nbytes == nbytes


def test_views_outlive_close_and_unlink(arena: Mapping) -> None:
    pin = Pin()
    fill(arena, 0, b"x" * NBYTES)
    array = np.frombuffer(arena.view(0, NBYTES, pin), np.uint8)
    arena.close()
    arena.close()
    arena.unlink()
    assert (array == ord("x")).all()
    for use in (lambda: arena.view(0, 1, pin), lambda: arena.writable(0, 1), lambda: arena.claim(0, 1)):
        with pytest.raises(ValueError, match="closed"):
            use()
    del array
    assert pin.released == 1


def test_ranges_outside_the_arena_are_our_own_bug(arena: Mapping) -> None:
    for offset, nbytes in ((CAPACITY, 1), (-1, 1), (0, -1), (0, CAPACITY + 1)):
        with pytest.raises(InternalError, match="are not in"):
            arena.writable(offset, nbytes)


def test_a_view_may_die_in_another_thread(arena: Mapping) -> None:
    pin = Pin()
    held = [arena.view(0, NBYTES, pin)]
    thread = threading.Thread(target=held.clear)
    thread.start()
    thread.join()
    assert pin.released == 1


def test_a_forked_child_gives_back_no_pin_of_its_parent(arena: Mapping) -> None:
    read, write = os.pipe()
    view = arena.view(0, NBYTES, lambda: os.write(write, b"r"))
    child = os.fork()
    if child == 0:
        del view
        os._exit(0)
    os.waitpid(child, 0)
    os.write(write, b"|")
    del view
    assert os.read(read, 10) == b"|r"
    os.close(read)
    os.close(write)


def test_copy_bytes_takes_any_buffer_in_steps_and_refuses_what_does_not_fit(arena: Mapping) -> None:
    source = np.arange(3 << 20, dtype=np.float64)  # 24 MiB
    arena.claim(0, source.nbytes)
    copy_bytes(arena.writable(0, source.nbytes), source)
    assert (np.frombuffer(arena.view(0, source.nbytes, Pin()), np.float64) == source).all()
    with pytest.raises(ValueError, match="do not fit"):
        copy_bytes(arena.writable(0, 3), b"1234")


CHILD = """
import sys
from zmreg.store.arena import Mapping
arena = Mapping.attach(sys.argv[1])
print("ready", flush=True)
for line in sys.stdin:
    verb, offset, nbytes = line.split()
    offset, nbytes = int(offset), int(nbytes)
    if verb == "write":
        arena.claim(offset, nbytes)
        arena.writable(offset, nbytes)[:] = bytes(range(256)) * (nbytes // 256)
        print("written", flush=True)
    else:
        view = arena.view(offset, nbytes, lambda: print("released", flush=True))
        print(bytes(view[:4]).hex(), flush=True)
        del view
# A view that lives at interpreter exit must neither be released nor crash the process.
last = arena.view(0, 4096, lambda: print("released at exit", flush=True))
"""


def test_two_processes_share_the_pages(arena: Mapping) -> None:
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD, str(arena.path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with child:
        assert child.stdin is not None and child.stdout is not None
        assert child.stdout.readline() == "ready\n"
        child.stdin.write(f"write {PAGE} {4 << 20}\n")
        child.stdin.flush()
        assert child.stdout.readline() == "written\n"
        array = np.frombuffer(arena.view(PAGE, 4 << 20, Pin()), np.uint8)
        assert (array.reshape(-1, 256) == np.arange(256)).all()
        fill(arena, 0, b"\1\2\3\4")
        child.stdin.write("read 0 4\n")
        child.stdin.flush()
        assert child.stdout.readline() == "01020304\n"
        assert child.stdout.readline() == "released\n"
        child.stdin.close()
        assert child.stdout.read() == ""
    assert child.returncode == 0


def test_attach_refuses_what_is_no_arena(tmp_path: Path) -> None:
    path = tmp_path / "x.arena"
    with pytest.raises(FileNotFoundError):
        Mapping.attach(path)
    path.touch()
    with pytest.raises(ValueError, match="no arena"):
        Mapping.attach(path)
    with pytest.raises(FileExistsError):
        Mapping.create(path, CAPACITY)
    with pytest.raises(ValueError, match="less than one page"):
        Mapping.create(tmp_path / "y.arena", 1)
    assert path.exists()


def test_fault_67_arenas_of_dead_makers_are_swept_and_live_ones_are_not(tmp_path: Path) -> None:
    maker = "import sys, os; from zmreg.store.arena import Mapping; m = Mapping.create(sys.argv[1], 1 << 20); "
    dead = tmp_path / "dead.arena"
    subprocess.run([sys.executable, "-c", maker + "os.kill(os.getpid(), 9)", str(dead)], check=False)
    assert dead.exists()
    live = Mapping.create(tmp_path / "live.arena", 1 << 20)
    try:
        reader = Mapping.attach(live.path)
        assert sweep_arenas(tmp_path) == [dead]
        reader.close()  # a reader's end does not unlock its node's file
        assert sweep_arenas(tmp_path) == []
        assert live.path.exists()
    finally:
        live.close()
    assert sweep_arenas(tmp_path) == [live.path]
