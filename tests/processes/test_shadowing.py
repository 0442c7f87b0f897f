"""Files in the working directory never pass for modules of ours; users' own modules are found as in the driver."""

from __future__ import annotations

from pathlib import Path

from tests.processes.drivers import Driver

PROGRAM = """
os.chdir(os.environ["TEST_DIRECTORY"])
if os.environ.get("TEST_FROM_HERE"):
    sys.path.insert(0, "")
zmreg.init(num_cpus=1)

@zmreg.remote
def find(name):
    import importlib
    return importlib.import_module(name).__file__

say("first", find.remote(os.environ["TEST_MODULE"]).get(timeout=30))
os.kill(json.loads(pids())["zygote"], signal.SIGKILL)
say("again", find.options(max_retries=9).remote(os.environ["TEST_MODULE"]).get(timeout=30))
"""


def test_experience_files_in_the_working_directory_do_not_shadow_ours(tmp_path: Path) -> None:
    for name in ("json", "zmq", "queue", "msgpack", "zmreg", "colorsys"):
        (tmp_path / f"{name}.py").write_text(f"raise SystemExit('the wrong {name}')\n")
    with Driver(PROGRAM, env={"TEST_DIRECTORY": str(tmp_path), "TEST_MODULE": "colorsys"}) as driver:
        assert not driver.after("first").startswith(str(tmp_path))
        # By a worker of the next zygote, which is started as a fresh interpreter.
        assert not driver.after("again").startswith(str(tmp_path))


def test_experience_a_driver_that_imports_from_its_directory_has_workers_that_do(tmp_path: Path) -> None:
    (tmp_path / "nearby.py").write_text("")
    given = {"TEST_DIRECTORY": str(tmp_path), "TEST_MODULE": "nearby", "TEST_FROM_HERE": "yes"}
    with Driver(PROGRAM, env=given) as driver:
        assert driver.after("first") == str(tmp_path / "nearby.py")
