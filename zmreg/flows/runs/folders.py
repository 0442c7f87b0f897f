"""Where runs keep their journals and files. Loads nothing: whoever only looks on asks for it, too."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

FOLDER: Final = "ZMREG_RUNS"
"""The environment variable with the folder of runs; by default `zmreg-runs` in the working directory."""


def runs_folder(given: str | os.PathLike[str] | None = None) -> Path:
    """The folder in which each run has one."""
    return Path(given or os.environ.get(FOLDER) or "zmreg-runs").expanduser()
