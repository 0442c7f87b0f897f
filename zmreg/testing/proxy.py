"""A TCP proxy that does what networks do: delays, cuts, goes mute, loses its way, flips bits. Seeded, on loopback.

    with ChaosProxy("127.0.0.1", port, seed=7) as proxy:
        connect to ("127.0.0.1", proxy.port)
        proxy.delay(0.1, jitter_s=0.05)     # from now on, both ways
        proxy.mute("down")                  # the client hears nothing any more, and is not told
        proxy.heal()

"up" is from the client to the target, "down" is back. Each call takes effect on the connections there are and on those
to come, and returns when it has; with `of`, on those of one caller only, for a proxy that was told how to name them.
The seed, the number of a connection and its way decide every draw, so a test that fails fails again; the network's own
timing stays what it is.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import threading
from collections.abc import Callable, Coroutine, Iterator
from random import Random
from typing import Final, Literal

from zmreg.model.record import Record

Way = Literal["up", "down", "both"]

_CHUNK_BYTES: Final = 64 * 1024
# 4 MiB may be under way in each direction of a connection; then the sender feels it, as on a real line.
_CHUNKS_UNDER_WAY: Final = 64
# How soon a connection that sleeps notices that it was healed.
_SLICE_S: Final = 0.02
_PIECES_PER_S: Final = 50
_ANSWER_S: Final = 10.0
_RESET: Final = struct.pack("ii", 1, 0)  # SO_LINGER of 0 s: close() says RST


class ProxyStatistics(Record):
    """Counts since the start, but for `open`. Bytes are of what was handed on; `cut` counts connections."""

    connections: int
    open: int
    up_bytes: int
    down_bytes: int
    swallowed_bytes: int
    flipped_bits: int
    cut: int
    truncated: int


class _Faults:
    """What is wrong with one way, in all connections."""

    def __init__(self) -> None:
        self.heal()

    def heal(self) -> None:
        self.delay_s = 0.0
        self.jitter_s = 0.0
        self.bytes_per_s = 0
        self.corrupt_every = 0
        self.muted = False
        self.stalled = False
        self.truncate_after: int | None = None


class _Pipe:
    """One way of one connection: a queue between what is read and what is written, so that a delay costs no speed."""

    def __init__(self, link: _Link, way: str, ends: tuple[asyncio.StreamReader, asyncio.StreamWriter]) -> None:
        self.link = link
        self.way = way
        self.reader, self.writer = ends
        self.faults = link.proxy._faults_of(link.name, way)
        self.chance = Random(f"{link.proxy.seed}/{link.number}/{way}")
        self.passed_bytes = 0
        self.left_bytes = self.faults.truncate_after
        self.to_flip = 0
        # (when it was read, draw for the jitter in -1..1, bytes); b"" is the end in peace, None the other end.
        self.queue: asyncio.Queue[tuple[float, float, bytes | None]] = asyncio.Queue(_CHUNKS_UNDER_WAY)

    async def run(self) -> None:
        reading = asyncio.create_task(self._read())
        try:
            await self._write()
        except OSError:  # also ENOTCONN, of an end in peace told to a socket that was reset
            self.link.broken(self)
        finally:
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _read(self) -> None:
        clock = asyncio.get_running_loop().time
        data: bytes | None = b"-"
        while data:
            try:
                data = await self.reader.read(_CHUNK_BYTES)
            except ConnectionError:
                data = None
            await self.queue.put((clock(), self.chance.uniform(-1, 1), data))

    async def _write(self) -> None:
        while not self.link.over:
            since, draw, data = await self.queue.get()
            await self._until_due(since, draw)
            if self.faults.muted:
                self.link.holed = True
                self.link.proxy._swallowed += len(data or b"")
                if not data:
                    return
            elif data is None:
                self.link.broken(self)
                return
            elif not data:
                self.writer.write_eof()
                return
            else:
                await self._pass(data)

    async def _until_due(self, since: float, draw: float) -> None:
        """Looks at the faults again and again: they change while this sleeps."""
        clock = asyncio.get_running_loop().time
        while not self.link.over:
            left = since + self.faults.delay_s + draw * self.faults.jitter_s - clock()
            if left <= 0 and not self.faults.stalled:
                return
            await asyncio.sleep(min(_SLICE_S, left) if left > 0 else _SLICE_S)

    async def _pass(self, data: bytes) -> None:
        start = 0
        while start < len(data) and not self.link.over:
            rate = self.faults.bytes_per_s
            size = max(1, rate // _PIECES_PER_S) if rate else len(data)
            if self.left_bytes is not None:
                size = min(size, self.left_bytes)
            piece = self._corrupted(data[start : start + size])
            start += len(piece)
            self.writer.write(piece)
            self.passed_bytes += len(piece)
            self.link.proxy._passed[self.way] += len(piece)
            await self.writer.drain()
            if self.left_bytes is not None:
                self.left_bytes -= len(piece)
                if self.left_bytes <= 0:
                    self.link.proxy._truncated += 1
                    self.link.close()
            if rate:
                await asyncio.sleep(len(piece) / rate)

    def _corrupted(self, piece: bytes) -> bytes:
        """With one bit flipped in `corrupt_every` bytes on average."""
        every = self.faults.corrupt_every
        if not every:
            return piece
        changed = bytearray(piece)
        self.to_flip = self.to_flip or self.chance.randint(1, 2 * every - 1)
        while self.to_flip <= len(changed):
            changed[self.to_flip - 1] ^= 1 << self.chance.randrange(8)
            self.link.proxy._flipped += 1
            self.to_flip += self.chance.randint(1, 2 * every - 1)
        self.to_flip -= len(changed)
        return bytes(changed)


class _Link:
    """One connection through the proxy."""

    def __init__(self, proxy: ChaosProxy, number: int) -> None:
        self.proxy = proxy
        self.number = number
        self.name = ""  # of the caller, once it is known
        self.over = False
        self.holed = False  # bytes or an end were swallowed: no TCP stream looks like this, so `heal` cuts it
        self.writers: list[asyncio.StreamWriter] = []
        self.pipes: list[_Pipe] = []
        self.task = asyncio.current_task()

    async def run(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.writers.append(writer)
        self.name = self.proxy.name_of(writer.get_extra_info("peername")[1])
        try:
            there, onward = await asyncio.open_connection(self.proxy.target_host, self.proxy.target_port)
        except OSError:
            self.reset()
            return
        self.writers.append(onward)
        self.pipes = [_Pipe(self, "up", (reader, onward)), _Pipe(self, "down", (there, writer))]
        await asyncio.gather(*[pipe.run() for pipe in self.pipes])
        while self.holed and not self.over:
            await asyncio.sleep(_SLICE_S)  # one end is gone and the other is not to know

    def broken(self, pipe: _Pipe) -> None:
        """One end has reset: the other learns it, if the way there is open."""
        if pipe.faults.muted:
            self.holed = True
        else:
            self.reset()

    def reset(self) -> None:
        self.proxy._cut += not self.over
        self.over = True
        for writer in self.writers:
            with contextlib.suppress(OSError):  # it may be closed by the other end already
                writer.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
            writer.transport.abort()

    def close(self) -> None:
        """In order: what was written still goes out."""
        self.over = True
        for writer in self.writers:
            writer.close()

    async def closed(self) -> None:
        self.close()
        for writer in self.writers:
            with contextlib.suppress(OSError):  # it says again how the connection ended
                await writer.wait_closed()


class ChaosProxy:
    """See the module. `port` is known after `start` (or `with`); every method may be called from any thread."""

    def __init__(self, target_host: str, target_port: int, seed: int = 0, listen_port: int = 0) -> None:
        self.target_host = target_host
        self.target_port = target_port
        self.seed = seed
        self.port = listen_port
        self.name_of: Callable[[int], str] = lambda _: ""
        """What the caller at a port of this machine is called, for `of`. Set before `start`; "" = nobody special."""
        self._faults: dict[tuple[str, str], _Faults] = {}
        self._links: set[_Link] = set()
        self._listening: asyncio.Server | None = None
        self._held: socket.socket | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._ready = threading.Event()
        self._thread = threading.Thread(target=self._run, name="zmreg-chaos-proxy", daemon=True)
        self._failure: BaseException | None = None
        self._connections = self._swallowed = self._flipped = self._cut = self._truncated = 0
        self._passed = {"up": 0, "down": 0}

    # -- life ----------------------------------------------------------------------------------------------------------

    def start(self) -> ChaosProxy:
        """Listen on loopback. Raises OSError when the port is taken."""
        self._held = bound(self.port)
        self.port = self._held.getsockname()[1]
        self._thread.start()
        self._ready.wait(_ANSWER_S)
        return self

    def close(self) -> None:
        """Cut what is open and end the thread. Raises what went wrong inside, which would be a bug of the proxy."""
        if self._loop is not None and self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(_ANSWER_S)
        if self._failure is not None:
            raise self._failure

    def __enter__(self) -> ChaosProxy:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.close()

    def _run(self) -> None:
        asyncio.run(self._main())

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._loop.set_exception_handler(self._note_failure)
        self._stop = asyncio.Event()
        await self._listen()
        self._ready.set()
        await self._stop.wait()
        await self._refuse()
        tasks = [link.task for link in self._links if link.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._held is not None:
            self._held.close()
        await self._turns()  # transports close their sockets in the turn after

    async def _turns(self) -> None:
        for _ in range(10):  # from accept to a handler that runs, and from abort to a closed socket: four or five
            await asyncio.sleep(0)

    def _note_failure(self, _: asyncio.AbstractEventLoop, context: dict[str, object]) -> None:
        error = context.get("exception")
        self._failure = error if isinstance(error, BaseException) else RuntimeError(str(context.get("message")))

    async def _listen(self) -> None:
        if self._listening is None:
            self._listening = await asyncio.start_server(self._serve, sock=self._held, limit=_CHUNK_BYTES)
            self._held = None

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._connections += 1
        link = _Link(self, self._connections)
        self._links.add(link)
        try:
            await link.run(reader, writer)
            await link.closed()
        except asyncio.CancelledError:
            pass  # the proxy ends; asyncio would report a cancelled handler as a failure
        finally:
            link.reset()
            self._links.discard(link)

    # -- faults --------------------------------------------------------------------------------------------------------

    def delay(self, delay_s: float, jitter_s: float = 0.0, way: Way = "both", of: str = "") -> None:
        """Everything arrives `delay_s` later, give or take `jitter_s`; order is kept."""
        self._set(way, of, delay_s=delay_s, jitter_s=jitter_s)

    def throttle(self, bytes_per_s: int, way: Way = "both", of: str = "") -> None:
        """No more than this many bytes a second, in each connection. 0: as fast as it goes."""
        self._set(way, of, bytes_per_s=bytes_per_s)

    def corrupt(self, every_bytes: int, way: Way = "both", of: str = "") -> None:
        """Flip one bit in so many bytes on average, at places that the seed decides. 0: none."""
        self._set(way, of, corrupt_every=every_bytes)

    def mute(self, way: Way = "both", of: str = "") -> None:
        """Half-open: bytes and ends of connections are swallowed, and nobody is told. `heal` cuts what has lost any."""
        self._set(way, of, muted=True)

    def stall(self, way: Way = "both", of: str = "") -> None:
        """A partition as TCP sees it: nothing passes, and after `heal` all of it arrives."""
        self._set(way, of, stalled=True)

    def truncate(self, after_bytes: int, way: Way = "both", of: str = "") -> None:
        """Each connection passes so many bytes more and is then closed, in the middle of whatever it was."""

        def apply() -> None:
            self._change(way, of, truncate_after=after_bytes)
            for pipe in self._pipes(_ways(way), of):
                pipe.left_bytes = after_bytes

        self._do(apply)

    def cut(self, of: str = "") -> None:
        """Reset every connection, now. New ones are welcome."""
        self._do(lambda: self._reset_all(of))

    def refuse(self) -> None:
        """Reset every connection and refuse new ones until `heal`, as a machine does on which the process is gone."""
        self._wait(self._refuse())

    def heal(self, of: str = "") -> None:
        """No fault any more. Connections that have lost bytes are cut, the others go on."""

        async def apply() -> None:
            for (name, _), faults in self._faults.items():
                if of in ("", name):
                    faults.heal()
            for pipe in self._pipes(("up", "down"), of):
                pipe.left_bytes = None
            for link in list(self._links):
                if link.holed and of in ("", link.name):
                    link.reset()
            await self._listen()

        self._wait(apply())

    def statistics(self) -> ProxyStatistics:
        return ProxyStatistics(
            self._connections,
            len(self._links),
            self._passed["up"],
            self._passed["down"],
            self._swallowed,
            self._flipped,
            self._cut,
            self._truncated,
        )

    async def _refuse(self) -> None:
        if self._listening is not None:
            # A server that is closed between accepting somebody and making a transport forgets that socket (3.11).
            for each in self._listening.sockets:
                asyncio.get_running_loop().remove_reader(each.fileno())
            await self._turns()
            self._listening.close()
            self._listening = None
            self._held = bound(self.port)  # bound and not listening: refuses, and nobody else can take the port
        self._reset_all()

    def _reset_all(self, of: str = "") -> None:
        for link in list(self._links):
            if of in ("", link.name):
                link.reset()

    def _pipes(self, ways: tuple[str, ...], of: str) -> Iterator[_Pipe]:
        return (pipe for link in self._links for pipe in link.pipes if pipe.way in ways and of in ("", link.name))

    def _faults_of(self, name: str, way: str) -> _Faults:
        """Of one caller. Who is new finds what is wrong for everybody."""
        if (name, way) not in self._faults:
            made = self._faults[name, way] = _Faults()
            made.__dict__.update(self._faults_of("", way).__dict__ if name else {})
        return self._faults[name, way]

    def _set(self, way: Way, of: str, **faults: object) -> None:
        self._do(lambda: self._change(way, of, **faults))

    def _change(self, way: Way, of: str, **faults: object) -> None:
        for name in _ways(way):
            self._faults_of(of, name).__dict__.update(faults)
        if not of:
            for (_, name), each in self._faults.items():
                if name in _ways(way):
                    each.__dict__.update(faults)

    def _do(self, step: Callable[[], object]) -> None:
        async def apply() -> None:
            step()

        self._wait(apply())

    def _wait(self, step: Coroutine[object, object, None]) -> None:
        """Run it in the proxy's thread and wait until it is done."""
        if self._loop is None:
            step.close()
            raise RuntimeError("the proxy has not been started; use `with ChaosProxy(...)` or call start() first")
        asyncio.run_coroutine_threadsafe(step, self._loop).result(_ANSWER_S)

    def __repr__(self) -> str:
        now = self.statistics()
        return f"<ChaosProxy 127.0.0.1:{self.port} -> {self.target_host}:{self.target_port} | {now.open} open>"


def _ways(way: Way) -> tuple[str, ...]:
    return ("up", "down") if way == "both" else (way,)


def bound(port: int) -> socket.socket:
    """A socket that holds a port of loopback (0: any free one) and does not listen; who listens may take it over."""
    made = socket.socket()
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind(("127.0.0.1", port))
    except OSError:
        made.close()
        raise
    return made
