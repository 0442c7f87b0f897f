"""`await zmreg.arun(...)`: runs that an event loop waits for (row W16 of spec/runs.md)."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

import zmreg
from zmreg import Phase
from zmreg.flows.runs.journal import is_running, summary_of
from zmreg.model.errors import PhaseError

pytestmark = [pytest.mark.usefixtures("cluster"), pytest.mark.timeout(60)]


def met(name: str) -> str:
    zmreg.sync.Barrier("W16-awaited", 3).wait(30)
    return name


def test_W16_several_runs_are_awaited_at_once_and_the_loop_goes_on(tmp_path: Path) -> None:
    """Each waits for the others: one after the other they would never end."""
    turns = 0

    async def turning() -> None:
        nonlocal turns
        while True:
            await asyncio.sleep(0)
            turns += 1

    async def main() -> list[zmreg.RunResult]:
        other = asyncio.create_task(turning())
        phases = [Phase("one", met, config={"name": "x"}, num_cpus=0), Phase("two", lambda one: one * 2, ["one"])]
        runs = [zmreg.arun(phases, id=f"run-{number}", folder=tmp_path) for number in range(3)]
        results = await asyncio.gather(*runs)
        other.cancel()
        return results

    results = asyncio.run(main())
    assert [result["two"] for result in results] == ["xx"] * 3
    assert [result.id for result in results] == ["run-0", "run-1", "run-2"]
    assert turns > 10


@pytest.mark.parametrize("how", ["cancelled", "too late"])
def test_W16_cancelling_whoever_awaits_a_run_cancels_it(tmp_path: Path, how: str) -> None:
    gate: zmreg.Queue[int] = zmreg.Queue()
    phases = [Phase("before", lambda: 1), Phase("waits", lambda before: gate.get(), ["before"], num_cpus=0)]
    changes: list[Any] = []

    async def main() -> None:
        begun = asyncio.Event()
        loop = asyncio.get_running_loop()

        def hear(change: Any) -> None:
            changes.append((change.phase, change.state))
            if changes[-1] == ("waits", "running"):
                loop.call_soon_threadsafe(begun.set)

        task = asyncio.create_task(zmreg.arun(phases, id="run", folder=tmp_path, on_phase=hear))
        await begun.wait()
        if how == "cancelled":
            task.cancel()
        with pytest.raises((asyncio.CancelledError, TimeoutError)):
            await (task if how == "cancelled" else asyncio.wait_for(task, 0.01))
        assert task.cancelled()
        assert not is_running(tmp_path / "run"), "it is over by then"

    asyncio.run(main())
    assert changes[-1] == ("waits", "cancelled")
    summary = summary_of(tmp_path / "run")
    assert summary is not None and summary.status == "cancelled"
    assert summary.phases["before"].state == "done"

    gate.put_nowait_batch([7] * 3)  # the call that was cancelled may take one with it
    again = asyncio.run(zmreg.arun(phases, id="run", folder=tmp_path, resume=True))
    assert again.raise_for_status()["waits"] == 7 and again.reused == ("before",)
    gate.shutdown()


def test_W16_what_is_wrong_is_raised_and_what_fails_is_told() -> None:
    def fails() -> None:
        raise ValueError("no luck")

    async def main() -> zmreg.RunResult:
        with pytest.raises(PhaseError, match="nowhere"):
            await zmreg.arun([Phase("a", fails, ["nowhere"])])
        with pytest.raises(TypeError, match="no argument 'colour'"):
            await zmreg.arun([Phase("a", fails)], colour="red")  # type: ignore[call-arg]
        return await zmreg.arun([Phase("a", fails)])

    result = asyncio.run(main())
    assert result.status == "failed" and isinstance(result.errors["a"], ValueError)


def test_W16_what_breaks_the_drive_comes_to_whoever_awaits() -> None:
    def breaks(_: Any) -> None:
        raise SystemError("enough") from None

    class Odd(BaseException):
        pass

    def odd(_: Any) -> None:
        raise Odd

    async def main() -> zmreg.RunResult:
        with pytest.raises(Odd):
            await zmreg.arun([Phase("a", lambda: 1)], on_phase=odd)
        return await zmreg.arun([Phase("a", lambda: 1)], on_phase=breaks)

    assert asyncio.run(main()).ok
