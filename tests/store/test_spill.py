"""Spill files: whole or not at all, and never wrong bytes."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from zmreg.model.errors import ObjectLostError, SpillFullError
from zmreg.store import spill
from zmreg.store.spill import SpillDirectory

ID = bytes(range(16))
OTHER = bytes(16)


@pytest.fixture
def shelf(tmp_path: Path) -> SpillDirectory:
    return SpillDirectory(tmp_path / "spill", keep_free=0.0)


def the_file(shelf: SpillDirectory) -> Path:
    (path,) = shelf.path.iterdir()
    return path


@pytest.mark.parametrize("nbytes", [0, 1, 4096, 3 * (8 << 20) + 5])
def test_bytes_come_back(shelf: SpillDirectory, nbytes: int) -> None:
    data = os.urandom(min(nbytes, 1 << 20)) * (nbytes // (1 << 20) + 1)
    body = memoryview(data)[:nbytes]
    shelf.write(ID, body)
    assert the_file(shelf).stat().st_mode & 0o777 == 0o600
    back = bytearray(nbytes)
    shelf.read_into(ID, memoryview(back))
    assert back == body
    shelf.delete(ID)
    shelf.delete(ID)
    assert list(shelf.path.iterdir()) == []


@pytest.mark.parametrize("at", ["first", "middle", "last"])
def test_fault_44_a_flipped_bit_is_noticed(shelf: SpillDirectory, at: str) -> None:
    shelf.write(ID, memoryview(bytes(100_000)))
    path = the_file(shelf)
    raw = bytearray(path.read_bytes())
    raw[{"first": len(raw) - 100_000, "middle": len(raw) - 50_000, "last": len(raw) - 1}[at]] ^= 4
    path.write_bytes(raw)
    with pytest.raises(ObjectLostError, match=r"checksum [0-9a-f]{8}, expected [0-9a-f]{8}") as caught:
        shelf.read_into(ID, memoryview(bytearray(100_000)))
    assert str(path) in str(caught.value)
    assert caught.value.object_id == ID.hex()


def test_a_flipped_bit_anywhere_in_the_header_is_noticed(shelf: SpillDirectory) -> None:
    shelf.write(ID, memoryview(b"x" * 100))
    path = the_file(shelf)
    raw = path.read_bytes()
    padding = {10, 11}
    for at in set(range(len(raw) - 100)) - padding:
        bad = bytearray(raw)
        bad[at] ^= 1
        path.write_bytes(bad)
        with pytest.raises(ObjectLostError):
            shelf.read_into(ID, memoryview(bytearray(100)))


def test_fault_43_a_file_cut_at_any_length_is_noticed(shelf: SpillDirectory) -> None:
    shelf.write(ID, memoryview(b"x" * 50))
    path = the_file(shelf)
    raw = path.read_bytes()
    for length in range(len(raw)):
        path.write_bytes(raw[:length])
        with pytest.raises(ObjectLostError):
            shelf.read_into(ID, memoryview(bytearray(50)))


def test_a_missing_file_a_wrong_size_and_a_wrong_object_are_noticed(shelf: SpillDirectory) -> None:
    with pytest.raises(ObjectLostError, match="cannot be read"):
        shelf.read_into(ID, memoryview(bytearray(5)))
    shelf.write(ID, memoryview(b"12345"))
    with pytest.raises(ObjectLostError, match="of 5 bytes, expected 4"):
        shelf.read_into(ID, memoryview(bytearray(4)))
    the_file(shelf).rename(shelf.path / f"{OTHER.hex()}.spill")
    with pytest.raises(ObjectLostError, match=ID.hex()):
        shelf.read_into(OTHER, memoryview(bytearray(5)))
    with pytest.raises(ValueError, match="not 16"):
        shelf.delete(b"short")


def test_fault_39_disk_full_leaves_nothing_behind(shelf: SpillDirectory, monkeypatch: pytest.MonkeyPatch) -> None:
    """The real thing, on a small tmpfs, is in test_small_disk.py."""

    def full(fd: int, piece: memoryview) -> None:
        os.write(fd, piece[:10])
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(spill, "_write_all", full)
        with pytest.raises(SpillFullError, match="the disk is full") as caught:
            shelf.write(ID, memoryview(bytes(1000)))
    assert caught.value.needed_bytes == 1000
    assert str(shelf.path) in str(caught.value)
    assert list(shelf.path.iterdir()) == []
    shelf.write(ID, memoryview(bytes(1000)))


def test_core_59_part_of_the_disk_stays_free(tmp_path: Path) -> None:
    shelf = SpillDirectory(tmp_path / "spill", keep_free=1.0)
    with pytest.raises(SpillFullError, match="100% of the disk stay reserved"):
        shelf.write(ID, memoryview(b"x"))
    assert list(shelf.path.iterdir()) == []


def test_sweep_removes_whole_and_partial_files_only(shelf: SpillDirectory) -> None:
    shelf.write(ID, memoryview(b"x"))
    (shelf.path / f"{OTHER.hex()}.partial").write_bytes(b"half")
    (shelf.path / "notes.txt").write_text("not ours")
    assert shelf.sweep() == 2
    assert [path.name for path in shelf.path.iterdir()] == ["notes.txt"]


def test_a_partial_file_of_a_crash_is_overwritten(shelf: SpillDirectory) -> None:
    (shelf.path / f"{ID.hex()}.partial").write_bytes(b"h" * 5000)
    shelf.write(ID, memoryview(b"x"))
    back = bytearray(1)
    shelf.read_into(ID, memoryview(back))
    assert back == b"x"


def test_row59_a_limit_of_its_own_is_kept(tmp_path: Path) -> None:
    shelf = SpillDirectory(tmp_path / "spill", keep_free=0.0, limit_bytes=10_000)
    shelf.write(bytes(16), memoryview(bytes(6_000)))
    with pytest.raises(SpillFullError, match="6,000 of the 10,000 bytes allowed by spill_bytes"):
        shelf.write(bytes(15) + b"1", memoryview(bytes(6_000)))
    shelf.delete(bytes(16))
    shelf.write(bytes(15) + b"1", memoryview(bytes(6_000)))
