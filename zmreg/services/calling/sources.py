"""The code of a named function, for who wants to run a failed call again where a debugger is.

It leaves its process only when somebody asks for it.
"""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, cast

from zmreg.model.errors import FunctionNotFoundError, SerializationError, ZmregError
from zmreg.model.function_messages import FunctionRow
from zmreg.services.calling.naming import Naming, Wanted, naming
from zmreg.services.seat.client import Client
from zmreg.services.seat.entries import FAILED
from zmreg.wire import payload

if TYPE_CHECKING:
    from zmreg.services.seat.entries import Entry

PATIENCE_S = 10.0
_packing = threading.Lock()


def code_of(function: Callable[..., Any]) -> bytes:
    """A function together with what it uses of its own module, for a process that may not have that module.

    Modules that were installed are taken to be there. Raises SerializationError.
    """
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    file = getattr(module, "__file__", None) or ""
    if not file or "site-packages" in file or file.startswith(sys.base_prefix):
        return payload.pack_definition(function)[1]
    with _packing:
        payload.by_value(module, True)
        try:
            return payload.pack_definition(function)[1]
        finally:
            payload.by_value(module, False)


def fetch(client: Client, row: FunctionRow) -> Callable[..., Any]:
    """The function that `row` tells of, from its host, or from another one that serves the same version.

    Raises FunctionNotFoundError when nobody does any more, SerializationError when it cannot be loaded here.
    """
    names = naming(client)
    entry = _asked(client, names, row)
    if entry is None:
        for other in names.require(Wanted(row.name, (), row.version and f"=={row.version}"), 0.0):
            entry = _asked(client, names, other)
            if entry is not None:
                break
        else:
            raise FunctionNotFoundError(f"nobody who serves {row.name!r} could give its code")
    code = client.get((entry,), PATIENCE_S)[0]
    try:
        return cast("Callable[..., Any]", payload.unpack_definition(code))
    except ZmregError as error:
        raise SerializationError(f"the code of {row.name!r} cannot be loaded here: {error}") from error


def _asked(client: Client, names: Naming, row: FunctionRow) -> Entry | None:
    """None: that host is gone."""
    entry = names.ask_for_code(row).entries[0]
    client.settled(entry, PATIENCE_S)
    if entry.state < FAILED:
        return entry
    error = client.error_of(entry)
    if isinstance(error, SerializationError):
        raise error
    return None
