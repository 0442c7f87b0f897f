"""The `zmreg` command. Each group of commands is a file here, imported when one of its commands is wanted.

Exit codes: 0 ok, 1 failed, 2 usage or unsafe configuration, 3 locked, 4 unreachable, 5 authentication, 130 Ctrl-C.
Results go to stdout; progress, logs and errors to stderr. `--json` prints one JSON document and nothing else.
"""

from __future__ import annotations

from zmreg.tools.cli.group import CommandGroup, main

__all__ = ["CommandGroup", "main"]
