"""Full disks for real: a tmpfs of 4 MiB in a mount namespace of its own (needs the right to make one)."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from zmreg.model.errors import ObjectStoreFullError, SpillFullError

PRELUDE = """
import os, sys
from pathlib import Path
from zmreg.model.errors import ObjectStoreFullError, SpillFullError
from zmreg.store.arena import Mapping, copy_bytes
from zmreg.store.spill import SpillDirectory
disk = Path(sys.argv[1])
"""


def run_on_small_disk(tmp_path: Path, program: str, size: str = "4m") -> str:
    unshare = shutil.which("unshare")
    if unshare is None:
        pytest.skip("no unshare(1) on this machine to mount a small tmpfs with")
    for flags in (["-m"], ["-rm"]):
        mount = [unshare, *flags, "sh", "-c", f'mount -t tmpfs -o size={size} none "$1" && shift && exec "$@"', "sh"]
        if subprocess.run([*mount, str(tmp_path), "true"], capture_output=True, check=False).returncode == 0:
            command = [*mount, str(tmp_path), sys.executable, "-c", PRELUDE + program, str(tmp_path)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr  # -7 would be SIGBUS
            return done.stdout
    pytest.skip("mounting a tmpfs in a namespace is not permitted here")


def test_fault_42_full_shared_memory_is_a_typed_error_and_never_sigbus(tmp_path: Path) -> None:
    out = run_on_small_disk(
        tmp_path,
        """
arena = Mapping.create(disk / "a.arena", 1 << 30)
arena.claim(0, 3 << 20)
copy_bytes(arena.writable(0, 3 << 20), b"x" * (3 << 20))
try:
    arena.claim(3 << 20, 2 << 20)
except ObjectStoreFullError as error:
    assert error.needed_bytes == 2 << 20
    print(error)
# What was claimed still works, and so does a smaller claim.
assert bytes(arena.view(0, 3 << 20, int)) == b"x" * (3 << 20)
arena.claim(3 << 20, 1 << 19)
arena.writable(3 << 20, 1 << 19)[:] = bytes(1 << 19)
""",
    )
    assert "no shared memory for an object of 2,097,152 bytes" in out
    assert "bytes free of 4,194,304" in out
    assert issubclass(SpillFullError, ObjectStoreFullError)


@pytest.mark.parametrize("keep_free", [0.0, 0.05])
def test_fault_39_full_spill_disk_is_a_typed_error_and_nothing_is_corrupt(tmp_path: Path, keep_free: float) -> None:
    out = run_on_small_disk(
        tmp_path,
        f"""
spill = SpillDirectory(disk / "spill", keep_free={keep_free})
body = os.urandom(1 << 20)
written, failures = [], 0
for n in range(8):
    object_id = n.to_bytes(16, "big")
    try:
        spill.write(object_id, memoryview(body))
        written.append(object_id)
    except SpillFullError as error:
        failures += 1
        text = str(error)
back = bytearray(1 << 20)
for object_id in written:
    spill.read_into(object_id, memoryview(back))
    assert back == body
assert len(list(spill.path.iterdir())) == len(written)
spill.delete(written.pop())
spill.write(bytes(16), memoryview(body))
print(len(written), failures, text)
""",
    )
    assert out.startswith("2 5 ")
    assert "Free some disk" in out


def test_fault_39_disk_that_fills_up_in_the_middle_of_a_write(tmp_path: Path) -> None:
    """The space check passes, another program takes the space, the write itself fails."""
    out = run_on_small_disk(
        tmp_path,
        """
spill = SpillDirectory(disk / "spill", keep_free=0.0)
spill._check_space = lambda nbytes: None
try:
    spill.write(bytes(16), memoryview(bytes(5 << 20)))
except SpillFullError as error:
    print(error)
assert list(spill.path.iterdir()) == []
""",
    )
    assert "the disk is full" in out
