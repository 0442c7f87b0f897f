"""Machines that are too small: full disks, full shared memory, few descriptors, few processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from tests.processes.drivers import ROOT, Driver

CGROUP = Path("/sys/fs/cgroup/pids")


def may_mount() -> bool:
    command = ["unshare", "-m", "mount", "-t", "tmpfs", "none", "/mnt"]
    return subprocess.run(command, capture_output=True).returncode == 0


needs_mount = pytest.mark.skipif(not may_mount(), reason="no right to mount in a namespace of one's own (unshare -m)")


def on_small(directory: str, megabytes: int) -> list[str]:
    """Run a program with a file system of that size at `directory`, for itself alone."""
    mount = f'mount -t tmpfs -o size={megabytes}m tmpfs {directory} && exec "$@"'
    return ["unshare", "-m", "sh", "-c", mount, "sh"]


@needs_mount
def test_fault42_shared_memory_that_is_full_is_an_error_and_never_a_bus_error():
    source = """
    zmreg.init(num_cpus=1, object_store_bytes=64 << 20, allocate_timeout_s=0.5)
    kept, verdicts = [], set()
    for i in range(20):
        ref = typed(lambda: zmreg.put(bytes([i]) * (1 << 20)))
        verdicts.add(ref) if isinstance(ref, str) else kept.append((i, ref))
    say("puts", len(kept), *sorted(verdicts))
    @zmreg.remote(max_retries=0)
    def large():
        return bytes(6 << 20)
    say("task", typed(lambda: len(large.remote().get(timeout=20))))
    say("intact", all(ref.get(timeout=20) == bytes([i]) * (1 << 20) for i, ref in kept))
    kept.clear()
    del ref
    say("again", typed(lambda: len(zmreg.put(bytes(1 << 20)).get(timeout=20))))
    """.replace("\n    ", "\n")
    with Driver(source, wrapper=on_small("/dev/shm", 4)) as driver:
        count, *verdicts = driver.after("puts").split()
        assert int(count) >= 2 and set(verdicts) <= {"ObjectStoreFullError"}
        assert driver.after("task") == "ObjectStoreFullError"
        assert driver.after("intact") == "True"
        assert driver.after("again") == str(1 << 20)
        assert driver.end() == 0


@needs_mount
def test_fault39_a_full_disk_is_a_typed_error_and_nothing_is_corrupt(tmp_path):
    source = """
    zmreg.init(num_cpus=1, object_store_bytes=4 << 20, allocate_timeout_s=0.5)
    kept, verdicts = [], set()
    for i in range(12):
        ref = typed(lambda: zmreg.put(bytes([i]) * (1 << 20)))
        verdicts.add(ref) if isinstance(ref, str) else kept.append((i, ref))
    say("puts", len(kept), *sorted(verdicts))
    good = True
    del ref
    while kept:  # the newest first: they are in memory, and make room for those on disk
        i, ref = kept.pop()
        good = good and ref.get(timeout=20) == bytes([i]) * (1 << 20)
        del ref
    say("intact", good)
    say("again", typed(lambda: len(zmreg.put(bytes(2 << 20)).get(timeout=20))))
    """.replace("\n    ", "\n")
    with Driver(source, wrapper=on_small(str(tmp_path), 4), env={"TMPDIR": str(tmp_path)}) as driver:
        count, *verdicts = driver.after("puts").split()
        assert int(count) >= 4, "what fits into memory and on the disk is kept"
        assert "SpillFullError" in verdicts, verdicts
        assert set(verdicts) <= {"SpillFullError", "ObjectStoreFullError"}, "spilling rests between two attempts"
        assert driver.after("intact") == "True"
        assert driver.after("again") == str(2 << 20)
        assert driver.end() == 0


@needs_mount
def test_fault39_no_disk_for_the_session_is_a_clear_error():
    """Not even a directory can be made where sockets and logs should be."""
    directory = tempfile.mkdtemp(prefix="zr-")  # shorter than tmp_path: a socket path holds 107 characters
    source = "say('init', typed(lambda: zmreg.init(num_cpus=1)))"
    read_only = ["unshare", "-m", "sh", "-c", f'mount -t tmpfs -o ro tmpfs {directory} && exec "$@"', "sh"]
    with Driver(source, wrapper=read_only, env={"XDG_RUNTIME_DIR": directory, "TMPDIR": directory}) as driver:
        assert driver.after("init") == "ClusterError"
        assert driver.end() == 0
    os.rmdir(directory)


LIMITED = """
import resource
def limit(count):
    resource.setrlimit(resource.RLIMIT_NOFILE, (count, count))
