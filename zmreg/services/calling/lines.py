"""Lines: what two processes of one node talk by that ask each other thousands of times a second.

A call of an actor passes two sockets of each process, an I/O thread and a table of what is under way; it may go to any
node and outlives a lost connection. A line is a stream socket between the thread that asks and one that serves: a
question, its answer, the next question. It carries values without refs. It promises nothing: whoever loses one asks
again by a call, and hears by that what has happened. The socket is in the session's directory, which nobody else can
enter.
"""

from __future__ import annotations

import contextlib
import itertools
import os
import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

from zmreg.model.errors import ZmregError
from zmreg.wire import payload

Address = tuple[bytes, str]
"""(node, path)."""

_SIZE: Final = struct.Struct("<Q")
# Below it, one copy is cheaper than another system call.
_TOGETHER_BYTES: Final = 64 << 10
_BY_CALL: Final = b"\0"
"""An answer that has refs in it. No packed value is of one byte."""
_FAILED: Final = b"\1"
"""What was asked has raised: the error comes next."""
_numbers = itertools.count()


class LineLostError(Exception):
    """Nothing is known of what was asked: ask by a call. Nobody outside of zmreg sees it."""


class HasRefsError(Exception):
    """Refs are in the question or in the answer, which do not travel here: ask by a call; the line stays."""


class LineServer:
    """Answers questions, those of each line by a thread of its own, until it is closed and its lines are."""

    def __init__(self, session: Path, node: bytes, serve: Callable[..., Any]) -> None:
        """`serve(*question)` is the answer, or what it raises. A ZmregError, or an answer that cannot be sent, closes
        the line: who asks by a call then is told."""
        path = session / f"line-{os.getpid()}-{next(_numbers)}"
        self.address: Address = (node, str(path))
        self._serve = serve
        self._door = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._door.bind(str(path))
        path.chmod(0o600)
        self._door.listen()
        threading.Thread(target=self._admit, name="zmreg-lines", daemon=True).start()

    def _admit(self) -> None:
        try:
            while True:
                line, _ = self._door.accept()
                threading.Thread(target=self._answer, args=(line,), name="zmreg-line", daemon=True).start()
        except (OSError, RuntimeError):  # closed; or there is no descriptor, no thread left: others ask by calls then
            self.close()

    def _answer(self, line: socket.socket) -> None:
        with contextlib.suppress(OSError, ZmregError), line:
            while (question := _read(line)) is not None:
                answers = self._answers(question)
                del question
                for answer in answers:
                    _write(line, answer)
                del answer, answers

    def _answers(self, question: bytes) -> tuple[bytes, ...]:
        """What is to be sent. An OSError leaves here as an answer: it says nothing of the line. Raises ZmregError."""
        try:
            answer = _packed(self._serve(*cast("tuple[Any, ...]", payload.unpack(question))))
        except ZmregError:
            raise
        except Exception as error:  # noqa: BLE001  it is raised there, as by a call
            return _FAILED, payload.pack_failure(error, getattr(self._serve, "__name__", type(self._serve).__name__))
        return (_BY_CALL if answer is None else answer,)

    def close(self) -> None:
        """No more lines; those there are go on until they are closed. Idempotent."""
        with contextlib.suppress(OSError):
            self._door.shutdown(socket.SHUT_RDWR)  # wakes `accept`
        self._door.close()
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self.address[1])


class Line:
    """Used by one thread, which closes it; `cut` is for any."""

    def __init__(self, address: Address) -> None:
        """LineLostError when nobody is there."""
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            self._socket.connect(address[1])
        except OSError as error:
            self._socket.close()
            raise LineLostError from error

    def ask(self, *question: Any) -> Any:
        """The answer; waits for it. Raises LineLostError, also when it is cut meanwhile; HasRefsError;
        SerializationError; what was raised there, as a call does."""
        data = _packed(question)
        if data is None:
            raise HasRefsError
        try:
            _write(self._socket, data)
            answer = _read(self._socket)
            failure = _read(self._socket) if answer == _FAILED else None
        except OSError as error:
            raise LineLostError from error
        if answer is None or (answer == _FAILED and failure is None):
            raise LineLostError
        if failure is not None:
            raise payload.unpack_failure(failure)
        if answer == _BY_CALL:
            raise HasRefsError
        return payload.unpack(answer)

    def cut(self) -> None:
        """Whoever waits for an answer stops waiting. Idempotent."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Idempotent."""
        self._socket.close()


def _packed(value: Any) -> bytes | None:
    """None: there are refs in it."""
    refs: list[object] = []
    packed = payload.pack(value, refs, what="what is sent on a line")
    if refs:
        return None
    return packed if isinstance(packed, bytes) else packed.inline()


def _read(line: socket.socket) -> bytes | None:
    """None at its end."""
    head = _exactly(line, _SIZE.size)
    return None if head is None else _exactly(line, _SIZE.unpack(head)[0])


def _exactly(line: socket.socket, size: int) -> bytes | None:
    data = line.recv(size, socket.MSG_WAITALL)
    while data and len(data) < size:  # a signal came in between
        more = line.recv(size - len(data), socket.MSG_WAITALL)
        if not more:
            return None
        data += more
    return data or None


def _write(line: socket.socket, data: bytes) -> None:
    head = _SIZE.pack(len(data))
    if len(data) <= _TOGETHER_BYTES:
        line.sendall(head + data)
    else:
        line.sendall(head)
        line.sendall(data)
