"""Every setting as a node or a program that starts here and now would have it, and where it comes from."""

from __future__ import annotations

import difflib
import os
import socket
from collections.abc import Iterator
from typing import Any, Final

from zmreg.model.record import Record
from zmreg.model.settings import Listening, Settings
from zmreg.services.machine import accelerators
from zmreg.services.setup import config
from zmreg.services.setup.launch import filled

DEFAULT: Final = "default"
MACHINE: Final = "this machine"
# ZMREG_NUM_CPU is to ZMREG_NUM_CPUS 0.96; what Kubernetes sets for a service called zmreg is below 0.8 to all of them.
_NEAR: Final = 0.85


class Setting(Record):
    """One setting. `value` is None where nothing is set and there is no default; `origin` is a file, a variable,
    `DEFAULT`, or `MACHINE`: measured here."""

    name: str
    value: Any
    origin: str


def settings() -> list[Setting]:
    """All there are, by name. Raises config.ConfigError; ValueError for a value that no node would start with."""
    found = config.load()
    given = {name: value for name, (value, _) in found.items() if name in Settings.__dataclass_fields__}
    counted = {"num_cpus": float(os.cpu_count() or 1), "num_gpus": float(accelerators.count())}
    whole, plain = filled(Settings(**{**counted, **given})), Settings()
    rows = []
    for name in sorted(config.known()):
        if name in found:
            rows.append(Setting(name, *found[name]))
        elif name in Settings.__dataclass_fields__:
            value = getattr(whole, name)
            measured = name in counted or value != getattr(plain, name)
            rows.append(Setting(name, value, MACHINE if measured else DEFAULT))
        elif name == "name":
            rows.append(Setting(name, socket.gethostname(), MACHINE))
        else:  # what is empty or 0 there follows from the others, or is asked for
            rows.append(Setting(name, _default(name) or None, DEFAULT))
    return rows


def _default(name: str) -> object:
    field = Listening.__dataclass_fields__.get(name)
    return None if field is None else field.default


def slips() -> Iterator[tuple[str, str]]:
    """(variable that is set and means nothing, the one that was meant, most likely)."""
    meant = [f"ZMREG_{name.upper()}" for name in config.known()]
    for variable in sorted(os.environ):
        if variable.startswith("ZMREG_") and variable not in meant:
            near = difflib.get_close_matches(variable, meant, 1, _NEAR)
            if near:
                yield variable, near[0]