"""


def test_fault45_few_descriptors_are_warned_of_and_enough_for_a_small_cluster():
    source = """
    limit(256)
    zmreg.init(num_cpus=2)
    say("value", zmreg.get([zmreg.remote(len).remote("abc") for _ in range(50)], timeout=20) == [3] * 50)
    """.replace("\n    ", "\n")
    with Driver(LIMITED + source) as driver:
        assert driver.after("value") == "True"
        assert driver.end() == 0
        assert "may open only 256 files" in driver.stderr()
        assert "ulimit -Hn" in driver.stderr()


@pytest.mark.parametrize("count", [8, 14, 20, 26, 32])
def test_fault45_too_few_descriptors_are_a_clear_error_and_no_crash(count):
    source = f"""
    f = zmreg.remote(len)
    limit({count})
    say("verdict", typed(lambda: zmreg.init(num_cpus=1) and f.remote("abc").get(timeout=20)))
    zmreg.shutdown()
    """.replace("\n    ", "\n")
    with Driver(LIMITED + source) as driver:
        assert driver.after("verdict") in ("ClusterError", "UnschedulableError", "WorkerStartError", "3")
        assert driver.end() == 0, "libzmq aborts a process that runs out of descriptors"
        assert driver.left(5.0) == []


def test_fault45_the_soft_limit_is_raised_as_far_as_the_hard_one_allows():
    source = """
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, 4096))
    zmreg.init(num_cpus=1)
    say("limit", resource.getrlimit(resource.RLIMIT_NOFILE)[0])
    """.replace("\n    ", "\n")
    with Driver(LIMITED + source) as driver:
        assert driver.after("limit") == "4096"
        assert driver.end() == 0
        assert driver.stderr() == ""


def test_fault45_running_out_of_descriptors_burns_no_cpu():
    source = """
    zmreg.init(num_cpus=1)
    f = zmreg.remote(len)
    assert f.remote("ab").get(timeout=20) == 2
    limit(64)
    held = []
    try:
        while True:
            held.append(os.open("/dev/null", os.O_RDONLY))
    except OSError:
        pass
    used = time.process_time()
    time.sleep(1)
    say("cpu", time.process_time() - used)
    say("known", f.remote("abc").get(timeout=20))
    for fd in held:
        os.close(fd)
    zmreg.shutdown()
    """.replace("\n    ", "\n")
    with Driver(LIMITED + source) as driver:
        assert float(driver.after("cpu")) < 0.5
        assert driver.after("known") == "3", "connections that are there go on working"
        assert driver.end() == 0


def cgroup() -> Path:
    path = CGROUP / f"zmreg-test-{os.getpid()}"
    try:
        path.mkdir()
    except OSError:
        pytest.skip("no right to make a cgroup with a pids limit")
    return path


def test_fault46_a_limit_on_processes_is_a_typed_error_and_passes():
    path = cgroup()
    source = f"""
    zmreg.init(num_cpus=1, idle_worker_s=0.1)
    f = zmreg.remote(len)
    assert f.remote("a").get(timeout=20) == 1
    group = {str(path)!r}
    for pid in json.loads(pids())["node"], json.loads(pids())["zygote"]:
        open(group + "/cgroup.procs", "w").write(str(pid))
    def limit(text):
        with open(group + "/pids.max", "w") as file:
            file.write(text)
    @zmreg.remote
    class Actor:
        def ping(self):
            return "pong"
    now = len(open(group + "/cgroup.procs").read().split())
    threads = sum(len(os.listdir(f"/proc/{{pid}}/task")) for pid in open(group + "/cgroup.procs").read().split())
    limit(str(threads))
    actors = [Actor.remote() for _ in range(3)]
    say("actor", typed(lambda: zmreg.get([actor.ping.remote() for actor in actors], timeout=40)))
    for row in current().ask("workers"):
        os.kill(row["Pid"], signal.SIGKILL)
    say("task", typed(lambda: f.remote("a").get(timeout=40)))
    limit("max")
    say("after", f.remote("ab").get(timeout=20), Actor.remote().ping.remote().get(timeout=30))
    zmreg.shutdown()
    """.replace("\n    ", "\n")
    try:
        with Driver(source) as driver:
            assert driver.after("actor", timeout=50) == "ActorDiedError"
            assert driver.after("task", timeout=50) == "WorkerStartError"
            assert driver.after("after") == "2 pong"
            assert driver.end() == 0
            assert driver.left(5.0) == []
    finally:
        path.rmdir()


def test_zmreg_imports_with_the_interpreter_in_any_directory(tmp_path):
    """A relative sys.path entry must not decide what node and workers import."""
    program = "import zmreg; print(zmreg.init(num_cpus=1).num_cpus, zmreg.remote(len).remote('ab').get(timeout=20))"
    (tmp_path / "zmq.py").write_text("raise ImportError('the wrong zmq')")
    run = subprocess.run(
        [sys.executable, "-P", "-c", program], capture_output=True, text=True, timeout=60, cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert run.stdout.split() == ["1.0", "2"], run.stderr
