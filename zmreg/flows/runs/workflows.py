"""A run with everything around it, by one call: its streamer, its callback, its figures at the end."""

from __future__ import annotations

import inspect
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

from zmreg.flows.results.sinks import ResultStreamer, Sink
from zmreg.flows.runs.phases import RunResult, run

_STREAMING: Final = ("output_dir", "buffer_size", "format", "compression")
_OURS: Final = ("workflow_id", "enable_result_streaming", *_STREAMING)

Callback = Callable[[dict[str, Any]], object]


class Coordinator:
    """Executes workflows, any number of them at once: each has its own id, streamer and counts."""

    def __init__(self, output_dir: str | Path = "results", result_callback: Callback | None = None) -> None:
        """`output_dir`: below it each workflow that streams its results has a directory. `result_callback`: for all
        workflows that bring none of their own."""
        self.output_dir = Path(output_dir)
        self._callback = result_callback

    def execute_workflow(self, config: Mapping[str, Any], result_callback: Callback | None = None) -> Any:
        """Run it, and return {"workflow_id", "status", "success", "outputs", "failed", "skipped"}, with
        "aggregated_results" if it streams. In an event loop: to be awaited.

        `config`: what `zmreg.run` takes as a declaration, and beside it `workflow_id`, `enable_result_streaming`
        (False unless given), and of the streamer `output_dir`, `buffer_size`, `format` and `compression`.
        `result_callback`: a function, `async` or not, that gets {"phase", "index", "result"} of each result here; what
        it raises is logged. Raises as `zmreg.run` and `zmreg.ResultStreamer` do.
        """
        told = result_callback or self._callback
        asyncio = sys.modules.get("asyncio")
        if asyncio is None or asyncio._get_running_loop() is None:
            return self._execute(config, None if told is None else _finished(told))
        return self._aside(config, told)

    async def _aside(self, config: Mapping[str, Any], told: Callback | None) -> dict[str, Any]:
        import asyncio

        loop = asyncio.get_running_loop()

        def tell(result: dict[str, Any]) -> None:
            assert told is not None
            answer = told(result)
            if inspect.iscoroutine(answer):
                asyncio.run_coroutine_threadsafe(answer, loop).result()

        return await asyncio.to_thread(self._execute, config, None if told is None else tell)

    def _execute(self, config: Mapping[str, Any], told: Callback | None) -> dict[str, Any]:
        declared = {name: value for name, value in config.items() if name not in _OURS}
        workflow_id = config.get("workflow_id", declared.get("id"))
        if workflow_id is None:
            raise ValueError("a workflow has a 'workflow_id', by which its results are kept apart from others'")
        options: dict[str, Any] = {} if told is None else {"on_result": told}
        streamer = None
        if config.get("enable_result_streaming", False):
            given = {name: config[name] for name in _STREAMING if name in config}
            where = given.pop("output_dir", self.output_dir)
            streamer = options["sink"] = ResultStreamer(workflow_id, where, **given)
        try:
            done = run(declared, **options)
        finally:
            if streamer is not None:
                Sink.close(streamer, complete=False)  # what the run has not closed, for an error
        return _said(workflow_id, done, streamer)


def _said(workflow_id: str, done: RunResult, streamer: ResultStreamer | None) -> dict[str, Any]:
    said = {
        "workflow_id": workflow_id, "status": done.status, "success": done.ok, "outputs": done.outputs,
        "failed": done.failed, "skipped": done.skipped,
    }  # fmt: skip
    return said if streamer is None else {**said, "aggregated_results": streamer.get_aggregated_results()}


def _finished(told: Callback) -> Callback:
    """The same, where there is no loop that an `async` one could run in."""

    def tell(result: dict[str, Any]) -> None:
        answer = told(result)
        if inspect.iscoroutine(answer):
            import asyncio

            asyncio.run(answer)

    return tell
