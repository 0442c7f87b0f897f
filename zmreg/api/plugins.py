"""What every worker is to have: plugins, and modules that are not installed where it runs."""

from __future__ import annotations

import importlib
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from zmreg.api.everywhere import run_on_all
from zmreg.model.errors import MessageTooLargeError, WorkerDiedError
from zmreg.services.seat.seats import client, set_plugin

# Each worker gets all plugins with the first message of its life; with the others they have to fit into 128 MiB.
MOST_BYTES: Final = 32 << 20
_ARCHIVES: Final = {".zip", ".egg", ".whl"}


def register_worker_plugin(plugin: Any, name: str | None = None) -> str:
    """Have `plugin.setup()` called in every worker process: now where there is one, and in later ones, on nodes that
    join, too, before their first call. `plugin.teardown()` at a worker's end in peace. Either may be missing.

    `name` (else `plugin.name`, else its class's name) says which it is: the same name again replaces it, and tears the
    former one down. Returns the name. Raises what `setup` raises on a worker that works already, and then it is not
    registered; on later ones that is printed. MessageTooLargeError over 32 MiB, pickled.
    """
    called = name or getattr(plugin, "name", None) or type(plugin).__name__
    if not isinstance(called, str):
        raise TypeError(f"a plugin's name is a string, and not {called!r}")
    if not (hasattr(plugin, "setup") or hasattr(plugin, "teardown")):
        raise TypeError(f"{plugin!r:.60} is no plugin: it has neither setup() nor teardown()")
    from zmreg.services.worker.plugged import plug  # late, as below: few programs do this

    blob = set_plugin(client(), called, time.time_ns(), plugin, MOST_BYTES)
    try:
        _tell_workers(plug, blob)
    except Exception:
        unregister_worker_plugin(called)
        raise
    return called


def unregister_worker_plugin(name: str) -> None:
    """Tear it down in every worker, and set it up in no more. Nothing happens if there is none of that name."""
    from zmreg.services.worker.plugged import unplug

    stamp = time.time_ns()
    set_plugin(client(), name, stamp, None, MOST_BYTES)
    _tell_workers(unplug, name, stamp)


def _tell_workers(fn: Callable[..., Any], *args: Any) -> None:
    """Workers that end meanwhile need nothing."""
    for worker, found in run_on_all(fn, *args, return_exceptions=True).items():
        if isinstance(found, Exception) and not isinstance(found, WorkerDiedError):
            found.add_note(f"on worker {worker}")
            raise found


class Upload:
    """A plugin: files below a directory of the session, which is on `sys.path` before all others."""

    def __init__(self, name: str, files: dict[str, bytes]) -> None:
        import hashlib  # late, as below: it loads OpenSSL

        digest = hashlib.blake2b(repr(sorted(files.items())).encode(), digest_size=8).hexdigest()
        self.name = name
        self.files = files
        self.directory = Path("uploads") / digest
        self.place = ""

    def setup(self) -> None:
        """Write them, unless another worker of this node has, and forget modules that came from former ones."""
        import tempfile

        root = client().session / self.directory
        if not root.exists():
            root.parent.mkdir(mode=0o700, exist_ok=True)
            draft = Path(tempfile.mkdtemp(dir=root.parent))
            for path, data in self.files.items():
                (draft / path).parent.mkdir(parents=True, exist_ok=True)
                (draft / path).write_bytes(data)
            try:
                draft.rename(root)
            except OSError:  # another one was faster; who is last at the session's end removes both
                if not root.exists():
                    raise
        first = next(iter(self.files))
        self.place = str(root / first) if Path(first).suffix in _ARCHIVES else str(root)
        sys.path.insert(0, self.place)
        top = Path(first).parts[0].removesuffix(".py")
        for module in [each for each in sys.modules if each == top or each.startswith(top + ".")]:
            del sys.modules[module]
        importlib.invalidate_caches()

    def teardown(self) -> None:
        """Take it off the path. What was imported stays."""
        if self.place in sys.path:
            sys.path.remove(self.place)


def upload_file(path: str | os.PathLike[str]) -> None:
    """Make a module, a package or an archive importable in every worker, also in later ones, under its own name.

    `path`: a file (`.py`, or `.zip`, `.egg`, `.whl`), or a directory that is a package. Uploaded again, it replaces the
    former one, and is imported anew; what has been imported by name before goes on with what it has. Raises
    FileNotFoundError; MessageTooLargeError over 32 MiB.
    """
    source = Path(path).resolve()
    paths = [source] if source.is_file() else sorted(each for each in source.rglob("*") if each.is_file())
    if not paths:
        raise FileNotFoundError(f"there is no file {source}, and no directory with files in it")
    files = {
        str(each.relative_to(source.parent)): each.read_bytes() for each in paths if "__pycache__" not in each.parts
    }
    if (total := sum(map(len, files.values()))) > MOST_BYTES:
        raise MessageTooLargeError(f"{source} has {total} bytes, more than the {MOST_BYTES} that every worker gets")
    register_worker_plugin(Upload(f"upload {source.name}", files))
