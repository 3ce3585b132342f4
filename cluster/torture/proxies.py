"""The network between nodes, as a thing that can be broken: a TCP proxy for each ordered pair of them.

Node i's cluster file says that node j listens where the proxy of (i, j) does. A node sends to another over a connection
of its own, so the link (i, j) carries what i says to j and nothing of what j says to i: to cut it is a one-way cut.
One thread, one event loop; every method may be called from any thread. Knows bytes, not messages.
"""

import asyncio
import contextlib
import random
import socket
import struct
import threading
from collections import deque
from collections.abc import Iterable, Mapping
from enum import Enum
from typing import Final

import msgspec

_HOST: Final = "127.0.0.1"
_CHUNK_BYTES: Final = 64 << 10
#: Bytes on their way over a slow link; more wait in the sender's socket.
_UNDER_WAY_BYTES: Final = 1 << 20
_LINGER_NEVER: Final = struct.pack("ii", 1, 0)

#: (from, to)
Pair = tuple[int, int]


class Mode(Enum):
    """What a link does with bytes."""

    OPEN = "open"
    #: Connections are reset, new ones too.
    REFUSE = "reset"
    #: Nothing arrives and nothing is said of it; once open again everything arrives, late.
    HOLD = "held back"
    #: Nothing arrives and nothing is said of it; once open again connections that lost something are reset.
    DROP = "black hole"


class Fate(msgspec.Struct, frozen=True):
    """How a link is: its mode, and how slow it is while it is open."""

    mode: Mode = Mode.OPEN
    delay_s: float = 0.0
    #: 0: no bound.
    bytes_per_s: float = 0.0


HEALTHY: Final = Fate()


class Links:
    """All proxies. Use as a context manager; they listen from the beginning, on ports the system chose."""

    def __init__(self, targets: Mapping[Pair, int]) -> None:
        """`targets`: the port at which each pair's receiver listens."""
        self._targets = dict(targets)
        self._links: dict[Pair, _Link] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="links", daemon=True)

    def __enter__(self) -> "Links":
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def port(self, pair: Pair) -> int:
        """Where the proxy of a pair listens."""
        return self._links[pair].port

    def set(self, pairs: Iterable[Pair], fate: Fate) -> None:
        """Change some links; in force when this returns."""

        async def change() -> None:
            for pair in pairs:
                self._links[pair].set(fate)

        asyncio.run_coroutine_threadsafe(change(), self._loop).result()

    def heal(self, pairs: Iterable[Pair] | None = None) -> None:
        """Make some links, or all, as good as new."""
        self.set(list(self._links) if pairs is None else pairs, HEALTHY)

    def forwarded(self, pair: Pair) -> int:
        """Bytes that arrived at the pair's receiver."""
        return self._links[pair].forwarded

    async def _open(self) -> None:
        for pair, target in self._targets.items():
            self._links[pair] = _Link(target)
            await self._links[pair].open()

    async def _close(self) -> None:
        for link in self._links.values():
            await link.close()


class _Link:
    """One listening port and what came in there."""

    def __init__(self, target: int) -> None:
        self.fate = HEALTHY
        self.forwarded = 0
        self.port = 0
        self.opened = asyncio.Event()
        self.opened.set()
        self._target = target
        self._connections: set[_Connection] = set()

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accept, _HOST, 0)
        self.port = self._server.sockets[0].getsockname()[1]

    async def close(self) -> None:
        self._server.close()
        tasks = [connection.task for connection in self._connections if connection.task is not None]
        for connection in tuple(self._connections):
            connection.reset()
        await asyncio.gather(*tasks, return_exceptions=True)

    def set(self, fate: Fate) -> None:
        before, self.fate = self.fate, fate
        if fate.mode is Mode.HOLD:
            self.opened.clear()
        else:
            self.opened.set()
        for connection in tuple(self._connections):
            if fate.mode is Mode.REFUSE or (
                before.mode is Mode.DROP and fate.mode is not Mode.DROP and connection.lost
            ):
                connection.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self, reader, writer)
        connection.task = asyncio.current_task()
        self._connections.add(connection)
        try:
            if self.fate.mode is not Mode.REFUSE:
                await connection.carry(self._target)
        except (OSError, asyncio.CancelledError):
            pass  # Somebody hung up, or was made to.
        finally:
            self._connections.discard(connection)
            connection.hang_up()


class _Connection:
    """Both directions of one connection: the sender's, and the answers of the receiver's socket to it."""

    def __init__(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.task: asyncio.Task[None] | None = None
        #: Whether bytes of it were dropped: what follows them would make no sense.
        self.lost = False
        self._link = link
        self._reader = reader
        self._writers = [writer]

    async def carry(self, target: int) -> None:
        """Carry bytes both ways until one side ends; the other is then ended the same way."""
        await self._link.opened.wait()
        reader, writer = await asyncio.open_connection(_HOST, target)
        self._writers.append(writer)
        forth, back = _Line(), _Line()
        takers = [
            asyncio.create_task(self._take_in(self._reader, forth)),
            asyncio.create_task(self._take_in(reader, back)),
        ]
        givers = [
            asyncio.create_task(self._let_out(forth, writer, count=True)),
            asyncio.create_task(self._let_out(back, self._writers[0], count=False)),
        ]
        try:
            await asyncio.wait(givers, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*takers, *givers):
                task.cancel()
            await asyncio.gather(*takers, *givers, return_exceptions=True)

    def reset(self) -> None:
        """End it at once, as a reset."""
        if self.task is not None:
            self.task.cancel()

    def hang_up(self) -> None:
        """Close both sockets without a good-bye."""
        for writer in self._writers:
            with contextlib.suppress(OSError):
                sock = writer.get_extra_info("socket")
                if sock is not None:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _LINGER_NEVER)
            writer.transport.abort()

    async def _take_in(self, reader: asyncio.StreamReader, line: "_Line") -> None:
        clock = asyncio.get_running_loop().time
        due = 0.0
        while True:
            try:
                data = await reader.read(_CHUNK_BYTES)
            except OSError:
                data = b""
            if self._link.fate.mode is Mode.DROP and data:
                self.lost = True
                continue
            # First in, first out, however the delay changes.
            due = max(due, clock() + self._link.fate.delay_s * random.uniform(0.8, 1.2))
            await line.put(due, data)
            if not data:
                return

    async def _let_out(self, line: "_Line", writer: asyncio.StreamWriter, *, count: bool) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due, data = await line.get()
            if due > clock():
                await asyncio.sleep(due - clock())
            await self._link.opened.wait()
            if not data:
                return
            if self._link.fate.mode is Mode.DROP:
                self.lost = True
                continue
            if self._link.fate.bytes_per_s:
                await asyncio.sleep(len(data) / self._link.fate.bytes_per_s)
            writer.write(data)
            await writer.drain()
            if count:
                self._link.forwarded += len(data)


class _Line:
    """Bytes under way, each with the time at which they arrive; bounded."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self._changed = asyncio.Condition()

    async def put(self, due: float, data: bytes) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._bytes < _UNDER_WAY_BYTES)
            self._waiting.append((due, data))
            self._bytes += len(data)
            self._changed.notify_all()

    async def get(self) -> tuple[float, bytes]:
        async with self._changed:
            await self._changed.wait_for(lambda: bool(self._waiting))
            due, data = self._waiting.popleft()
            self._bytes -= len(data)
            self._changed.notify_all()
            return due, data
