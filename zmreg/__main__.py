"""`python -m zmreg` is the `zmreg` command."""

from __future__ import annotations

from zmreg.tools.cli import main

if __name__ == "__main__":
    main(prog_name="zmreg")
