"""The GPUs of this machine, and which of them the code in this process sees: CUDA_VISIBLE_DEVICES.

The variable has to be right before user code is imported, as CUDA looks at it once. So workers of a node with GPUs
begin with none to see (services/node/zygote.py), and are told theirs before the first call or the constructor comes.
"""

from __future__ import annotations

import contextlib
import math
import os
import re
from pathlib import Path
from typing import Final

VISIBLE: Final = "CUDA_VISIBLE_DEVICES"
# Set to 1 where something else assigns devices: ids are still booked and told, the variable is left alone.
OPT_OUTS: Final = ("ZMREG_NOSET_CUDA_VISIBLE_DEVICES", "RAY_EXPERIMENTAL_NOSET_CUDA_VISIBLE_DEVICES")
_FILES: Final = "nvidia[0-9]*"
_KIND: Final = re.compile(r"\b(?:(GTX|RTX)\s+)?([A-Z]{0,2}\d[\dA-Z]*)\b")


def visible() -> tuple[str, ...] | None:
    """The ids in CUDA_VISIBLE_DEVICES; None when it is not set. As for CUDA, the first that is none ends the list."""
    text = os.environ.get(VISIBLE)
    if text is None:
        return None
    ids: list[str] = []
    for each in text.split(","):
        name = each.strip()
        if not name or name.startswith("-"):
            break
        ids.append(name)
    return tuple(ids)


def count(devices: Path = Path("/dev")) -> int:
    """How many GPUs this process may use."""
    named = visible()
    return len(list(devices.glob(_FILES))) if named is None else len(named)


def kind(described: Path = Path("/proc/driver/nvidia/gpus")) -> str:
    """What kind the first GPU is, in the words that people use: `A100`, `RTX-4090`; empty when nothing says so."""
    for file in sorted(described.glob("*/information")):
        with contextlib.suppress(OSError):
            for line in file.read_text(errors="replace").splitlines():
                name, _, model = line.partition(":")
                if name.strip() == "Model":
                    return kind_of(model)
    return ""


def kind_of(model: str) -> str:
    """`NVIDIA A100-SXM4-80GB` is an A100, `NVIDIA GeForce RTX 4090` an RTX-4090. Empty for what has no number."""
    found = _KIND.search(model)
    return "" if found is None else "-".join(filter(None, found.groups()))


def device_ids(num_gpus: float) -> tuple[str, ...]:
    """The ids of a node's GPUs. ValueError when CUDA_VISIBLE_DEVICES names fewer."""
    needed = math.ceil(num_gpus)
    named = visible()
    if named is None:
        return tuple(str(number) for number in range(needed))
    if len(named) < needed:
        raise ValueError(
            f"num_gpus={num_gpus:g}, but {VISIBLE}={os.environ[VISIBLE]!r} lets this process use only {len(named)}; "
            "ask for fewer, or set it otherwise before the node starts"
        )
    return named[:needed]


def expose(ids: tuple[str, ...]) -> None:
    """Code in this process, and in processes that it starts, sees these GPUs from now on."""
    if not any(os.environ.get(name) == "1" for name in OPT_OUTS):
        os.environ[VISIBLE] = ",".join(ids)
