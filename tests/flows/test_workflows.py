"""Workflows by one call, with their results streamed (runs W21, W22)."""

from __future__ import annotations

import asyncio
import logging
import threading
from pathlib import Path
from typing import Any

import pytest

import zmreg
from zmreg import Coordinator, Sink
from zmreg.flows.results.result_dirs import read_manifest

pytestmark = pytest.mark.usefixtures("cluster")


def backtest(item: int) -> dict[str, Any]:
    return {"container_id": f"c{item}", "metrics": {"sharpe": item / 10}}


def fails(grid: list[Any]) -> None:
    raise RuntimeError(f"after {len(grid)} results")


def config(name: str, count: int, **more: Any) -> dict[str, Any]:
    phases = [{"name": "grid", "fn": backtest, "foreach": list(range(count))}]
    return {"workflow_id": name, "enable_result_streaming": True, "phases": phases, **more}


def test_W22_two_workflows_at_once_have_separate_files_and_counts(tmp_path: Path) -> None:
    coordinator = Coordinator(tmp_path)
    found: dict[str, Any] = {}

    def execute(name: str, count: int) -> None:
        found[name] = coordinator.execute_workflow(config(name, count, buffer_size=3))

    threads = [threading.Thread(target=execute, args=each) for each in (("a", 7), ("b", 12))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, count in (("a", 7), ("b", 12)):
        assert found[name]["success"] and found[name]["workflow_id"] == name
        results = found[name]["aggregated_results"]
        assert results["phases"]["grid"]["count"] == count
        assert [each["value"] for each in results["top_performers"]][0] == (count - 1) / 10
        assert len(list(Sink.read(tmp_path / name))) == count
        manifest = read_manifest(tmp_path / name)
        assert manifest is not None and manifest["complete"] is True


def test_W22_without_streaming_there_is_no_directory(tmp_path: Path) -> None:
    found = Coordinator(tmp_path / "none").execute_workflow(config("a", 2, enable_result_streaming=False))
    assert "aggregated_results" not in found and len(found["outputs"]["grid"]) == 2
    assert not (tmp_path / "none").exists()
    with pytest.raises(ValueError, match="workflow_id"):
        Coordinator().execute_workflow({"phases": []})


def test_W9_a_workflow_that_fails_leaves_its_partial_results(tmp_path: Path) -> None:
    wanted = config("a", 5)
    wanted["phases"] = [*wanted["phases"], {"name": "bad", "fn": fails, "depends_on": ["grid"]}]
    found = Coordinator(tmp_path).execute_workflow(wanted)
    assert found["status"] == "failed" and "bad" in found["failed"]
    manifest = read_manifest(tmp_path / "a")
    assert manifest is not None and (manifest["complete"], manifest["rows"]) == (False, 5)
    with pytest.raises(zmreg.errors.PhaseError):
        Coordinator(tmp_path).execute_workflow({**config("bad", 1), "phases": [{"name": "no function"}]})
    manifest = read_manifest(tmp_path / "bad")
    assert manifest is not None and manifest["complete"] is False


def test_W21_the_callback_is_called_once_for_each_and_what_it_raises_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    told: list[Any] = []

    def tell(result: dict[str, Any]) -> None:
        told.append(result["result"]["container_id"])
        raise RuntimeError("no matter")

    async def tell_async(result: dict[str, Any]) -> None:
        await asyncio.sleep(0)
        told.append(result["result"]["container_id"])

    async def main() -> Any:
        return await Coordinator(tmp_path, tell_async).execute_workflow(config("c", 4))

    with caplog.at_level(logging.ERROR):
        assert Coordinator(tmp_path).execute_workflow(config("a", 4), tell)["success"]
    assert sorted(told) == ["c0", "c1", "c2", "c3"] and "no matter" in caplog.text
    told.clear()
    assert Coordinator(tmp_path, tell_async).execute_workflow(config("b", 4))["success"]
    assert asyncio.run(main())["aggregated_results"]["count"] == 4
    assert sorted(told) == sorted(["c0", "c1", "c2", "c3"] * 2)
