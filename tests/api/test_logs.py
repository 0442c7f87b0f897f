"""Experience 1.5: records say which job, node, process, actor and task they are of; lines of JSON on request."""

from __future__ import annotations

import ast
import io
import json
import logging
import os
from pathlib import Path

import pytest

import zmreg
from zmreg.services.seat.client import current

T = 30


def written(action, *filters: logging.Filter, format: str | None = None) -> str:
    """What a handler writes while this runs, in the process that calls it."""
    stream = io.StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(zmreg.JsonLines() if format is None else logging.Formatter(format))
    for each in filters:
        handler.addFilter(each)
    logger = logging.getLogger("program")
    logger.addHandler(handler)
    logger.propagate = False
    try:
        action(logger)
    finally:
        logger.removeHandler(handler)
    return stream.getvalue()


def speaks(logger: logging.Logger) -> None:
    logger.warning("%d things", 3, extra={"run": 7, "odd": {1}})


@zmreg.remote
def task() -> tuple[str, str]:
    return written(speaks), written(speaks, zmreg.LogIds(), format="%(task_name)s|%(actor)s|%(message)s")


@zmreg.remote
class Actor:
    async def speaks(self) -> str:
        return written(speaks)


def test_experience_1_5_a_line_of_json_says_where_it_comes_from(cluster):
    line, text = task.options(name="named").remote().get(timeout=T)
    found = json.loads(line)
    assert found["message"] == "3 things" and found["level"] == "WARNING" and found["logger"] == "program"
    assert (found["run"], found["odd"]) == (7, "{1}") and found["time"].endswith("+00:00")
    assert found["task_name"] == "named" and found["attempt"] == 0 and found["node"] == cluster.node_id
    assert found["job"] == current().session.name and found["worker"] != current().me.hex() and "actor" not in found
    assert text == "named||3 things\n"
    actor = Actor.remote()
    found = json.loads(actor.speaks.remote().get(timeout=T))
    assert found["actor"] == actor._actor_id.hex() and found["task_name"] == "speaks"
    here = json.loads(written(speaks))
    assert here["worker"] == current().me.hex() and here["pid"] == os.getpid() and "task" not in here
    actor.close()


def test_experience_1_5_errors_are_in_the_line_and_what_a_record_says_itself_stays(monkeypatch):
    def fails(logger: logging.Logger) -> None:
        try:
            raise ValueError("a reason")
        except ValueError:
            logger.exception("it\nfailed", extra={"task": "mine"})

    monkeypatch.setattr("zmreg.api.logs.current", lambda: None)
    monkeypatch.setattr("zmreg.api.logs.hosted", lambda: None)
    text = written(fails, zmreg.LogIds())
    assert text.count("\n") == 1
    found = json.loads(text)
    assert found["message"] == "it\nfailed" and "ValueError: a reason" in found["error"] and found["task"] == "mine"
    assert "job" not in found, "this program is in no cluster"


def test_experience_1_5_every_logger_is_below_zmregs():
    names = [
        node.args[0].value
        for path in (Path(zmreg.__file__).parent).rglob("*.py")
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "attr", "") == "getLogger" and node.args
        if isinstance(node.args[0], ast.Constant)
    ]
    assert len(names) > 10
    if strays := [name for name in names if name.partition(".")[0] not in ("zmreg", "distributed")]:
        pytest.fail(f"loggers of other names: {strays}")
