"""Log records that say where they come from, and lines of JSON. For `logging` as a program sets it up.

zmreg logs to `zmreg` and below it, and sets nothing up: what it says without any set-up, Python shows on stderr from
WARNING on, which in a worker is its log. There is no NullHandler, as what it says then is meant to be seen.
"""

from __future__ import annotations

import logging
import time

from zmreg.services.seat.client import current
from zmreg.services.seat.context import hosted, running_task

_IDS = ("job", "node", "worker", "actor", "task", "task_name", "attempt")


def _ids() -> dict[str, str | int]:
    """Of the code that runs here, by thread and coroutine; hex. Without those that there are not."""
    seat = current()
    if seat is None:
        return {}
    ids: dict[str, str | int] = {"job": seat.session.name, "node": seat.node.hex(), "worker": seat.me.hex()}
    if (host := hosted()) is not None:
        ids["actor"] = host.actor_id.hex()
    if (task := running_task()) is not None:
        ids |= {"task": task[0].hex(), "task_name": str(task[1]), "attempt": task[2]}
    return ids


class LogIds(logging.Filter):
    """For a handler: records have `job`, `node`, `worker` (this process), `actor`, `task`, `task_name` and `attempt`.

    For formats like `"%(task_name)s %(message)s"`. Empty where there is none.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Lets every record pass. What a record has by itself stays."""
        ids = _ids()
        for name in _IDS:
            if name not in record.__dict__:
                record.__dict__[name] = ids.get(name, "")
        return True


_PLAIN = frozenset(logging.makeLogRecord({}).__dict__) | {"message", "asctime", "taskName", *_IDS}


class JsonLines(logging.Formatter):
    """For a handler: a record is a line of JSON, with `time` (UTC), `level`, `logger`, `pid`, `message`, the ids as
    `LogIds` has them, `error` with the traceback, and what `extra=` has given. Anything else is written as its repr."""

    def format(self, record: logging.LogRecord) -> str:
        """One line."""
        import json  # late: a fiftieth of what all of zmreg takes to import

        has = record.__dict__
        ids = _ids() | {name: has[name] for name in _IDS if name in has}
        line = {
            "time": f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(record.created))}.{int(record.msecs):03d}+00:00",
            "level": record.levelname, "logger": record.name, "pid": record.process,
            "message": record.getMessage(),
            **{name: value for name, value in ids.items() if value != ""},
            **{name: value for name, value in has.items() if name not in _PLAIN},
        }  # fmt: skip
        if record.exc_info:
            line["error"] = self.formatException(record.exc_info)
        if record.stack_info:
            line["stack"] = self.formatStack(record.stack_info)
        return json.dumps(line, default=repr, ensure_ascii=False)
