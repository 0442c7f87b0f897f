"""The serving process of `zmreg start --load module:setup`: imports the module, calls `setup()`, which registers what
this process is to serve, and serves it.

Run as `python -m zmreg.api.loading TARGET ADDRESS FD`: a byte on the descriptor says that it serves.
"""

from __future__ import annotations

import importlib
import os
import sys

from zmreg.api import cluster
from zmreg.api.named import serve
from zmreg.model.errors import ClusterError


def load(target: str) -> None:
    """Import `module`, and call `function()` of it when the target is `module:function`. Raises what these raise;
    ImportError and AttributeError say that there is no such thing."""
    module, colon, name = target.partition(":")
    found: object = importlib.import_module(module)
    for part in name.split(".") if colon else ():
        found = getattr(found, part)
    if colon:
        if not callable(found):
            raise TypeError(f"{target} is {found!r:.60}, and not a function that registers what is to be served")
        found()


def main(target: str, address: str, ready: str) -> None:
    """The life of the process."""
    try:
        cluster.init(address, log_to_driver=False)
        load(target)
    except ClusterError as error:
        sys.exit(f"{target} was not loaded: {error}")
    if not cluster.is_initialized():  # it has served and left by itself
        return
    os.write(int(ready), b"R")
    os.close(int(ready))
    serve()


if __name__ == "__main__":
    main(*sys.argv[1:])
