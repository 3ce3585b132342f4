"""Run a TCP proxy for each ordered pair of nodes, so that the link between them can be cut, delayed or limited.

The cluster file of node i names the proxy of (i, j) as the address of node j. Each node sends over connections of its
own, so the link (i, j) carries only what i sends to j; cutting it is a one-way cut. One thread with one event loop;
every method may be called from any thread. Forwards bytes and does not parse them.
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
#: Bytes in flight on a delayed link; more wait in the sender's socket.
_IN_FLIGHT_BYTES: Final = 1 << 20
_NO_LINGER: Final = struct.pack("ii", 1, 0)

#: (from, to)
Pair = tuple[int, int]


class LinkMode(Enum):
    """What a link does with bytes."""

    OPEN = "open"
    #: Connections are reset, also new ones.
    REFUSE = "reset"
    #: Nothing arrives and no error is reported; once the link is open again, everything arrives late.
    HOLD = "held back"
    #: Nothing arrives and no error is reported; once the link is open again, connections that lost bytes are reset.
    DROP = "black hole"


class LinkState(msgspec.Struct, frozen=True):
    """The mode of a link, and its delay and bandwidth while it is open."""

    mode: LinkMode = LinkMode.OPEN
    delay_s: float = 0.0
    #: 0: no limit.
    bytes_per_s: float = 0.0


HEALTHY: Final = LinkState()


class LinkProxies:
    """All proxies. Use as a context manager; they listen on ports that the system chooses."""

    def __init__(self, targets: Mapping[Pair, int]) -> None:
        """`targets`: the port at which each pair's receiver listens."""
        self._targets = dict(targets)
        self._links: dict[Pair, _Link] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="links", daemon=True)

    def __enter__(self) -> "LinkProxies":
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._open(), self._loop).result()
        return self

    def __exit__(self, *_: object) -> None:
        asyncio.run_coroutine_threadsafe(self._close(), self._loop).result()
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    def port(self, pair: Pair) -> int:
        """Return the port of the proxy of a pair."""
        return self._links[pair].port

    def set(self, pairs: Iterable[Pair], state: LinkState) -> None:
        """Change the state of some links; it is in effect when this returns."""

        async def change() -> None:
            for pair in pairs:
                self._links[pair].set(state)

        asyncio.run_coroutine_threadsafe(change(), self._loop).result()

    def heal(self, pairs: Iterable[Pair] | None = None) -> None:
        """Restore some links, or all, to the healthy state."""
        self.set(list(self._links) if pairs is None else pairs, HEALTHY)

    def forwarded(self, pair: Pair) -> int:
        """Return the number of bytes forwarded to the pair's receiver."""
        return self._links[pair].forwarded

    async def _open(self) -> None:
        for pair, target in self._targets.items():
            self._links[pair] = _Link(target)
            await self._links[pair].open()

    async def _close(self) -> None:
        for link in self._links.values():
            await link.close()


class _Link:
    """The listening port of one proxy and its connections."""

    def __init__(self, target: int) -> None:
        self.state = HEALTHY
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

    def set(self, state: LinkState) -> None:
        before, self.state = self.state, state
        if state.mode is LinkMode.HOLD:
            self.opened.clear()
        else:
            self.opened.set()
        for connection in tuple(self._connections):
            if state.mode is LinkMode.REFUSE or (
                before.mode is LinkMode.DROP and state.mode is not LinkMode.DROP and connection.lost
            ):
                connection.reset()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = _Connection(self, reader, writer)
        connection.task = asyncio.current_task()
        self._connections.add(connection)
        try:
            if self.state.mode is not LinkMode.REFUSE:
                await connection.carry(self._target)
        except (OSError, asyncio.CancelledError):
            pass  # One side closed the connection, or reset() did.
        finally:
            self._connections.discard(connection)
            connection.abort()


class _Connection:
    """One connection in both directions: from the sender, and from the receiver's socket back."""

    def __init__(self, link: _Link, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.task: asyncio.Task[None] | None = None
        #: Whether bytes were dropped: the bytes after them cannot be parsed.
        self.lost = False
        self._link = link
        self._reader = reader
        self._writers = [writer]

    async def carry(self, target: int) -> None:
        """Forward bytes both ways until one side closes; then close the other the same way."""
        await self._link.opened.wait()
        reader, writer = await asyncio.open_connection(_HOST, target)
        self._writers.append(writer)
        forward, back = _DelayQueue(), _DelayQueue()
        receivers = [
            asyncio.create_task(self._receive(self._reader, forward)),
            asyncio.create_task(self._receive(reader, back)),
        ]
        senders = [
            asyncio.create_task(self._send_due(forward, writer, count=True)),
            asyncio.create_task(self._send_due(back, self._writers[0], count=False)),
        ]
        try:
            await asyncio.wait(senders, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in (*receivers, *senders):
                task.cancel()
            await asyncio.gather(*receivers, *senders, return_exceptions=True)

    def reset(self) -> None:
        """Close the connection at once with a reset."""
        if self.task is not None:
            self.task.cancel()

    def abort(self) -> None:
        """Close both sockets without waiting for data to be sent."""
        for writer in self._writers:
            with contextlib.suppress(OSError):
                sock = writer.get_extra_info("socket")
                if sock is not None:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _NO_LINGER)
            writer.transport.abort()

    async def _receive(self, reader: asyncio.StreamReader, queue: "_DelayQueue") -> None:
        clock = asyncio.get_running_loop().time
        due = 0.0
        while True:
            try:
                data = await reader.read(_CHUNK_BYTES)
            except OSError:
                data = b""
            if self._link.state.mode is LinkMode.DROP and data:
                self.lost = True
                continue
            # Keep the order even if the delay decreases.
            due = max(due, clock() + self._link.state.delay_s * random.uniform(0.8, 1.2))
            await queue.put(due, data)
            if not data:
                return

    async def _send_due(self, queue: "_DelayQueue", writer: asyncio.StreamWriter, *, count: bool) -> None:
        clock = asyncio.get_running_loop().time
        while True:
            due, data = await queue.get()
            if due > clock():
                await asyncio.sleep(due - clock())
            await self._link.opened.wait()
            if not data:
                return
            if self._link.state.mode is LinkMode.DROP:
                self.lost = True
                continue
            if self._link.state.bytes_per_s:
                await asyncio.sleep(len(data) / self._link.state.bytes_per_s)
            writer.write(data)
            await writer.drain()
            if count:
                self._link.forwarded += len(data)


class _DelayQueue:
    """A bounded queue of bytes, each chunk with the time at which it is due."""

    def __init__(self) -> None:
        self._waiting: deque[tuple[float, bytes]] = deque()
        self._bytes = 0
        self._changed = asyncio.Condition()

    async def put(self, due: float, data: bytes) -> None:
        async with self._changed:
            await self._changed.wait_for(lambda: self._bytes < _IN_FLIGHT_BYTES)
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
