"""Calls that carry something in front of their arguments, for who looks at them where they run (api/interceptors.py).

A call of that kind has two arguments more than its caller has written: its name, and what is carried. Whoever runs it
knows by its target: a task's is the digest of a definition of its own, around the function's; an actor's method has
`CARRIES` behind its name. Calls of all other kinds pass nothing of this on their way.
"""

from __future__ import annotations

import weakref
from typing import Any, Final

from zmreg.services.calling.calls import Template
from zmreg.services.calling.hosts import CODE_TARGET
from zmreg.services.calling.kinds import CARRIES
from zmreg.services.calling.manners import DIGEST_BYTES
from zmreg.services.seat.client import Client
from zmreg.wire import payload

_ALONE: Final = {"__zmreg_ready__", "__zmreg_terminate__", CODE_TARGET}
"""What is called without a user's having said so, or without anything of a user's running."""


def marked(target: str) -> str:
    """The same method, or named function, of a call that carries something."""
    name, behind, rest = target.partition("\0")
    return name + CARRIES + behind + rest


def unmarked(target: str) -> str:
    """The same of one that carries nothing."""
    return target.replace(CARRIES, "", 1)


class Carrier:
    """How the calls of one process carry what an interceptor gives them. `hook`: what answers for it where they run
    (services/worker/carrying.py, `Hook`); it travels with definitions. Raises SerializationError."""

    def __init__(self, hook: object) -> None:
        _, self._hook = payload.pack_definition(hook)
        self._twins: weakref.WeakKeyDictionary[Template, Template] = weakref.WeakKeyDictionary()

    def twin(self, client: Client, template: Template) -> Template | None:
        """How that is called with something carried; None for what carries nothing, ever. Raises SerializationError."""
        twin = self._twins.get(template)
        if twin is None:
            if template.target in _ALONE:
                return None
            twin = self._twins[template] = self._made(client, template)
        return twin

    def _made(self, client: Client, template: Template) -> Template:
        target, digest, blob = template.target, b"", b""
        if isinstance(target, str):
            target = marked(target)
        else:
            digest, blob = payload.pack_definition(_Function(template, self._hook))
            target = digest + target[DIGEST_BYTES:]
        twin = Template(template.name, target, template.shape)
        twin.blob, twin.contained, twin.est_us = blob, template.contained, template.est_us
        twin.nreturns, twin.limit, twin.cap = template.nreturns, template.limit, template.cap
        twin.max_retries, twin.retry_exceptions = template.max_retries, template.retry_exceptions
        if digest:
            client.tasks.templates[digest] = twin
        return twin

    def born(self, cls: Any, name: str, carried: object) -> object:
        """What to ship in place of a class, for one whose constructor carries something."""
        return _Class(cls, self._hook, name, carried)


class _Function:
    """What travels in place of a function's definition."""

    def __init__(self, template: Template, hook: bytes) -> None:
        self._blob = template.blob
        self._hook = hook
        self.__qualname__ = template.name

    def __reduce__(self) -> tuple[Any, ...]:
        from zmreg.services.worker.carrying import function_of  # late, as below: for those who carry

        return function_of, (self._blob, self._hook)


class _Class:
    """What travels in place of an actor's class."""

    def __init__(self, cls: Any, hook: bytes, name: str, carried: object) -> None:
        self._cls = cls
        self._hook = hook
        self._name = name
        self._carried = carried
        self.__qualname__ = getattr(cls, "__qualname__", name)

    def __reduce__(self) -> tuple[Any, ...]:
        from zmreg.services.worker.carrying import class_of

        # The class first: its environment is entered by unpickling it (services/worker/environments.py).
        return class_of, (self._cls, self._hook, self._name, self._carried)
