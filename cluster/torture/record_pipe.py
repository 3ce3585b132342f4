"""Send records from child processes to this one through pipes; what was written before a SIGKILL is received.

A pipe rather than a file: it takes no space on a disk that may be full, and keeps its content when the writer dies. A
record is 32 bytes (kind u8, 3 bytes 0, size u32, three u64, little-endian) and `size` bytes that follow. The last
record of a killed process may be incomplete; it is ignored.
"""

import contextlib
import fcntl
import os
import selectors
import threading
from collections.abc import Iterator
from struct import Struct
from typing import Final, NamedTuple

_HEAD: Final = Struct("<B3xI3Q")
_READ_BYTES: Final = 1 << 20
#: Capacity of a pipe, where the system grants it: a reader that is late for a moment does not block the child.
_PIPE_BYTES: Final = 1 << 20


class Record(NamedTuple):
    """One record; the meaning of its numbers depends on the kind."""

    kind: int
    first: int
    second: int
    third: int
    body: bytes


def encode_record(kind: int, first: int = 0, second: int = 0, third: int = 0, body: bytes = b"") -> bytes:
    """Return a record as bytes."""
    return _HEAD.pack(kind, len(body), first, second, third) + body


class RecordWriter:
    """The writing end of a pipe, in the child."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor

    def write(self, kind: int, first: int = 0, second: int = 0, third: int = 0, body: bytes = b"") -> None:
        """Write a record; once this returns, it is received even if this process is killed."""
        data = memoryview(encode_record(kind, first, second, third, body))
        while data:
            data = data[os.write(self._descriptor, data) :]


class RecordStream:
    """The records received from one process so far."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.ended = threading.Event()

    def records(self) -> Iterator[Record]:
        """Yield every complete record."""
        data = bytes(self.data)
        at = 0
        while at + _HEAD.size <= len(data):
            kind, size, first, second, third = _HEAD.unpack_from(data, at)
            end = at + _HEAD.size + size
            if end > len(data):
                return
            yield Record(kind, first, second, third, data[at + _HEAD.size : end])
            at = end


class PipeReader:
    """One thread that reads all pipes, so that no child blocks for long. Use as a context manager."""

    def __init__(self) -> None:
        self._selector = selectors.DefaultSelector()
        self._wake_reading, self._wake_writing = os.pipe()
        self._selector.register(self._wake_reading, selectors.EVENT_READ)
        self._new: list[tuple[int, RecordStream]] = []
        self._stop = False
        self._thread = threading.Thread(target=self._read_pipes, name="pipe-reader", daemon=True)

    def __enter__(self) -> "PipeReader":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop = True
        self._wake()
        self._thread.join()
        for key in list(self._selector.get_map().values()):
            os.close(key.fd)
        self._selector.close()
        os.close(self._wake_writing)

    @contextlib.contextmanager
    def open(self) -> Iterator[tuple[int, RecordStream]]:
        """Yield a descriptor for a child to inherit and the stream of its records; start the child inside the block."""
        reading, writing = os.pipe()
        with contextlib.suppress(OSError, AttributeError):
            fcntl.fcntl(writing, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        stream = RecordStream()
        try:
            yield writing, stream
        finally:
            os.close(writing)
            self._new.append((reading, stream))
            self._wake()

    def _wake(self) -> None:
        os.write(self._wake_writing, b"\0")

    def _read_pipes(self) -> None:
        while not self._stop:
            for key, _ in self._selector.select():
                if key.fd == self._wake_reading:
                    os.read(key.fd, 4096)
                    self._register_new()
                    continue
                data = os.read(key.fd, _READ_BYTES)
                stream: RecordStream = key.data
                if data:
                    stream.data += data
                else:
                    self._selector.unregister(key.fd)
                    os.close(key.fd)
                    stream.ended.set()

    def _register_new(self) -> None:
        while self._new:
            reading, stream = self._new.pop(0)
            self._selector.register(reading, selectors.EVENT_READ, stream)
